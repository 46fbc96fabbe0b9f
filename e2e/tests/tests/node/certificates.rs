//! The Secret that all replicas of the webhook serve from is lost or spoilt: nobody who creates Pods notices.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::{Json as _, Ns, Stopwatch, kinds, secs, wait_for};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::installed::Turn;
use crate::release;
use crate::traffic::{Traffic, greet};

const SERVING: &str = "kagenti-operator-webhook-server-cert";
/// Whatever damages it is repaired within so long (packaging §8).
const WITHIN: Duration = secs(10);

/// Data of a Secret.
fn data(entries: &[(&str, String)]) -> Value {
    entries.iter().map(|(key, text)| ((*key).to_owned(), json!(STANDARD.encode(text)))).collect()
}

/// A certificate of an authority of nobody's, for the right name, that ended an hour ago.
fn expired(name: &str) -> Result<Value> {
    let mut root = CertificateParams::new(Vec::<String>::new())?;
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;
    let mut leaf = CertificateParams::new(vec![name.to_owned()])?;
    let now = SystemTime::now();
    leaf.not_before = (now - Duration::from_hours(48)).into();
    leaf.not_after = (now - Duration::from_hours(1)).into();
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &issuer)?;
    Ok(data(&[("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", issuer.pem())]))
}

/// Waits until the Secret holds what it held.
async fn healed(operator: &Ns, before: &Value, fault: &str) -> Result<()> {
    let watch = Stopwatch::start();
    let same = |secret: &Value| {
        ["tls.crt", "tls.key", "ca.crt"].iter().all(|key| {
            let key = format!("/data/{key}");
            secret.text(&key) == before.text(&key)
        })
    };
    operator
        .until(secs(60), kinds::SECRET, SERVING, "what was served", same)
        .await
        .context(fault.to_owned())?;
    eprintln!("{fault}: healed after {:.1} s", watch.spent().as_secs_f64());
    ensure!(watch.spent() <= WITHIN, "{fault}: healed after {:?}", watch.spent());
    Ok(())
}

/// The serving Secret deleted, expired, with a key of another certificate, with rubbish: what is served goes on being served, the
/// Secret is put right within 10 s, and the log of the replica that did it says so.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn fault_serving_secret() -> Result<()> {
    let turn = Turn::take().await?;
    let operator = &turn.operator;
    let global = Ns::cluster(operator.client().clone());
    turn.node().namespace("secret-faults", json!({"kagenti-enabled": "true"})).await?;
    let replicas = release::lives(&release::pods(operator, "authbridge-webhook").await?);
    let before = operator.get(kinds::SECRET, SERVING).await?;
    let traffic = Traffic::start(turn.cluster(), "secret-faults").await?;

    operator.delete(kinds::SECRET, SERVING).await?;
    healed(operator, &before, "deleted").await?;
    let name = "kagenti-operator-kagenti-operator-chart-webhook-service.kagenti-system.svc";
    let spoilt = [
        ("expired", expired(name)?),
        ("key of another certificate", data(&[("tls.key", KeyPair::generate()?.serialize_pem())])),
        ("no certificate at all", data(&[("tls.crt", "rubbish".to_owned())])),
        ("without its authority", json!({"ca.crt": null})),
    ];
    for (fault, data) in spoilt {
        operator.patch(kinds::SECRET, SERVING, json!({"data": data})).await?;
        healed(operator, &before, fault).await?;
        greet(&global).await.with_context(|| format!("{fault}: a new connection"))?;
    }
    traffic.goes_on(20).await?;
    let sum = traffic.finish().await?;
    eprintln!("{sum}");
    let now = release::lives(&release::pods(operator, "authbridge-webhook").await?);
    assert_eq!(now, replicas, "nothing was restarted");
    // The Lease may have moved meanwhile, and with it who repairs.
    let mut logs = String::new();
    for pod in now.keys() {
        logs += &turn.cluster().kubectl(["logs", "--namespace", operator.name(), pod]).await?;
    }
    let told = logs.matches("put the lost serving certificate back").count();
    ensure!(told >= 5, "the logs tell of {told} repairs, not of five:\n{logs}");
    wait_for(secs(30), "every replica to be ready", async || {
        let pods = release::pods(operator, "authbridge-webhook").await?;
        Ok(pods.iter().all(|pod| pod.condition("Ready").status == "True").then_some(()))
    })
    .await
}
