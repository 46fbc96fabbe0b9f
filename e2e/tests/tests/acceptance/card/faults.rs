//! Documents, bundles and clocks that are against us: a wrong "verified" must never come of it.

use std::net::TcpListener;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::{AgentServer, Answer, Json as _, kinds, objects, secs};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

use super::bare::{Timeline, Verified, auto, bundle, document, ready_agent, set_bundle};
use super::fixture::{agent, card};

const LABEL: &str = "/spec/template/metadata/labels/agent.kagenti.dev~1signature-verified";
const VERIFIED: &str = "True/SignatureVerified";

fn strict(agent: &str) -> objects::Object {
    objects::named(kinds::AGENT_CARD, &auto(agent)).spec(json!({
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": agent},
        "identityBinding": {"strict": true},
    }))
}

fn account(workload: objects::Object, name: &str) -> objects::Object {
    workload.pod_spec(json!({"serviceAccountName": name}))
}

/// An agent serves the signed card of another one. Both are in namespace `demo`, as the signature says.
#[tokio::test]
async fn fault_card_replayed_from_another_agent() -> Result<()> {
    let stage = Verified::new("demo", &["--identity-binding-scope=ServiceAccount"]).await?;
    let ns = &stage.ns;
    let timeline = Timeline::start(ns).await?;
    let cluster = stage.suite.cluster();
    let original = AgentServer::with_card(cluster, 8000, document("es256-legacy"))?;
    let thief = AgentServer::with_card(cluster, 8000, document("es256-legacy"))?;
    for name in ["echo", "thief"] {
        ns.create(strict(name)).await?;
    }
    ready_agent(ns, account(agent("echo"), "echo-sa"), &original).await?;
    ready_agent(ns, account(agent("thief"), "thief-sa"), &thief).await?;
    stage.until("echo", "Verified", VERIFIED).await?;
    stage.until("echo", "Bound", "True/Bound").await?;
    let refused = stage.until("thief", "Verified", "False/NotVerified").await?;
    assert_eq!(refused.condition("Bound").short(), "False/NotBound");
    let message = refused.condition("Bound").message;
    ensure!(message.contains("echo-sa") && message.contains("thief-sa"), "{message}");
    assert_eq!(refused.condition("Ready").status, "False");
    assert_eq!(refused["status"]["signatureIdentityMatch"], false);
    // The same from a ConfigMap.
    let data = json!({"agent-card.json": document("es256-legacy").to_string()});
    let map = objects::config_map("thief-card-signed", data).label("kagenti.io/card-signed", "true");
    ns.create(map).await?;
    ns.until(secs(15), kinds::AGENT_CARD, &auto("thief"), "the other source", |card| {
        card.text("/status/cardSource") == "ConfigMap"
    })
    .await?;
    let labelled = |object: &Value| object.pointer(LABEL) == Some(&json!("true"));
    ns.until(secs(10), kinds::DEPLOYMENT, "echo", "the label", labelled).await?;
    ns.holds(secs(3), kinds::DEPLOYMENT, "thief", "no label", |object| !labelled(object)).await?;
    timeline.never_verified(&auto("thief"));
    Ok(())
}

/// A listener that nobody should call; a call waits in its queue until it is looked at.
struct Bait(TcpListener);

impl Bait {
    fn new(listener: TcpListener) -> Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    fn url(&self, path: &str) -> Result<String> {
        Ok(format!("http://{}/{path}", self.0.local_addr()?))
    }

    fn untouched(&self) -> Result<()> {
        match self.0.accept() {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error).context("looking for a call"),
            Ok((_, from)) => anyhow::bail!("{from} called"),
        }
    }
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Whatever a card points at, only the agent's own address is called.
#[tokio::test]
async fn fault_card_pointers_lead_nowhere() -> Result<()> {
    let stage = Verified::new("fault-card-pointers", &[]).await?;
    let bait = Bait::new(stage.suite.cluster().listen(8000)?)?;
    let timeline = Timeline::start(&stage.ns).await?;
    let keys = bait.url("jwks.json")?;
    let good = document("es256-legacy");
    let genuine: Value = serde_json::from_slice(
        &URL_SAFE_NO_PAD.decode(good.text("/signatures/0/protected")).context("a header")?,
    )?;
    let x5c = &genuine["x5c"];
    let headers = [
        json!({"alg": "ES256", "typ": "JOSE", "kid": keys, "jku": keys, "x5u": keys}),
        json!({"alg": "ES256", "typ": "JOSE", "kid": keys, "jku": keys, "x5u": keys, "x5c": x5c}),
        json!({"alg": "ES256", "typ": "JOSE", "kid": "k", "x5c": [keys]}),
        json!({"alg": "ES256", "typ": "JOSE", "kid": "k", "x5c": keys}),
        json!({"alg": "ES256", "typ": "JOSE", "kid": "k", "jwk": {"kty": "EC", "x5u": keys}, "crit": ["jku"], "jku": keys}),
    ];
    let signature = &good["signatures"][0]["signature"];
    let mut pointing = card("pointing");
    let members = json!({
        "url": bait.url("")?,
        "iconUrl": bait.url("icon.png")?,
        "documentationUrl": bait.url("docs")?,
        "provider": {"organization": "bait", "url": bait.url("provider")?},
        "additionalInterfaces": [{"url": bait.url("other")?, "transport": "JSONRPC"}],
        "supportsAuthenticatedExtendedCard": true,
        "signatures": headers
            .iter()
            .map(|header| json!({"protected": encoded(header), "signature": signature,
                "header": {"jku": keys, "kid": keys, "x5u": keys, "x5c": x5c}}))
            .collect::<Vec<_>>(),
    });
    for (name, value) in members.as_object().into_iter().flatten() {
        pointing[name] = value.clone();
    }
    let server = stage.agent("pointing", pointing).await?;
    // A genuine card whose address was changed to another place.
    let mut moved = good.clone();
    moved["url"] = json!(bait.url("")?);
    let other = stage.agent("moved", moved).await?;
    let refused = stage.until("pointing", "Verified", "False/SignatureInvalid").await?;
    stage.until("moved", "Verified", "False/SignatureInvalid").await?;
    let own = "http://pointing.fault-card-pointers.svc.cluster.local:8000";
    assert!([own, ""].contains(&refused.text("/status/card/url")), "{}", refused.readable());
    for server in [&server, &other] {
        let asked = server.requests().len();
        e2e::poll(secs(10), async || Ok((server.requests().len() >= asked + 3).then_some(()))).await?;
    }
    bait.untouched()?;
    for name in ["pointing", "moved"] {
        timeline.never_verified(&auto(name));
    }
    Ok(())
}

/// A bundle that is gone, empty or broken says nothing about anybody; another one does.
#[tokio::test]
async fn fault_card_trust_bundle_comes_and_goes() -> Result<()> {
    let stage = Verified::new("fault-card-bundle", &[]).await?;
    let (ns, good) = (&stage.ns, bundle("spiffe-json"));
    let timeline = Timeline::start(ns).await?;
    let _echo = stage.agent("echo", document("es256-legacy")).await?;
    let _forged = stage.agent("forged", document("unknown-ca-same-subject")).await?;
    stage.until("echo", "Verified", VERIFIED).await?;
    stage.until("forged", "Verified", "False/SignatureInvalid").await?;
    let unchanged = async |what: &str| {
        // Several periods, each with a fetch.
        for (name, wanted) in [("echo", VERIFIED), ("forged", "False/SignatureInvalid")] {
            ns.holds(secs(3), kinds::AGENT_CARD, &auto(name), what, |card| {
                card.condition("Verified").short() == wanted
            })
            .await?;
        }
        anyhow::Ok(())
    };
    for text in [
        "",
        "{\"keys\": []}",
        "{\"keys\": [",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        set_bundle(ns, text).await?;
        unchanged(&format!("the verdict with the bundle {text:?}")).await?;
    }
    ns.delete(kinds::CONFIG_MAP, "spire-bundle").await?;
    unchanged("the verdict without a bundle").await?;

    // The same for a process that never saw a bundle; what is new is not known yet.
    stage.process.kill9().await?;
    stage.process.restart().await?;
    let _late = stage.agent("late", document("es256-legacy")).await?;
    let _late_forged = stage.agent("late-forged", document("unknown-ca-same-subject")).await?;
    let late = stage.until("late", "Verified", "Unknown/Pending").await?;
    ensure!(late.condition("Verified").message.contains("spire-bundle"), "{}", late.readable());
    stage.until("late-forged", "Verified", "Unknown/Pending").await?;
    unchanged("the verdict of a new process without a bundle").await?;

    // Replaced while cards are being verified: good and broken take turns, faster than the period.
    for turn in 0..30 {
        set_bundle(ns, if turn % 2 == 0 { good.as_str() } else { "broken" }).await?;
        tokio::time::sleep(std::time::Duration::from_millis(70)).await;
    }
    for name in ["echo", "late"] {
        stage.until(name, "Verified", VERIFIED).await?;
    }
    for name in ["forged", "late-forged"] {
        stage.until(name, "Verified", "False/SignatureInvalid").await?;
    }
    // The watch tells what the reads above have seen, in its own time.
    e2e::poll(secs(20), async || {
        Ok((timeline.verdicts(&auto("echo")).last().map(String::as_str) == Some(VERIFIED)).then_some(()))
    })
    .await?;
    let flips = timeline.verdicts(&auto("echo"));
    assert!(!flips.iter().any(|verdict| verdict.starts_with("False")), "{flips:?}");

    // Another authority is a fact, not a failure to find out.
    set_bundle(ns, &bundle("after-rotation")).await?;
    for name in ["echo", "late"] {
        stage.until(name, "Verified", "False/SignatureInvalid").await?;
    }
    set_bundle(ns, &good).await?;
    for name in ["echo", "late"] {
        stage.until(name, "Verified", VERIFIED).await?;
    }
    for name in ["forged", "late-forged"] {
        timeline.never_verified(&auto(name));
    }
    Ok(())
}

/// A card signed by an identity that is valid from some minutes from now, and the bundle that vouches for it.
async fn of_the_future(minutes: i64) -> Result<(Value, String)> {
    let uri = |text: &str| anyhow::Ok(SanType::URI(text.try_into()?));
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    root.subject_alt_names = vec![uri("spiffe://dev.cluster.local")?];
    root.distinguished_name.push(DnType::CommonName, "test");
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::default();
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.subject_alt_names = vec![uri("spiffe://dev.cluster.local/ns/demo/sa/echo-sa")?];
    let from = std::time::SystemTime::now() + secs(60) * u32::try_from(minutes)?;
    leaf.not_before = from.into();
    leaf.not_after = (from + secs(3600)).into();
    let leaf = leaf.signed_by(&key, &root)?;

    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("svid.pem"), leaf.pem())?;
    std::fs::write(path("svid_key.pem"), key.serialize_pem())?;
    std::fs::write(path("agent.json"), card("echo").to_string())?;
    let settings = agentcard_signer::Settings::from_variables(|name| match name {
        "SVID_CERT_PATH" => Some(path("svid.pem")),
        "SVID_KEY_PATH" => Some(path("svid_key.pem")),
        "UNSIGNED_CARD_PATH" => Some(path("agent.json")),
        "AGENT_CARD_PATH" => Some(path("signed.json")),
        _ => None,
    })?;
    agentcard_signer::run(&settings, || agentcard_signer::KubeApi::in_pod(|_| None)).await;
    let signed = std::fs::read_to_string(path("signed.json")).context("the signed card")?;
    Ok((serde_json::from_str(&signed)?, root.pem()))
}

/// The clock of the signer is ten minutes ahead.
#[tokio::test]
async fn fault_card_clock_skew() -> Result<()> {
    let (signed, root) = Box::pin(of_the_future(10)).await?;
    let stage = Verified::new("fault-card-skew", &[]).await?;
    set_bundle(&stage.ns, &root).await?;
    let timeline = Timeline::start(&stage.ns).await?;
    let server = stage.agent("echo", signed.clone()).await?;
    let refused = stage.until("echo", "Verified", "False/SignatureInvalid").await?;
    let details = refused.text("/status/signatureVerificationDetails");
    ensure!(details.contains("not_yet_valid"), "{}", refused.readable());
    timeline.never_verified(&auto("echo"));

    stage.process.kill9().await?;
    stage.process.restart_with(&["--clock-skew=11m".to_owned()]).await?;
    stage.process.wait_ready(secs(30)).await?;
    stage.until("echo", "Verified", VERIFIED).await?;
    // And not for any other reason: a changed card is refused still.
    let mut changed = signed;
    changed["version"] = json!("6.6.6");
    server.say(move |_| Answer::json(&changed));
    stage.until("echo", "Verified", "False/SignatureInvalid").await.map(drop)
}
