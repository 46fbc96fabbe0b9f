//! Where the API server is: the EndpointSlices of Service `default/kubernetes` (card §15.2, README decision 23).

use std::time::Duration;

use controller_kit::{process::Process, watch};
use futures::{StreamExt, future::BoxFuture};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, ResourceExt, runtime::watcher::Event};

use super::{Listing, Watcher, pages};
use crate::{
    api_server::{NAMESPACE, SELECTOR},
    sources::Source,
};

/// A change of the addresses is one of every policy that isolates: one look for all that comes together.
const CALM: Duration = Duration::from_secs(1);
/// Name of the readiness check where the addresses cannot be looked up.
const CHECK: &str = "api server address";

/// Watches the addresses, or says that nothing tells them.
pub(super) fn start(
    process: &Process,
    watcher: Watcher,
    spawn: impl Fn(&'static str, BoxFuture<'static, ()>),
) {
    let ctx = &watcher.ctx;
    if !ctx.scope.is_namespaced() {
        ctx.sources.register(Source::ApiServer, Some(NAMESPACE));
        spawn("watch endpointslices", Box::pin(run(watcher)));
    } else if ctx.settings.apiserver_cidrs.0.is_empty() {
        let reason = "with --watch-namespaces the API server's addresses are not looked up: name them with \
                      --apiserver-cidrs; until then unverified agents reach nothing";
        tracing::warn!("{reason}");
        process.readiness().set_degraded(CHECK, reason);
    }
}

async fn run(watcher: Watcher) {
    let ctx = &watcher.ctx;
    let api = Api::<EndpointSlice>::namespaced(ctx.client.clone(), NAMESPACE);
    let options = watcher.options("endpointslices", Source::ApiServer, Some(NAMESPACE));
    let mut events = watch::watch_stream(&watcher.watches, api, pages().labels(SELECTOR), options);
    let mut listing = Listing(None);
    while let Some(event) = events.next().await {
        let changed = match event {
            Event::Init => {
                listing.begin();
                false
            }
            Event::InitApply(slice) | Event::Apply(slice) => {
                let name = slice.name_any();
                listing.saw(name.clone());
                ctx.endpoints.upsert(&name, slice)
            }
            Event::InitDone => {
                let changed = ctx.endpoints.retain(&listing.end());
                ctx.sources.synced(Source::ApiServer, Some(NAMESPACE));
                changed
            }
            Event::Delete(slice) => ctx.endpoints.remove(&slice.name_any()),
        };
        if changed {
            tracing::info!(networks = ?ctx.endpoints.current().networks, "addresses of the API server");
            ctx.wake_all(None, CALM);
        }
    }
}
