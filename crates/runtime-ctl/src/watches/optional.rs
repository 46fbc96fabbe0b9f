//! Kinds that a cluster may or may not serve: Sandboxes and Certificates. Looked for every minute (runtime §7.4, §15).

use std::time::Duration;

use controller_kit::{
    backoff::jitter,
    watch::{self, WatchOptions, serves},
};
use futures::{StreamExt, future::join_all};
use kube::{Api, Client, runtime::watcher::Event};

use super::{CALM, Listing, NOW, Watcher, pages, workloads};
use crate::{
    context::Context,
    error::message_of,
    index::{Certificate, CertificateView},
    kinds::{SANDBOX_GROUP, SandboxVersion, WorkloadKind},
    settings::TlsBridgeCa,
    sources::Source,
};

const LOOK_AGAIN: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(2);

/// Waits between looks for a kind: short ones first, because a CRD made a moment ago is not in the discovery yet.
fn looks() -> impl FnMut() -> Duration {
    let mut pause = RETRY;
    move || {
        let now = pause;
        pause = (pause * 2).min(LOOK_AGAIN);
        jitter(now, 0.1)
    }
}

async fn sandbox_version(client: &Client) -> kube::Result<Option<SandboxVersion>> {
    for version in [SandboxVersion::V1Beta1, SandboxVersion::V1Alpha1] {
        if serves(client, &format!("{SANDBOX_GROUP}/{}", version.as_str()), "Sandbox").await? {
            return Ok(Some(version));
        }
    }
    Ok(None)
}

/// Watches Sandboxes while their CRD is served, in the newest version.
pub(super) async fn sandboxes(watcher: Watcher) {
    const SOURCE: Source = Source::Workloads(WorkloadKind::Sandbox);
    let ctx = &watcher.ctx;
    let scopes = watch::namespaces_of(&ctx.scope);
    let mut pause = looks();
    loop {
        let version = match sandbox_version(&ctx.client).await {
            Ok(version) => version,
            Err(error) => {
                tracing::debug!("cannot find out whether Sandboxes are served: {}", message_of(&error));
                tokio::time::sleep(jitter(RETRY, 0.1)).await;
                continue;
            }
        };
        let news = ctx.set_sandbox_version(version);
        let Some(version) = version else {
            if news {
                tracing::info!("Sandboxes are not served any more");
                ctx.wake_all(None, CALM);
            }
            for namespace in &scopes {
                ctx.sources.synced(SOURCE, namespace.as_deref());
            }
            tokio::time::sleep(pause()).await;
            continue;
        };
        tracing::info!(version = version.as_str(), "Sandboxes are served");
        for namespace in &scopes {
            ctx.sources.restart(SOURCE, namespace.as_deref());
        }
        let watching =
            join_all(scopes.iter().map(|namespace| {
                workloads(watcher.clone(), WorkloadKind::Sandbox, version, namespace.clone())
            }));
        tokio::select! {
            _ = watching => {}
            () = until_changed(ctx, version) => {}
        }
    }
}

/// Returns when another version, or none, is served.
async fn until_changed(ctx: &Context, version: SandboxVersion) {
    loop {
        tokio::time::sleep(jitter(LOOK_AGAIN, 0.1)).await;
        if matches!(sandbox_version(&ctx.client).await, Ok(now) if now != Some(version)) {
            return;
        }
    }
}

/// Watches TLS-bridge certificates while cert-manager is installed.
pub(super) async fn certificates(watcher: Watcher) {
    let ctx = &watcher.ctx;
    if ctx.settings.enable_tls_bridge_ca == TlsBridgeCa::False {
        std::future::pending::<()>().await;
    }
    let mut pause = looks();
    loop {
        match serves(&ctx.client, "cert-manager.io/v1", "Certificate").await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => {
                tracing::debug!("cannot find out whether cert-manager is installed: {}", message_of(&error));
            }
        }
        tokio::time::sleep(pause()).await;
    }
    let scopes = watch::namespaces_of(&ctx.scope);
    join_all(scopes.into_iter().map(|namespace| watch_certificates(watcher.clone(), namespace))).await;
}

async fn watch_certificates(watcher: Watcher, namespace: Option<String>) {
    let ctx = &watcher.ctx;
    let api: Api<CertificateView> = match &namespace {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    };
    let options = WatchOptions::new("certificates").unchecked().optional_kind();
    let mut events = watch::watch_stream(&watcher.watches, api, pages(), options);
    let mut listing = Listing(None);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.begin(),
            Event::InitApply(view) | Event::Apply(view) => {
                if let Some(certificate) = Certificate::from_view(view) {
                    listing.saw((certificate.namespace.clone(), certificate.name.clone()));
                    ctx.index.certificates.upsert(certificate).into_iter().for_each(|key| ctx.wake(key, NOW));
                }
            }
            Event::InitDone => {
                ctx.index.certificates.retain(namespace.as_deref(), &listing.end());
                // Only with the list it is known which Certificates exist already.
                if ctx.set_cert_manager(true) {
                    tracing::info!("cert-manager is installed");
                    ctx.wake_all(None, NOW);
                }
            }
            Event::Delete(view) => {
                if let Some(gone) = Certificate::from_view(view)
                    && let Some(key) = ctx.index.certificates.remove(&gone.namespace, &gone.name)
                {
                    ctx.wake(key, NOW);
                }
            }
        }
    }
}
