//! Validating endpoints of group agent.kagenti.dev (runtime §9.1, card §17.1, README decision 27).
//!
//! The rules are pure functions of `api-types`; here is what they need to know about other objects.
//! A candidate for "already targets" comes from the synced store or from what this replica admitted
//! in the last seconds; before a denial it is read once, so that a stale entry refuses nobody. An
//! error on the way lets the object pass: validators must never block work by themselves.

pub mod recent;

use std::sync::Arc;

use api_types::{
    AgentCard, AgentRuntime, TargetRef,
    admission::{self, CardReview, Duplicate, Verdict},
};
use controller_kit::scope::Scope;
use futures::{FutureExt as _, future::BoxFuture};
use serde::de::DeserializeOwned;

use crate::{
    caches::{
        Caches,
        targets::{Targeting, Targets},
    },
    live::{Live, LiveError},
    review::{Answer, Request},
    server::endpoint::{Handler, Progress, Step},
};
use recent::Recent;

/// Most candidates that are read before a denial; more of one target cannot come about unless the
/// validator was off, and one confirmed one is enough.
const MAX_READS: usize = 5;

/// The validator of AgentRuntimes.
#[derive(Debug)]
pub struct RuntimeValidator {
    /// Indexes.
    pub caches: Arc<Caches>,
    /// Live reads.
    pub live: Arc<Live>,
    /// What this replica admitted in the last seconds.
    pub recent: Recent,
    /// Namespaces this process serves.
    pub scope: Scope,
}

/// The validator of AgentCards.
#[derive(Debug)]
pub struct CardValidator {
    /// Indexes.
    pub caches: Arc<Caches>,
    /// Live reads.
    pub live: Arc<Live>,
    /// What this replica admitted in the last seconds.
    pub recent: Recent,
    /// Namespaces this process serves.
    pub scope: Scope,
}

impl Handler for RuntimeValidator {
    fn handle(&self, request: Request, progress: Progress) -> BoxFuture<'_, Answer> {
        async move { self.validate(request, &progress).await }.boxed()
    }
}

impl Handler for CardValidator {
    fn handle(&self, request: Request, progress: Progress) -> BoxFuture<'_, Answer> {
        async move { self.validate(request, &progress).await }.boxed()
    }
}

impl RuntimeValidator {
    async fn validate(&self, request: Request, progress: &Progress) -> Answer {
        let Some((new, old)) = objects::<AgentRuntime>(&request, "AgentRuntime", &self.scope) else {
            return Answer::allow("");
        };
        let new = match new {
            Ok(new) => new,
            Err(error) => return undecodable("AgentRuntime", &error),
        };
        if !admission::runtime_needs_review(&new, old.as_ref()) {
            return Answer::allow("");
        }
        let target = &new.spec.target_ref;
        progress.at(Step::Duplicates);
        let candidates = candidates(&self.caches.runtimes, &self.recent, &request, target);
        let mut duplicate = None;
        for name in candidates.iter().take(MAX_READS) {
            let read = self.live.agent_runtime(&request.namespace, name).await;
            if confirmed(read.map(|found| found.map(Targeting::from)), target) {
                duplicate = Some(Duplicate { name });
                break;
            }
        }
        let verdict = admission::judge_runtime(&request.namespace, &new.spec, duplicate);
        settle(&self.recent, &request, Some(target), verdict)
    }
}

impl CardValidator {
    async fn validate(&self, request: Request, progress: &Progress) -> Answer {
        let Some((new, old)) = objects::<AgentCard>(&request, "AgentCard", &self.scope) else {
            return Answer::allow("");
        };
        let new = match new {
            Ok(new) => new,
            Err(error) => return undecodable("AgentCard", &error),
        };
        if !admission::card_needs_review(&new, old.as_ref()) {
            return Answer::allow("");
        }
        progress.at(Step::Duplicates);
        let target = new.spec.target_ref.as_ref();
        let candidates = target
            .map(|target| candidates(&self.caches.cards, &self.recent, &request, target))
            .unwrap_or_default();
        let mut duplicate = None;
        for name in candidates.iter().take(MAX_READS) {
            let read = self.live.agent_card(&request.namespace, name).await;
            let read = read.map(|found| found.map(Targeting::from));
            if target.is_some_and(|target| confirmed(read, target)) {
                duplicate = Some(Duplicate { name });
                break;
            }
        }
        let review = CardReview::default();
        let verdict = admission::judge_card(&request.namespace, &new.spec, duplicate, review);
        settle(&self.recent, &request, target, verdict)
    }
}

/// The new object and the stored one; `None` = not ours to judge.
fn objects<K: DeserializeOwned>(
    request: &Request,
    kind: &str,
    scope: &Scope,
) -> Option<(serde_json::Result<K>, Option<K>)> {
    let judged = request.kind.kind == kind
        && request.sub_resource.as_deref().unwrap_or_default().is_empty()
        && matches!(request.operation.as_str(), "CREATE" | "UPDATE")
        && scope.contains(&request.namespace);
    if !judged {
        return None;
    }
    // A stored object this build cannot read counts as different: the new one is judged.
    let old = K::deserialize(&request.old_object).ok();
    Some((K::deserialize(&request.object), old))
}

/// The schema of the CRD comes first; what passes it and still does not fit this build is a newer
/// form that an older webhook must not refuse.
fn undecodable(kind: &str, error: &serde_json::Error) -> Answer {
    tracing::warn!(kind, %error, "an object that this build cannot read is admitted unchecked");
    Answer::allow("").with_warnings(vec![format!(
        "authbridge-webhook cannot read this {kind} and did not check it: {error}"
    )])
}

/// Names of other objects that may have the same target.
fn candidates<P>(store: &Targets<P>, recent: &Recent, request: &Request, target: &TargetRef) -> Vec<String> {
    let stored = store.naming(&request.namespace, &target.name);
    let mut names: Vec<String> = stored
        .iter()
        .filter(|other| other.claims(target))
        .map(|other| other.name.to_string())
        .chain(recent.claiming(&request.namespace, target))
        .filter(|name| *name != request.name || request.name.is_empty())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Whether the other object still exists and still has the target. An error counts as "no".
fn confirmed<P>(read: Result<Option<Targeting<P>>, LiveError>, target: &TargetRef) -> bool {
    match read {
        Ok(found) => found.is_some_and(|other| other.claims(target)),
        Err(error) => {
            tracing::warn!(%error, "a possible duplicate could not be read; the object is admitted");
            false
        }
    }
}

fn settle(recent: &Recent, request: &Request, target: Option<&TargetRef>, verdict: Verdict) -> Answer {
    match verdict {
        Verdict::Allow { warnings } => {
            if let (Some(target), false) = (target, request.is_dry_run()) {
                recent.remember(&request.namespace, &request.name, target);
            }
            Answer::allow("").with_warnings(warnings)
        }
        Verdict::Deny { message } => {
            tracing::info!(
                k8s.namespace.name = request.namespace,
                kind = request.kind.kind,
                name = request.name,
                request.uid = request.uid,
                message,
                "admission denied"
            );
            Answer::deny(403, message)
        }
    }
}
