//! Components as processes with their own identity, and the demo that shows them.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{Api, ListParams};
use local_cluster::{Cluster, ClusterOptions, Component, ComponentOptions, Signal};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_component_has_the_rights_it_ships_with_and_can_be_broken() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { nodes: 0, ..ClusterOptions::default() }).await?;
    cluster.install_crds().await?;
    let mark = cluster.audit()?.mark()?;
    let component = Component::start(&cluster, ComponentOptions::new("runtime-ctl")).await?;
    component.wait_ready(LIMIT).await?;
    assert!(component.metrics_text().await?.contains("# TYPE"));
    let usage = component.usage()?;
    assert!(usage.peak_resident > 1 << 20 && usage.cpu > Duration::ZERO, "{usage:?}");
    let lists = cluster.audit()?.since(mark, |r| r.short_user() == "runtime-ctl" && r.verb == "list")?;
    assert!(!lists.is_empty(), "its requests carry its own name");

    let own = component.client().await?;
    assert!(Api::<ConfigMap>::all(own.clone()).list(&ListParams::default()).await.is_ok());
    let refused =
        Api::<Secret>::all(own).list(&ListParams::default()).await.expect_err("no right to Secrets");
    assert!(matches!(&refused, kube::Error::Api(status) if status.is_forbidden()), "{refused}");

    let first = component.pid();
    assert_eq!(component.kill9().await?.signal, Some(9));
    assert!(!component.is_running() && component.usage().is_err());
    assert!(component.signal(Signal::Term).await.is_err());
    component.restart().await?;
    assert_ne!(component.pid(), first);
    component.wait_ready(LIMIT).await?;
    assert!(component.restart().await.is_err(), "it runs already");
    assert_eq!(component.terminate().await?.code, Some(0), "{}", component.log());

    let failed = component.restart_with(&["--no-such-flag".to_owned()]).await;
    failed.context("starting it")?;
    let error = component.wait_ready(LIMIT).await.expect_err("it ended");
    assert!(error.to_string().contains("no-such-flag"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn taken_rights_are_missing() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { nodes: 0, ..ClusterOptions::default() }).await?;
    cluster.install_crds().await?;
    let options = ComponentOptions::new("runtime-ctl").edit_rights(|rights| {
        assert!(rights.drop_resource("namespaces"));
    });
    let component = Component::start(&cluster, options).await?;
    let own = component.client().await?;
    // The API server may know the rights a moment after it stored them.
    let maps = Api::<ConfigMap>::all(own.clone());
    local_cluster::wait_for(LIMIT, "the rights to count", async || {
        Ok(Some(maps.list(&ListParams::default()).await?))
    })
    .await?;
    assert!(Api::<Namespace>::all(own).list(&ListParams::default()).await.is_err());
    let pid = component.pid();
    drop(component);
    local_cluster::wait_for(LIMIT, "the dropped component to end", async || {
        Ok(local_cluster::Usage::of(pid).is_err().then_some(()))
    })
    .await
}

/// `cargo demo --once` exits 0 only if all of the quick start is true, and is calm where nobody watches. With which agent
/// depends on the machine: the A2A SDK is from PyPI.
#[test]
fn the_demo_is_true() -> Result<()> {
    ends_well(
        &["--once"],
        &["✓ AgentRuntime weather-agent-runtime is Active", "authbridge-proxy", "The agent is a"],
    )
}

/// Unsigned, signed, tampered with: each verdict, and the policy that follows (card §10, §15).
#[test]
fn the_demo_of_signatures_is_true() -> Result<()> {
    ends_well(
        &["--signed", "--once", "--agent=built-in"],
        &[
            "The agent is a small A2A 0.3 server",
            "✓ a NetworkPolicy isolates the agent",
            "✓ the signed card is Verified",
            "✓ the NetworkPolicy lets the agent talk",
            "✓ the tampered card is not Verified",
        ],
    )
}

/// Before anything is built or started; that it works with both is a test of the services suite.
#[test]
fn the_full_demo_names_what_the_machine_lacks() -> Result<()> {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    let output =
        demo.args(["--full", "--once"]).env("JAVA_HOME", "/nowhere").output().context("running it")?;
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(
        err.contains("there is no /nowhere/bin/java") && err.contains("openjdk-17-jre-headless"),
        "{err}"
    );
    assert!(!err.contains("building") && !err.contains("control plane"), "{err}");
    Ok(())
}

fn ends_well(arguments: &[&str], parts: &[&str]) -> Result<()> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_demo")).args(arguments).output().context("running the demo")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    for part in parts.iter().chain(&["Done in "]) {
        assert!(out.contains(part), "{part:?} is missing in\n{out}");
    }
    assert!(!out.contains('✗') && !out.contains('\u{1b}') && !err.contains('\u{1b}'), "{out}\n{err}");
    Ok(())
}
