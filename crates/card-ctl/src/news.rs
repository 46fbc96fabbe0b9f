//! What has to look again when an object is another one than before: told by a watch, or by the answer to a write.

use std::time::Duration;

use crate::{
    context::{Context, Key},
    index::{Card, ObjectKey, Runtime},
    kinds::{TargetKey, WorkloadKind},
    workload::Workload,
};

const NOW: Duration = Duration::ZERO;

/// A card. Changes of its status alone, and of metadata that decide nothing, wake nobody (card §4.2).
pub fn card(ctx: &Context, before: Option<&Card>, card: &Card) {
    let same = before.is_some_and(|before| {
        before.uid == card.uid
            && before.generation == card.generation
            && before.terminating == card.terminating
            && before.legacy_finalizers == card.legacy_finalizers
    });
    if same {
        let owners_changed =
            before.is_some_and(|before| before.owners != card.owners || before.automatic != card.automatic);
        // They decide about making and adopting cards, not about fetching.
        if let (true, Some(target)) = (owners_changed, &card.target) {
            ctx.wake_workload(target.clone(), NOW);
        }
        return;
    }
    ctx.wake_card(card.key.clone(), NOW);
    let moved = before.is_none_or(|before| {
        before.target != card.target || before.terminating != card.terminating || before.uid != card.uid
    });
    if !moved {
        return;
    }
    let former = before.and_then(|before| before.target.as_ref());
    for target in former.filter(|former| card.target.as_ref() != Some(former)).into_iter().chain(&card.target)
    {
        wake_target(ctx, target);
    }
    wake_namesake(ctx, card);
}

/// The workload of a card that has come, gone or changed, and the other cards of that workload.
pub fn wake_target(ctx: &Context, target: &TargetKey) {
    ctx.wake_workload(target.clone(), NOW);
    ctx.wake_readers(target, NOW);
}

/// A card may stand in the way of the card that belongs to a workload by its name.
pub fn wake_namesake(ctx: &Context, card: &Card) {
    for owner in &card.owners {
        let group = owner.api_version.split('/').next().unwrap_or_default();
        if let Some(kind) = WorkloadKind::of(group, &owner.kind) {
            ctx.wake_workload(TargetKey::new(&card.key.namespace, kind, &owner.name), NOW);
        }
    }
    wake_named(ctx, &card.key);
}

/// The workloads whose own card would have this name.
pub fn wake_named(ctx: &Context, card: &ObjectKey) {
    for kind in WorkloadKind::ALL {
        let suffix = format!("-{}-card", kind.as_str().to_ascii_lowercase());
        if let Some(name) = card.name.strip_suffix(&suffix) {
            let key = TargetKey::new(&card.namespace, kind, name);
            if ctx.index.workloads.get(&key).is_some() {
                ctx.wake_workload(key, NOW);
            }
        }
    }
}

/// A workload. Its cards look again only when something they depend on has changed.
pub fn workload(ctx: &Context, before: Option<&Workload>, new: &Workload) {
    if before.is_some_and(|before| before.same_but_for_version(new)) {
        return;
    }
    ctx.wake_workload(new.key.clone(), NOW);
    let concerns_cards = before.is_none_or(|before| {
        before.uid != new.uid
            || before.protocol != new.protocol
            || before.content_hash != new.content_hash
            || before.readiness != new.readiness
            || before.service_account != new.service_account
            || before.rolled_out != new.rolled_out
            || (before.ready_replicas > 0) != (new.ready_replicas > 0)
    });
    if concerns_cards {
        ctx.wake_readers(&new.key, NOW);
    }
}

/// An AgentRuntime. Its own card counts, too: somebody may have removed it.
pub fn runtime(ctx: &Context, before: Option<&Runtime>, new: &Runtime) {
    let same = before.is_some_and(|before| {
        before.target == new.target
            && before.is_agent == new.is_agent
            && before.terminating == new.terminating
            && before.card == new.card
    });
    if !same {
        ctx.queue.add(Key::Runtime(new.key.clone()), NOW);
    }
}
