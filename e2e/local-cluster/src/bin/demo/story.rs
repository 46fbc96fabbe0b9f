//! The quick start as it happens: who did what, and when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use api_types::{AgentCard, AgentRuntime};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DynamicObject, ListParams};
use kube::{Client, ResourceExt as _};
use local_cluster::terminal::{Task, Tone, seconds};
use local_cluster::{ApiRequest, Audit, Cluster, Mark};

use super::agent::Agent;
use super::checks::{Check, Scene, Snapshot, Traffic};
use super::pod_view::PodView;
use super::screen::Screen;

/// Namespace of the quick start.
pub(crate) const NAMESPACE: &str = "default";
/// Label of its Pods.
pub(crate) const SELECTOR: &str = "app.kubernetes.io/name=weather-agent";
/// Name of its Deployment.
pub(crate) const WORKLOAD: &str = "weather-agent";
/// Name of its AgentRuntime.
const RUNTIME: &str = "weather-agent-runtime";
/// Name of the AgentCard that card-ctl makes.
const CARD: &str = "weather-agent-deployment-card";
/// Name of the NetworkPolicy that netpol-ctl makes.
const POLICY: &str = "weather-agent-signature-policy";
/// How long Kubernetes may take to run the plain Pod, and the suite to take care of it.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);
/// How often the view is refreshed.
const REFRESH: Duration = Duration::from_millis(50);

/// The view of one run.
pub(crate) struct Story<'a> {
    cluster: &'a Cluster,
    screen: &'a Screen,
    client: Client,
    scene: Scene,
    agent: Agent,
    actors: &'static [&'static str],
    audit: Option<(Audit, Mark)>,
    started: Timestamp,
    template: BTreeMap<String, String>,
    pods: BTreeMap<String, String>,
    conditions: BTreeMap<String, String>,
    phase: Option<String>,
    card: BTreeMap<String, String>,
    traffic: Option<Traffic>,
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
    /// `scene`: what the quick start happens in; only a cluster that was started here has an audit log. `actors`:
    /// whose requests are shown. `agent`: what answers, except on a cluster that was there before.
    pub(crate) async fn new(
        cluster: &'a Cluster,
        screen: &'a Screen,
        scene: Scene,
        actors: &'static [&'static str],
        agent: Agent,
    ) -> Result<Self> {
        let audit = if scene == Scene::Foreign { None } else { Some(cluster.audit()?) };
        let audit = audit.map(|audit| audit.mark().map(|mark| (audit, mark))).transpose()?;
        Ok(Self {
            cluster,
            screen,
            client: cluster.client().await?,
            scene,
            agent,
            actors,
            audit,
            started: Timestamp::now(),
            template: BTreeMap::new(),
            pods: BTreeMap::new(),
            conditions: BTreeMap::new(),
            phase: None,
            card: BTreeMap::new(),
            traffic: None,
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
        if self.scene != Scene::Foreign {
            self.agent.start(self.cluster, applied).await?;
        }
        self.apply(plain, applied).await?;
        let before = self.until("the plain Pod to run", |snapshot| snapshot.pods.iter().any(runs)).await?;
        let before = before.pods.first().map(PodView::new).unwrap_or_default();
        self.apply(enrolment, applied).await?;
        let enrolled = Instant::now();
        let last = self.until_end("the agent to be protected").await?;
        let took = enrolled.elapsed();
        self.finish(&before, &last);
        self.show_card(&last).await?;
        Ok(self.show_checks(&last, &format!("Checks, {} after the AgentRuntime was applied", seconds(took))))
    }

    /// A further act: applies one document and waits for what must follow.
    pub(crate) async fn act(
        &mut self,
        scene: Scene,
        title: &str,
        yaml: &str,
        applied: &mut Vec<DynamicObject>,
    ) -> Result<Vec<Check>> {
        self.scene = scene;
        self.screen.heading(title);
        self.apply(yaml, applied).await?;
        let since = Instant::now();
        let last = self.until_end("the verdict and the policy").await?;
        let took = since.elapsed();
        self.show_card(&last).await?;
        Ok(self.show_checks(&last, &format!("Checks, {} later", seconds(took))))
    }

    async fn until_end(&mut self, what: &str) -> Result<Snapshot> {
        let scene = self.scene;
        self.until(what, |snapshot| snapshot.checks(scene).iter().all(|check| check.holds)).await
    }

    /// The AgentCard as users see it.
    async fn show_card(&self, last: &Snapshot) -> Result<()> {
        if last.card.is_none() {
            return Ok(());
        }
        self.screen.heading("kubectl get agentcards");
        let table = self.cluster.kubectl(["get", "agentcards", "--namespace", NAMESPACE]).await?;
        self.screen.kubectl(&table);
        Ok(())
    }

    fn show_checks(&self, last: &Snapshot, heading: &str) -> Vec<Check> {
        self.screen.heading(heading);
        let checks = last.checks(self.scene);
        for check in &checks {
            self.screen.check(check.holds, &check.text);
        }
        checks
    }

    async fn apply(&self, yaml: &str, applied: &mut Vec<DynamicObject>) -> Result<()> {
        let objects = self.cluster.apply_yaml(yaml).await.context("applying the documents")?;
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
            self.agent.follow(self.cluster, &snapshot.pods)?;
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
        let cards: Api<AgentCard> = Api::namespaced(self.client.clone(), NAMESPACE);
        let policies: Api<NetworkPolicy> = Api::namespaced(self.client.clone(), NAMESPACE);
        let (pods, sets, deployment, runtime, card, policy) = tokio::try_join!(
            pods.list(&of_agent),
            sets.list(&of_agent),
            deployments.get_opt(WORKLOAD),
            runtimes.get_opt(RUNTIME),
            cards.get_opt(CARD),
            policies.get_opt(POLICY)
        )
        .context("looking at namespace default")?;
        let pods = pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        Ok(Snapshot { runtime, deployment, pods, replica_sets: sets.items.len(), card, policy })
    }

    /// What is new since the last look, in words and in the order in which it happened.
    fn changes(&mut self, snapshot: &Snapshot) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        if let Some((audit, mark)) = &mut self.audit {
            let requests = audit.read(mark)?;
            lines.extend(requests.iter().filter(|request| tells(self.actors, request)).map(|request| Line {
                at: request.time.parse().unwrap_or_else(|_| Timestamp::now()),
                actor: component_of(request).to_owned(),
                tone: Tone::Good,
                text: describe(request),
            }));
        }
        lines.sort_by_key(|line| line.at);
        let mut observed = Vec::new();
        self.template_changes(snapshot, &mut observed);
        self.pod_changes(snapshot, &mut observed);
        self.runtime_changes(snapshot, &mut observed);
        self.trust_changes(snapshot, &mut observed);
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
        let new = remember(&mut self.conditions, snapshot.conditions());
        lines.extend(new.into_iter().map(|text| ("AgentRuntime", Tone::Faint, text)));
        let status = snapshot.runtime.as_ref().and_then(|runtime| runtime.status.as_ref());
        let phase = status.and_then(|status| status.phase.as_ref()).map(|phase| format!("{phase:?}"));
        if phase.is_some() && phase != self.phase {
            self.phase.clone_from(&phase);
            lines.push(("AgentRuntime", Tone::Strong, format!("phase {}", phase.unwrap_or_default())));
        }
    }

    fn trust_changes(&mut self, snapshot: &Snapshot, lines: &mut Vec<Observed>) {
        let new = remember(&mut self.card, snapshot.card_conditions());
        lines.extend(new.into_iter().map(|text| ("AgentCard", Tone::Faint, text)));
        let traffic = snapshot.traffic();
        if traffic != self.traffic {
            self.traffic = traffic;
            let text = match traffic {
                Some(Traffic::Open) => "verified peers may come in, everything may go out",
                Some(Traffic::Isolated) => {
                    "isolated: only the suite may come in, only the API server be reached"
                }
                None => "gone",
            };
            lines.push(("NetworkPolicy", Tone::Strong, text.to_owned()));
        }
    }

    /// The result: Pod before and after, conditions.
    fn finish(&self, before: &PodView, last: &Snapshot) {
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
    }

    fn show(&self, line: &Line) {
        let since = Duration::try_from(line.at.duration_since(self.started)).unwrap_or_default();
        self.screen.event(since, &line.actor, line.tone, &line.text);
    }
}

fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// Conditions that are not as they were, in words.
fn remember(known: &mut BTreeMap<String, String>, conditions: &[Condition]) -> Vec<String> {
    let texts = conditions.iter().map(|condition| {
        (condition.type_.clone(), format!("{}={} ({})", condition.type_, condition.status, condition.reason))
    });
    texts
        .filter(|(name, text)| known.insert(name.clone(), text.clone()).as_ref() != Some(text))
        .map(|(_, text)| text)
        .collect()
}

/// Whether a request is part of the story: a change that one of the components made.
fn tells(actors: &[&str], request: &ApiRequest) -> bool {
    let housekeeping = ["events", "leases", "tokenreviews", "subjectaccessreviews"];
    request.is_write()
        && actors.contains(&component_of(request))
        && !housekeeping.contains(&request.resource.as_str())
}

/// The component behind a ServiceAccount: of the demo's own processes they have the same name, the chart's carry a prefix,
/// and one has the name that the previous operator's had.
fn component_of(request: &ApiRequest) -> &str {
    match request.short_user() {
        "controller-manager" => "client-registration-ctl",
        user => user.strip_prefix("kagenti-").unwrap_or(user),
    }
}

fn describe(request: &ApiRequest) -> String {
    let verb = match request.verb.as_str() {
        "create" => "created",
        "patch" => "patched",
        "update" => "updated",
        _ => "deleted",
    };
    let refused = match request.code {
        409 => ", refused (409): it had changed meanwhile, so again".to_owned(),
        code if code >= 400 => format!(", refused ({code})"),
        _ => String::new(),
    };
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
        assert!(tells(&["runtime-ctl"], &request("runtime-ctl", "patch", "deployments", 200)));
        assert!(!tells(&["runtime-ctl"], &request("runtime-ctl", "list", "deployments", 200)));
        assert!(!tells(&["runtime-ctl"], &request("runtime-ctl", "create", "events", 201)));
        assert!(!tells(&["runtime-ctl"], &request("somebody", "patch", "deployments", 200)));
        assert!(tells(&["runtime-ctl"], &request("kagenti-runtime-ctl", "patch", "deployments", 200)));
    }

    #[test]
    fn refusals_are_not_hidden() {
        assert_eq!(describe(&request("runtime-ctl", "patch", "pods", 403)), "patched pods x, refused (403)");
        assert!(describe(&request("card-ctl", "patch", "pods", 409)).ends_with("meanwhile, so again"));
        assert_eq!(describe(&request("runtime-ctl", "create", "pods", 201)), "created pods x");
    }
}
