//! One installation that the tests of drain, failover and certificates share, one after the other.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use e2e::{Ns, secs};
use local_cluster::Cluster;
use tokio::sync::{Mutex, OnceCell, OwnedMutexGuard};

use crate::chart::{Helm, NAMESPACE, RELEASE};
use crate::node::RealNode;
use crate::release;

/// All six components. Policies are off, or the umbrella would ask for a way to trust agents.
pub(crate) const ALL_ON: [&str; 3] =
    ["netpol-ctl.enabled=true", "netpol-ctl.enforceNetworkPolicies=false", "mlflow-ctl.enabled=true"];

static SHARED: OnceCell<Result<Arc<Installed>, String>> = OnceCell::const_new();

/// All six components, runtime-ctl with two replicas, on a node of their own.
pub(crate) struct Installed {
    node: RealNode,
    turn: Arc<Mutex<()>>,
}

/// The installation for as long as this lives. A test leaves it as it was: every Deployment ready.
pub(crate) struct Turn {
    installed: Arc<Installed>,
    /// The release's namespace, by a client of the test's own.
    pub(crate) operator: Ns,
    _alone: OwnedMutexGuard<()>,
}

impl Turn {
    /// Waits until no other test has it.
    pub(crate) async fn take() -> Result<Self> {
        let start = || async { install().await.map(Arc::new).map_err(|error| format!("{error:#}")) };
        let installed = SHARED.get_or_init(start).await.clone();
        let installed = installed.map_err(|error| anyhow!("the shared installation: {error}"))?;
        let alone = installed.turn.clone().lock_owned().await;
        let operator = Ns::new(installed.node.cluster().client().await?, NAMESPACE);
        release::until_ready(&operator, secs(120)).await.context("the release before the test")?;
        release::answers(&operator).await.context("the release before the test")?;
        Ok(Self { installed, operator, _alone: alone })
    }

    pub(crate) fn node(&self) -> &RealNode {
        &self.installed.node
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        self.installed.node.cluster()
    }
}

async fn install() -> Result<Installed> {
    let node = RealNode::own().await?;
    let program = Helm::new(&node.built().helm, node.cluster()).await?;
    let mut values: Vec<String> = ALL_ON.map(ToOwned::to_owned).into();
    values.push("runtime-ctl.replicas=2".to_owned());
    helm(&node, &program, "install", &values).await?;
    Ok(Installed { node, turn: Arc::default() })
}

/// `helm install` or `helm upgrade` of the umbrella with these values, until everything is ready.
pub(crate) async fn helm(node: &RealNode, helm: &Helm, verb: &str, values: &[String]) -> Result<()> {
    let (chart, namespace) = (helm.chart(), format!("--namespace={NAMESPACE}"));
    let values = format!("--set={}", values.join(","));
    let chart = chart.to_str().context("a path")?;
    let mut args = vec![verb, RELEASE, chart, &namespace, "--wait", "--timeout=5m", &values];
    args.extend((verb == "install").then_some("--create-namespace"));
    release::helm_run(helm, node.cluster(), &args).await.map(drop)
}
