//! What becomes known while the process runs: the trust domain and the own identity (card §4.3, §7).

use std::time::Duration;

use controller_kit::readiness::Readiness;
use spiffe_svid::SvidSource;

use crate::context::Context;

/// How often the trust domain is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Name of the readiness check.
const CHECK: &str = "trust domain";

/// Wakes everything when verified fetch becomes active.
pub async fn svids(ctx: &Context, source: &SvidSource) {
    let mut changed = source.changed();
    let mut active = ctx.verified_fetch().active;
    while changed.changed().await.is_ok() {
        if !std::mem::replace(&mut active, ctx.verified_fetch().active) && active {
            tracing::info!("this controller has an SVID: verified fetch is active");
            ctx.wake_all_cards();
            for key in ctx.index.workloads.keys() {
                ctx.wake_workload(key, Duration::ZERO);
            }
        }
    }
    std::future::pending::<()>().await;
}

/// Looks for the trust domain until it is known, and goes on looking for a change.
pub async fn trust_domain(ctx: &Context, readiness: Readiness) {
    if ctx.settings.require_a2a_signature {
        readiness.register(CHECK, "the trust domain is not known yet: set --spire-trust-domain");
    }
    loop {
        if let Some(domain) =
            ctx.svids.as_ref().and_then(SvidSource::current).and_then(|svid| {
                agent_trust::SpiffeId::parse(svid.id()).ok().map(|id| id.trust_domain().clone())
            })
            && ctx.trust.set_domain(&domain)
        {
            tracing::info!(%domain, "found the trust domain");
            ctx.wake_all_cards();
        }
        if ctx.trust.domain().is_some() {
            readiness.set_ok(CHECK);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
