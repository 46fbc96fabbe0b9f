//! Objects that were stored through an older, looser CRD and that this build cannot read (runtime §2.7).

use anyhow::{Context as _, Result, ensure};
use api_types::names::condition;
use e2e::admission::Admission;
use e2e::exposition::sum;
use e2e::{Json as _, Ns, Suite, kinds, objects, secs, wait_for};
use local_cluster::Component;
use serde_json::{Value, json};

use super::fixture::{bare, last_lines, runtime_ctl, start_webhook, unregister, webhook};

/// Stores objects while the CRDs accept anything, then brings the CRDs of this build back.
async fn through_a_looser_crd(
    suite: &Suite,
    ns: &Ns,
    objects: Vec<Value>,
    change: Option<(&str, Value)>,
) -> Result<()> {
    let global = suite.global().await?;
    for crd in ["agentruntimes.agent.kagenti.dev", "agentcards.agent.kagenti.dev"] {
        let mut versions = global.get(kinds::CRD, crd).await?["spec"]["versions"].clone();
        for version in versions.as_array_mut().context("versions")? {
            version["schema"] = json!({"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }});
        }
        global.patch(kinds::CRD, crd, json!({"spec": {"versions": versions}})).await?;
    }
    for object in objects {
        wait_for(secs(20), "the looser CRD to be served", async || {
            let reply = ns.post(object.clone()).await?;
            ensure!(reply.status == 201, "{} {}", reply.status, reply.message());
            Ok(Some(()))
        })
        .await?;
    }
    if let Some((name, patch)) = change {
        wait_for(secs(20), "the looser CRD to be served", async || {
            let reply = ns.try_patch(kinds::AGENT_RUNTIME, name, patch.clone()).await?;
            ensure!(reply.status == 200, "{} {}", reply.status, reply.message());
            Ok(Some(()))
        })
        .await?;
    }
    suite.cluster().install_crds().await?;
    wait_for(secs(20), "this build's CRDs to be served", async || {
        let probe = objects::agent_runtime("probe", "probe").spec(json!({"targetRef": "probe"}));
        let reply = ns.post(probe).await?;
        if reply.status == 201 {
            ns.delete(kinds::AGENT_RUNTIME, "probe").await?;
        }
        Ok((reply.status == 422).then_some(()))
    })
    .await
}

fn bad_objects(suffix: &str) -> Vec<Value> {
    let runtime = objects::agent_runtime(&format!("bad-{suffix}"), "x").spec(json!({"targetRef": "weather"}));
    let card = objects::named(kinds::AGENT_CARD, &format!("bad-{suffix}")).spec(json!({"targetRef": [1, 2]}));
    vec![runtime.build(), card.build()]
}

async fn undecodable(component: &Component, kind: &str) -> Result<f64> {
    let page = component.metrics_text().await?;
    Ok(sum(&page, "kagenti_undecodable_objects_total", &[("kind", kind)]))
}

async fn enrol(ns: &Ns, name: &str) -> Result<()> {
    ns.create(objects::deployment(name)).await?;
    ns.create(objects::agent_runtime(name, name).spec(json!({"authBridgeMode": "lite"}))).await?;
    ns.until_ready(secs(20), name).await.map(drop)
}

#[tokio::test]
async fn fault_undecodable_objects() -> Result<()> {
    let suite = bare().await?;
    let ns = suite.namespace("fault-undecodable", json!({"kagenti-enabled": "true"})).await?;
    let outcome = check(&suite, &ns).await;
    suite.cluster().install_crds().await?;
    outcome
}

async fn check(suite: &Suite, ns: &Ns) -> Result<()> {
    // Some are there before the processes start, some come while they run.
    through_a_looser_crd(suite, ns, bad_objects("early"), None).await?;
    let ctl = Component::start(suite.cluster(), runtime_ctl(suite)).await?;
    ctl.wait_ready(secs(30)).await.context("one bad object does not stop a list")?;
    let bad = ns
        .until_condition(secs(20), "bad-early", condition::READY, "False/InvalidSpec")
        .await
        .with_context(|| last_lines(&ctl.log()))?;
    ensure!(bad.condition(condition::READY).message.contains("TargetRef"), "{}", bad.readable());
    enrol(ns, "good-one").await?;
    through_a_looser_crd(suite, ns, bad_objects("late"), None).await?;
    ns.until_condition(secs(20), "bad-late", condition::READY, "False/InvalidSpec").await?;
    ensure!(undecodable(&ctl, "agentruntimes").await? >= 2.0, "not counted");
    enrol(ns, "good-two").await?;
    ns.stays(secs(3), kinds::AGENT_RUNTIME, "bad-late").await.context("it is said once")?;

    let hook = start_webhook(suite, webhook(suite)).await?;
    hook.wait_ready(secs(30)).await.context("one bad object does not stop the webhook")?;
    for kind in ["agentruntimes", "agentcards"] {
        ensure!(undecodable(&hook, kind).await? >= 2.0, "{kind} are not counted");
    }
    // Its indexes hold the others: the Pod gets the mode of its AgentRuntime, and a duplicate is refused.
    let admission = Admission::new(&suite.global().await?, hook.webhook_port()?).await?;
    let pod = objects::pod("good-two").label("kagenti.io/type", "agent").build();
    let answer = admission.pod(ns.name(), pod.clone()).await?;
    let pod = e2e::admission::patched(&pod, &answer)?;
    let plan = e2e::pod_view::PodView::new(pod).plan()?;
    assert_eq!((plan["mode"].as_str(), plan["modeSource"].as_str()), (Some("lite"), Some("agentruntime-cr")));
    let reply = ns.refused(objects::agent_runtime("again", "good-one")).await?;
    assert!(reply.message().contains("already targets"), "{}", reply.message());

    // A new process lists them all at once.
    ctl.kill9().await?;
    let mark = suite.cluster().audit()?.mark()?;
    ctl.restart().await?;
    ctl.wait_ready(secs(30)).await?;
    enrol(ns, "good-three").await?;
    let again = suite.object_writes(mark, "runtime-ctl")?;
    let again: Vec<_> = again.iter().filter(|write| write.name.starts_with("bad-")).collect();
    assert!(again.is_empty(), "what was said is said again: {again:?}");

    // Corrected, it is an AgentRuntime like any other.
    ns.create(objects::deployment("corrected")).await?;
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "corrected"});
    ns.patch(kinds::AGENT_RUNTIME, "bad-early", json!({"spec": {"targetRef": target}})).await?;
    ns.until_ready(secs(20), "bad-early").await?;
    // One that was enrolled before it became unreadable is let go, and so is its workload.
    unregister(suite).await.context("it would not let this happen")?;
    let broken = json!({"spec": {"targetRef": "good-two"}});
    through_a_looser_crd(suite, ns, Vec::new(), Some(("good-two", broken))).await?;
    ns.until_condition(secs(20), "good-two", condition::READY, "False/InvalidSpec").await?;
    ns.delete(kinds::AGENT_RUNTIME, "good-two").await?;
    ns.gone(secs(20), kinds::AGENT_RUNTIME, "good-two").await.with_context(|| last_lines(&ctl.log()))?;
    let workload = ns.get(kinds::DEPLOYMENT, "good-two").await?;
    assert_eq!(workload.annotation("agent.kagenti.dev/enrolled-by"), None, "{}", workload.readable());
    assert_eq!(workload.template_label("kagenti.io/type"), None);
    // And one that never was can be deleted.
    ns.delete(kinds::AGENT_RUNTIME, "bad-late").await?;
    ns.gone(secs(20), kinds::AGENT_RUNTIME, "bad-late").await
}
