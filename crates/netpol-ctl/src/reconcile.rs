//! One pass: make the policies of the workloads of one name what their cards want (card §15.3).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use api_types::enrolment::TargetKind;
use controller_kit::{scope::dynamic_api_in, watch::Key as ObjectKey, workload::resource};
use kube::Api;

use crate::{
    announce,
    card::{Card, CardView, Target},
    context::{Context, Key},
    error::{Error, PassError},
    index::Slot,
    metrics::Op,
    naming,
    plan::{Plan, Wanted, Workload, plan},
    policy::Policy,
    sources::{Source, State},
    workload::{WorkloadKey, WorkloadView},
    write::{self, Created},
};

/// When to look again while a watch has not delivered.
const NOT_SYNCED: Duration = Duration::from_millis(300);
/// When to look again while a watch is refused.
const TROUBLED: Duration = Duration::from_secs(5);

/// When to look again.
pub type Next = Option<Duration>;

/// One pass over whatever the queue handed out.
///
/// # Errors
/// What a retry may fix.
pub async fn pass(ctx: &Context, key: &Key) -> Result<Next, Error> {
    let result = match key {
        Key::Slot(slot) => workloads(ctx, slot).await,
        Key::Policy(key) => surplus(ctx, key).await,
        Key::Card(key) => finalizers(ctx, key).await,
    };
    match result {
        Err(Error::Pass(PassError::NotSynced(what))) => {
            tracing::debug!(object = %key, "waiting for the watch of {what}");
            Ok(Some(NOT_SYNCED))
        }
        result => result,
    }
}

/// Whether everything a decision rests on is known; false = a watch is refused, and `/readyz` names it.
fn readable(ctx: &Context, namespace: &str) -> Result<bool, Error> {
    let sources = [Source::Cards, Source::Policies]
        .into_iter()
        .chain(TargetKind::ALL.map(Source::Workloads))
        .map(|source| ctx.sources.state(source, namespace));
    let api_server = ctx.sources.state(Source::ApiServer, crate::api_server::NAMESPACE);
    let mut readable = true;
    for state in sources {
        match state {
            State::Synced => {}
            State::Pending => return Err(PassError::NotSynced("cards, workloads or policies").into()),
            State::Troubled(_) => readable = false,
        }
    }
    // Refused, its addresses are unknown, and that denies: it does not stop the work.
    if api_server == State::Pending {
        return Err(PassError::NotSynced("endpointslices").into());
    }
    Ok(readable)
}

fn plan_of(ctx: &Context, slot: &Slot) -> Plan {
    let workload = |target: &Target, kind: TargetKind| {
        let key = WorkloadKey { slot: Slot { name: target.name.clone(), ..slot.clone() }, kind };
        ctx.index
            .workloads
            .get(&key)
            .map_or(Workload::Absent, |agent| Workload::Agent(agent.selector.clone()))
    };
    let exists = |name: &str| ctx.index.managed(&object_key(slot, name)).is_some();
    let delay = ctx.settings.initial_policy_delay;
    plan(&slot.name, &ctx.index.cards.linked(slot), workload, exists, delay, ctx.now())
}

fn object_key(slot: &Slot, name: &str) -> ObjectKey {
    ObjectKey::new(slot.namespace.clone(), name)
}

/// The name whose workloads want a policy of this name.
pub fn claimant(ctx: &Context, key: &ObjectKey) -> Option<Slot> {
    let slots: Vec<Slot> = match naming::possible_workloads(&key.name) {
        Some(names) => names
            .into_iter()
            .map(|name| Slot { namespace: key.namespace.clone(), name: name.to_owned() })
            .collect(),
        // Shortened: such names are rare, and their namespaces are looked through.
        None => ctx.index.slots(Some(&key.namespace)),
    };
    slots.into_iter().find(|slot| plan_of(ctx, slot).claims(&key.name))
}

async fn workloads(ctx: &Context, slot: &Slot) -> Result<Next, Error> {
    if !readable(ctx, &slot.namespace)? {
        return Ok(Some(TROUBLED));
    }
    let mut plan = plan_of(ctx, slot);
    // A live read before a policy goes because its workload is gone: the watches are several, and this one may be
    // behind the one of the cards. Nothing is read when there is no policy to lose.
    let mut absent = Vec::new();
    for target in std::mem::take(&mut plan.absent) {
        if !surplus_names(ctx, slot, &plan).is_empty() && look_up(ctx, slot, &target).await? {
            return Err(Error::Behind("workloads"));
        }
        absent.push(target);
    }
    plan.absent = absent;
    let mut kept = BTreeSet::new();
    // The first kind comes last: its plain name may be another kind's until that one has a name of its own.
    for wanted in plan.wanted.iter().rev() {
        if let Some(name) = ensure(ctx, slot, wanted, &kept).await? {
            kept.insert(name);
        }
        ctx.settle_complaint(&wanted.card.uid);
    }
    for card in &plan.unselectable {
        announce::no_pod_selector(ctx, card);
    }
    for key in surplus_names(ctx, slot, &plan) {
        if kept.contains(&key.name) {
            continue;
        }
        if let Some(policy) = ctx.index.managed(&key)
            && claimant(ctx, &key).is_none_or(|other| other == *slot)
            && !write::delete(ctx, &policy).await?
        {
            return Ok(Some(Duration::ZERO));
        }
    }
    Ok(plan.wait)
}

/// Policies that belong to the workloads of this name by their own names or by their cards, wanted or not.
fn surplus_names(ctx: &Context, slot: &Slot, plan: &Plan) -> BTreeSet<ObjectKey> {
    let cards = ctx.index.cards.linked(slot);
    let by_card = cards.iter().flat_map(|card| ctx.index.policies.linked(&card.key));
    let by_kind = TargetKind::ALL.map(|kind| naming::of_kind(&slot.name, kind.as_str()));
    let fallbacks = plan.wanted.iter().map(|wanted| wanted.fallback.clone());
    let by_name = by_kind.into_iter().chain([naming::plain(&slot.name)]).chain(fallbacks);
    let all = by_card.map(|policy| policy.key.clone()).chain(by_name.map(|name| object_key(slot, &name)));
    all.filter(|key| ctx.index.managed(key).is_some()).collect()
}

/// Makes one policy what it has to be; its name, or none when its namespace ends.
async fn ensure(
    ctx: &Context,
    slot: &Slot,
    wanted: &Wanted,
    kept: &BTreeSet<String>,
) -> Result<Option<String>, Error> {
    let spec = ctx.rules.spec(wanted.mode, (*wanted.selector).clone(), &ctx.endpoints.current());
    for name in [&wanted.name, &wanted.fallback] {
        let key = object_key(slot, name);
        let Some(policy) = ctx.index.managed(&key).filter(|policy| !kept.contains(&policy.key.name)) else {
            continue;
        };
        if *name == wanted.name && is_of_another(ctx, slot, &policy) {
            continue;
        }
        let before = policy.mode;
        if write::update(ctx, policy, &wanted.card, &spec).await?.is_some() {
            if before != wanted.mode {
                said(ctx, wanted, name);
            }
            return Ok(Some(name.clone()));
        }
    }
    let mut taken = false;
    for name in [&wanted.name, &wanted.fallback] {
        let key = object_key(slot, name);
        if kept.contains(name) {
            continue;
        }
        match write::create(ctx, name, &wanted.card, spec.clone()).await? {
            Created::Done => {
                if taken {
                    announce::name_conflict(ctx, wanted, &wanted.name);
                }
                said(ctx, wanted, name);
                return Ok(Some(name.clone()));
            }
            Created::NamespaceEnds => return Ok(None),
            Created::Taken => match write::read(ctx, &key).await? {
                None => return Err(Error::Behind("networkpolicies")),
                // Ours, without the labels that the watch selects by, or not seen yet.
                Some(live) if live.is_managed() && !live.terminating && !is_of_another(ctx, slot, &live) => {
                    let before = live.mode;
                    write::update(ctx, live, &wanted.card, &spec).await?;
                    if before != wanted.mode {
                        said(ctx, wanted, name);
                    }
                    return Ok(Some(name.clone()));
                }
                Some(live) if live.is_managed() && live.terminating => {
                    return Err(Error::Behind("networkpolicies"));
                }
                Some(_) => taken = true,
            },
        }
    }
    let names = format!("{} and {} in namespace {}", wanted.name, wanted.fallback, slot.namespace);
    Err(Error::NameTaken { names })
}

fn said(ctx: &Context, wanted: &Wanted, name: &str) {
    let Target { kind, name: workload, .. } = &wanted.target;
    tracing::info!(
        policy = %ObjectKey::new(wanted.card.key.namespace.clone(), name),
        mode = wanted.mode.as_str(), kind, workload, "applied"
    );
    announce::mode(ctx, wanted, name);
}

/// The policy is the one of another name's workload, whose own name happens to be made like this.
fn is_of_another(ctx: &Context, slot: &Slot, policy: &Policy) -> bool {
    let Some(card) = policy.card.as_ref().and_then(|name| ctx.index.cards.get(&object_key(slot, name)))
    else {
        return false;
    };
    let other = card.slot().filter(|other| !card.terminating && other != slot);
    other.is_some_and(|other| plan_of(ctx, &other).claims(&policy.key.name))
}

/// Reads a workload live; true when it is an agent after all.
async fn look_up(ctx: &Context, slot: &Slot, target: &Target) -> Result<bool, Error> {
    let Some(kind) = TargetKind::of(&target.group, &target.kind) else { return Ok(false) };
    let version = match kind {
        TargetKind::Deployment | TargetKind::StatefulSet => "v1",
        TargetKind::Sandbox => match ctx.sandbox_version() {
            Some(version) => version,
            None => return Ok(false),
        },
    };
    let api = dynamic_api_in::<WorkloadView>(&ctx.client, &resource(kind, version), Some(&slot.namespace));
    let object = format!("{} {}/{}", target.kind, slot.namespace, target.name);
    let found = api.get_opt(&target.name).await.map_err(PassError::api("read", object))?;
    Ok(found.is_some_and(|view| api_types::card::is_agent(view.metadata.labels.as_ref())))
}

/// Deletes a policy that nobody wants (card §15.5, prune rule).
async fn surplus(ctx: &Context, key: &ObjectKey) -> Result<Next, Error> {
    if !readable(ctx, &key.namespace)? {
        return Ok(Some(TROUBLED));
    }
    let Some(policy) = ctx.index.managed(key) else { return Ok(None) };
    if let Some(slot) = claimant(ctx, key) {
        ctx.wake(slot, Duration::ZERO);
        return Ok(None);
    }
    if let Some(name) = &policy.card {
        let card = ObjectKey::new(key.namespace.clone(), name.clone());
        if let Some(card) = ctx.index.cards.get(&card).filter(|card| !card.terminating) {
            if let Some(slot) = card.slot() {
                // Its pass knows whether the workload is really gone, and takes what is left of an earlier target.
                ctx.wake(slot, Duration::ZERO);
                return Ok(None);
            }
            if card.unreadable {
                // What it wants cannot be known.
                return Ok(None);
            }
        } else if is_alive(ctx, &card).await? {
            // Read live before a policy goes: the watch of the cards may be behind the one of the policies.
            return Err(Error::Behind("agentcards"));
        }
    }
    Ok((!write::delete(ctx, &policy).await?).then_some(Duration::ZERO))
}

async fn is_alive(ctx: &Context, key: &ObjectKey) -> Result<bool, Error> {
    let api = Api::<CardView>::namespaced(ctx.client.clone(), &key.namespace);
    let found = api.get_opt(&key.name).await.map_err(PassError::api("read", format!("AgentCard {key}")))?;
    Ok(found.is_some_and(|view| view.metadata.deletion_timestamp.is_none()))
}

/// Takes the finalizers of the previous operator off a card (card §15.5).
async fn finalizers(ctx: &Context, key: &ObjectKey) -> Result<Next, Error> {
    let card: Option<Arc<Card>> = ctx.index.cards.get(key);
    let Some(card) = card.filter(|card| card.finalizers.is_some()) else { return Ok(None) };
    ctx.may_write()?;
    let stripped = write::strip_finalizers(&ctx.client, &card).await;
    if stripped.map_err(PassError::api(
        "take the finalizers of the previous operator off",
        format!("AgentCard {key}"),
    ))? {
        ctx.metrics.wrote(Op::Finalizer);
        tracing::info!(card = %key, "finalizers of the previous operator removed");
    }
    Ok(None)
}
