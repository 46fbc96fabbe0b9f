//! Where the API server is: the EndpointSlices of Service `default/kubernetes` (card §15.2, README decision 23).

use std::{sync::Arc, time::Duration};

use controller_kit::{
    process::Process,
    scope::api_in,
    watch::{Step, feed, pages},
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

use super::options;
use crate::{
    api_server::{NAMESPACE, SELECTOR},
    context::Context,
    sources::Source,
};

/// A change of the addresses is one of every policy that isolates: one look for all that comes together.
const CALM: Duration = Duration::from_secs(1);
/// Name of the readiness check where the addresses cannot be looked up.
const CHECK: &str = "api server address";

/// Watches the addresses, or says that nothing tells them.
pub(super) fn start(process: &Process, ctx: &Arc<Context>) {
    if !ctx.scope.is_namespaced() {
        ctx.sources.register(Source::ApiServer, Some(NAMESPACE));
        process.spawn_endless("watch endpointslices", run(ctx.clone()));
    } else if ctx.settings.apiserver_cidrs.0.is_empty() {
        let reason = "with --watch-namespaces the API server's addresses are not looked up: name them with \
                      --apiserver-cidrs; until then unverified agents reach nothing";
        tracing::warn!("{reason}");
        process.readiness().set_degraded(CHECK, reason);
    }
}

async fn run(ctx: Arc<Context>) {
    let api = api_in::<EndpointSlice>(&ctx.client, Some(NAMESPACE));
    let options = options(&ctx, "endpointslices", Source::ApiServer, Some(NAMESPACE));
    feed(ctx.watch(api, pages().labels(SELECTOR), options), |step| {
        let changed = match step {
            Step::Put(slice, listing) => {
                let name = slice.name_any();
                listing.saw(name.clone());
                ctx.endpoints.upsert(&name, slice)
            }
            Step::Remove(slice) => ctx.endpoints.remove(&slice.name_any()),
            Step::Listed(seen) => {
                let changed = ctx.endpoints.retain(&seen);
                ctx.sources.synced(Source::ApiServer, Some(NAMESPACE));
                changed
            }
        };
        if changed {
            tracing::info!(networks = ?ctx.endpoints.current().networks, "addresses of the API server");
            ctx.wake_all(None, CALM);
        }
    })
    .await;
}
