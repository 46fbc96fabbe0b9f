//! How a value is found: own, global, built-in; set means present and not null (packaging §3.1, §3.2).

use anyhow::Result;
use chart_tests::{COMPONENTS, Helm, Objects, UMBRELLA, text};
use serde_json::{Map, Value, json};

fn suite(args: &[&str]) -> Result<Objects> {
    Ok(Helm::get()?.suite(args)?)
}

fn pod_spec<'a>(objects: &'a Objects, deployment: &str) -> Result<&'a Value> {
    Ok(&objects.named("Deployment", deployment)?["spec"]["template"]["spec"])
}

#[test]
fn packaging_05_own_beats_global_beats_built_in() -> Result<()> {
    let objects = suite(&[
        "--set=global.logging.level=debug,card-ctl.logging.level=warn",
        "--set=card-ctl.replicas=0,runtime-ctl.resources.limits=null",
    ])?;
    assert_eq!(objects.flag("kagenti-card-ctl", "log-level")?, "warn");
    assert_eq!(objects.flag("kagenti-runtime-ctl", "log-level")?, "debug");
    assert_eq!(objects.flag("kagenti-runtime-ctl", "log-format")?, "json", "built-in");
    assert_eq!(objects.named("Deployment", "kagenti-card-ctl")?["spec"]["replicas"], 0, "0 is a value");
    let card = &pod_spec(&objects, "kagenti-card-ctl")?["containers"][0]["resources"];
    assert_eq!(card["limits"]["memory"], "384Mi");
    let runtime = &pod_spec(&objects, "kagenti-runtime-ctl")?["containers"][0]["resources"];
    assert_eq!(runtime, &json!({"requests": {"cpu": "50m", "memory": "128Mi"}}));
    Ok(())
}

/// `false`, `""`, 0 and `[]` of a component hold against a global value.
#[test]
fn an_empty_value_is_a_value() -> Result<()> {
    let objects = suite(&[
        "--set=global.watchNamespaces={team1},global.metrics.enabled=true,global.otel.sampleRatio=0.5",
        "--set=global.otel.endpoint=http://collector:4318,global.priorityClassName=high",
        "--set=global.tolerations[0].operator=Exists",
        "--set-json=card-ctl.watchNamespaces=[]",
        "--set-json=card-ctl.tolerations=[]",
        "--set-json=card-ctl.priorityClassName=\"\"",
        "--set=card-ctl.metrics.enabled=false,card-ctl.otel.sampleRatio=0",
    ])?;
    assert!(objects.flag("kagenti-card-ctl", "watch-namespaces").is_err());
    assert_eq!(objects.flag("kagenti-runtime-ctl", "watch-namespaces")?, "team1");
    assert_eq!(objects.flag("kagenti-card-ctl", "metrics-bind-address")?, "0");
    assert_eq!(objects.names("ClusterRole"), ["kagenti-card-ctl-kagenti-operator.kagenti-system"]);
    let (card, runtime) =
        (pod_spec(&objects, "kagenti-card-ctl")?, pod_spec(&objects, "kagenti-runtime-ctl")?);
    assert_eq!((card.get("tolerations"), card.get("priorityClassName")), (None, None));
    assert_eq!(text(runtime, "/priorityClassName"), "high");
    assert_eq!(runtime["tolerations"], json!([{"operator": "Exists"}]));
    let ratio = |spec: &Value| {
        let env = spec["containers"][0]["env"].as_array().cloned().unwrap_or_default();
        let found = env.into_iter().find(|entry| entry["name"] == "OTEL_TRACES_SAMPLER_ARG");
        found.map(|entry| entry["value"].clone())
    };
    assert_eq!(ratio(card), Some("0".into()));
    assert_eq!(ratio(runtime), Some("0.5".into()));
    Ok(())
}

#[test]
fn null_means_not_set() -> Result<()> {
    let same = suite(&[])?;
    let objects = suite(&[
        "--set=global.logging.level=null,card-ctl.logging=null,card-ctl.watchNamespaces=null",
        "--set=card-ctl.metrics.secure=null,mlflow-ctl.resources=null",
    ])?;
    assert_eq!(crate::difference(&same, &objects), Vec::<String>::new());
    // What is handed on is left to Kubernetes.
    let objects = suite(&["--set=card-ctl.terminationGracePeriodSeconds=null"])?;
    assert_eq!(pod_spec(&objects, "kagenti-card-ctl")?.get("terminationGracePeriodSeconds"), None);
    Ok(())
}

/// Every setting of ours, and every object of them, is null at once: nothing changes, alone and in the umbrella.
#[test]
fn null_is_the_default_of_every_setting() -> Result<()> {
    let helm = Helm::get()?;
    let on = "--set=netpol-ctl.enabled=true,netpol-ctl.enforceNetworkPolicies=false,mlflow-ctl.enabled=true,\
              uninstall.cleanup=unenroll";
    let within = suite(&[on])?;
    for chart in crate::rendered_charts().filter(|chart| *chart != UMBRELLA) {
        let file = helm.path(chart).join("files/defaults.json");
        let settings: Map<String, Value> = serde_json::from_slice(&std::fs::read(file)?)?;
        let mut leaves = Vec::new();
        paths_of(&settings, "", &mut leaves);
        // With all of `upgradeJob` its Job loses what is handed to Kubernetes, too.
        let objects: Vec<String> = settings.keys().filter(|key| *key != "upgradeJob").cloned().collect();
        let alone = helm.template(chart, "x", "ns", &[])?;
        for mut keys in [leaves, objects] {
            let nulls = |keys: &[String], prefix: &str| {
                keys.iter().map(|key| format!("{prefix}{key}=null")).collect::<Vec<_>>().join(",")
            };
            let now = helm.template(chart, "x", "ns", &["--set", &nulls(&keys, "")])?;
            assert_eq!(crate::difference(&alone, &now), Vec::<String>::new(), "{chart} alone");
            // In this umbrella it has a value, without which netpol-ctl would ask for somebody who verifies.
            keys.retain(|key| key != "enforceNetworkPolicies");
            let now = suite(&[on, "--set", &nulls(&keys, &format!("{chart}."))])?;
            assert_eq!(crate::difference(&within, &now), Vec::<String>::new(), "{chart} in the umbrella");
        }
    }
    Ok(())
}

/// Dotted paths of everything that is no object with keys.
fn paths_of(map: &Map<String, Value>, prefix: &str, into: &mut Vec<String>) {
    for (key, value) in map {
        match value {
            Value::Object(below) if !below.is_empty() => paths_of(below, &format!("{prefix}{key}."), into),
            _ => into.push(format!("{prefix}{key}")),
        }
    }
}

/// A mirror without path, and metrics for nobody.
#[test]
fn empty_paths_and_sources() -> Result<()> {
    let objects = suite(&[
        "--set=global.registry=localhost:5000,global.imagePrefix=,global.networkPolicy.enabled=true",
        "--set-json=card-ctl.networkPolicy.metricsFrom=[]",
    ])?;
    let image = text(pod_spec(&objects, "kagenti-card-ctl")?, "/containers/0/image").to_owned();
    assert!(image.starts_with("localhost:5000/card-ctl:"), "{image}");
    let ports = |name: &str| -> Result<Vec<Value>> {
        let rules = objects.named("NetworkPolicy", name)?["spec"]["ingress"].as_array().cloned();
        Ok(rules.unwrap_or_default().into_iter().map(|rule| rule["ports"][0]["port"].clone()).collect())
    };
    assert_eq!(ports("kagenti-card-ctl")?, [json!(8081)], "an empty list would be everybody");
    assert_eq!(ports("kagenti-runtime-ctl")?, [json!(8081), json!(8443)]);
    Ok(())
}

/// Maps of user data merge by key, `extraEnv` is appended, lists are replaced.
#[test]
fn maps_merge_and_lists_are_replaced() -> Result<()> {
    let objects = suite(&[
        "--set-string=global.podLabels.a=1,global.podLabels.b=1,card-ctl.podLabels.b=2",
        "--set=global.nodeSelector.disk=ssd,card-ctl.nodeSelector.zone=x",
        "--set=global.extraEnv[0].name=A,global.extraEnv[0].value=x",
        "--set=card-ctl.extraEnv[0].name=B,card-ctl.extraEnv[0].value=y",
        "--set=global.namespaceExclusions={a,b},authbridge-webhook.namespaceExclusions={c}",
        "--set=global.commonLabels.team=x,global.commonAnnotations.note=y",
    ])?;
    let card = objects.named("Deployment", "kagenti-card-ctl")?;
    assert_eq!(text(card, "/spec/template/metadata/labels/a"), "1");
    assert_eq!(text(card, "/spec/template/metadata/labels/b"), "2");
    let spec = pod_spec(&objects, "kagenti-card-ctl")?;
    assert_eq!(spec["nodeSelector"], json!({"disk": "ssd", "zone": "x"}));
    let env = spec["containers"][0]["env"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = env.iter().map(|entry| text(entry, "/name")).collect();
    assert_eq!(names, ["POD_NAME", "POD_NAMESPACE", "A", "B"]);
    let name = "kagenti-operator-kagenti-operator-chart-mutating-webhook-configuration";
    let mutating = objects.named("MutatingWebhookConfiguration", name)?;
    let excluded = &mutating["webhooks"][0]["namespaceSelector"]["matchExpressions"][0]["values"];
    assert_eq!(excluded, &json!(["kube-system", "kube-public", "kube-node-lease", "kagenti-system", "c"]));
    for object in &objects.0 {
        let name = text(object, "/metadata/name");
        assert_eq!(text(object, "/metadata/labels/team"), "x", "{name}");
        assert_eq!(text(object, "/metadata/annotations/note"), "y", "{name}");
    }
    Ok(())
}

/// A value of one component never shows in another.
#[test]
fn components_do_not_share_own_values() -> Result<()> {
    let before = suite(&[])?;
    let after =
        suite(&["--set=card-ctl.commonLabels.x=y,card-ctl.logging.format=text,card-ctl.image.tag=v9"])?;
    let changed = crate::difference(&before, &after);
    assert!(!changed.is_empty());
    assert!(changed.iter().all(|line| line.contains("card-ctl")), "{changed:?}");
    Ok(())
}

#[test]
fn images_follow_registry_prefix_tag_and_digest() -> Result<()> {
    let digest = format!("sha256:{}", "a".repeat(64));
    let objects = suite(&[
        "--set=global.registry=r.io,global.imagePrefix=mirror/x,global.tag=v2,global.pullSecrets={pull}",
        &format!("--set=global.digests.card-ctl={digest}"),
        "--set=authbridge-webhook.image.repository=own/webhook,authbridge-webhook.image.pullPolicy=Always",
    ])?;
    let image = |name: &str| anyhow::Ok(text(pod_spec(&objects, name)?, "/containers/0/image"));
    assert_eq!(image("kagenti-runtime-ctl")?, "r.io/mirror/x/runtime-ctl:v2");
    assert_eq!(image("kagenti-card-ctl")?, format!("r.io/mirror/x/card-ctl@{digest}"));
    assert_eq!(image("kagenti-authbridge-webhook")?, "r.io/own/webhook:v2");
    let webhook = pod_spec(&objects, "kagenti-authbridge-webhook")?;
    assert_eq!(text(webhook, "/containers/0/imagePullPolicy"), "Always");
    let job = objects.named("Job", "kagenti-crds-agent-upgrade")?;
    assert_eq!(text(job, "/spec/template/spec/containers/0/image"), "r.io/mirror/x/runtime-ctl:v2");
    for (name, spec) in objects.pod_specs() {
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]), "{name}");
    }
    Ok(())
}

/// Names of Deployments ignore the release, names of the cluster carry it, and none is too long.
#[test]
fn names_follow_prefix_and_override() -> Result<()> {
    let helm = Helm::get()?;
    let objects = helm.suite(&[
        "--set=global.namePrefix=acme,card-ctl.fullnameOverride=cards,global.fullnameOverride=old",
    ])?;
    assert!(objects.names("Deployment").contains(&"acme-runtime-ctl"));
    assert!(objects.names("Deployment").contains(&"cards"));
    assert!(objects.names("Service").contains(&"old-webhook-service"));
    assert_eq!(objects.flag("acme-authbridge-webhook", "webhook-fullname")?, "old");
    for chart in COMPONENTS {
        // Without it the webhook's Service has no name.
        let short = ["--set=global.fullnameOverride=old"];
        let objects = helm.template(chart, &"r".repeat(53), &"n".repeat(63), &short)?;
        for object in &objects.0 {
            assert!(text(object, "/metadata/name").len() <= 253, "{chart}");
        }
    }
    Ok(())
}

#[test]
fn extra_arguments_come_last() -> Result<()> {
    let objects = suite(&["--set=card-ctl.extraArgs={--log-level=trace}"])?;
    assert_eq!(objects.args("kagenti-card-ctl")?.last(), Some(&"--log-level=trace"));
    Ok(())
}
