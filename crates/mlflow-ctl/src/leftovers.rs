//! Un-enrolment that nobody saw (MLflow §9): workloads that are agents no more and still carry what we wrote.
//!
//! Watches see agents only, and a Role leads to its workload only while it exists. With it gone (a process that ended
//! between deleting the Role and changing the pod template), or never made (a server without permissions), nothing
//! points to the workload any more. So whoever begins to work lists the workloads that are no agents, once, page by
//! page, and keeps none of them.

use std::time::Duration;

use controller_kit::{backoff::jitter, scope::dynamic_api_in, watch};
use kube::api::ListParams;

use crate::{
    context::Context,
    eligibility::AGENT,
    error::Error,
    kinds::{self, WorkloadKind, plural},
    workload::{Workload, WorkloadKey, WorkloadView},
};

/// Objects per page.
const PAGE: u32 = 500;
/// First and longest wait after a failed list.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_secs(300);

/// Has every such workload looked at; tries until the lists were read.
pub async fn sweep(ctx: &Context) {
    for namespace in watch::namespaces_of(&ctx.scope) {
        for kind in WorkloadKind::ALL {
            let mut wait = FIRST_RETRY;
            loop {
                match list(ctx, kind, namespace.as_deref()).await {
                    Ok(found) => {
                        for key in found {
                            ctx.wake(key, Duration::ZERO);
                        }
                        break;
                    }
                    Err(error) => {
                        tracing::warn!("looking for former agents among {}: {error}", plural(kind));
                        tokio::time::sleep(jitter(wait, 0.2)).await;
                        wait = wait.saturating_mul(2).min(LAST_RETRY);
                    }
                }
            }
        }
    }
}

/// Workloads of a kind that are no agents and carry our annotations.
///
/// # Errors
/// What the API server says.
pub async fn list(
    ctx: &Context,
    kind: WorkloadKind,
    namespace: Option<&str>,
) -> Result<Vec<WorkloadKey>, Error> {
    let version = match kind {
        WorkloadKind::Deployment | WorkloadKind::StatefulSet => "v1",
        WorkloadKind::Sandbox => match ctx.sandbox_version() {
            Some(version) => version,
            None => return Ok(Vec::new()),
        },
    };
    let resource = kinds::resource(kind, version);
    let api = dynamic_api_in::<WorkloadView>(&ctx.client, &resource, namespace);
    let mut params =
        ListParams::default().labels(&format!("{}!={AGENT}", api_types::names::label::TYPE)).limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = api.list(&params).await.map_err(Error::api("list", plural(kind)))?;
        let workloads = page.items.into_iter().filter_map(|view| Workload::from_view(&resource, kind, view));
        found.extend(workloads.filter(|w| w.is_marked() && !w.deleting).map(|workload| workload.key));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}
