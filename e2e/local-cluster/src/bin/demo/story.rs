//! The quick start as it happens: who did what, and when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use api_types::AgentRuntime;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject, ListParams};
use kube::{Client, ResourceExt as _};
use local_cluster::terminal::{Task, Tone, seconds};
use local_cluster::{ApiRequest, Audit, Cluster, Mark};

use super::COMPONENTS;
use super::checks::{Check, Snapshot};
use super::pod_view::PodView;
use super::screen::Screen;

/// Namespace of the quick start.
const NAMESPACE: &str = "default";
/// Label of its Pods.
const SELECTOR: &str = "app.kubernetes.io/name=weather-agent";
/// Name of its Deployment.
const WORKLOAD: &str = "weather-agent";
/// Name of its AgentRuntime.
const RUNTIME: &str = "weather-agent-runtime";
/// How long Kubernetes may take to run the plain Pod, and the suite to take care of it.
const LIMIT: Duration = Duration::from_mins(1);
/// How often the view is refreshed.
const REFRESH: Duration = Duration::from_millis(50);

/// The view of one run.
pub(crate) struct Story<'a> {
    cluster: &'a Cluster,
    screen: &'a Screen,
    client: Client,
    bare: bool,
    audit: Option<(Audit, Mark)>,
    started: Timestamp,
    template: BTreeMap<String, String>,
    pods: BTreeMap<String, String>,
    conditions: BTreeMap<String, String>,
    phase: Option<String>,
}

/// Who, how it looks, what.
type Observed = (&'static str, Tone, String);

/// A line of the story.
struct Line {
    at: Timestamp,
    actor: String,
    tone: Tone,
    text: String,
}

impl<'a> Story<'a> {
    /// `bare`: nothing but Kubernetes runs in the cluster, and it has an audit log.
    pub(crate) async fn new(cluster: &'a Cluster, screen: &'a Screen, bare: bool) -> Result<Self> {
        let audit = if bare { Some(cluster.audit()?) } else { None };
        let audit = audit.map(|audit| audit.mark().map(|mark| (audit, mark))).transpose()?;
        Ok(Self {
            cluster,
            screen,
            client: cluster.client().await?,
            bare,
            audit,
            started: Timestamp::now(),
            template: BTreeMap::new(),
            pods: BTreeMap::new(),
            conditions: BTreeMap::new(),
            phase: None,
        })
    }

    /// Applies the documents, shows what happens and returns the checks.
    pub(crate) async fn tell(&mut self, yaml: &str, applied: &mut Vec<DynamicObject>) -> Result<Vec<Check>> {
        self.screen.heading("What happens");
        self.started = Timestamp::now();
        // The documents are applied as they are. The pause before the AgentRuntime is only there so that the
        // Pod can be seen as it was without the suite.
        let (plain, enrolment) =
            yaml.rsplit_once("---\n").context("the quick start has several documents")?;
        self.apply(plain, applied).await?;
        let before = self.until("the plain Pod to run", |snapshot| snapshot.pods.iter().any(runs)).await?;
        let before = before.pods.first().map(PodView::new).unwrap_or_default();
        self.apply(enrolment, applied).await?;
        let enrolled = Instant::now();
        let bare = self.bare;
        let last = self
            .until("the agent to be protected", |snapshot| {
                snapshot.checks(bare).iter().all(|check| check.holds)
            })
            .await?;
        let took = enrolled.elapsed();
        self.finish(&before, &last, took);
        Ok(last.checks(bare))
    }

    async fn apply(&self, yaml: &str, applied: &mut Vec<DynamicObject>) -> Result<()> {
        let objects = self.cluster.apply_yaml(yaml).await.context("applying the quick start")?;
        let kind = |object: &DynamicObject| {
            object.types.as_ref().map(|types| types.kind.clone()).unwrap_or_default()
        };
        let names: Vec<String> = objects.iter().map(|o| format!("{} {}", kind(o), o.name_any())).collect();
        let text = format!("applied {}", names.join(", "));
        self.show(&Line { at: Timestamp::now(), actor: "you".to_owned(), tone: Tone::Strong, text });
        applied.extend(objects);
        Ok(())
    }

    /// Shows changes until `done` says so or the time is over; the last state either way.
    async fn until(&mut self, what: &str, done: impl Fn(&Snapshot) -> bool) -> Result<Snapshot> {
        let since = Instant::now();
        let mut task: Option<Task> = None;
        loop {
            let snapshot = self.look().await?;
            let lines = self.changes(&snapshot)?;
            let print = || lines.iter().for_each(|line| self.show(line));
            match &task {
                Some(task) => task.beside(print),
                None => print(),
            }
            if done(&snapshot) || since.elapsed() > LIMIT {
                if let Some(task) = task {
                    task.cleared();
                }
                return Ok(snapshot);
            }
            if task.is_none() && since.elapsed() > Duration::from_secs(2) {
                task = Some(self.screen.task(&format!("waiting for {what}")));
            }
            tokio::time::sleep(REFRESH).await;
        }
    }

    async fn look(&self) -> Result<Snapshot> {
        let of_agent = ListParams::default().labels(SELECTOR);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), NAMESPACE);
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), NAMESPACE);
        let runtimes: Api<AgentRuntime> = Api::namespaced(self.client.clone(), NAMESPACE);
        let (pods, sets, deployment, runtime) = tokio::try_join!(
            pods.list(&of_agent),
            sets.list(&of_agent),
            deployments.get_opt(WORKLOAD),
            runtimes.get_opt(RUNTIME)
        )
        .context("looking at namespace default")?;
        let pods = pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        Ok(Snapshot { runtime, deployment, pods, replica_sets: sets.items.len() })
    }

    /// What is new since the last look, in words and in the order in which it happened.
    fn changes(&mut self, snapshot: &Snapshot) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        if let Some((audit, mark)) = &mut self.audit {
            let requests = audit.read(mark)?;
            lines.extend(requests.iter().filter(|request| tells(request)).map(|request| Line {
                at: request.time.parse().unwrap_or_else(|_| Timestamp::now()),
                actor: request.short_user().to_owned(),
                tone: Tone::Good,
                text: describe(request),
            }));
        }
        lines.sort_by_key(|line| line.at);
        let mut observed = Vec::new();
        self.template_changes(snapshot, &mut observed);
        self.pod_changes(snapshot, &mut observed);
        self.runtime_changes(snapshot, &mut observed);
        let at = Timestamp::now();
        lines.extend(observed.into_iter().map(|(actor, tone, text)| Line {
            at,
            actor: actor.to_owned(),
            tone,
            text,
        }));
        Ok(lines)
    }

    /// What enrolment put on the pod template; the first look only learns what the user wrote.
    fn template_changes(&mut self, snapshot: &Snapshot, lines: &mut Vec<Observed>) {
        let template = snapshot.template_keys();
        let known = std::mem::replace(&mut self.template, template);
        let new: Vec<String> = self
            .template
            .iter()
            .filter(|(key, value)| known.get(*key) != Some(*value))
            .map(|(key, value)| format!("{key}={}", value.get(..12).unwrap_or(value)))
            .collect();
        if !known.is_empty() && !new.is_empty() {
            lines.push(("Deployment", Tone::Plain, format!("pod template: {}", new.join(", "))));
        }
    }

    fn pod_changes(&mut self, snapshot: &Snapshot, lines: &mut Vec<Observed>) {
        for pod in &snapshot.pods {
            let view = PodView::new(pod);
            let injected = view.injected(&snapshot.written_containers());
            if !injected.is_empty() && !self.pods.contains_key(&view.name) {
                let text = format!("put {} into Pod {}", injected.join(", "), view.name);
                lines.push(("authbridge-webhook", Tone::Good, text));
            }
            let text = format!("{}: {}", view.phase, view.containers.join(", "));
            if self.pods.insert(view.name.clone(), text.clone()).as_ref() != Some(&text) {
                lines.push(("Kubernetes", Tone::Plain, format!("Pod {} {text}", view.name)));
            }
        }
        let gone: Vec<String> = self
            .pods
            .keys()
            .filter(|name| !snapshot.pods.iter().any(|pod| pod.name_any() == **name))
            .cloned()
            .collect();
        for name in gone {
            self.pods.remove(&name);
            lines.push(("Kubernetes", Tone::Plain, format!("Pod {name} ends")));
        }
    }

    fn runtime_changes(&mut self, snapshot: &Snapshot, lines: &mut Vec<Observed>) {
        for condition in snapshot.conditions() {
            let text = format!("{}={} ({})", condition.type_, condition.status, condition.reason);
            if self.conditions.insert(condition.type_.clone(), text.clone()).as_ref() != Some(&text) {
                lines.push(("AgentRuntime", Tone::Faint, text));
            }
        }
        let status = snapshot.runtime.as_ref().and_then(|runtime| runtime.status.as_ref());
        let phase = status.and_then(|status| status.phase.as_ref()).map(|phase| format!("{phase:?}"));
        if phase.is_some() && phase != self.phase {
            self.phase.clone_from(&phase);
            lines.push(("AgentRuntime", Tone::Strong, format!("phase {}", phase.unwrap_or_default())));
        }
    }

    /// The result: Pod before and after, conditions, checks.
    fn finish(&self, before: &PodView, last: &Snapshot, took: Duration) {
        let after =
            last.pods.iter().max_by_key(|pod| pod.creation_timestamp()).map(PodView::new).unwrap_or_default();
        self.screen.heading("The Pod");
        self.screen.table(["", "before", "after"], &PodView::compare(before, &after));
        self.screen.heading("Conditions of the AgentRuntime");
        let rows: Vec<[String; 4]> = last
            .conditions()
            .iter()
            .map(|c| [c.type_.clone(), c.status.clone(), c.reason.clone(), c.message.clone()])
            .collect();
        self.screen.table(["TYPE", "STATUS", "REASON", "MESSAGE"], &rows);
        self.screen.heading(&format!("Checks, {} after the AgentRuntime was applied", seconds(took)));
        for check in last.checks(self.bare) {
            self.screen.check(check.holds, &check.text);
        }
    }

    fn show(&self, line: &Line) {
        let since = Duration::try_from(line.at.duration_since(self.started)).unwrap_or_default();
        self.screen.event(since, &line.actor, line.tone, &line.text);
    }
}

fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// Whether a request is part of the story: a change that one of the components made.
fn tells(request: &ApiRequest) -> bool {
    let housekeeping = ["events", "leases", "tokenreviews", "subjectaccessreviews"];
    request.is_write()
        && COMPONENTS.contains(&request.short_user())
        && !housekeeping.contains(&request.resource.as_str())
}

fn describe(request: &ApiRequest) -> String {
    let verb = match request.verb.as_str() {
        "create" => "created",
        "patch" => "patched",
        "update" => "updated",
        _ => "deleted",
    };
    let refused =
        if request.code >= 400 { format!(" - refused with {}", request.code) } else { String::new() };
    format!("{verb} {} {}{refused}", request.resource, request.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(user: &str, verb: &str, resource: &str, code: u16) -> ApiRequest {
        ApiRequest {
            user: format!("system:serviceaccount:kagenti-system:{user}"),
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            name: "x".to_owned(),
            code,
            ..ApiRequest::default()
        }
    }

    #[test]
    fn only_changes_by_components_are_told() {
        assert!(tells(&request("runtime-ctl", "patch", "deployments", 200)));
        assert!(!tells(&request("runtime-ctl", "list", "deployments", 200)));
        assert!(!tells(&request("runtime-ctl", "create", "events", 201)));
        assert!(!tells(&request("somebody", "patch", "deployments", 200)));
    }

    #[test]
    fn refusals_are_not_hidden() {
        assert_eq!(
            describe(&request("runtime-ctl", "patch", "pods", 403)),
            "patched pods x - refused with 403"
        );
        assert_eq!(describe(&request("runtime-ctl", "create", "pods", 201)), "created pods x");
    }
}
