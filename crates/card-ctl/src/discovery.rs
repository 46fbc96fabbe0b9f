//! What becomes known while the process runs: the trust domain and the own identity (card §4.3, §7).

use std::time::Duration;

use agent_trust::{SpiffeId, TrustDomain};
use controller_kit::{
    backoff::jitter,
    readiness::Readiness,
    trust_domain::{self, Known, Reading},
};
use spiffe_svid::SvidSource;
use tokio::time::Instant;

use crate::{
    bundle, card::is_held, context::Context, error::message_of, fetch::FetchError, observation::Observation,
};

/// How long the first passes wait for the own identity, and how often they look for it.
const OWN_IDENTITY: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);
/// Name of the readiness check.
const CHECK: &str = "trust domain";

/// Wakes everything when verified fetch becomes active, and with each SVID the agents that could not be asked without one.
pub async fn svids(ctx: &Context, source: &SvidSource) {
    let mut changed = source.changed();
    let mut active = ctx.verified_fetch().active;
    while changed.changed().await.is_ok() {
        ask_again(ctx);
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

/// Agents that could not be asked without an own identity, or without a trust domain to expect.
fn ask_again(ctx: &Context) {
    for key in ctx.index.workloads.keys() {
        let waits = |last: &Observation| last.result.as_ref().err() == Some(&FetchError::NoSvid);
        if ctx.observations.last(&key).is_some_and(|(last, _)| waits(&last)) {
            ctx.observations.expire_failure(&key);
            ctx.wake_readers(&key, Duration::ZERO);
        }
    }
}

/// Waits a moment for the own identity if a card was verified with it before: after a restart its verdict must not look
/// lost until the identity is there again (card §19).
pub async fn own_identity(ctx: &Context) {
    let Some(source) = &ctx.svids else { return };
    let cards = &ctx.index.cards;
    if !cards.keys().iter().any(|key| cards.get(key).is_some_and(|card| is_held(&card))) {
        return;
    }
    let known = async {
        while source.current().is_none() || ctx.trust.domain().is_none() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let _ = tokio::time::timeout(OWN_IDENTITY, known).await;
}

/// Looks for the trust domain until it is known, and goes on looking for a change. The own SVID tells it, too.
pub async fn trust_domain(ctx: &Context, readiness: Readiness) {
    if ctx.settings.require_a2a_signature {
        readiness.register(CHECK, "the trust domain is not known yet: set --spire-trust-domain");
    }
    let mut known = Known::default();
    let mut svids = ctx.svids.as_ref().map(SvidSource::changed);
    loop {
        let own =
            ctx.svids.as_ref().and_then(SvidSource::current).and_then(|svid| SpiffeId::parse(svid.id()).ok());
        let reading = match own {
            Some(id) => Ok(Reading::One(id.trust_domain().clone())),
            None => trust_domain::look(&ctx.client, bundle::namespace(ctx)).await,
        };
        match reading {
            Ok(reading) => {
                if let Reading::Several(all) = &reading {
                    let list: Vec<&str> = all.iter().map(TrustDomain::as_str).collect();
                    tracing::warn!(
                        "several trust domains were found, set --spire-trust-domain: {}",
                        list.join(", ")
                    );
                }
                if let Some(domain) = known.take(&reading, Instant::now())
                    && ctx.trust.set_domain(domain)
                {
                    tracing::info!(%domain, "found the trust domain");
                    readiness.set_ok(CHECK);
                    ctx.wake_all_cards();
                    ask_again(ctx);
                }
            }
            Err(error) => tracing::debug!("cannot look for the trust domain: {}", message_of(&error)),
        }
        let next_svid = async {
            let news = match &mut svids {
                Some(changed) => changed.changed().await.is_ok(),
                None => false,
            };
            if !news {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(jitter(known.next_look(), 0.1)) => {}
            () = next_svid => {}
        }
    }
}
