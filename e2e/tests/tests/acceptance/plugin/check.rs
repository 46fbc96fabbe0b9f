//! `kubectl kagenti check`: a healthy installation, what is wrong with a broken one, and what an account may not ask.

use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::old_operator::OldOperator;
use e2e::{Json as _, Ns, Options, Suite, kinds, objects, secs, suite};
use serde_json::{Value, json};

use super::{BARE, OWN, Said, Tenant, admin, component};

/// Messages of findings with a result.
fn messages(said: &Said, result: &str) -> Result<Vec<String>> {
    let report = said.json()?;
    let findings = report.items("/findings").iter().filter(|finding| finding.text("/result") == result);
    Ok(findings.map(|finding| finding.text("/message").to_owned()).collect())
}

/// What failed has these texts among it, each with a remedy.
fn failed(said: &Said, texts: &[&str]) -> Result<()> {
    assert_eq!(said.code, Some(1), "{said:?}");
    let failed = messages(said, "failed")?;
    for text in texts {
        assert!(failed.iter().any(|message| message.contains(text)), "no {text:?} in {failed:#?}");
    }
    for finding in
        said.json()?.items("/findings").iter().filter(|finding| finding.text("/result") == "failed")
    {
        assert_ne!(finding.text("/remedy"), "", "{finding}");
    }
    Ok(())
}

async fn check(suite: &Suite, ns: &Ns) -> Result<Said> {
    admin(suite, &["check", "-n", ns.name(), "-o", "json"]).await
}

/// A Deployment of a component; its Pod stands for the process of the suite that does the work.
async fn installed(operator: &Ns, name: &str, args: Value) -> Result<()> {
    let mut deployment = component(name, OWN);
    deployment["spec"]["replicas"] = 1.into();
    deployment["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] = name.into();
    deployment["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/part-of"] =
        "kagenti-operator".into();
    deployment["spec"]["template"]["spec"]["containers"][0]["args"] = args;
    operator.create(deployment).await?;
    operator.rolled_out(secs(60), kinds::DEPLOYMENT, &format!("kagenti-{name}")).await.map(drop)
}

/// Packaging §16: a healthy suite is said to be fine, with and without `-o`; then one thing after the other breaks and is named.
#[tokio::test]
async fn packaging_16_check_finds_what_is_wrong() -> Result<()> {
    let options = Options::default().runtime_ctl([suite::runtime_ctl().args(["--leader-elect=true"])]);
    let suite = Suite::own(options).await?;
    let operator = suite.operator().await?;
    installed(&operator, "runtime-ctl", json!(["--leader-elect=true"])).await?;
    installed(&operator, "authbridge-webhook", json!(["--webhook-cert-secret=own-cert"])).await?;
    let ns = suite.team("plugin-check").await?;
    ns.create(objects::deployment("weather").replicas(0)).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    ns.until_ready(secs(30), "weather").await?;

    let said = check(&suite, &ns).await?;
    assert_eq!(said.code, Some(0), "{said:?}");
    let fine = messages(&said, "ok")?;
    let rolled_out = format!("kagenti-runtime-ctl in namespace kagenti-system: 1/1 ready, {OWN}");
    for text in [
        "agentruntimes.agent.kagenti.dev is served as v1alpha1",
        rolled_out.as_str(),
        "runtime-ctl.kagenti.dev in namespace kagenti-system is held by",
        "the webhook is asked about AgentRuntimes in namespace plugin-check, and answers",
        "a Pod of an enrolled workload in namespace plugin-check gets its sidecars",
        "namespace plugin-check is enabled",
        "clients are registered in realm",
        "AgentRuntimes: 1, all are well",
    ] {
        assert!(fine.iter().any(|message| message.contains(text)), "no {text:?} in {fine:#?}");
    }
    assert!(ns.list(kinds::POD, "").await?.is_empty(), "nothing is stored");
    assert_eq!(ns.list(kinds::AGENT_RUNTIME, "").await?.len(), 1, "nothing is stored");
    let said = admin(&suite, &["check"]).await?;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.ends_with(" 0 failed, 0 unknown\n"), "{}", said.out);

    for namespace in ["kube-system", "kagenti-system"] {
        let nowhere =
            Tenant::with(&suite, |config| config["contexts"][0]["context"]["namespace"] = namespace.into())?;
        let said = nowhere.run(&["check", "-o", "json"]).await?;
        assert_eq!(said.code, Some(0), "{said:?}");
        let warnings = messages(&said, "warning")?;
        let begins = format!("nothing is tried in namespace {namespace} of the kubeconfig: ");
        assert!(warnings.iter().any(|message| message.starts_with(&begins)), "{warnings:#?}");
    }

    // In the namespace: its configuration, an object that is not well, one that hangs.
    ns.patch(kinds::CONFIG_MAP, "authbridge-config", json!({"data": {"KEYCLOAK_REALM": null}})).await?;
    ns.create(objects::agent_runtime("lost", "nobody")).await?;
    ns.until_condition(secs(20), "lost", "Ready", "False/TargetNotFound").await?;
    // In the suite: an older definition, the previous operator, a second release and an upgrade of it that
    // does not end, a component that does not start.
    let older = json!([{"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/phase"}]);
    let args = ["patch", "crd", "agentruntimes.agent.kagenti.dev", "--type=json", "-p", &older.to_string()];
    suite.cluster().kubectl(args).await?;
    let legacy = OldOperator::start(&operator, 15).await?;
    let second = suite.namespace("plugin-check-second", Value::Null).await?;
    installed(&second, "runtime-ctl", json!(["--watch-namespaces=plugin-check"])).await?;
    let unready = json!({"replicas": 2, "template": {"spec": {"nodeSelector": {"nobody": "has"}}}});
    second.create(component("card-ctl", OWN)).await?;
    second.set_spec(kinds::DEPLOYMENT, "kagenti-card-ctl", unready).await?;
    let upgrade = json!({
        "strategy": {"rollingUpdate": {"maxUnavailable": 0}},
        "template": {"spec": {"nodeSelector": {"nobody": "has"}}},
    });
    second.set_spec(kinds::DEPLOYMENT, "kagenti-runtime-ctl", upgrade).await?;
    let rollout = format!("rollout to {OWN} under way (1/1 Pods made, 1 older left)");
    let upgraded = format!(
        "kagenti-runtime-ctl in namespace plugin-check-second: 1/1 ready, {rollout}: Pod kagenti-runtime-ctl-"
    );
    let said = e2e::wait_for(secs(20), "Pods without a node to be explained", async || {
        let said = check(&suite, &ns).await?;
        let unready = "kagenti-card-ctl in namespace plugin-check-second: 0/2 ready";
        let all = [unready, &upgraded, "has no node: "].iter().all(|text| said.out.contains(text));
        Ok(all.then_some(said))
    });
    failed(
        &said.await?,
        &[
            &upgraded,
            "ConfigMap plugin-check/authbridge-config has KEYCLOAK_URL and no KEYCLOAK_REALM",
            "AgentRuntime plugin-check/lost: Ready=False/TargetNotFound",
            "agentruntimes.agent.kagenti.dev is older than this plugin: it has no status.phase",
            "the previous operator still runs: Lease b7c4ae34.kagenti.dev in namespace kagenti-system",
            "kagenti-runtime-ctl in namespace kagenti-system and kagenti-runtime-ctl in namespace plugin-check-second look \
             after the same objects: plugin-check",
        ],
    )?;
    legacy.stop().await?;
    let said = admin(&suite, &["version", "-n", second.name()]).await?;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.contains(&format!("runtime-ctl in namespace plugin-check-second: {rollout}")),
        "{}",
        said.err
    );

    behind_a_service(&suite, &operator).await?;
    failed(
        &check(&suite, &ns).await?,
        &[
            "Service hook in namespace kagenti-system has no ready endpoint",
            "the caBundle of vagentruntime.kb.io is not the authority of the certificate in Secret own-cert",
            "because the API server does not reach the webhook",
        ],
    )?;
    operator.delete(kinds::SERVICE, "hook").await?;
    operator.delete(kinds::SECRET, "own-cert").await?;
    failed(
        &check(&suite, &ns).await?,
        &[
            "Service hook in namespace kagenti-system does not exist",
            "Secret own-cert in namespace kagenti-system: it is not there",
        ],
    )?;
    operator.delete(kinds::DEPLOYMENT, "kagenti-authbridge-webhook").await?;
    failed(&check(&suite, &ns).await?, &["left behind, authbridge-webhook is not installed"])
}

/// Puts a Service without endpoints, with a certificate that only one of the webhooks trusts, where the suite's webhook was.
async fn behind_a_service(suite: &Suite, operator: &Ns) -> Result<()> {
    // It would mend its bundles.
    suite.webhook(0)?.kill9().await?;
    let ports = json!([{"port": 443, "targetPort": 9443}]);
    operator.create(objects::service("hook", "nobody", ports)).await?;
    let own = rcgen::generate_simple_self_signed(["hook.kagenti-system.svc".to_owned()])?;
    let other = rcgen::generate_simple_self_signed(["hook.kagenti-system.svc".to_owned()])?;
    let secret = json!({"type": "kubernetes.io/tls", "data": {
        "tls.crt": STANDARD.encode(own.cert.pem()), "tls.key": STANDARD.encode(own.signing_key.serialize_pem()),
    }});
    operator.create(objects::named(kinds::SECRET, "own-cert").with(secret)).await?;
    let global = suite.global().await?;
    for (kind, trusted) in [(kinds::MUTATING_WEBHOOK, &own), (kinds::VALIDATING_WEBHOOK, &other)] {
        for configuration in global.list(kind, "").await? {
            let mut webhooks = configuration.items("/webhooks").to_vec();
            for webhook in &mut webhooks {
                webhook["clientConfig"] = json!({
                    "service": {"namespace": "kagenti-system", "name": "hook", "port": 443, "path": "/"},
                    "caBundle": STANDARD.encode(trusted.cert.pem()),
                });
            }
            global.patch(kind, configuration.name(), json!({"webhooks": webhooks})).await?;
        }
    }
    // The API server takes a moment to hear of its own configuration.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

/// Nothing that may not be asked is fine, and the right is named.
#[tokio::test]
async fn packaging_16_check_of_a_tenant() -> Result<()> {
    let suite = BARE.share().await?;
    let ns = suite.namespace("plugin-check-tenant", Value::Null).await?;
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    let tenant = Tenant::new(&suite, ns.name(), rules).await?;
    let said = tenant.run(&["check", "-n", ns.name(), "-o", "json"]).await?;
    assert_eq!(said.code, Some(1), "{said:?}");
    let unknown = messages(&said, "unknown")?;
    for right in [
        "get customresourcedefinitions.apiextensions.k8s.io",
        "list deployments.apps in every namespace",
        "list mutatingwebhookconfigurations.admissionregistration.k8s.io",
        "list validatingwebhookconfigurations.admissionregistration.k8s.io",
        "create agentruntimes.agent.kagenti.dev in namespace plugin-check-tenant",
        "create pods in namespace plugin-check-tenant",
        "get namespaces",
        "list agentruntimes.agent.kagenti.dev in namespace plugin-check-tenant",
    ] {
        let needs = format!("needs the right to {right}");
        assert!(unknown.iter().any(|message| message.ends_with(&needs)), "no {needs:?} in {unknown:#?}");
    }
    assert_eq!(messages(&said, "ok")?, Vec::<String>::new());
    assert_eq!(messages(&said, "warning")?.len(), 1, "the ConfigMap may be looked at: {said:?}");
    let text = tenant.run(&["check"]).await?;
    assert!(
        text.out.lines().last().context("a line")?.starts_with("0 ok, 0 warnings, 0 failed, "),
        "{}",
        text.out
    );
    Ok(())
}
