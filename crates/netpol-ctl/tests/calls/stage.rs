//! A context on top of a scripted API server.

use std::{ops::Deref, sync::Arc, time::Duration};

use api_types::enrolment::TargetKind;
use controller_kit::{
    controller::{Failed, Retry},
    watch::Key as ObjectKey,
};
use netpol_ctl::{
    card::{Card, CardView},
    context::{Context, Key},
    error::Error,
    index::Slot,
    policy::Policy,
    reconcile,
    settings::Settings,
    sources::Source,
    workload::{Agent, WorkloadKey, pod_selector},
};
pub(crate) use scripted_api::lines;
use scripted_api::{Call, ScriptedApi, merge};
use serde_json::{Value, json};

pub(crate) const NS: &str = "team1";
pub(crate) const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/team1/networkpolicies";
pub(crate) const CARDS: &str = "/apis/agent.kagenti.dev/v1alpha1/namespaces/team1/agentcards";
pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/team1/deployments";

/// The stage: objects are put on it, passes run, calls are looked at.
pub(crate) struct Stage {
    pub(crate) ctx: Context,
    api: ScriptedApi,
}

impl Deref for Stage {
    type Target = ScriptedApi;

    fn deref(&self) -> &ScriptedApi {
        &self.api
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let settings = Settings {
            apiserver_cidrs: "10.0.0.1".parse().unwrap(),
            enforce_network_policies: true,
            ..settings
        };
        let api = ScriptedApi::new();
        Self { ctx: Context::new(api.handles("netpol-ctl"), settings), api }
    }

    /// Puts an AgentCard into the server and the index.
    pub(crate) fn card(&self, name: &str, target: (&str, &str), verified: Option<(&str, &str)>) {
        self.card_with(name, target, verified, json!({}));
    }

    pub(crate) fn card_with(
        &self,
        name: &str,
        (kind, workload): (&str, &str),
        verified: Option<(&str, &str)>,
        change: Value,
    ) {
        let mut object = json!({
            "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentCard",
            "metadata": {"namespace": NS, "name": name, "uid": format!("{:08x}-{name}", name.len()),
                "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": kind, "name": workload}},
        });
        if let Some((status, reason)) = verified {
            object["status"] =
                json!({"conditions": [{"type": "Verified", "status": status, "reason": reason}]});
        }
        merge(&mut object, &change);
        let object = self.put(&format!("{CARDS}/{name}"), object);
        let view: CardView = serde_json::from_value(object).unwrap();
        self.ctx.index.cards.upsert(Card::from_view(view)).unwrap();
    }

    /// The card is gone, from server and index.
    pub(crate) fn remove_card(&self, name: &str) {
        self.remove_unseen(&format!("{CARDS}/{name}"));
        self.ctx.index.cards.remove(&ObjectKey::new(NS, name));
    }

    /// The index does not know the card (yet).
    pub(crate) fn forget_card(&self, name: &str) {
        self.ctx.index.cards.remove(&ObjectKey::new(NS, name));
    }

    /// An agent, in the index.
    pub(crate) fn workload(&self, kind: TargetKind, name: &str) {
        let spec = json!({"selector": {"matchLabels": {"app": name, "kind": kind.as_str()}},
            "podTemplate": {"metadata": {"labels": {"app": name}}}});
        let selector = pod_selector(kind, name, serde_json::from_value(spec).unwrap());
        let agent = Agent { key: Self::workload_key(kind, name), selector: selector.map(Arc::new) };
        self.ctx.index.workloads.upsert(agent).unwrap();
    }

    fn workload_key(kind: TargetKind, name: &str) -> WorkloadKey {
        WorkloadKey { slot: Self::slot(name), kind }
    }

    pub(crate) fn remove_workload(&self, kind: TargetKind, name: &str) {
        self.ctx.index.workloads.remove(&Self::workload_key(kind, name));
    }

    pub(crate) fn slot(name: &str) -> Slot {
        Slot { namespace: NS.into(), name: name.into() }
    }

    /// Puts a policy into the server and the index, as the watch would.
    pub(crate) fn policy(&self, name: &str, mut object: Value) {
        object["apiVersion"] = json!("networking.k8s.io/v1");
        object["kind"] = json!("NetworkPolicy");
        object["metadata"]["name"] = json!(name);
        let object = self.put(&format!("{POLICIES}/{name}"), object);
        self.ctx.index.policies.upsert(Policy::new(serde_json::from_value(object).unwrap())).unwrap();
    }

    /// A second stage with what the first one's server has: the process after a restart.
    pub(crate) fn restarted(&self) -> Self {
        let again = Self::new();
        for (path, object) in self.objects("/") {
            let object = again.put(&path, object);
            if path.starts_with(POLICIES) {
                let policy = Policy::new(serde_json::from_value(object).unwrap());
                if policy.is_marked() {
                    again.ctx.index.policies.upsert(policy).unwrap();
                }
            } else if path.starts_with(CARDS) {
                let view: CardView = serde_json::from_value(object).unwrap();
                again.ctx.index.cards.upsert(Card::from_view(view)).unwrap();
            }
        }
        again
    }

    /// Names of the policies in the server.
    pub(crate) fn policies(&self) -> Vec<String> {
        let prefix = format!("{POLICIES}/");
        let found = self.objects(&prefix);
        found.iter().filter_map(|(path, _)| path.strip_prefix(&prefix).map(str::to_owned)).collect()
    }

    /// What was called since the last look.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        lines(&self.api.take_calls())
    }

    /// A watch is at work on its first list.
    pub(crate) fn pending(&self, source: Source) {
        self.ctx.sources.register(source, None);
    }

    /// One pass; gives the calls it made.
    pub(crate) async fn pass(&self, key: Key) -> (Vec<Call>, Result<Option<Duration>, Error>) {
        self.during(reconcile::pass(&self.ctx, &key)).await
    }

    /// One pass over the workloads of a name that must succeed; `METHOD path` of each call.
    pub(crate) async fn calls(&self, workload: &str) -> Vec<String> {
        let (calls, result) = self.pass(Key::Slot(Self::slot(workload))).await;
        result.expect("the pass succeeds");
        lines(&calls)
    }

    pub(crate) fn policy_key(name: &str) -> Key {
        Key::Policy(ObjectKey::new(NS, name))
    }
}

/// Retrying soon would be of no use.
pub(crate) fn waits_long(error: &Error) -> bool {
    error.retry() == Retry::BackOff(Duration::from_secs(10))
}

pub(crate) const TRUE: Option<(&str, &str)> = Some(("True", "SignatureVerified"));
pub(crate) const FALSE: Option<(&str, &str)> = Some(("False", "SignatureInvalid"));
pub(crate) const AUDIT: Option<(&str, &str)> = Some(("False", "SignatureInvalidAudit"));
pub(crate) const NONE: [&str; 0] = [];
