//! Scenarios 19, 20 and 21: losing a replica, a certificate, the configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::admission::{Admission, PODS, certificates, published};
use e2e::faulty_api::FaultyApi;
use e2e::pod_view::PodView;
use e2e::suite::webhook;
use e2e::{Json as _, Ns, Options, Suite, kinds, secs, wait_for};
use futures::future::try_join_all;
use kube::Client;
use local_cluster::{Relay, access, http};

use super::fixture::{agent, agent_pod, bare, create_pod, dry_run, until_dry_run};

const DEPLOYMENTS: usize = 25;
const REPLICAS: usize = 20;
/// The chapter's five minutes, shortened; the wait itself stays.
const OVERLAP: Duration = secs(4);

#[tokio::test]
async fn webhook_19_one_of_two_replicas_dies() -> Result<()> {
    let replica = |name: &str| webhook().instance(name).args(["--leader-elect"]);
    let options =
        Options::default().without_runtime_ctl().webhook([replica("webhook-a"), replica("webhook-b")]);
    let suite = Suite::own(options).await?;
    let ports = [suite.webhook(0)?.webhook_port()?, suite.webhook(1)?.webhook_port()?];
    let relay = Relay::start(&ports)?;
    suite.cluster().register_webhook(&relay.url(), None).await?;
    let ns = bare(&suite, "team1").await?;
    wait_for(secs(30), "both replicas to be called", async || {
        // At the same time, or one kept-alive connection would serve them all.
        let replies = try_join_all((0..4).map(|_| dry_run(&ns, agent_pod("probe")))).await?;
        let injected = replies.iter().all(|reply| reply.body.container("authbridge-proxy").is_some());
        Ok((injected && ports.iter().all(|port| relay.connections(*port) > 0)).then_some(()))
    })
    .await?;

    let total = i64::try_from(DEPLOYMENTS * REPLICAS)?;
    for number in 0..DEPLOYMENTS {
        ns.create(agent(&format!("agent-{number}")).replicas(i32::try_from(REPLICAS)?)).await?;
    }
    let victim = suite.webhook(0)?;
    wait_for(secs(60), "some Pods to be there", async || Ok((pods_made(&ns).await? >= 20).then_some(())))
        .await?;
    victim.kill9().await?;
    let at_kill = pods_made(&ns).await?;
    ensure!(at_kill < total, "all Pods were there before the replica died; nothing was tested");

    wait_for(secs(120), "all Pods", async || Ok((pods_made(&ns).await? == total).then_some(()))).await?;
    let pods = ns.list(kinds::POD, "kagenti.io/type=agent").await?;
    assert_eq!(pods.len(), DEPLOYMENTS * REPLICAS);
    let without = pods.into_iter().map(PodView::new).filter(|pod| pod.container("authbridge-proxy").is_err());
    assert_eq!(without.map(|pod| pod.name().to_owned()).collect::<Vec<_>>(), Vec::<String>::new());
    Ok(())
}

/// Pods that the ReplicaSets say exist; reading those of thousands of Pods would slow down what is measured.
async fn pods_made(ns: &Ns) -> Result<i64> {
    let sets = ns.list(kinds::REPLICA_SET, "").await?;
    Ok(sets.iter().map(|set| set.number("/status/replicas").unwrap_or_default()).sum())
}

#[tokio::test]
async fn webhook_20_certificates_rotate_under_load() -> Result<()> {
    let overlap = format!("--webhook-ca-overlap={}s", OVERLAP.as_secs());
    let options = Options::default().without_runtime_ctl().webhook([webhook().args([overlap])]);
    let suite = Suite::own(options).await?;
    let ns = bare(&suite, "team1").await?;
    let (global, operator) = (suite.global().await?, suite.operator().await?);
    let port = suite.webhook(0)?.webhook_port()?;
    until_dry_run(&ns, agent_pod("load"), "injection", |reply| {
        reply.body.container("authbridge-proxy").is_some()
    })
    .await?;
    let before = published(&global).await?;

    let stop = Arc::new(AtomicBool::new(false));
    let (admissions, handshakes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let through_the_api_server = {
        let (ns, stop, admissions) = (ns.clone(), stop.clone(), admissions.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let reply = dry_run(&ns, agent_pod("load")).await?;
                ensure!(reply.status == 201, "{} {}", reply.status, reply.message());
                ensure!(reply.body.container("authbridge-proxy").is_some(), "admitted without sidecar");
                admissions.fetch_add(1, Ordering::SeqCst);
            }
            anyhow::Ok(())
        })
    };
    // As an API server that comes up in this moment: the bundle of now, a connection of its own.
    let newcomers = {
        let (global, stop, handshakes) = (global.clone(), stop.clone(), handshakes.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let read = std::time::Instant::now();
                let admission = Admission::new(&global, port).await?;
                let reply = match admission.post(PODS, b"{".to_vec()).await {
                    // What was read longer ago than two bundles overlap is not the bundle of now.
                    Err(_) if read.elapsed() >= OVERLAP => continue,
                    reply => reply.context("a new connection")?,
                };
                ensure!(reply.status == 400, "{} {}", reply.status, reply.message());
                handshakes.fetch_add(1, Ordering::SeqCst);
            }
            anyhow::Ok(())
        })
    };

    let secrets = operator.list(kinds::SECRET, "").await?;
    let authority = secrets.iter().map(e2e::Json::name).find(|name| name.ends_with("-server-cert-ca"));
    let authority = authority.context("no Secret holds the authority")?.to_owned();
    operator.delete(kinds::SECRET, &authority).await?;
    let rotated = wait_for(secs(60), "a leaf of the new authority", async || {
        let bundle = published(&global).await?;
        let old = certificates(&before)?;
        let new: Vec<_> =
            certificates(&bundle)?.into_iter().filter(|certificate| !old.contains(certificate)).collect();
        // Trust only what is new: this works once the leaf has changed, and not before.
        if new.is_empty() {
            return Ok(None);
        }
        let only_new = Admission::trusting(&without(&bundle, &before), port)?;
        Ok(only_new.post(PODS, b"{".to_vec()).await.is_ok().then_some(()))
    })
    .await;
    let so_far = admissions.load(Ordering::SeqCst);
    let went_on = wait_for(secs(30), "admissions after the change", async || {
        Ok((admissions.load(Ordering::SeqCst) >= so_far + 20).then_some(()))
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    through_the_api_server.await?.context("an admission failed while the certificate changed")?;
    newcomers.await?.context("a new connection failed while the certificate changed")?;
    rotated?;
    went_on?;
    ensure!(handshakes.load(Ordering::SeqCst) > 10, "too few new connections to prove anything");
    Ok(())
}

/// The certificates of one PEM text that another one has not got.
fn without(pem: &str, other: &str) -> String {
    let end = "-----END CERTIFICATE-----";
    let parts = pem.split_inclusive(end).map(str::trim).filter(|part| part.ends_with(end));
    parts.filter(|part| !other.contains(part)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn webhook_21_configuration_cannot_be_read() -> Result<()> {
    let suite = Suite::own(Options::default().without_runtime_ctl()).await?;
    let ns = bare(&suite, "team1").await?;
    let ns = impatient(&suite, &ns).await?;
    let component = suite.webhook(0)?;
    component.terminate().await?;
    let faulty = FaultyApi::start(component.kubeconfig(), "configmaps").await?;
    let kubeconfig = std::fs::read_to_string(component.kubeconfig()).context("reading the kubeconfig")?;
    let server = &suite.cluster().info().server;
    ensure!(kubeconfig.contains(server.as_str()), "the kubeconfig names {server}");
    let file = suite.cluster().info().dir.join("faulty.kubeconfig");
    std::fs::write(&file, kubeconfig.replace(server.as_str(), &faulty.url()))
        .context("writing the kubeconfig")?;
    component.restart_with(&[format!("--kubeconfig={}", file.display())]).await?;

    let readyz = format!("{}/readyz", component.probe_url());
    wait_for(secs(30), "reads of ConfigMaps to fail", async || {
        let answers = http::get(&readyz).await.is_ok();
        Ok((faulty.failed() >= 2 && answers).then_some(()))
    })
    .await
    .with_context(|| format!("{} requests failed; the log:\n{}", faulty.failed(), component.log()))?;
    // Never ready and never open for as long as this lasts.
    let started = std::time::Instant::now();
    while started.elapsed() < secs(5) {
        let (status, body) = http::get(&readyz).await?;
        assert_eq!(status.as_u16(), 503, "{body}");
        let reply = ns.post(agent_pod("early")).await?;
        ensure!(reply.status >= 400, "admitted without configuration: {}", reply.body);
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    assert!(ns.find(kinds::POD, "early").await?.is_none());

    faulty.heal();
    let pid = component.pid();
    component.wait_ready(secs(60)).await?;
    let (pod, _) = create_pod(&ns, agent_pod("early")).await?;
    assert!(pod.is_injected());
    assert_eq!((component.pid(), component.is_running()), (pid, true), "by itself");
    // The faulty server was the one it talked to, with its own identity.
    ensure!(
        component.log().contains("configmaps") || component.log().contains("ConfigMap"),
        "the log does not say what failed"
    );
    Ok(())
}

/// The namespace with a client that takes a 503 for an answer, as kubectl does, instead of trying for minutes.
async fn impatient(suite: &Suite, ns: &Ns) -> Result<Ns> {
    let mut config = access::config(suite.cluster().kubeconfig()).await?;
    config.default_retry = false;
    Ok(Ns::new(Client::try_from(config).context("a client")?, ns.name()))
}
