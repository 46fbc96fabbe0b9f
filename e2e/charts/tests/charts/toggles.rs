//! One component is one toggle, and the same alone as in the umbrella (packaging §2, scenario 5).

use anyhow::Result;
use chart_tests::{COMPONENTS, Helm, Objects, text};

/// Objects of a component; those of the suite and of the definitions carry other labels.
fn of(objects: &Objects, component: &str) -> Objects {
    let chart = format!("{component}-{}", env!("CARGO_PKG_VERSION"));
    let mut own = objects.clone();
    own.0.retain(|object| text(object, "/metadata/labels/helm.sh~1chart") == chart);
    own
}

/// Arguments that leave one component on.
fn only(component: &str) -> Vec<String> {
    let mut args: Vec<String> =
        COMPONENTS.iter().map(|name| format!("--set={name}.enabled={}", *name == component)).collect();
    args.push("--set=kagenti-crds-agent.enabled=false".to_owned());
    args
}

#[test]
fn packaging_05_alone_a_component_is_the_same_as_in_the_umbrella() -> Result<()> {
    let helm = Helm::get()?;
    for component in COMPONENTS {
        let args = only(component);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let suite = helm.suite(&args)?;
        let alone = helm.template(component, "kagenti-operator", "kagenti-system", &[])?;
        assert_eq!(
            crate::difference(&suite_part(&suite, component), &alone.without_tests()),
            Vec::<String>::new()
        );
        assert_eq!(suite.names("Deployment"), [format!("kagenti-{component}")]);
        for other in COMPONENTS.iter().filter(|other| **other != component) {
            assert!(of(&suite, other).0.is_empty(), "{other} with only {component} on");
        }
    }
    Ok(())
}

fn suite_part(suite: &Objects, component: &str) -> Objects {
    of(suite, component).without_tests()
}

#[test]
fn packaging_05_a_toggle_removes_exactly_its_component() -> Result<()> {
    let helm = Helm::get()?;
    let trust = "--set=card-ctl.verifiedFetch.enabled=true,netpol-ctl.enabled=true,mlflow-ctl.enabled=true";
    let all = helm.suite(&[trust])?;
    for component in COMPONENTS {
        let without = helm.suite(&[trust, &format!("--set={component}.enabled=false")])?;
        let expected: Vec<String> =
            of(&all, component).by_identity().into_keys().map(|key| format!("- {key}")).collect();
        assert!(!expected.is_empty());
        assert_eq!(crate::difference(&all, &without), expected, "{component}");
    }
    Ok(())
}

/// The platform configuration is there for whoever reads it, and for nobody else.
#[test]
fn platform_configuration_follows_its_readers() -> Result<()> {
    let helm = Helm::get()?;
    for component in COMPONENTS {
        let args = only(component);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let reads = ["runtime-ctl", "authbridge-webhook", "client-registration-ctl"].contains(&component);
        let found = helm.suite(&args)?.names("ConfigMap").contains(&"kagenti-platform-config");
        assert_eq!(found, reads, "{component}");
    }
    Ok(())
}

/// Its text is part of the configuration hash of every enrolled workload: a byte more restarts them all.
#[test]
fn packaging_17_platform_configuration_keeps_its_bytes() -> Result<()> {
    let helm = Helm::get()?;
    let text_of = |args: &[&str]| -> Result<String> {
        let objects = helm.suite(args)?;
        Ok(text(objects.named("ConfigMap", "kagenti-platform-config")?, "/data/config.yaml").to_owned())
    };
    let plain = text_of(&[])?;
    assert_eq!(plain, text_of(&["--set=card-ctl.enabled=false,global.logging.level=debug"])?);
    assert!(!plain.contains('#') && plain.starts_with("images:\n"), "{plain}");
    for compiled_in in ["enabled:", "required:", "layout:", "native:"] {
        assert!(!plain.contains(compiled_in), "{compiled_in} is not rendered");
    }
    let keys: Vec<&str> = plain.lines().filter(|line| !line.starts_with(' ')).collect();
    assert!(keys.is_sorted(), "{keys:?}");
    assert!(text_of(&["--set=defaults.spiffe.enabled=always"])?.contains("enabled: always"));
    Ok(())
}
