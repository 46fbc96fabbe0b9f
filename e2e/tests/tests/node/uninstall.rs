//! What a release leaves behind when parts of it go, and when all of it goes (packaging §5, §15).

use anyhow::{Result, ensure};
use api_types::names::{annotation, label};
use e2e::{Json as _, Ns, Stopwatch, kinds, objects, secs};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use crate::chart::{Helm, NAMESPACE, RELEASE};
use crate::node::RealNode;
use crate::release::{helm_run, only, until_ready};

const PLACE: &str = "--namespace=kagenti-system";
/// Agents of the scenario.
const AGENTS: usize = 100;
/// What nobody takes off.
const FOREIGN: &str = "example.com/hold";

struct Release {
    node: RealNode,
    helm: Helm,
    chart: String,
    /// Where the release is.
    home: Ns,
    /// Where the agents are.
    team: Ns,
}

/// Packaging 21, `unenroll`, with the end of packaging 27 before it and `kagenti-crds-agent.keep=false` after it.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn packaging_21_unenroll() -> Result<()> {
    let watch = Stopwatch::start();
    let told = |what: &str| eprintln!("{what}: {:.1} s", watch.spent().as_secs_f64());
    let release = Release::start().await?;
    told("a node");
    release.policies_go_with_netpol_ctl().await?;
    told("installed, netpol-ctl switched off");
    release.stuck_objects_are_named().await?;
    told("one of 101 agents stuck");
    release.everything_is_released().await?;
    told("uninstalled");
    release.definitions_go_when_asked().await?;
    told("installed and uninstalled with the definitions");
    release.node.cluster().stop().await
}

impl Release {
    async fn start() -> Result<Self> {
        let node = RealNode::own().await?;
        let helm = Helm::new(&node.built().helm, node.cluster()).await?;
        let chart = helm.chart().display().to_string();
        let home = Ns::new(node.cluster().client().await?, NAMESPACE);
        let team = node.namespace("team1", json!({})).await?;
        Ok(Self { node, helm, chart, home, team })
    }

    async fn helm(&self, verb: &str, more: &[&str]) -> Result<()> {
        let mut args = vec![verb, RELEASE, &self.chart, PLACE, "--wait", "--timeout=3m"];
        args.extend(more);
        helm_run(&self.helm, self.node.cluster(), &args).await.map(drop)
    }

    /// Whether it went well, and everything that Helm said.
    async fn uninstall(&self) -> Result<(bool, String)> {
        let output = self.helm.attempt(["uninstall", RELEASE, PLACE, "--wait", "--timeout=3m"]).await?;
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok((output.status.success(), said.concat()))
    }

    /// An agent that costs the node nothing: a Deployment without Pods.
    async fn idle(&self, name: &str) -> Result<()> {
        self.team.create(objects::deployment(name).replicas(0)).await?;
        self.team.create(objects::agent_runtime(name, name)).await.map(drop)
    }

    /// Packaging 27: `netpol-ctl.enabled=false` in one upgrade, and none of its policies is left.
    async fn policies_go_with_netpol_ctl(&self) -> Result<()> {
        let components = only(&["runtime-ctl", "netpol-ctl"]);
        // For the uninstall that fails and for the one that does not: Helm refuses an upgrade between them.
        let cleanup = "--set=uninstall.cleanup=unenroll,uninstall.timeout=30s";
        self.helm("install", &["--create-namespace", &components, cleanup]).await?;
        until_ready(&self.home, secs(60)).await?;
        let foreign = objects::named(kinds::NETWORK_POLICY, "foreign").spec(json!({"podSelector": {}}));
        self.team.create(foreign).await?;
        for name in ["one", "two"] {
            let agent = objects::deployment(name).replicas(0).label(label::TYPE, "agent");
            self.team.create(agent).await?;
            let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
            let card = objects::named(kinds::AGENT_CARD, name).spec(json!({"targetRef": target}));
            self.team.create(card).await?;
            let refused = json!({"conditions": [{"type": "Verified", "status": "False", "reason": "SignatureInvalid",
                "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
            self.team.patch_status(kinds::AGENT_CARD, name, json!({"status": refused})).await?;
        }
        let policies = async || self.team.list(kinds::NETWORK_POLICY, "").await;
        self.team
            .until_list(secs(60), kinds::NETWORK_POLICY, "", "two policies and the foreign one", |all| {
                all.len() == 3
            })
            .await?;
        self.helm("upgrade", &["--reuse-values", "--set=netpol-ctl.enabled=false"]).await?;
        let left = policies().await?;
        ensure!(left.len() == 1 && left[0].name() == "foreign", "{left:?}");
        ensure!(self.home.find(kinds::DEPLOYMENT, "kagenti-netpol-ctl").await?.is_none());
        // The cards stay; they were labelled by hand and count for nothing below.
        for name in ["one", "two"] {
            self.team.delete(kinds::DEPLOYMENT, name).await?;
        }
        Ok(())
    }

    /// One object is held by somebody else: the uninstall fails and names it; the release is still at work.
    async fn stuck_objects_are_named(&self) -> Result<()> {
        let agents = stream::iter(0..AGENTS).map(async |index| self.idle(&format!("agent-{index:03}")).await);
        agents.buffer_unordered(8).try_collect::<()>().await?;
        self.idle("held").await?;
        let hold = json!({"metadata": {"finalizers": [FOREIGN, "kagenti.io/cleanup"]}});
        self.team.patch(kinds::AGENT_RUNTIME, "held", hold).await?;
        self.team
            .until_list(secs(120), kinds::DEPLOYMENT, "", "every agent to be enrolled", |all| {
                all.iter().filter(|found| is_enrolled(found)).count() == AGENTS + 1
            })
            .await?;
        let (well, said) = self.uninstall().await?;
        ensure!(!well, "the uninstall did not fail: {said}");
        let stuck = format!("team1/held: finalizer {FOREIGN} is not ours");
        ensure!(said.contains("job kagenti-runtime-ctl-unenroll failed") && said.contains(&stuck), "{said}");
        // What the documentation tells to look at, and what `kubectl describe` shows.
        let logs = ["logs", PLACE, "--selector=app.kubernetes.io/component=unenroll", "--tail=-1"];
        let logs = self.node.cluster().kubectl(logs).await?;
        ensure!(logs.contains(&stuck) && logs.contains("AgentRuntimes are still there"), "{logs}");
        let pods = self.home.list(kinds::POD, "app.kubernetes.io/component=unenroll").await?;
        let ended = "/status/containerStatuses/0/state/terminated/message";
        ensure!(pods.len() == 1 && pods[0].text(ended).contains("team1/held"), "{pods:?}");
        until_ready(&self.home, secs(60)).await?;
        // The others go, whether the Job could wait for all of them or not, and the held one's workload is released, too.
        self.team
            .until_list(secs(120), kinds::AGENT_RUNTIME, "", "the held one only", |all| {
                all.len() == 1 && all[0].texts("/metadata/finalizers") == [FOREIGN]
            })
            .await?;
        let deployments = self.team.list(kinds::DEPLOYMENT, "").await?;
        let still: Vec<&str> =
            deployments.iter().filter(|found| is_marked(found)).map(e2e::Json::name).collect();
        ensure!(still.is_empty(), "still enrolled: {still:?}");
        Ok(())
    }

    /// Whoever held it lets it go: the same command again ends well, and definitions stay.
    async fn everything_is_released(&self) -> Result<()> {
        self.team.patch(kinds::AGENT_RUNTIME, "held", json!({"metadata": {"finalizers": null}})).await?;
        self.idle("late").await?;
        self.team.until(secs(60), kinds::DEPLOYMENT, "late", "its enrolment", is_enrolled).await?;
        let (well, said) = self.uninstall().await?;
        ensure!(well, "{said}");
        ensure!(self.team.list(kinds::AGENT_RUNTIME, "").await?.is_empty());
        ensure!(!is_marked(&self.team.get(kinds::DEPLOYMENT, "late").await?));
        let all = Ns::cluster(self.home.client().clone());
        ensure!(all.list(kinds::CRD, "").await?.len() >= 3, "definitions stay");
        for kind in [kinds::DEPLOYMENT, kinds::JOB, kinds::ROLE, kinds::ROLE_BINDING] {
            let left = self.home.list(kind, "app.kubernetes.io/name=kagenti-operator-chart").await?;
            ensure!(left.is_empty(), "{left:?}");
        }
        for kind in [kinds::CLUSTER_ROLE, kinds::CLUSTER_ROLE_BINDING] {
            let left = all.list(kind, "app.kubernetes.io/name=kagenti-operator-chart").await?;
            ensure!(left.is_empty(), "{left:?}");
        }
        Ok(())
    }

    /// `keep=false`: the definitions go after the release, with cards that nobody else looks after.
    async fn definitions_go_when_asked(&self) -> Result<()> {
        let set = "--set=uninstall.cleanup=unenroll,kagenti-crds-agent.keep=false";
        self.helm("install", &[&only(&["runtime-ctl"]), set]).await?;
        self.team.create(objects::agent_runtime("late", "late")).await?;
        self.team.until(secs(60), kinds::DEPLOYMENT, "late", "its enrolment", is_enrolled).await?;
        let (well, said) = self.uninstall().await?;
        ensure!(well, "{said}");
        ensure!(!is_marked(&self.team.get(kinds::DEPLOYMENT, "late").await?));
        let all = Ns::cluster(self.home.client().clone());
        let left = all.list(kinds::CRD, "").await?;
        ensure!(left.is_empty(), "the Job waited until they were gone: {left:?}");
        Ok(())
    }
}

fn is_enrolled(deployment: &Value) -> bool {
    deployment.template_label(label::ENROLLED) == Some("true") && deployment.label(label::TYPE).is_some()
}

/// Anything of the enrolment is on it.
fn is_marked(deployment: &Value) -> bool {
    let of_template = deployment.template_label(label::ENROLLED).or(deployment.template_label(label::TYPE));
    let of_object = deployment.label(label::TYPE).or(deployment.annotation(annotation::ENROLLED_BY));
    of_template.or(of_object).or(deployment.template_annotation(annotation::CONFIG_HASH)).is_some()
}
