//! Events about the card that owns a policy: one per change (card §15.5).

use controller_kit::events::NewEvent;

use crate::{context::Context, naming::reason, plan::Wanted, verdict::Mode};

const ACTION: &str = "EnforcePolicy";

/// The policy was made, or changed its mode.
pub fn mode(ctx: &Context, wanted: &Wanted, policy: &str) {
    let (kind, name) = (&wanted.target.kind, &wanted.target.name);
    let event = match wanted.mode {
        Mode::Permissive => {
            let note = format!(
                "{kind} {name} is verified: NetworkPolicy {policy} lets verified peers in and everything out"
            );
            NewEvent::normal(reason::PERMISSIVE, ACTION, note)
        }
        Mode::Restrictive => {
            let note = format!(
                "{kind} {name} is not verified: NetworkPolicy {policy} isolates it, but for allowed namespaces and the \
                 API server; condition Verified of its AgentCards says why"
            );
            NewEvent::warning(reason::RESTRICTIVE, ACTION, note)
        }
    };
    ctx.events.publish(&wanted.card.reference(), event);
}

/// A foreign object has the name.
pub fn name_conflict(ctx: &Context, wanted: &Wanted, taken: &str) {
    let note = format!(
        "NetworkPolicy {taken} was not made by this suite and is left alone; the policy of {} {} is called {} instead",
        wanted.target.kind, wanted.target.name, wanted.fallback
    );
    ctx.events.publish(&wanted.card.reference(), NewEvent::warning(reason::NAME_CONFLICT, ACTION, note));
}

/// Nothing selects the Pods.
pub fn no_pod_selector(ctx: &Context, card: &crate::card::Card) {
    if ctx.first_complaint(&card.uid) {
        let note = "spec.selector of the workload is empty and would select every Pod of the namespace, so there is no \
                    NetworkPolicy: give the workload a selector";
        ctx.events.publish(&card.reference(), NewEvent::warning(reason::NO_POD_SELECTOR, ACTION, note));
    }
}
