//! The Pods of `helm test`: what they are told is what the rest of the chart renders (packaging §15).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use chart_tests::{COMPONENTS, Helm, Objects, text};
use serde_json::{Value, json};

use crate::{all_value_sets, rendered};

/// The value of a flag of the test Pod of a component.
fn told<'a>(objects: &'a Objects, component: &str, flag: &str) -> Result<&'a str> {
    let pod = objects.named("Pod", &format!("kagenti-{component}-test"))?;
    let prefix = format!("--{flag}=");
    let args =
        pod["spec"]["containers"][0]["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut found = args.filter_map(|arg| arg.strip_prefix(prefix.as_str()));
    found.next().with_context(|| format!("{component}: no --{flag}"))
}

/// Rules by place, the empty name for the cluster, in an order that says nothing.
type Rights = BTreeMap<String, Vec<String>>;

fn add(rights: &mut Rights, place: &str, rules: &Value) {
    let known = rights.entry(place.to_owned()).or_default();
    // Keys in order: text of JSON is compared.
    let sorted = |rule: &Value| {
        let sorted: BTreeMap<&String, &Value> = rule.as_object().into_iter().flatten().collect();
        json!(sorted).to_string()
    };
    known.extend(rules.as_array().into_iter().flatten().map(sorted));
    known.sort_unstable();
}

fn expected(objects: &Objects, component: &str) -> Result<Rights> {
    let all: Value = serde_json::from_str(told(objects, component, "expected-rights")?)?;
    let mut rights = Rights::new();
    for place in all["places"].as_array().into_iter().flatten() {
        for namespace in place["namespaces"].as_array().into_iter().flatten() {
            add(&mut rights, namespace.as_str().context("a name")?, &place["rules"]);
        }
    }
    Ok(rights)
}

/// What is bound to the account of a component.
fn bound(objects: &Objects, component: &str) -> Result<Rights> {
    let pod = objects.named("Pod", &format!("kagenti-{component}-test"))?;
    let account = text(pod, "/spec/serviceAccountName");
    let mut rights = Rights::new();
    for kind in ["ClusterRole", "Role"] {
        let binding = format!("{kind}Binding");
        for binding in objects.of(&binding) {
            let (place, role) = (text(binding, "/metadata/namespace"), text(binding, "/roleRef/name"));
            // The rights in MLflow are in a role of its operator.
            if text(binding, "/subjects/0/name") != account || role.starts_with("mlflow-operator-") {
                continue;
            }
            let role = objects.0.iter().find(|object| {
                text(object, "/kind") == kind
                    && text(object, "/metadata/name") == role
                    && text(object, "/metadata/namespace") == place
            });
            add(&mut rights, place, &role.context("a role")?["rules"]);
        }
    }
    Ok(rights)
}

/// In every value set of every chart the rights that the test expects are those that the roles give.
#[test]
fn packaging_22_the_expected_rights_are_those_of_the_roles() -> Result<()> {
    let mut compared = 0;
    let mut seen = BTreeSet::new();
    for (chart, file) in all_value_sets()? {
        let objects = rendered(chart, &file)?;
        for component in COMPONENTS {
            if objects.named("Pod", &format!("kagenti-{component}-test")).is_err() {
                continue;
            }
            let (expected, bound) = (expected(&objects, component)?, bound(&objects, component)?);
            assert_eq!(expected, bound, "{chart}, {}: {component}", file.display());
            seen.insert(format!("{expected:?}"));
            compared += 1;
        }
    }
    ensure!(compared > 30 && seen.len() > 12, "{compared} comparisons of {} lists", seen.len());
    Ok(())
}

/// Options that add rules, take verbs away, or put a Role somewhere else.
#[test]
fn packaging_22_the_expected_rights_follow_the_options() -> Result<()> {
    let helm = Helm::get()?;
    let cases: [(&str, &[&str], &str); 7] = [
        ("runtime-ctl", &["--set=openshift.enabled=true"], "\"bind\""),
        ("runtime-ctl", &["--set=watchNamespaces={team1,team2}"], "\"namespaces\":[\"team1\",\"team2\"]"),
        ("card-ctl", &["--set=metrics.secure=true"], "\"tokenreviews\""),
        ("client-registration-ctl", &["--set=keycloak.adminSecretNamespace=sso"], "\"namespaces\":[\"sso\"]"),
        (
            "client-registration-ctl",
            &["--set=watchSecrets=false"],
            "\"resources\":[\"secrets\"],\"verbs\":[\"get\",\"create\",\"patch\",\"delete\"]",
        ),
        (
            "card-ctl",
            &[
                "--set=watchNamespaces={team1},signatureVerification.enabled=true",
                "--set=signatureVerification.spireTrustBundle.configMapNamespace=spire",
            ],
            "\"namespaces\":[\"spire\"]",
        ),
        ("mlflow-ctl", &[], "\"foreignGroups\":[\"mlflow.kubeflow.org\"]"),
    ];
    for (component, args, part) in cases {
        let objects = helm.template(component, "kagenti-operator", "ops", args)?;
        let said = told(&objects, component, "expected-rights")?;
        ensure!(said.contains(part), "{component} {args:?}: no {part} in {said}");
        assert_eq!(expected(&objects, component)?, bound(&objects, component)?, "{component} {args:?}");
    }
    let plain = helm.template("runtime-ctl", "x", "ops", &["--set=metrics.secure=false"])?;
    let said = told(&plain, "runtime-ctl", "expected-rights")?;
    ensure!(
        !said.contains("tokenreviews") && !said.contains("bind") && !said.contains("rolebindings"),
        "{said}"
    );
    // Without RBAC an administrator gives the same rights by hand.
    let by_hand =
        helm.template("runtime-ctl", "x", "ops", &["--set=rbac.create=false,metrics.secure=false"])?;
    assert_eq!(told(&by_hand, "runtime-ctl", "expected-rights")?, said);
    Ok(())
}

/// Many watched namespaces do not make the argument longer than the kernel takes.
#[test]
fn packaging_22_the_expected_rights_fit_an_argument() -> Result<()> {
    let names: Vec<String> = (0..500).map(|number| format!("team-{number}")).collect();
    let set = format!("--set=watchNamespaces={{{}}}", names.join(","));
    let objects = Helm::get()?.template("card-ctl", "x", "ops", &[&set])?;
    let said = told(&objects, "card-ctl", "expected-rights")?;
    ensure!(said.contains("team-499") && said.len() < 32 * 1024, "{} bytes", said.len());
    Ok(())
}

/// One test Pod per component that is on, with its flags and its account; no Service takes it for a replica.
#[test]
fn packaging_22_every_component_has_a_test() -> Result<()> {
    let objects = Helm::get()?.suite(&[])?;
    assert_eq!(objects.names("Pod").len(), objects.names("Deployment").len());
    for pod in objects.of("Pod") {
        let name = text(pod, "/metadata/name").trim_end_matches("-test");
        let deployment = objects.named("Deployment", name)?;
        let account = text(deployment, "/spec/template/spec/serviceAccountName");
        assert_eq!(text(pod, "/spec/serviceAccountName"), account);
        let selector = &deployment["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"];
        assert_ne!(&pod["metadata"]["labels"]["app.kubernetes.io/component"], selector);
        let args = pod["spec"]["containers"][0]["args"].to_string();
        ensure!(args.contains(r#""selftest","--in-cluster","--replicas-at="#), "{args}");
    }
    assert_eq!(Helm::get()?.suite(&["--set=tests.enabled=false"])?.names("Pod"), Vec::<&str>::new());
    Ok(())
}

/// It counts on as many replicas as there are, and finds each of them, also one that is not ready, with and without metrics.
#[test]
fn packaging_22_the_test_finds_every_replica() -> Result<()> {
    let helm = Helm::get()?;
    let scaled = "--set=card-ctl.replicas=3,authbridge-webhook.autoscaling.enabled=true,\
                  authbridge-webhook.autoscaling.minReplicas=4,authbridge-webhook.autoscaling.maxReplicas=9";
    for (metrics, suffix) in [("true", "metrics"), ("false", "probes")] {
        let objects = helm.suite(&[scaled, &format!("--set=global.metrics.enabled={metrics}")])?;
        for (component, replicas) in [("runtime-ctl", "1"), ("card-ctl", "3"), ("authbridge-webhook", "4")] {
            assert_eq!(told(&objects, component, "replicas")?, replicas, "{component}");
            let at = told(&objects, component, "replicas-at")?;
            assert_eq!(at, format!("kagenti-{component}-{suffix}"));
            let service = objects.named("Service", at)?;
            assert_eq!(service["spec"]["clusterIP"], "None", "{at}");
            assert_eq!(service["spec"]["publishNotReadyAddresses"], true, "{at}");
            let deployment = objects.named("Deployment", &format!("kagenti-{component}"))?;
            assert_eq!(service["spec"]["selector"], deployment["spec"]["selector"]["matchLabels"], "{at}");
        }
    }
    let off = ["--set=global.metrics.enabled=false,tests.enabled=false"];
    let services = helm.suite(&off)?;
    ensure!(
        !services.names("Service").iter().any(|name| name.ends_with("-probes")),
        "{:?}",
        services.names("Service")
    );
    Ok(())
}
