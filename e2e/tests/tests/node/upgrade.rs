//! One release through its life: switched on, upgraded with and without changes, rolled back, upgraded while the API server
//! restarts, removed and installed again (packaging §15).

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use api_types::names::label;
use e2e::{Json as _, Ns, kinds, poll, secs, wait_for};
use local_cluster::Mark;
use serde_json::{Value, json};

use crate::chart::{Helm, NAMESPACE, RELEASE};
use crate::node::RealNode;
use crate::release::{answers, enrol, helm_run, lives, only, pod, pods, restarts, until_ready, wide_objects};

const PLACE: &str = "--namespace=kagenti-system";
const WAIT: [&str; 2] = ["--wait", "--timeout=3m"];

struct Life {
    node: RealNode,
    helm: Helm,
    chart: String,
    /// Where the release is.
    release: Ns,
    /// Where the agent is.
    team: Ns,
}

#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn node_upgrades() -> Result<()> {
    let life = Life::start().await?;
    life.definitions_then_all().await?;
    life.nothing_new().await?;
    life.one_value().await?;
    life.api_server_restarts().await?;
    life.reinstalled().await?;
    life.node.cluster().stop().await
}

impl Life {
    async fn start() -> Result<Self> {
        let node = RealNode::own().await?;
        let helm = Helm::new(&node.built().helm, node.cluster()).await?;
        let chart = helm.chart().display().to_string();
        let release = Ns::new(node.cluster().client().await?, NAMESPACE);
        let team = node.namespace("team1", json!({})).await?;
        Ok(Self { node, helm, chart, release, team })
    }

    async fn helm(&self, verb: &str, more: &[&str]) -> Result<String> {
        let mut args = vec![verb, RELEASE, &self.chart, PLACE];
        args.extend(WAIT);
        args.extend(more);
        helm_run(&self.helm, self.node.cluster(), &args).await
    }

    async fn lives(&self) -> Result<BTreeMap<String, (String, i64)>> {
        Ok(lives(&pods(&self.release, "").await?))
    }

    async fn agent_pods(&self) -> Result<Vec<Value>> {
        self.team.pods("weather").await
    }

    /// Definitions without any component, then the components.
    async fn definitions_then_all(&self) -> Result<()> {
        self.helm("install", &["--create-namespace", &only(&[])]).await?;
        assert!(pods(&self.release, "").await?.is_empty());
        assert!(self.release.list(kinds::DEPLOYMENT, "").await?.is_empty());
        enrol(&self.team, "weather").await?;
        // `--reset-values`: the defaults are the four components of a bare cluster.
        self.helm("upgrade", &["--reset-values"]).await?;
        until_ready(&self.release, secs(60)).await?;
        self.team.until_ready(secs(60), "weather").await?;
        let injected = |pods: &[Value]| {
            pods.len() == 1
                && pods[0].container("authbridge-proxy").is_some()
                && pods[0].condition("Ready").status == "True"
        };
        self.team
            .until_list(secs(90), kinds::POD, "app=weather", "one Pod with its sidecar", injected)
            .await?;
        Ok(())
    }

    /// An upgrade that changes no value changes nothing: no Pod, no definition, nothing that the webhook wrote.
    async fn nothing_new(&self) -> Result<()> {
        let all = Ns::cluster(self.release.client().clone());
        let before = (self.lives().await?, lives(&self.agent_pods().await?), wide_objects(&all).await?);
        let versions = self.versions(&all).await?;
        self.helm("upgrade", &[]).await?;
        let after = (self.lives().await?, lives(&self.agent_pods().await?), wide_objects(&all).await?);
        assert_eq!(after, before);
        assert_eq!(self.versions(&all).await?, versions, "resourceVersion");
        Ok(())
    }

    /// What an upgrade without changes must not write.
    async fn versions(&self, all: &Ns) -> Result<BTreeMap<String, String>> {
        let mut versions = BTreeMap::new();
        for kind in [kinds::CRD, kinds::MUTATING_WEBHOOK, kinds::VALIDATING_WEBHOOK] {
            for object in all.list(kind, "").await? {
                versions.insert(format!("{} {}", kind.kind, object.name()), object.version().to_owned());
            }
        }
        for name in ["kagenti-platform-config", "kagenti-feature-gates"] {
            let object = self.release.get(kinds::CONFIG_MAP, name).await?;
            versions.insert(name.to_owned(), object.version().to_owned());
        }
        let workload = self.team.get(kinds::DEPLOYMENT, "weather").await?;
        versions.insert("weather".to_owned(), workload.version().to_owned());
        Ok(versions)
    }

    /// One value reaches one component; one of the platform configuration reaches agents, and no component restarts; both
    /// are taken back by a rollback.
    async fn one_value(&self) -> Result<()> {
        let config_hash =
            |workload: &Value| workload.template_annotation("kagenti.io/config-hash").map(str::to_owned);
        let as_installed = config_hash(&self.team.get(kinds::DEPLOYMENT, "weather").await?);
        ensure!(as_installed.is_some(), "the agent has no hash of its configuration");
        let before = self.lives().await?;
        let revision = self.revision().await?;
        let set = "--set=card-ctl.logging.level=debug,defaults.observability.logLevel=debug";
        self.helm("upgrade", &["--reuse-values", set]).await?;
        until_ready(&self.release, secs(60)).await?;
        let after = self.lives().await?;
        let changed: Vec<&str> = before
            .iter()
            .filter(|(name, life)| after.get(*name) != Some(life))
            .map(|(name, _)| name.as_str())
            .collect();
        ensure!(changed.len() == 1 && changed[0].starts_with("kagenti-card-ctl-"), "restarted: {changed:?}");
        self.card_ctl_says(true).await?;
        let configured = self.platform_text().await?;
        ensure!(configured.contains("logLevel: debug"), "{configured}");
        let hash = wait_for(secs(60), "the agent to follow the platform configuration", async || {
            let hash = config_hash(&self.team.get(kinds::DEPLOYMENT, "weather").await?);
            Ok((hash.is_some() && hash != as_installed).then_some(hash))
        })
        .await?;

        let to = revision.to_string();
        let mut back = vec!["rollback", RELEASE, &to, PLACE];
        back.extend(WAIT);
        helm_run(&self.helm, self.node.cluster(), &back).await?;
        until_ready(&self.release, secs(60)).await?;
        self.card_ctl_says(false).await?;
        ensure!(!self.platform_text().await?.contains("logLevel: debug"), "the configuration is back");
        wait_for(secs(60), "the agent to follow it back", async || {
            let workload = self.team.get(kinds::DEPLOYMENT, "weather").await?;
            Ok((config_hash(&workload) != hash).then_some(()))
        })
        .await?;
        self.team.rolled_out(secs(60), kinds::DEPLOYMENT, "weather").await?;
        self.team.until_ready(secs(30), "weather").await.map(drop)
    }

    async fn card_ctl_says(&self, debug: bool) -> Result<()> {
        let args = pod(&self.release, "card-ctl").await?.texts("/spec/containers/0/args").join(" ");
        ensure!(args.contains("debug") == debug, "{args}");
        Ok(())
    }

    async fn platform_text(&self) -> Result<String> {
        let map = self.release.get(kinds::CONFIG_MAP, "kagenti-platform-config").await?;
        Ok(map.text("/data/config.yaml").to_owned())
    }

    async fn revision(&self) -> Result<i64> {
        let said = self.helm.run(["status", RELEASE, PLACE, "--output=json"]).await?;
        let status: Value = serde_json::from_str(&said).context("helm status")?;
        status.number("/version").context("a revision")
    }

    /// The API server goes while Helm waits for the Job that applies the definitions. The upgrade ends, or is repeated as
    /// Helm's own message says; then everything is as asked for, and no process is in a crash loop.
    async fn api_server_restarts(&self) -> Result<()> {
        let last = self.revision().await?;
        let before = pods(&self.release, "").await?;
        let args = ["--reuse-values", "--set=runtime-ctl.logging.level=debug"];
        let cluster = self.node.cluster();
        let mark = cluster.audit()?.mark()?;
        let outage = async {
            self.until_job(mark).await?;
            cluster.api_server().stop().await?;
            tokio::time::sleep(secs(2)).await;
            cluster.api_server().start().await
        };
        let (upgraded, outage) = tokio::join!(self.helm("upgrade", &args), outage);
        outage?;
        if let Err(error) = upgraded {
            eprintln!("the upgrade ended with the API server: {error:#}");
            if let Err(error) = self.helm("upgrade", &args).await {
                // Helm could not write down how it ended.
                ensure!(format!("{error:#}").contains("another operation"), "{error:#}");
                let to = last.to_string();
                let mut back = vec!["rollback", RELEASE, &to, PLACE];
                back.extend(WAIT);
                helm_run(&self.helm, cluster, &back).await?;
                self.helm("upgrade", &args).await?;
            }
        }
        until_ready(&self.release, secs(120)).await?;
        let args = pod(&self.release, "runtime-ctl").await?.texts("/spec/containers/0/args").join(" ");
        ensure!(args.contains("debug"), "{args}");
        // A process that could not renew its Lease ends once, by contract.
        for pod in pods(&self.release, "").await? {
            let had = before.iter().find(|old| old.uid() == pod.uid()).map_or(0, restarts);
            ensure!(restarts(&pod) <= had + 1, "{} starts again and again", pod.name());
        }
        self.team.until_ready(secs(30), "weather").await.map(drop)
    }

    async fn until_job(&self, mark: Mark) -> Result<()> {
        let audit = self.node.cluster().audit()?;
        poll(secs(60), async || {
            let made = audit.since(mark, |request| {
                request.verb == "create" && request.resource == "jobs" && request.namespace == NAMESPACE
            })?;
            Ok((!made.is_empty()).then_some(()))
        })
        .await
        .context("the Job of the upgrade")
    }

    /// The release goes and comes back under its name: agents keep their sidecars and their Pods.
    async fn reinstalled(&self) -> Result<()> {
        let before = lives(&self.agent_pods().await?);
        let mut args = vec!["uninstall", RELEASE, PLACE];
        args.extend(WAIT);
        helm_run(&self.helm, self.node.cluster(), &args).await?;
        assert!(pods(&self.release, "").await?.is_empty());
        assert_eq!(lives(&self.agent_pods().await?), before, "agents run on");
        self.helm("install", &[]).await?;
        until_ready(&self.release, secs(60)).await?;
        answers(&self.team).await?;
        // A sign of life of the new installation, after which the old agent must still be as it was.
        enrol(&self.team, "second").await?;
        self.team.until_ready(secs(60), "second").await?;
        self.team.until_ready(secs(30), "weather").await?;
        assert_eq!(lives(&self.agent_pods().await?), before, "no agent restarts");
        assert!(self.agent_pods().await?[0].container("authbridge-proxy").is_some());

        for name in ["weather", "second"] {
            self.team.delete(kinds::AGENT_RUNTIME, name).await?;
            self.team.gone(secs(60), kinds::AGENT_RUNTIME, name).await?;
            let workload = self.team.get(kinds::DEPLOYMENT, name).await?;
            assert_eq!(workload.template_label(label::ENROLLED), None, "{}", workload.readable());
        }
        Ok(())
    }
}
