//! The webhook: its registration, its certificate, its scaling (packaging §8-10).

use anyhow::{Context as _, Result};
use authbridge_webhook::registration::{Address, Registration};
use chart_tests::{Helm, Objects, text};
use serde_json::{Value, json};

const CHART: &str = "authbridge-webhook";
const FULLNAME: &str = "x-kagenti-operator-chart";

fn webhook(args: &[&str]) -> Result<Objects> {
    Ok(Helm::get()?.template(CHART, "x", "ops", args)?)
}

fn registration(namespaces: &[&str]) -> Registration {
    Registration {
        fullname: FULLNAME.to_owned(),
        namespace: "ops".to_owned(),
        address: Address::Service,
        ca_bundle: None,
        namespaces: namespaces.iter().map(|&name| name.to_owned()).collect(),
    }
}

/// The chart registers what the program itself prints, in both modes.
#[test]
fn the_configurations_are_those_of_the_program() -> Result<()> {
    for (args, namespaces) in [
        (&[][..], &[][..]),
        (
            // There the webhook may not publish an authority of its own.
            &[
                "--set=watchNamespaces={team1,team2},createConfigurations=true,tls.mode=files,tls.existingSecret=x",
            ][..],
            &["team1", "team2"][..],
        ),
    ] {
        let objects = webhook(args)?;
        let program = registration(namespaces);
        for (kind, theirs) in [
            ("MutatingWebhookConfiguration", serde_json::to_value(program.mutating())?),
            ("ValidatingWebhookConfiguration", serde_json::to_value(program.validating())?),
        ] {
            let ours = objects.named(kind, text(&theirs, "/metadata/name"))?;
            assert_eq!(ours["webhooks"], theirs["webhooks"], "{kind}");
        }
    }
    Ok(())
}

#[test]
fn packaging_10_self_signed_is_the_default_and_nobody_renders_the_bundle() -> Result<()> {
    let objects = webhook(&[])?;
    let name = "kagenti-authbridge-webhook";
    assert!(!Value::from(objects.0.clone()).to_string().contains("caBundle"));
    assert!(objects.flag(name, "webhook-cert-path").is_err());
    assert_eq!(objects.flag(name, "webhook-publish-ca")?, "true");
    assert_eq!(objects.flag(name, "webhook-cert-secret")?, "kagenti-operator-webhook-server-cert");
    assert_eq!(objects.flag(name, "webhook-fullname")?, FULLNAME);
    let service = objects.named("Service", &format!("{FULLNAME}-webhook-service"))?;
    assert_eq!(
        service["spec"]["ports"],
        json!([{"name": "https", "port": 443, "targetPort": "webhook-server"}])
    );
    // With a list of namespaces it may register nothing.
    let objects = webhook(&["--set=watchNamespaces={team1}"])?;
    assert_eq!(objects.names("MutatingWebhookConfiguration"), Vec::<&str>::new());
    assert_eq!(objects.flag(name, "webhook-publish-ca")?, "false");
    Ok(())
}

#[test]
fn cert_manager_makes_the_certificate_when_it_is_there() -> Result<()> {
    let objects = webhook(&["--api-versions=cert-manager.io/v1"])?;
    let certificate = objects.named("Certificate", "serving-cert-x")?;
    assert_eq!(text(certificate, "/spec/secretName"), "kagenti-operator-webhook-server-cert");
    let service = format!("{FULLNAME}-webhook-service.ops");
    let names = json!([format!("{service}.svc"), format!("{service}.svc.cluster.local"), service]);
    assert_eq!(certificate["spec"]["dnsNames"], names);
    assert_eq!(text(certificate, "/spec/issuerRef/name"), "selfsigned-issuer-x");
    objects.named("Issuer", "selfsigned-issuer-x")?;
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let from = "/metadata/annotations/cert-manager.io~1inject-ca-from";
        let object = objects.of(kind).next().context("a configuration")?;
        assert_eq!(text(object, from), "ops/serving-cert-x");
    }
    let path = objects.flag("kagenti-authbridge-webhook", "webhook-cert-path")?;
    assert_eq!(path, "/tmp/k8s-webhook-server/serving-certs");
    let objects = webhook(&["--api-versions=cert-manager.io/v1", "--set=tls.mode=self-signed"])?;
    assert!(!objects.groups().contains("cert-manager.io"));
    Ok(())
}

#[test]
fn a_certificate_from_elsewhere_is_mounted() -> Result<()> {
    let objects = webhook(&["--set=tls.mode=files,tls.existingSecret=mine,tls.caBundle=Y2E="])?;
    let deployment = objects.named("Deployment", "kagenti-authbridge-webhook")?;
    assert!(deployment.to_string().contains(r#"{"secretName":"mine"}"#));
    for configuration in objects.0.iter().filter(|object| object.get("webhooks").is_some()) {
        for entry in configuration["webhooks"].as_array().into_iter().flatten() {
            assert_eq!(text(entry, "/clientConfig/caBundle"), "Y2E=");
        }
    }
    Ok(())
}

#[test]
fn packaging_13_the_webhook_is_drained_one_by_one_and_single_controllers_freely() -> Result<()> {
    let objects = Helm::get()?.suite(&[])?;
    assert_eq!(objects.names("PodDisruptionBudget"), ["kagenti-authbridge-webhook"]);
    let budget = objects.named("PodDisruptionBudget", "kagenti-authbridge-webhook")?;
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    assert_eq!(text(budget, "/spec/unhealthyPodEvictionPolicy"), "AlwaysAllow");
    let deployment = objects.named("Deployment", "kagenti-authbridge-webhook")?;
    assert_eq!(deployment["spec"]["replicas"], 2);
    let rolling = json!({"maxUnavailable": 0, "maxSurge": 1});
    assert_eq!(deployment["spec"]["strategy"]["rollingUpdate"], rolling);
    let spec = &deployment["spec"]["template"]["spec"];
    let selector = &deployment["spec"]["selector"]["matchLabels"];
    for constraint in spec["topologySpreadConstraints"].as_array().context("a spread")? {
        assert_eq!(&constraint["labelSelector"]["matchLabels"], selector);
    }
    assert!(spec["affinity"]["podAntiAffinity"].to_string().contains("kubernetes.io/hostname"));
    Ok(())
}

/// The autoscaler owns the number of replicas, and nobody else's changes.
#[test]
fn packaging_12_scaling_the_webhook_changes_nothing_else() -> Result<()> {
    let helm = Helm::get()?;
    let before = helm.suite(&[])?;
    let scaled = helm.suite(&["--set=authbridge-webhook.replicas=5"])?;
    // Its test counts the replicas, and is no part of what runs.
    let changed = crate::difference(&before.without_tests(), &scaled.without_tests());
    assert_eq!(changed, ["~ Deployment kagenti-system/kagenti-authbridge-webhook"]);
    let automatic = helm.suite(&["--set=authbridge-webhook.autoscaling.enabled=true"])?;
    let deployment = automatic.named("Deployment", "kagenti-authbridge-webhook")?;
    assert_eq!(deployment["spec"].get("replicas"), None);
    let autoscaler = automatic.named("HorizontalPodAutoscaler", "kagenti-authbridge-webhook")?;
    assert_eq!(
        (&autoscaler["spec"]["minReplicas"], &autoscaler["spec"]["maxReplicas"]),
        (&json!(2), &json!(10))
    );
    automatic.named("PodDisruptionBudget", "kagenti-authbridge-webhook")?;
    Ok(())
}
