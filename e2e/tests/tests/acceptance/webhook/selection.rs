//! Scenarios 8, 25 and 26: which Pods the API server sends, and by which entry.

use anyhow::{Result, ensure};
use e2e::admission_log::{AdmissionLog, Call};
use e2e::pod_view::PodView;
use e2e::{Json as _, Ns, Options, Suite, kinds, objects};
use serde_json::json;

use super::fixture::{
    CREDENTIALS, ENROLLED, agent_pod, config_of, create_pod, expect_warning, managed, team, until_dry_run,
};

/// Entry for labelled Pods in enabled namespaces.
const INJECT: &str = "inject.kagenti.io";
/// Entry for enrolled Pods elsewhere.
const ENROLLED_INJECT: &str = "enrolled.inject.kagenti.io";

#[tokio::test]
async fn webhook_08_a_disabled_pod_is_not_even_sent() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-08").await?;
    let log = AdmissionLog::begin(suite.cluster())?;
    let pod = agent_pod("off").label("kagenti.io/inject", "disabled");
    let (stored, _) = create_pod(&ns, pod.clone()).await?;
    assert!(!stored.is_injected());
    assert_eq!(log.pod(ns.name(), "off")?.calls, [], "the objectSelector keeps it away");

    // Sent all the same, for example by another configuration: skipped.
    let answer = suite.admission(0).await?.pod(ns.name(), pod).await?;
    assert_eq!(answer["allowed"], true);
    assert_eq!(answer.text("/status/message"), "injection not enabled");
    assert!(answer.get("patch").is_none(), "{answer}");

    // Any other value does not block.
    let (stored, _) = create_pod(&ns, agent_pod("on").label("kagenti.io/inject", "enabled")).await?;
    assert!(stored.is_injected());
    assert_eq!(first_call(&log, &ns, "on")?, INJECT);
    Ok(())
}

#[tokio::test]
async fn webhook_25_a_bare_cluster() -> Result<()> {
    let suite = Suite::own(Options::default().without_csi_driver()).await?;
    let ns = Ns::new(suite.client().await?, "default");
    let enrolled = |name: &str| agent_pod(name).label(ENROLLED, "true");
    ns.until(e2e::secs(30), kinds::SERVICE_ACCOUNT, "default", "its ServiceAccount", |_| true).await?;
    let log = AdmissionLog::begin(suite.cluster())?;

    let (pod, warnings) = create_pod(&ns, enrolled("weather")).await?;
    assert_eq!(first_call(&log, &ns, "weather")?, ENROLLED_INJECT);
    works_without_anything(&ns, &pod).await?;
    ensure!(!warnings.is_empty(), "no identity provider is worth a warning");

    let (pod, _) = create_pod(&ns, agent_pod("stranger")).await?;
    assert!(!pod.is_injected());
    assert_eq!(
        log.pod("default", "stranger")?.calls,
        [],
        "hand-labelled Pods count in enabled namespaces only"
    );

    ns.create(objects::agent_runtime("permissive", "permissive").spec(json!({"mtlsMode": "permissive"})))
        .await?;
    ns.create(objects::agent_runtime("strict", "strict").spec(json!({"mtlsMode": "strict"}))).await?;
    until_dry_run(&ns, enrolled("permissive"), "a warning about SPIRE", |reply| {
        reply.warnings.iter().any(|warning| warning.contains("SPIRE"))
    })
    .await?;
    let (pod, warnings) = create_pod(&ns, enrolled("permissive")).await?;
    works_without_anything(&ns, &pod).await?;
    expect_warning(&warnings, "SPIRE")?;

    let refused =
        until_dry_run(&ns, enrolled("strict"), "strict to be refused", |reply| reply.status == 403).await?;
    let message = refused.message();
    ensure!(message.contains("SPIRE") && message.contains("mtlsMode"), "no remedy: {message}");
    let refused = ns.refused(enrolled("strict")).await?;
    assert_eq!(refused.status, 403);
    assert!(ns.find(kinds::POD, "strict").await?.is_none());
    Ok(())
}

/// Injected, and nothing in the Pod waits for something that a bare cluster has not got.
async fn works_without_anything(ns: &Ns, pod: &PodView) -> Result<()> {
    assert_eq!(pod.containers(), ["agent", "authbridge-proxy"]);
    pod.expect_env("authbridge-proxy", "SPIRE_ENABLED", "false")?;
    pod.expect_env("authbridge-proxy", "MTLS_MODE", "disabled")?;
    assert!(
        !pod.json()
            .items("/spec/volumes")
            .iter()
            .any(|v| v.get("csi").is_some() || v.get("secret").is_some())
    );
    assert_eq!(pod.service_account(), "default");
    assert!(managed(ns, kinds::SERVICE_ACCOUNT).await?.is_empty());
    assert_eq!(pod.annotation(CREDENTIALS), "");
    let config = config_of(ns, pod).await?;
    let empty = json!({"inbound": {"plugins": []}, "outbound": {"plugins": []}});
    assert_eq!(config.get("pipeline"), Some(&empty));
    Ok(())
}

#[tokio::test]
async fn webhook_26_each_pod_is_sent_once() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-26").await?;
    let log = AdmissionLog::begin(suite.cluster())?;
    // Without token nothing changes the Pod after us, so there is no reason for a second look either.
    let both = |name: &str| {
        agent_pod(name).label(ENROLLED, "true").spec(json!({"automountServiceAccountToken": false}))
    };
    let (pod, _) = create_pod(&ns, both("both")).await?;
    assert!(pod.is_injected());
    let once = Call { webhook: INJECT.to_owned(), again: false, mutated: true };
    assert_eq!(log.pod(ns.name(), "both")?.calls, [once]);

    for namespace in ["kube-system", "kagenti-system"] {
        let system = ns.other(namespace);
        system
            .until(e2e::secs(30), kinds::SERVICE_ACCOUNT, "default", "its ServiceAccount", |_| true)
            .await?;
        let (pod, _) = create_pod(&system, both("webhook-26")).await?;
        system.delete(kinds::POD, "webhook-26").await?;
        assert!(!pod.is_injected(), "in {namespace}");
        assert_eq!(log.pod(namespace, "webhook-26")?.calls, [], "in {namespace}");
    }
    // Labelled kube-system or not, it stays out.
    let answer = suite.admission(0).await?.pod("kube-system", both("direct")).await?;
    assert_eq!(answer.text("/status/message"), "injection not enabled");
    Ok(())
}

/// The entry by which a Pod was sent first.
fn first_call(log: &AdmissionLog, ns: &Ns, pod: &str) -> Result<String> {
    let calls = log.pod(ns.name(), pod)?.calls;
    let mut first = calls.iter().filter(|call| !call.again).map(|call| call.webhook.clone());
    let entry = first.next().unwrap_or_default();
    ensure!(first.next().is_none(), "{pod} was sent by two entries: {calls:?}");
    Ok(entry)
}
