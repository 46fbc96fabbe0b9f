//! Values that must fail, with a message that names the key and the remedy (packaging §3.3).

use anyhow::Result;
use chart_tests::{COMPONENTS, Helm, UMBRELLA};
use rstest::rstest;

/// What Helm says to these values of the umbrella; an error when it renders them.
fn refusal(args: &[&str]) -> Result<String> {
    match Helm::get()?.suite(args) {
        Ok(_) => anyhow::bail!("{args:?} was rendered"),
        Err(refused) => Ok(refused.0),
    }
}

#[rstest]
#[case::key("runtimectl.enabled=true", &["runtimectl"])]
#[case::not_a_component("replicas=2", &["replicas"])]
#[case::component_that_is_off("netpol-ctl.replcias=2", &["/netpol-ctl", "replcias"])]
#[case::nested("card-ctl.pdb.maxUnavailabel=2", &["/card-ctl/pdb", "maxUnavailabel"])]
#[case::global_key("global.watchNamespace={team1}", &["global.watchNamespace is not known", "global.watchNamespaces"])]
#[case::toggle_deleted("netpol-ctl=null", &["/netpol-ctl", "enabled"])]
#[case::toggle_null("netpol-ctl.enabled=null", &["/netpol-ctl/enabled"])]
#[case::enumeration("authbridge-webhook.mutating.failurePolicy=fail", &["failurePolicy", "Fail"])]
#[case::digest("global.digests.card-ctl=sha256:zz", &["/global/digests/card-ctl", "sha256:zz"])]
#[case::helms_empty_list("global.watchNamespaces={}", &["/global/watchNamespaces/0"])]
#[case::duration("card-ctl.leaderElection.leaseDuration=15", &["leaseDuration"])]
#[case::negative("card-ctl.replicas=-1", &["/card-ctl/replicas"])]
#[case::otel_protocol("global.otel.protocol=udp", &["/global/otel/protocol", "'grpc', 'http/protobuf'"])]
#[case::tls_mode("authbridge-webhook.tls.mode=none", &["/authbridge-webhook/tls/mode", "'self-signed'"])]
#[case::namespace_name("global.watchNamespaces={Team_1}", &["/global/watchNamespaces/0", "Team_1"])]
#[case::namespace_name_of_a_component("netpol-ctl.watchNamespaces={team1-}", &["/netpol-ctl/watchNamespaces/0", "team1-"])]
#[case::timeout("authbridge-webhook.validating.timeoutSeconds=31", &["timeoutSeconds"])]
fn packaging_01_a_misspelt_value_fails_and_is_named(#[case] set: &str, #[case] says: &[&str]) -> Result<()> {
    let said = refusal(&["--set", set])?;
    assert!(says.iter().all(|word| said.contains(word)), "{said}");
    Ok(())
}

/// The Service of the webhook is named after the release.
#[rstest]
#[case::umbrella(UMBRELLA)]
#[case::alone("authbridge-webhook")]
fn a_release_name_that_is_too_long_for_a_service_fails(#[case] chart: &str) -> Result<()> {
    let helm = Helm::get()?;
    let refused = helm.template(chart, "my-company-kagenti-operator", "ns", &[]);
    let said = refused.err().map(|refused| refused.0).unwrap_or_default();
    assert!(said.contains("63 characters") && said.contains("global.fullnameOverride"), "{said}");
    helm.template(chart, "my-company-kagenti-operator", "ns", &["--set=global.fullnameOverride=kagenti"])?;
    helm.template(chart, "a-name-of-twentyfour-cha", "ns", &[])?;
    Ok(())
}

/// The umbrella reads its own keys as they are.
#[rstest]
fn an_own_key_of_the_umbrella_is_never_null(
    #[values(
        "uninstall",
        "uninstall.timeout",
        "tests",
        "dashboards.enabled",
        "scc.allowNetAdmin",
        "aggregateRoles"
    )]
    key: &str,
) -> Result<()> {
    let said = refusal(&["--set", &format!("{key}=null")])?;
    assert!(key.split('.').all(|part| said.contains(part)), "{said}");
    Ok(())
}

/// Rules of one component: the same alone and in the umbrella, where the key carries its name.
#[rstest]
#[case::pdb_neither("card-ctl", &["pdb.maxUnavailable=null"], &["pdb", "exactly one of minAvailable and maxUnavailable"])]
#[case::pdb_both("card-ctl", &["pdb.minAvailable=1"], &["pdb", "exactly one"])]
#[case::autoscaling("authbridge-webhook", &["autoscaling.enabled=true", "autoscaling.maxReplicas=1"], &["autoscaling.maxReplicas=1", "autoscaling.minReplicas=2"])]
#[case::cert_manager("authbridge-webhook", &["tls.mode=cert-manager"], &["tls.mode=cert-manager", "tls.mode=self-signed", "tls.skipApiCheck=true"])]
#[case::files("authbridge-webhook", &["tls.mode=files"], &["tls.existingSecret"])]
#[case::secure_metrics("runtime-ctl", &["metrics.secure=true", "watchNamespaces={team1}"], &["metrics.secure=true", "watchNamespaces"])]
#[case::no_namespaces("runtime-ctl", &["rbac.mode=namespaced"], &["rbac.mode=namespaced", "watchNamespaces"])]
#[case::contradiction("runtime-ctl", &["rbac.mode=cluster", "watchNamespaces={team1}"], &["rbac.mode=cluster"])]
#[case::no_bundle("card-ctl", &["signatureVerification.enabled=true"], &["signatureVerification.spireTrustBundle.configMapName", "configMapNamespace"])]
#[case::sigstore("card-ctl", &["sigstore.enabled=true"], &["sigstore.certificateIdentity", "certificateOidcIssuer", "does not verify"])]
#[case::sigstore_without_issuer("card-ctl", &["sigstore.enabled=true", "sigstore.certificateIdentity=me"], &["sigstore.enabled=true", "certificateOidcIssuer"])]
#[case::no_monitors("runtime-ctl", &["prometheus.enabled=true"], &["monitoring.coreos.com/v1", "prometheus.skipApiCheck=true"])]
#[case::pod_monitor("runtime-ctl", &["prometheus.enabled=true", "prometheus.skipApiCheck=true", "prometheus.kind=PodMonitor"], &["ServiceMonitor", "metrics.secure=false"])]
#[case::grpc("runtime-ctl", &["otel.endpoint=http://x:4317", "otel.protocol=grpc"], &["otel.protocol=grpc", "http/protobuf"])]
#[case::nobody_publishes("authbridge-webhook", &["createConfigurations=true", "watchNamespaces={team1}"], &["createConfigurations=true", "tls.mode=files", "tls.caBundle"])]
#[case::not_there_yet("authbridge-webhook", &["validators.agents=true"], &["validators.agents=true", "agent-ctl"])]
#[case::no_build_controller("authbridge-webhook", &["validators.agentBuilds=true"], &["validators.agentBuilds=true", "tekton-build-ctl"])]
#[case::no_gateway_controller("authbridge-webhook", &["validators.gateway=true"], &["validators.gateway=true", "gateway-ctl"])]
fn packaging_03_rules_of_a_component(
    #[case] chart: &str,
    #[case] set: &[&str],
    #[case] says: &[&str],
) -> Result<()> {
    let alone = Helm::get()?.template(chart, "x", "ns", &["--set", &set.join(",")]);
    let alone = alone.err().map(|refused| refused.0).unwrap_or_default();
    let set: Vec<String> = set.iter().map(|part| format!("{chart}.{part}")).collect();
    let within = refusal(&["--set", &set.join(",")])?;
    for said in [&alone, &within] {
        assert!(says.iter().all(|word| said.contains(word)), "{said}");
    }
    Ok(())
}

#[rstest]
#[case::nobody_verifies("netpol-ctl.enabled=true", &["netpol-ctl.enabled=true", "card-ctl.verifiedFetch.enabled=true", "card-ctl.signatureVerification.enabled=true"])]
#[case::audit("netpol-ctl.enabled=true,card-ctl.signatureVerification.enabled=true,card-ctl.signatureVerification.auditMode=true,card-ctl.signatureVerification.spireTrustBundle.configMapNamespace=x", &["auditMode", "netpol-ctl.enforceDuringAudit=true"])]
#[case::agent_ctl("agent-ctl.enabled=true", &["agent-ctl", "does not have it"])]
#[case::tekton_build_ctl("tekton-build-ctl.enabled=true", &["tekton-build-ctl", "does not have it", "tekton-build-ctl.enabled=false"])]
#[case::gateway_ctl("gateway-ctl.enabled=true", &["gateway-ctl", "does not have it", "gateway-ctl.enabled=false"])]
#[case::unenroll("uninstall.cleanup=unenroll,runtime-ctl.enabled=false", &["uninstall.cleanup=unenroll", "runtime-ctl.enabled=true"])]
#[case::keep("kagenti-crds-agent.keep=false", &["kagenti-crds-agent.keep=false", "uninstall.cleanup=unenroll"])]
#[case::keep_in_namespaces("kagenti-crds-agent.keep=false,uninstall.cleanup=unenroll,global.watchNamespaces={team1}", &["kagenti-crds-agent.keep=false", "whole cluster"])]
#[case::platform_config("runtime-ctl.platformConfig.create=true", &["runtime-ctl.platformConfig.create=true", "featureGates"])]
#[case::platform_config_of_the_webhook("authbridge-webhook.platformConfig.create=true", &["authbridge-webhook.platformConfig.create=true", "featureGates"])]
#[case::platform_config_of_registration("client-registration-ctl.platformConfig.create=true", &["client-registration-ctl.platformConfig.create=true", "featureGates"])]
#[case::alerts("prometheusRule.enabled=true", &["prometheusRule.enabled=true", "monitoring.coreos.com/v1"])]
fn packaging_27_rules_between_components(#[case] set: &str, #[case] says: &[&str]) -> Result<()> {
    let said = refusal(&["--set", set])?;
    assert!(says.iter().all(|word| said.contains(word)), "{said}");
    Ok(())
}

#[test]
fn packaging_27_two_findings_are_both_listed() -> Result<()> {
    let said = refusal(&["--set=netpol-ctl.enabled=true", "--set=runtime-ctl.platformConfig.create=true"])?;
    assert!(said.contains("card-ctl.verifiedFetch.enabled=true"), "{said}");
    assert!(said.contains("runtime-ctl.platformConfig.create=true"), "{said}");
    let said = refusal(&["--set=card-ctl.pdb.minAvailable=1,card-ctl.rbac.mode=namespaced"])?;
    assert!(said.contains("card-ctl.pdb") && said.contains("card-ctl.rbac.mode"), "{said}");
    Ok(())
}

/// A rule does not fire for what is switched off.
#[test]
fn packaging_27_enforcement_that_is_off_needs_no_trust() -> Result<()> {
    let helm = Helm::get()?;
    helm.suite(&["--set=netpol-ctl.enabled=true,netpol-ctl.enforceNetworkPolicies=false"])?;
    helm.suite(&["--set=netpol-ctl.enabled=true,card-ctl.enabled=false"])?;
    helm.suite(&["--set=agent-ctl.enabled=false,kagenti-crds-kagent.enabled=false"])?;
    Ok(())
}

#[rstest]
#[case("kuadrant.enable")]
#[case("otelBootstrap.enable")]
#[case("spiffe.operatorAuth.enabled")]
fn packaging_26_what_is_not_built_is_refused(#[case] key: &str) -> Result<()> {
    let said = refusal(&["--set", &format!("{key}=true")])?;
    assert!(said.contains(key) && said.contains("not built"), "{said}");
    Helm::get()?.suite(&["--set", &format!("{key}=false")])?;
    Ok(())
}

/// `global` is shared with charts above ours: there a key of somebody else is none of our business.
#[test]
fn packaging_01_below_another_chart_foreign_global_keys_are_left_alone() -> Result<()> {
    let helm = Helm::get()?;
    let parent = tempfile::tempdir()?;
    let folder = parent.path().display().to_string();
    let (umbrella, to) = (helm.path(UMBRELLA).display().to_string(), format!("{folder}/charts"));
    let packed = helm.run(&["package", &umbrella, "-d", &to])?;
    anyhow::ensure!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    let version = env!("CARGO_PKG_VERSION");
    let manifest = format!(
        "apiVersion: v2\nname: platform\nversion: 1.0.0\ndependencies:\n- name: kagenti-operator-chart\n  \
         version: {version}\n"
    );
    std::fs::write(parent.path().join("Chart.yaml"), manifest)?;
    let output = helm.run(&["template", "x", &folder, "--set=global.storageClass=fast"])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = refusal(&["--set=global.storageClass=fast"])?;
    assert!(said.contains("global.storageClass is not known"), "{said}");
    for chart in COMPONENTS {
        let said = helm.template(chart, "x", "ns", &["--set=global.storageClass=fast"]).err();
        assert!(said.is_some_and(|refused| refused.0.contains("global.storageClass")), "{chart}");
    }
    Ok(())
}
