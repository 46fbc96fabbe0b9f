//! Kinds that a cluster may or may not serve: Sandboxes and Certificates. Looked for every minute (runtime §7.4, §15).

use std::sync::Arc;

use controller_kit::{
    scope::api_in,
    watch::{self, OptionalKind, Step, WatchOptions, feed, pages},
    workload::SANDBOXES,
};
use futures::future::join_all;

use super::{CALM, NOW, workloads};
use crate::{
    context::Context,
    index::{Certificate, CertificateView},
    kinds::WorkloadKind,
    settings::TlsBridgeCa,
    sources::Source,
};

const CERTIFICATES: OptionalKind = OptionalKind {
    group: "cert-manager.io",
    kind: "Certificate",
    versions: &["v1"],
    when_served: "cert-manager is installed",
};

/// Watches Sandboxes while their CRD is served, in the newest version.
pub(super) async fn sandboxes(ctx: Arc<Context>) {
    let scopes = watch::namespaces_of(&ctx.scope);
    let found = |version: Option<&'static str>| {
        match (ctx.set_sandbox_version(version), version) {
            (_, Some(version)) => tracing::info!(version, "Sandboxes are served"),
            (true, None) => {
                tracing::info!("Sandboxes are not served any more");
                ctx.wake_all(None, CALM);
            }
            (false, None) => {}
        }
        ctx.sources.looked_for(Source::Workloads(WorkloadKind::Sandbox), &scopes, version.is_some());
    };
    let watch = |version, namespace| workloads(ctx.clone(), WorkloadKind::Sandbox, version, namespace);
    SANDBOXES.follow(&ctx.client, &scopes, found, watch).await;
}

/// Watches TLS-bridge certificates while cert-manager is installed.
pub(super) async fn certificates(ctx: Arc<Context>) {
    if ctx.settings.enable_tls_bridge_ca == TlsBridgeCa::False {
        std::future::pending::<()>().await;
    }
    CERTIFICATES.appears(&ctx.client).await;
    let scopes = watch::namespaces_of(&ctx.scope);
    join_all(scopes.iter().map(|namespace| watch_certificates(&ctx, namespace.as_deref()))).await;
}

async fn watch_certificates(ctx: &Context, namespace: Option<&str>) {
    let api = api_in::<CertificateView>(&ctx.client, namespace);
    let options = WatchOptions::new("certificates").unchecked().optional_kind();
    feed(ctx.watch(api, pages(), options), |step| match step {
        Step::Put(view, listing) => {
            if let Some(certificate) = Certificate::from_view(view) {
                listing.saw((certificate.namespace.clone(), certificate.name.clone()));
                ctx.index.certificates.upsert(certificate).into_iter().for_each(|key| ctx.wake(key, NOW));
            }
        }
        Step::Remove(view) => {
            if let Some(gone) = Certificate::from_view(view)
                && let Some(key) = ctx.index.certificates.remove(&gone.namespace, &gone.name)
            {
                ctx.wake(key, NOW);
            }
        }
        Step::Listed(seen) => {
            ctx.index.certificates.retain(namespace, &seen);
            // Only with the list it is known which Certificates exist already.
            if ctx.set_cert_manager(true) {
                tracing::info!("cert-manager is installed");
                ctx.wake_all(None, NOW);
            }
        }
    })
    .await;
}
