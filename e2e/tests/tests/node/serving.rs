//! The webhook's certificates as the API server and every replica show them (packaging §8).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use api_types::names::label;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::admission::{certificates, published};
use e2e::kinds::Kind;
use e2e::{Json as _, Ns, kinds, objects, secs, wait_for};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::chart::{Helm, NAMESPACE};
use crate::installed::{ALL_ON, Turn, helm};
use crate::release;
use crate::traffic::greet;

/// Name of the webhook's Service.
const SERVICE: &str = "kagenti-operator-kagenti-operator-chart-webhook-service";
const CONFIGURATIONS: [Kind; 2] = [kinds::MUTATING_WEBHOOK, kinds::VALIDATING_WEBHOOK];
const PUBLISHER: &str = "authbridge-webhook/ca";

/// Bundles of every entry of both configurations.
pub(crate) async fn bundles(global: &Ns) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for kind in CONFIGURATIONS {
        for configuration in global.list(kind, "").await? {
            for entry in configuration.items("/webhooks") {
                found.push((entry.text("/name").to_owned(), entry.text("/clientConfig/caBundle").to_owned()));
            }
        }
    }
    Ok(found)
}

/// Packaging 10, first half, of a release that was just installed: every entry has its bundle, and had it at most a minute after the
/// first replica was ready.
pub(crate) async fn published_within_a_minute(global: &Ns) -> Result<()> {
    let bundles = bundles(global).await?;
    ensure!(bundles.len() >= 4, "{bundles:?}");
    ensure!(bundles.iter().all(|(_, bundle)| !bundle.is_empty()), "{bundles:?}");
    let time = |text: &str| text.parse::<jiff::Timestamp>().with_context(|| format!("the time {text:?}"));
    let mut ready = Vec::new();
    for pod in release::pods(&global.other(NAMESPACE), "authbridge-webhook").await? {
        ready.push(time(&pod.condition("Ready").last_transition_time)?);
    }
    let first = ready.into_iter().min().context("a replica")?;
    for kind in CONFIGURATIONS {
        for configuration in global.list(kind, "").await? {
            let writers = configuration.items("/metadata/managedFields");
            let writer = writers.iter().find(|entry| entry.text("/manager") == PUBLISHER);
            let at = time(writer.context("its publisher among the writers")?.text("/time"))?;
            let after = at.as_second() - first.as_second();
            ensure!(after <= 60, "{} was published {after} s after the first replica was ready", kind.kind);
        }
    }
    Ok(())
}

/// The certificate that one replica serves, by a connection that trusts what is published.
async fn leaf(pod: &Value, pem: &str) -> Result<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(pem)? {
        roots.add(CertificateDer::from(authority)).context("a published authority")?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address: Ipv4Addr = pod.text("/status/podIP").parse().context("the Pod's address")?;
    let name = ServerName::try_from(format!("{SERVICE}.{NAMESPACE}.svc")).context("the Service's name")?;
    let connect = async {
        let tcp = TcpStream::connect(SocketAddr::from((address, 9443))).await?;
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    };
    let tls = tokio::time::timeout(secs(30), connect).await.context("no TLS within 30 s")?;
    let tls = tls.with_context(|| format!("TLS with {}", pod.name()))?;
    let chain = tls.get_ref().1.peer_certificates().context("no certificate")?;
    Ok(chain.first().context("an empty chain")?.to_vec())
}

/// The failure policy of every entry of a configuration.
async fn policies(global: &Ns, kind: Kind) -> Result<Vec<String>> {
    let found = global.list(kind, "").await?;
    let entries = found.iter().flat_map(|configuration| configuration.items("/webhooks"));
    Ok(entries.map(|entry| entry.text("/failurePolicy").to_owned()).collect())
}

/// Packaging 10: three replicas show the same certificate, which is trusted by what both configurations publish; a Pod is
/// admitted through the Service; an upgrade with another failure policy keeps the bundles.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn packaging_10_three_replicas_behind_the_service() -> Result<()> {
    let turn = Turn::take().await?;
    let program = Helm::new(&turn.node().built().helm, turn.cluster()).await?;
    let global = Ns::cluster(turn.operator.client().clone());
    let before = bundles(&global).await?;
    let trusted = STANDARD.encode(published(&global).await?);
    ensure!(before.iter().all(|(_, bundle)| *bundle == trusted), "{before:?}");

    let as_installed: Vec<String> =
        ALL_ON.into_iter().chain(["runtime-ctl.replicas=2"]).map(ToOwned::to_owned).collect();
    let mut values = as_installed.clone();
    values.push("authbridge-webhook.replicas=3".to_owned());
    values.push("authbridge-webhook.mutating.failurePolicy=Ignore".to_owned());
    let outcome = three_replicas(&turn, &program, &global, &values, &before).await;
    // Also for the tests after this one.
    helm(turn.node(), &program, "upgrade", &as_installed).await?;
    release::until_ready(&turn.operator, secs(120)).await?;
    outcome?;
    let restored = policies(&global, kinds::MUTATING_WEBHOOK).await?;
    ensure!(restored.iter().all(|policy| policy == "Fail"), "{restored:?}");
    assert_eq!(bundles(&global).await?, before);
    Ok(())
}

async fn three_replicas(
    turn: &Turn,
    program: &Helm,
    global: &Ns,
    values: &[String],
    before: &[(String, String)],
) -> Result<()> {
    helm(turn.node(), program, "upgrade", values).await?;
    let replicas = wait_for(secs(60), "three replicas", async || {
        let pods = release::pods(&turn.operator, "authbridge-webhook").await?;
        let ready = pods.iter().all(|pod| pod.condition("Ready").status == "True");
        Ok((pods.len() == 3 && ready).then_some(pods))
    })
    .await?;
    let changed = policies(global, kinds::MUTATING_WEBHOOK).await?;
    ensure!(changed.iter().all(|policy| policy == "Ignore"), "{changed:?}");
    let after = bundles(global).await?;
    ensure!(after == before, "the upgrade did not keep what was published: {after:?} instead of {before:?}");

    let pem = published(global).await?;
    let mut leaves = Vec::new();
    for pod in &replicas {
        leaves.push(leaf(pod, &pem).await?);
    }
    leaves.dedup();
    ensure!(leaves.len() == 1, "{} certificates, not one for all replicas", leaves.len());
    for _ in 0..6 {
        greet(global).await?;
    }
    let ns = turn.node().namespace("serving", json!({"kagenti-enabled": "true"})).await?;
    let pod = ns.create(objects::pod("labelled").label(label::TYPE, "agent")).await?;
    ensure!(pod.container("authbridge-proxy").is_some(), "{}", pod.readable());
    ns.delete(kinds::POD, "labelled").await
}
