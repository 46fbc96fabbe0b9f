//! Verified fetch (card §7): agents that prove who they are, and those that do not.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::group::Shared;
use e2e::svid::{Authority, Identity, SvidDirectory};
use e2e::{AgentServer, Answer, Json as _, Ns, kinds, objects, poll, secs};
use local_cluster::Component;
use rustls::ServerConfig;
use scripted_workload_api::Server as WorkloadApi;
use serde_json::{Value, json};

use super::bare::{Timeline, auto, cluster, set_ready};
use super::fixture::{CARD_CTL, agent, card, start};

const DOMAIN: &str = "example.org";
const MTLS: &str = "True/mTLSVerified";
const UNTRUSTED: &str = "False/PeerUntrusted";
const LABEL: &str = "agent.kagenti.dev/signature-verified";
/// A busy machine may take as long for what takes a second; files are looked at every ten.
const LIMIT: std::time::Duration = secs(45);

/// Flags that turn verified fetch on and let a test see several periods.
const FLAGS: [&str; 5] = [
    "--enable-verified-fetch=true",
    "--spire-trust-domain=example.org",
    "--min-sync-period=1s",
    "--max-sync-period=1s",
    "--resign-qps=0",
];

/// An agent with a Service that has both ports. Nobody may ask it in the clear.
struct Agent {
    tls: AgentServer,
    plain: AgentServer,
}

impl Agent {
    fn untouched_in_the_clear(&self) {
        assert_eq!(self.plain.requests(), [] as [&str; 0], "nothing is asked in the clear");
    }

    /// Waits until the card was asked for again, `times` times.
    async fn asked_again(&self, times: usize) -> Result<()> {
        let before = self.tls.requests().len();
        poll(LIMIT, async || Ok((self.tls.requests().len() >= before + times).then_some(()))).await
    }
}

/// The API server, a namespace, an authority, and a card-ctl with an SVID of it.
struct Stage {
    suite: Shared,
    ns: Ns,
    process: Component,
    authority: Authority,
    files: SvidDirectory,
    own: Identity,
}

impl Stage {
    /// Card-ctl has its SVID from the start.
    async fn new(namespace: &str, flags: &[&str]) -> Result<Self> {
        let files = SvidDirectory::new()?;
        let authority = Authority::new(DOMAIN)?;
        let own = authority.issue("/ns/kagenti-system/sa/card-ctl")?;
        files.write(&own, &[&authority])?;
        Self::with(namespace, flags, files, authority, own).await
    }

    async fn with(
        namespace: &str,
        flags: &[&str],
        files: SvidDirectory,
        authority: Authority,
        own: Identity,
    ) -> Result<Self> {
        let suite = cluster().await?;
        let ns = suite.namespace(namespace, Value::Null).await?;
        let svid = files.flags();
        let mut all: Vec<&str> = FLAGS.to_vec();
        all.extend(svid.iter().map(String::as_str).chain(flags.iter().copied()));
        let process = start(&suite, namespace, &all).await?;
        Ok(Self { suite, ns, process, authority, files, own })
    }

    /// The identity of ServiceAccount `<name>-sa` in the namespace.
    fn identity(&self, name: &str) -> Result<Identity> {
        self.authority.issue(&format!("/ns/{}/sa/{name}-sa", self.ns.name()))
    }

    /// A ready agent that proves an identity to clients of the authority.
    async fn agent(&self, name: &str, identity: &Identity) -> Result<Agent> {
        let agent = servers(&self.suite, name, identity.server(&[&self.authority])?)?;
        deploy(&self.ns, name, &agent).await?;
        Ok(agent)
    }

    async fn until(&self, agent: &str, condition: &str, short: &str) -> Result<Value> {
        until(&self.ns, &self.process, agent, condition, short).await
    }
}

fn servers(suite: &Shared, name: &str, tls: Arc<ServerConfig>) -> Result<Agent> {
    let (shown, lured) = (card(name), card("asked in the clear"));
    let tls = AgentServer::start_tls(suite.cluster(), 8443, tls, move |_| Answer::json(&shown))?;
    let plain = tls.beside(suite.cluster(), 8000, move |_| Answer::json(&lured))?;
    Ok(Agent { tls, plain })
}

/// Service, EndpointSlice, strictly bound card and a ready Deployment.
async fn deploy(ns: &Ns, name: &str, agent_of: &Agent) -> Result<()> {
    let ports = json!([{"name": "a2a", "port": 8000}, {"name": "agent-tls", "port": 8443}]);
    ns.create(objects::named(kinds::SERVICE, name).spec(json!({"ports": ports}))).await?;
    let slice =
        objects::named(kinds::ENDPOINT_SLICE, name).label("kubernetes.io/service-name", name).with(json!({
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [{
                "addresses": [agent_of.tls.address().ip().to_string()], "conditions": {"ready": true},
            }],
        }));
    ns.create(slice).await?;
    ns.create(objects::named(kinds::AGENT_CARD, &auto(name)).spec(json!({
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "identityBinding": {"strict": true, "scope": "ServiceAccount"},
    })))
    .await?;
    ns.create(agent(name).pod_spec(json!({"serviceAccountName": format!("{name}-sa")}))).await?;
    set_ready(ns, name, true).await
}

async fn until(ns: &Ns, process: &Component, agent: &str, condition: &str, short: &str) -> Result<Value> {
    let what = format!("{condition} {short}");
    ns.until(LIMIT, kinds::AGENT_CARD, &auto(agent), &what, |card| card.condition(condition).short() == short)
        .await
        .with_context(|| format!("the log of {CARD_CTL} ends with:\n{}", process.log_tail()))
}

/// Two changes of a template that may wait are a minute apart (card §11.2).
async fn until_labelled(ns: &Ns, name: &str, labelled: bool) -> Result<Value> {
    let what = if labelled { "the label" } else { "no label" };
    ns.until(LIMIT * 2, kinds::DEPLOYMENT, name, what, |workload| {
        workload.template_label(LABEL) == labelled.then_some("true")
    })
    .await
}

/// Before there is a workload the verdict is another one.
fn kept_since_the_first_verdict(timeline: &Timeline) -> Result<()> {
    let verdicts = timeline.verdicts(&auto("echo"));
    let since: Vec<&String> = verdicts.iter().skip_while(|verdict| *verdict != MTLS).collect();
    ensure!(since == [MTLS], "{verdicts:?}");
    Ok(())
}

/// The identity of the TLS peer is attested, shown and bound; the ConfigMap and the plain port count for nothing.
#[tokio::test]
async fn card_mtls_attested() -> Result<()> {
    let stage = Stage::new("card-mtls", &[]).await?;
    let (ns, identity) = (&stage.ns, stage.identity("echo")?);
    let other = json!({"agent-card.json": card("from a ConfigMap").to_string()});
    ns.create(objects::config_map("echo-card-signed", other).label("kagenti.io/card-signed", "true")).await?;
    ns.create(objects::agent_runtime("echo", "echo")).await?;
    let agent = stage.agent("echo", &identity).await?;
    let verified = stage.until("echo", "Verified", MTLS).await?;
    let status = &verified["status"];
    assert_eq!(status.text("/cardSource"), "MTLS");
    assert_eq!(status.text("/attestedAgentSpiffeId"), identity.id());
    assert_eq!(status.text("/expectedSpiffeID"), identity.id());
    assert_eq!(status["signatureIdentityMatch"], true);
    assert_eq!(status.text("/card/name"), "echo");
    assert_eq!(status.text("/card/url"), "http://echo.card-mtls.svc.cluster.local:8000", "the plain address");
    assert_eq!(verified.condition("Bound").short(), "True/Bound");
    assert_eq!(verified.condition("Synced").short(), "True/SyncSucceeded");
    assert_eq!(verified.condition("Ready").short(), "True/ReadyToServe");
    assert_eq!(verified.condition("SignatureVerified").short(), "/", "signatures are not required");
    until_labelled(ns, "echo", true).await?;
    let runtime = ns
        .until(LIMIT, kinds::AGENT_RUNTIME, "echo", "its card", |runtime| {
            runtime.text("/status/card/transportSecurity") == "mtls"
        })
        .await?;
    assert_eq!(runtime.text("/status/card/attestedAgentSpiffeID"), identity.id());
    agent.untouched_in_the_clear();
    let seen = agent.tls.seen();
    let first = seen.first().context("a request")?;
    assert_eq!(first.client.as_deref(), Some(stage.own.leaf().as_ref()), "card-ctl shows its own SVID");
    assert_eq!(first.host, "echo.card-mtls.svc.cluster.local:8443");
    let table = stage.suite.cluster().kubectl(["-n", "card-mtls", "get", "cards", "-o", "wide"]).await?;
    ensure!(table.contains(identity.id()), "{table}");
    Ok(())
}

/// Who is not a workload of the trust domain is refused at once, also one that was trusted a moment ago.
#[tokio::test]
async fn card_mtls_untrusted_peer() -> Result<()> {
    let stage = Stage::new("card-mtls-untrusted", &[]).await?;
    let ns = &stage.ns;
    let timeline = Timeline::start(ns).await?;
    let impostor = Authority::new(DOMAIN)?.issue(&format!("/ns/{}/sa/turned-sa", ns.name()))?;
    let foreign = stage.authority.issue_id("spiffe://other.org/ns/card-mtls-untrusted/sa/foreign-sa")?;
    let chain = stage.agent("chain", &impostor).await?;
    let domain = stage.agent("domain", &foreign).await?;
    let turned = stage.agent("turned", &stage.identity("turned")?).await?;
    for (name, agent, word) in [("chain", &chain, "trust bundle"), ("domain", &domain, "trust domain")] {
        let refused = stage.until(name, "Verified", UNTRUSTED).await?;
        let synced = refused.condition("Synced");
        assert_eq!(synced.short(), "False/FetchFailed");
        ensure!(synced.message.contains(word), "{}", synced.message);
        assert_eq!(refused.condition("Ready").status, "False");
        assert_eq!(refused.condition("Bound").short(), "False/NotBound");
        assert_eq!(refused["status"]["card"], Value::Null, "what nobody vouches for is not shown");
        assert_eq!(refused["status"]["attestedAgentSpiffeId"], Value::Null);
        assert_eq!(agent.tls.requests(), [] as [&str; 0], "no request is sent to such a peer");
        agent.untouched_in_the_clear();
    }
    stage.until("turned", "Verified", MTLS).await?;
    until_labelled(ns, "turned", true).await?;
    turned.tls.present(impostor.server(&[&stage.authority])?);
    let refused = stage.until("turned", "Verified", UNTRUSTED).await?;
    assert_eq!(refused["status"]["attestedAgentSpiffeId"], Value::Null);
    until_labelled(ns, "turned", false).await?;
    turned.tls.present(stage.identity("turned")?.server(&[&stage.authority])?);
    // A failure is retried after a minute; a change of the Service does not wait for that.
    ns.annotate(kinds::SERVICE, "turned", json!({"kagenti.io/port": "8000"})).await?;
    stage.until("turned", "Verified", MTLS).await?;
    until_labelled(ns, "turned", true).await?;
    turned.untouched_in_the_clear();
    timeline.never_verified(&auto("chain"));
    timeline.never_verified(&auto("domain"));
    Ok(())
}

/// A peer that cannot be asked is no other peer: the verdict and the label stay (card §10.3).
#[tokio::test]
async fn card_mtls_transport_failure_keeps_trust() -> Result<()> {
    let stage = Stage::new("card-mtls-transport", &[]).await?;
    let (ns, identity) = (&stage.ns, stage.identity("echo")?);
    let timeline = Timeline::start(ns).await?;
    let agent = stage.agent("echo", &identity).await?;
    stage.until("echo", "Verified", MTLS).await?;
    until_labelled(ns, "echo", true).await?;
    let kept = |lost: &Value| {
        assert_eq!(lost.condition("Verified").short(), MTLS);
        assert_eq!(lost.text("/status/attestedAgentSpiffeId"), identity.id());
        assert_eq!(lost.text("/status/card/name"), "echo");
    };
    agent.tls.say(|_| Answer::status(503));
    kept(&stage.until("echo", "Synced", "False/FetchFailed").await?);
    agent.tls.say(|_| Answer::json(&card("echo")));
    ns.annotate(kinds::SERVICE, "echo", json!({"kagenti.io/port": "8000"})).await?;
    stage.until("echo", "Synced", "True/SyncSucceeded").await?;
    // It demands a client of another authority: the handshake fails, and says nothing about the peer.
    agent.tls.present(identity.server(&[&Authority::new(DOMAIN)?])?);
    kept(&stage.until("echo", "Synced", "False/FetchFailed").await?);
    agent.tls.present(identity.server(&[&stage.authority])?);
    ns.annotate(kinds::SERVICE, "echo", json!({"kagenti.io/port": null})).await?;
    stage.until("echo", "Synced", "True/SyncSucceeded").await?;
    agent.untouched_in_the_clear();
    // Nobody listens any more.
    drop(agent.tls);
    kept(&stage.until("echo", "Synced", "False/FetchFailed").await?);
    let workload = ns.get(kinds::DEPLOYMENT, "echo").await?;
    assert_eq!(workload.template_label(LABEL), Some("true"));
    kept_since_the_first_verdict(&timeline)?;
    Ok(())
}

/// `--verified-fetch-required`, and a controller whose SVID is not there yet: nothing is asked in the clear.
#[tokio::test]
async fn card_mtls_required() -> Result<()> {
    let (files, authority) = (SvidDirectory::new()?, Authority::new(DOMAIN)?);
    let own = authority.issue("/ns/kagenti-system/sa/card-ctl")?;
    let flags = ["--verified-fetch-required"];
    let stage = Stage::with("card-mtls-required", &flags, files, authority, own).await?;
    let ns = &stage.ns;
    let agent = stage.agent("echo", &stage.identity("echo")?).await?;
    let waiting = stage.until("echo", "Synced", "False/FetchFailed").await?;
    ensure!(waiting.condition("Synced").message.contains("no SVID"), "{}", waiting.readable());
    assert_eq!(waiting.condition("Verified").status, "Unknown");
    assert_eq!(agent.tls.requests(), [] as [&str; 0]);

    let plain = stage.agent("plain", &stage.identity("plain")?).await?;
    ns.patch(kinds::SERVICE, "plain", json!({"spec": {"ports": [{"name": "a2a", "port": 8000}]}})).await?;
    let what = "a word about the missing port";
    let refused = ns
        .until(LIMIT, kinds::AGENT_CARD, &auto("plain"), what, |card| {
            card.condition("Synced").message.contains("agent-tls")
        })
        .await?;
    assert_eq!(refused.condition("Synced").short(), "False/FetchFailed");
    assert_eq!(refused.condition("Verified").status, "Unknown");

    // The SVID arrives, and nobody restarts anything.
    stage.files.write(&stage.own, &[&stage.authority])?;
    stage.until("echo", "Verified", MTLS).await?;
    agent.untouched_in_the_clear();
    plain.untouched_in_the_clear();
    assert_eq!(plain.tls.requests(), [] as [&str; 0]);
    Ok(())
}

/// Without the port for it, verified fetch falls back to HTTP, says so, and calls nobody verified (card §6.4).
#[tokio::test]
async fn card_mtls_fallback() -> Result<()> {
    let stage = Stage::new("card-mtls-fallback", &[]).await?;
    let ns = &stage.ns;
    let timeline = Timeline::start(ns).await?;
    let server = AgentServer::with_card(stage.suite.cluster(), 8000, card("echo"))?;
    super::bare::ready_agent(ns, agent("echo"), &server).await?;
    let fetched = stage.until("echo", "Synced", "True/SyncSucceeded").await?;
    assert_eq!(fetched.text("/status/cardSource"), "HTTP");
    assert_eq!(fetched.condition("Verified").short(), "False/NotVerified");
    assert_eq!(fetched.condition("Bound").short(), "False/NotBound");
    let event = ns.until_event(LIMIT, &auto("echo"), "FallbackToHTTP").await?;
    assert_eq!(event.text("/type"), "Warning");
    // Once, however often it happens.
    let asked = server.requests().len();
    poll(LIMIT, async || Ok((server.requests().len() >= asked + 3).then_some(()))).await?;
    assert_eq!(ns.events(&auto("echo"), "FallbackToHTTP").await?.len(), 1);
    timeline.never_verified(&auto("echo"));
    Ok(())
}

/// A renewed SVID is shown from the next handshake on, and a new root believed, without a restart.
#[tokio::test]
async fn card_mtls_rotation() -> Result<()> {
    let stage = Stage::new("card-mtls-rotation", &[]).await?;
    let (pid, timeline) = (stage.process.pid(), Timeline::start(&stage.ns).await?);
    let agent = stage.agent("echo", &stage.identity("echo")?).await?;
    stage.until("echo", "Verified", MTLS).await?;
    let shows = async |own: &Identity| {
        let shown = || agent.tls.seen().last().and_then(|request| request.client.clone());
        poll(LIMIT, async || Ok((shown().as_deref() == Some(own.leaf().as_ref())).then_some(()))).await
    };
    shows(&stage.own).await?;
    let renewed = stage.authority.issue("/ns/kagenti-system/sa/card-ctl")?;
    stage.files.write(&renewed, &[&stage.authority])?;
    shows(&renewed).await?;

    // Both roots, then agents of the new one, then the old root goes.
    let next = Authority::new(DOMAIN)?;
    let both = stage.authority.issue("/ns/kagenti-system/sa/card-ctl")?;
    stage.files.write(&both, &[&stage.authority, &next])?;
    shows(&both).await?;
    let of_next = next.issue("/ns/card-mtls-rotation/sa/echo-sa")?;
    agent.tls.present(of_next.server(&[&stage.authority, &next])?);
    agent.asked_again(2).await?;
    let last = next.issue("/ns/kagenti-system/sa/card-ctl")?;
    stage.files.write(&last, &[&next])?;
    shows(&last).await?;
    let card = stage.until("echo", "Verified", MTLS).await?;
    assert_eq!(card.text("/status/attestedAgentSpiffeId"), of_next.id());
    kept_since_the_first_verdict(&timeline)?;
    // And an agent of the old root is one of nobody.
    agent.tls.present(stage.identity("echo")?.server(&[&next])?);
    stage.until("echo", "Verified", UNTRUSTED).await?;
    assert_eq!(stage.process.pid(), pid);
    ensure!(stage.process.is_running(), "{}", stage.process.log_tail());
    agent.untouched_in_the_clear();
    Ok(())
}

/// Card scenario 12 under mTLS: strict binding judges the attested identity.
#[tokio::test]
async fn card_12_strict_binding_mtls() -> Result<()> {
    let stage = Stage::new("card-12-mtls", &[]).await?;
    let ns = &stage.ns;
    let agent = stage.agent("echo", &stage.identity("echo")?).await?;
    let bind = async |binding: Value| {
        ns.set_spec(kinds::AGENT_CARD, &auto("echo"), json!({"identityBinding": binding})).await
    };
    stage.until("echo", "Bound", "True/Bound").await?;
    stage.until("echo", "Verified", MTLS).await?;
    until_labelled(ns, "echo", true).await?;

    bind(json!({"trustDomain": "other.example"})).await?;
    let refused = stage.until("echo", "Verified", "False/NotVerified").await?;
    assert_eq!(refused.condition("Bound").short(), "False/NotBound");
    assert_eq!(refused["status"]["signatureIdentityMatch"], false);
    let message = refused.condition("Bound").message;
    ensure!(message.contains("other.example") && message.contains("spiffe://example.org/"), "{message}");
    let workload = until_labelled(ns, "echo", false).await?;
    let recorded = workload.annotation("verified-state.agent.kagenti.dev/echo-deployment-card");
    assert_eq!(recorded, Some("false"));

    bind(json!({"strict": false})).await?;
    stage.until("echo", "Verified", MTLS).await?;
    stage.until("echo", "Bound", "False/NotBound").await?;
    until_labelled(ns, "echo", true).await?;

    bind(json!({"trustDomain": null, "strict": true})).await?;
    stage.until("echo", "Bound", "True/Bound").await?;
    stage.until("echo", "Verified", MTLS).await?;

    // Scope ServiceAccount: a neighbour in the namespace serves the card, with an identity as good as any.
    let timeline = Timeline::start(ns).await?;
    let thief = stage.agent("thief", &stage.identity("echo")?).await?;
    let refused = stage.until("thief", "Verified", "False/NotVerified").await?;
    let message = refused.condition("Bound").message;
    ensure!(message.contains("echo-sa") && message.contains("thief-sa"), "{message}");
    assert_eq!(refused["status"]["bindingStatus"]["bound"], false);
    timeline.never_verified(&auto("thief"));
    agent.untouched_in_the_clear();
    thief.untouched_in_the_clear();
    Ok(())
}

/// The SVID comes over the Workload API: before that cards are fetched in the clear, afterwards never again, not even
/// by a process that has none yet (card §7).
#[tokio::test]
async fn card_mtls_workload_api() -> Result<()> {
    let (directory, authority) = (tempfile::tempdir()?, Authority::new(DOMAIN)?);
    let (socket, namespace) = (directory.path().join("api.sock"), "card-mtls-api");
    let (suite, socket_flag) =
        (cluster().await?, format!("--verified-fetch-spiffe-socket=unix://{}", socket.display()));
    let ns = suite.namespace(namespace, Value::Null).await?;
    let mut flags: Vec<&str> = FLAGS.to_vec();
    // The SVID tells the trust domain, too.
    flags.extend([socket_flag.as_str(), "--spire-trust-domain="]);
    let process = start(&suite, namespace, &flags).await?;
    let identity = authority.issue("/ns/card-mtls-api/sa/echo-sa")?;
    let agent = servers(&suite, "echo", identity.server(&[&authority])?)?;
    deploy(&ns, "echo", &agent).await?;
    let fetched = until(&ns, &process, "echo", "Synced", "True/SyncSucceeded").await?;
    assert_eq!(fetched.text("/status/cardSource"), "HTTP");
    assert_eq!(fetched.condition("Verified").short(), "/", "no mechanism is on yet");
    let gauge = async |process: &Component| anyhow::Ok(process.metrics_text().await?);
    ensure!(gauge(&process).await?.contains("kagenti_svid_source_ready 0"));

    let own = authority.issue("/ns/kagenti-system/sa/card-ctl")?;
    let api = WorkloadApi::start_at(&socket, authority.answer(&own));
    // The socket is tried again at least every 30 s.
    let verified = |card: &Value| card.condition("Verified").short() == MTLS;
    ns.until(LIMIT * 2, kinds::AGENT_CARD, &auto("echo"), "the verdict", verified)
        .await
        .with_context(|| process.log_tail())?;
    ensure!(api.saw_only_the_mandatory_header());
    poll(LIMIT, async || Ok(gauge(&process).await?.contains("kagenti_svid_source_ready 1").then_some(())))
        .await?;
    let renewed = authority.issue("/ns/kagenti-system/sa/card-ctl")?;
    api.push(authority.answer(&renewed));
    poll(LIMIT, async || {
        let shown = agent.tls.seen().last().and_then(|request| request.client.clone());
        Ok((shown.as_deref() == Some(renewed.leaf().as_ref())).then_some(()))
    })
    .await?;

    // A new process waits for its SVID a moment, and finds nothing to write (card §19).
    process.kill9().await?;
    let (mark, asked) = (suite.cluster().audit()?.mark()?, agent.tls.requests().len());
    process.restart().await?;
    poll(LIMIT, async || Ok((agent.tls.requests().len() >= asked + 3).then_some(()))).await?;
    let writes = suite.object_writes(mark, CARD_CTL)?;
    let writes: Vec<_> = writes.iter().filter(|write| write.namespace == namespace).collect();
    ensure!(writes.is_empty(), "{writes:?}");

    // The socket goes, and then the process: the next one has nothing to show, and asks nobody in the clear.
    api.stop().await;
    process.kill9().await?;
    let asked = agent.plain.requests().len();
    process.restart().await?;
    process.wait_ready(secs(60)).await?;
    let held = until(&ns, &process, "echo", "Synced", "False/FetchFailed").await?;
    ensure!(held.condition("Synced").message.contains("no SVID"), "{}", held.readable());
    assert_eq!(held.condition("Verified").short(), MTLS, "kept until it is stale");
    assert_eq!(held.text("/status/attestedAgentSpiffeId"), identity.id());
    ns.holds(secs(3), kinds::AGENT_CARD, &auto("echo"), "the verdict", verified).await?;
    assert_eq!(agent.plain.requests().len(), asked, "nothing is asked in the clear");
    let _api = WorkloadApi::start_at(&socket, authority.answer(&renewed));
    ns.until(LIMIT * 2, kinds::AGENT_CARD, &auto("echo"), "a sync", |card| {
        card.condition("Synced").short() == "True/SyncSucceeded" && verified(card)
    })
    .await
    .with_context(|| process.log_tail())?;
    assert_eq!(agent.plain.requests().len(), asked);
    Ok(())
}
