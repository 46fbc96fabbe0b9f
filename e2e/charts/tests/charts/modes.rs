//! NetworkPolicies, metrics and monitors, OpenShift, SPIRE, definitions (packaging §5, §10, §11, §14).

use anyhow::{Context as _, Result};
use chart_tests::{COMPONENTS, Helm, charts, text};
use serde_json::{Value, json};

const ALL_ON: &str =
    "--set=netpol-ctl.enabled=true,mlflow-ctl.enabled=true,card-ctl.verifiedFetch.enabled=true";

#[test]
fn packaging_14_policies_select_their_pods_and_open_their_ports() -> Result<()> {
    let objects = Helm::get()?.suite(&[ALL_ON, "--set=global.networkPolicy.enabled=true"])?;
    let mut names: Vec<String> = COMPONENTS.iter().map(|name| format!("kagenti-{name}")).collect();
    names.sort_unstable();
    assert_eq!(objects.names("NetworkPolicy"), names);
    for name in &names {
        let policy = objects.named("NetworkPolicy", name)?;
        let deployment = objects.named("Deployment", name)?;
        assert_eq!(policy["spec"]["podSelector"], deployment["spec"]["selector"], "{name}");
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        let mut rules = policy["spec"]["ingress"].as_array().into_iter().flatten();
        let metrics = rules.find(|rule| rule["ports"][0]["port"] == 8443).context("a rule for metrics")?;
        let from = json!([{"namespaceSelector": {"matchLabels": {"metrics": "enabled"}}}]);
        assert_eq!(metrics["from"], from, "{name}");
    }
    let webhook = objects.named("NetworkPolicy", "kagenti-authbridge-webhook")?;
    let ports: Vec<&Value> = webhook["spec"]["ingress"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|rule| &rule["ports"][0]["port"])
        .collect();
    assert!(ports.contains(&&json!(9443)) && !ports.contains(&&json!(443)), "{ports:?}");
    assert_eq!(Helm::get()?.suite(&[ALL_ON])?.names("NetworkPolicy"), Vec::<&str>::new());
    Ok(())
}

#[test]
fn packaging_15_monitors_select_the_services_that_are_there() -> Result<()> {
    let apis = ["--api-versions=monitoring.coreos.com/v1", "--api-versions=cert-manager.io/v1"];
    let objects = Helm::get()?.suite(&[apis[0], apis[1], ALL_ON, "--set=global.prometheus.enabled=true"])?;
    assert_eq!(objects.names("ServiceMonitor").len(), COMPONENTS.len());
    for monitor in objects.of("ServiceMonitor") {
        let name = text(monitor, "/metadata/name");
        let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().context("a selector")?;
        let selected: Vec<&Value> = objects
            .of("Service")
            .filter(|service| {
                wanted.iter().all(|(key, value)| service["metadata"]["labels"].get(key) == Some(value))
            })
            .collect();
        assert_eq!(selected.len(), 1, "{name}: {wanted:?}");
        let port = text(monitor, "/spec/endpoints/0/port");
        assert_eq!(text(selected[0], "/spec/ports/0/name"), port, "{name}");
        let tls = &monitor["spec"]["endpoints"][0]["tlsConfig"];
        let secret = text(tls, "/ca/secret/name");
        let certificate = objects.of("Certificate").find(|c| text(c, "/spec/secretName") == secret);
        let names = certificate.context("a certificate")?["spec"]["dnsNames"].to_string();
        let server = text(tls, "/serverName");
        assert!(names.contains(&format!("\"{server}\"")), "{name}: {server} is not in {names}");
        assert!(server.starts_with(text(selected[0], "/metadata/name")), "{name}: {server}");
        assert!(objects.named("Deployment", name)?.to_string().contains(secret), "{name} mounts {secret}");
        assert_eq!(objects.flag(name, "metrics-cert-path")?, "/etc/kagenti/metrics-cert");
    }
    Ok(())
}

/// With a list of namespaces nobody can review callers: plain HTTP on another port.
#[test]
fn metrics_are_plain_where_reviews_are_impossible() -> Result<()> {
    let objects = Helm::get()?.template("runtime-ctl", "x", "ops", &["--set=watchNamespaces={team1}"])?;
    let name = "kagenti-runtime-ctl";
    assert_eq!(objects.flag(name, "metrics-secure")?, "false");
    assert_eq!(objects.flag(name, "metrics-bind-address")?, ":8080");
    let port = &objects.named("Service", "kagenti-runtime-ctl-metrics")?["spec"]["ports"][0];
    assert_eq!((text(port, "/name"), &port["port"]), ("http", &json!(8080)));
    Ok(())
}

#[test]
fn the_aggregate_service_selects_every_component() -> Result<()> {
    let objects = Helm::get()?.suite(&[ALL_ON])?;
    let service = objects.named("Service", "controller-manager-metrics-service")?;
    let wanted = service["spec"]["selector"].as_object().context("a selector")?;
    for deployment in objects.of("Deployment") {
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        assert!(wanted.iter().all(|(key, value)| labels.get(key) == Some(value)));
    }
    // The previous chart has a Service of this name with an address, and an address cannot be taken away in an upgrade.
    assert!(service["spec"].get("clusterIP").is_none(), "{service}");
    let reader = objects.named("ClusterRole", "kagenti-metrics-reader")?;
    assert_eq!(reader["rules"], json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]));
    Ok(())
}

#[test]
fn openshift_brings_an_scc_of_the_shape_that_is_needed() -> Result<()> {
    let helm = Helm::get()?;
    let redirect = helm.suite(&["--api-versions=security.openshift.io/v1"])?;
    let scc = redirect.named("SecurityContextConstraints", "kagenti-authbridge")?;
    assert_eq!(scc["allowedCapabilities"], json!(["NET_ADMIN", "NET_RAW"]));
    assert_eq!((text(scc, "/runAsUser/type"), &scc["allowPrivilegedContainer"]), ("RunAsAny", &json!(false)));
    let use_it = redirect.named("ClusterRole", "system:openshift:scc:kagenti-authbridge")?;
    assert_eq!(use_it["rules"][0]["resourceNames"], json!(["kagenti-authbridge"]));
    let runtime = redirect.named("ClusterRole", "kagenti-runtime-ctl-kagenti-operator.kagenti-system")?;
    assert!(runtime.to_string().contains("\"bind\""));
    for args in ["--set=defaults.proxy.allowedEgressEnforcement={none}", "--set=scc.allowNetAdmin=false"] {
        let objects = helm.suite(&["--set=global.openshift.enabled=true", args])?;
        let scc = objects.named("SecurityContextConstraints", "kagenti-authbridge")?;
        assert_eq!(scc["requiredDropCapabilities"], json!(["ALL"]), "{args}");
        assert_eq!(text(scc, "/runAsUser/type"), "MustRunAsNonRoot", "{args}");
    }
    // Elsewhere there is nothing of it, and no right to it.
    let plain = helm.suite(&[])?;
    assert!(!Value::from(plain.0).to_string().contains("openshift.io"));
    Ok(())
}

#[test]
fn packaging_16_verified_fetch_is_said_both_ways() -> Result<()> {
    let helm = Helm::get()?;
    let off = helm.suite(&["--set=card-ctl.verifiedFetch.enabled=false"])?;
    assert_eq!(off.flag("kagenti-card-ctl", "enable-verified-fetch")?, "false");
    let on = helm.suite(&["--set=card-ctl.verifiedFetch.enabled=true"])?;
    assert_eq!(on.flag("kagenti-card-ctl", "enable-verified-fetch")?, "true");
    let card = on.named("Deployment", "kagenti-card-ctl")?.to_string();
    assert!(card.contains("csi.spiffe.io") && card.contains("\"/spiffe-workload-api\""));
    let identity = on.named("ClusterSPIFFEID", "kagenti-card-ctl-kagenti-operator.kagenti-system")?;
    assert!(text(identity, "/spec/spiffeIDTemplate").contains("{{ .TrustDomain }}"));
    Ok(())
}

/// Definitions are Helm's to install and a Job's to upgrade; that Job may touch nothing else.
#[test]
fn packaging_09_definitions_have_a_gate_and_a_job_with_few_rights() -> Result<()> {
    let helm = Helm::get()?;
    let path = helm.path("kagenti-operator").display().to_string();
    let definitions = |args: &[&str]| -> Result<usize> {
        let mut all = vec!["template", "x", &path, "--include-crds"];
        all.extend(args);
        let output = helm.run(&all)?;
        Ok(String::from_utf8_lossy(&output.stdout).matches("\nkind: CustomResourceDefinition").count())
    };
    let files = std::fs::read_dir(charts().join("kagenti-crds-agent/crds"))?.count();
    assert_eq!(definitions(&[])?, files);
    assert_eq!(definitions(&["--set=kagenti-crds-agent.enabled=false"])?, 0);
    let objects = helm.suite(&[])?;
    let role = objects.named("ClusterRole", "kagenti-crds-agent-kagenti-operator.kagenti-system")?;
    assert_eq!(role["rules"][0]["verbs"], json!(["create"]));
    assert_eq!(role["rules"][1]["verbs"], json!(["get", "patch"]));
    assert_eq!(role["rules"][1]["resourceNames"].as_array().map(Vec::len), Some(files));
    let job = objects.named("Job", "kagenti-crds-agent-upgrade")?;
    assert_eq!(text(job, "/metadata/annotations/helm.sh~1hook"), "pre-install,pre-upgrade");
    let gone = helm.suite(&["--set=kagenti-crds-agent.upgradeJob.enabled=false"])?;
    assert_eq!(gone.names("Job"), ["kagenti-client-registration-ctl-cleanup"]);
    Ok(())
}

/// What the process reads once at start is a checksum's business; what it watches must not restart it.
#[test]
fn platform_configuration_does_not_restart_anybody() -> Result<()> {
    let helm = Helm::get()?;
    let changed = helm.suite(&["--set=defaults.proxy.uid=2000,featureGates.injectTools=true"])?;
    let difference = crate::difference(&helm.suite(&[])?, &changed);
    let only = [
        "~ ConfigMap kagenti-system/kagenti-feature-gates",
        "~ ConfigMap kagenti-system/kagenti-platform-config",
    ];
    assert_eq!(difference, only);
    Ok(())
}

#[test]
fn extra_objects_pass_through_tpl() -> Result<()> {
    let set = r#"--set-json=extraObjects=[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"{{ .Release.Name }}-x"}}]"#;
    let objects = Helm::get()?.suite(&[set])?;
    objects.named("ConfigMap", "kagenti-operator-x")?;
    Ok(())
}
