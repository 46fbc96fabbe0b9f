//! Scenarios 6 and 7: feature gates change without a restart.

use anyhow::Result;
use e2e::{Json as _, Options, Suite, kinds, objects};

use super::fixture::{TYPE, agent, agent_pod, bare, nothing_created, running, until_dry_run};

const ALL_FALSE: &str = "globalEnabled: false\nenvoyProxy: false\ninjectTools: false\n\
                         perWorkloadConfigResolution: false\nskillDiscovery: false\n";

#[tokio::test]
async fn webhook_06_the_kill_switch_works_without_restart() -> Result<()> {
    let suite = Suite::own(Options::default().without_runtime_ctl().gates("globalEnabled: true\n")).await?;
    let ns = bare(&suite, "team1").await?;
    let pid = suite.webhook(0)?.pid();
    let has_sidecar = |reply: &e2e::api::Reply| reply.body.container("authbridge-proxy").is_some();
    until_dry_run(&ns, agent_pod("probe"), "injection at first", has_sidecar).await?;

    suite.set_gates(ALL_FALSE).await?;
    until_dry_run(&ns, agent_pod("probe"), "injection to stop", |reply| {
        reply.status == 201 && !has_sidecar(reply)
    })
    .await?;
    ns.create(agent("off")).await?;
    let off = running(&ns, "off").await?;
    assert!(!off.is_injected(), "{:?}", off.containers());
    nothing_created(&ns).await?;

    suite.set_gates("globalEnabled: true\n").await?;
    until_dry_run(&ns, agent_pod("probe"), "injection to go on", has_sidecar).await?;
    ns.create(agent("on")).await?;
    assert_eq!(running(&ns, "on").await?.containers(), ["agent", "authbridge-proxy"]);
    assert_eq!(suite.webhook(0)?.pid(), pid);
    assert!(suite.webhook(0)?.is_running(), "the same process all the time");
    Ok(())
}

#[tokio::test]
async fn webhook_07_tools_are_opt_in() -> Result<()> {
    let suite = Suite::own(Options::default().without_runtime_ctl()).await?;
    let ns = bare(&suite, "team1").await?;
    let tool = |name: &str| objects::deployment(name).template_label(TYPE, "tool");
    ns.create(tool("calculator")).await?;
    let pod = running(&ns, "calculator").await?;
    assert!(!pod.is_injected(), "{:?}", pod.containers());
    nothing_created(&ns).await?;

    suite.set_gates("injectTools: true\n").await?;
    until_dry_run(&ns, objects::pod("probe").label(TYPE, "tool"), "tools to be injected", |reply| {
        reply.body.container("authbridge-proxy").is_some()
    })
    .await?;
    ns.create(tool("abacus")).await?;
    assert_eq!(running(&ns, "abacus").await?.containers(), ["agent", "authbridge-proxy"]);
    // What ran before stays as it is: nobody restarts Pods because of a gate.
    assert_eq!(ns.get(kinds::POD, pod.name()).await?.uid(), pod.json().uid());
    Ok(())
}
