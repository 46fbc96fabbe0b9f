//! What the fault tests have in common.

use anyhow::{Context as _, Result, bail};
use e2e::group::Alone;
use e2e::suite::{RUNTIME_CTL, WEBHOOK};
use e2e::{Group, Json as _, Options, Suite, kinds, secs, wait_for};
use local_cluster::{ClusterOptions, Component, ComponentOptions, http};
use serde_json::{Value, json};

/// An API server with the CRDs, where nothing acts but what a test starts: enrolment needs no controllers.
static BARE: Group = Group::new(bare_options);
/// A second one: its tests are the slowest, and each wants to be alone.
static BARE_RIGHTS: Group = Group::new(bare_options);

/// An API server with the CRDs and nothing else.
pub(crate) fn bare_options() -> Options {
    let cluster = ClusterOptions {
        nodes: 0,
        pod_addresses: false,
        controller_manager: false,
        scheduler: false,
        ..ClusterOptions::default()
    };
    Options { cluster, ..Options::default().without_webhook().without_runtime_ctl() }
}

/// A whole cluster with both components, for faults of its processes.
pub(super) static WHOLE: Group = Group::new(Options::default);

/// The bare API server, without what the test before it registered.
pub(crate) async fn bare() -> Result<Alone> {
    cleared(BARE.alone().await?).await
}

/// As [`bare`], on the API server of the tests about rights.
pub(super) async fn bare_rights() -> Result<Alone> {
    cleared(BARE_RIGHTS.alone().await?).await
}

/// A cluster of a group without what the test before registered in it.
pub(crate) async fn cleared(suite: Alone) -> Result<Alone> {
    unregister(&suite).await?;
    let global = suite.global().await?;
    for runtime in global.list(kinds::AGENT_RUNTIME, "").await? {
        // Their controller is gone; nobody else would take the finalizer off.
        let ns = global.other(runtime.text("/metadata/namespace"));
        ns.try_patch(kinds::AGENT_RUNTIME, runtime.name(), json!({"metadata": {"finalizers": null}})).await?;
        ns.delete(kinds::AGENT_RUNTIME, runtime.name()).await?;
    }
    Ok(suite)
}

/// Removes the webhook's registration: its process ends with its test, and the API server would go on asking it.
pub(super) async fn unregister(suite: &Suite) -> Result<()> {
    let global = suite.global().await?;
    for kind in [kinds::MUTATING_WEBHOOK, kinds::VALIDATING_WEBHOOK] {
        for object in global.list(kind, "").await? {
            global.delete(kind, object.name()).await?;
        }
    }
    Ok(())
}

/// Options of runtime-ctl on the bare API server.
pub(super) fn runtime_ctl(suite: &Suite) -> ComponentOptions {
    e2e::suite::runtime_ctl().args([gates(suite)])
}

/// Options of authbridge-webhook on the bare API server.
pub(super) fn webhook(suite: &Suite) -> ComponentOptions {
    e2e::suite::webhook().args([format!("--config-path={}", suite.platform_file().display()), gates(suite)])
}

fn gates(suite: &Suite) -> String {
    format!("--feature-gates-path={}", suite.gates_file().display())
}

/// The options of a component by name.
pub(crate) fn options(suite: &Suite, name: &str) -> ComponentOptions {
    match name {
        WEBHOOK => webhook(suite),
        RUNTIME_CTL => runtime_ctl(suite),
        other => ComponentOptions::new(other),
    }
}

/// An identity of its own, so that the audit log tells replicas apart.
pub(crate) fn named(mut options: ComponentOptions, name: &str) -> ComponentOptions {
    options = options.instance(name);
    name.clone_into(&mut options.service_account);
    options
}

/// Starts a webhook and registers it.
pub(super) async fn start_webhook(suite: &Suite, options: ComponentOptions) -> Result<Component> {
    let component = Component::start(suite.cluster(), options).await?;
    let url = format!("https://127.0.0.1:{}", component.webhook_port()?);
    suite.cluster().register_webhook(&url, None).await?;
    Ok(component)
}

/// Status and text of `/readyz?verbose`.
pub(crate) async fn readyz(component: &Component) -> Result<(u16, String)> {
    let (status, body) = http::get(&format!("{}/readyz?verbose", component.probe_url())).await?;
    Ok((status.as_u16(), body))
}

/// Waits until `/readyz` answers this status with a text that contains all of these words.
pub(crate) async fn until_readyz(component: &Component, status: u16, words: &[&str]) -> Result<String> {
    let name = &component.spec().name;
    wait_for(secs(30), &format!("/readyz of {name} to say {status} and {words:?}"), async || {
        let (now, text) = readyz(component).await?;
        if now != status || !words.iter().all(|word| text.contains(word)) {
            bail!("it says {now}: {text}");
        }
        Ok(Some(text))
    })
    .await
    .with_context(|| format!("the log of {name}:\n{}", last_lines(&component.log())))
}

/// The end of a log, for messages.
pub(super) fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().rev().take(15).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Holder of a Lease in the suite's namespace; empty when nobody holds it.
pub(super) async fn holder(suite: &Suite, lease: &str) -> Result<String> {
    let found = suite.operator().await?.find(kinds::LEASE, lease).await?.unwrap_or(Value::Null);
    Ok(found.text("/spec/holderIdentity").to_owned())
}
