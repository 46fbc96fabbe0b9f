//! A ServiceAccount without one of its rights: the process says which one is missing, by verb and resource.

use anyhow::{Context as _, Result, ensure};
use api_types::names::condition;
use e2e::admission::Admission;
use e2e::suite::{RUNTIME_CTL, WEBHOOK};
use e2e::{Json as _, Suite, kinds, objects, secs, wait_for};
use local_cluster::Component;
use serde_json::json;

use super::fixture::{bare_rights, last_lines, named, options, readyz, start_webhook, until_readyz};
use crate::runtime::at_rest;

/// Starts a component that lacks one right.
async fn without(
    suite: &Suite,
    component: &str,
    resource: &'static str,
    verb: &'static str,
) -> Result<Component> {
    let name = format!("{component}-no-{verb}-{}", resource.replace('/', "-"));
    let options = named(options(suite, component), &name).edit_rights(move |rights| {
        assert!(rights.drop_verb(resource, verb), "{verb} {resource} is not among the rights");
    });
    if component == WEBHOOK {
        start_webhook(suite, options).await
    } else {
        Component::start(suite.cluster(), options).await
    }
}

/// What a controller must see to work at all keeps it unready, with the right's name.
#[tokio::test]
async fn fault_missing_read_rights_are_named_by_readyz() -> Result<()> {
    let suite = bare_rights().await?;
    let cases = [
        (RUNTIME_CTL, "agentruntimes", "list"),
        (RUNTIME_CTL, "deployments", "list"),
        (RUNTIME_CTL, "statefulsets", "list"),
        (RUNTIME_CTL, "pods", "list"),
        (RUNTIME_CTL, "namespaces", "list"),
        (WEBHOOK, "agentruntimes", "list"),
        (WEBHOOK, "agentcards", "list"),
        (WEBHOOK, "configmaps", "list"),
        (WEBHOOK, "serviceaccounts", "list"),
        (WEBHOOK, "namespaces", "list"),
        (WEBHOOK, "secrets", "list"),
        (WEBHOOK, "mutatingwebhookconfigurations", "list"),
    ];
    for (component, resource, verb) in cases {
        let process = without(&suite, component, resource, verb).await?;
        let refusal = format!("not allowed to {verb} {resource}");
        let text = until_readyz(&process, 503, &[&refusal]).await?;
        let line = text.lines().find(|line| line.contains(&refusal));
        ensure!(line.is_some_and(|line| line.contains("grant")), "{component}: no remedy in {text}");
        assert!(process.is_running(), "{component} waits for the right");
        // Said once, not in a loop.
        let said = process.log().lines().filter(|line| line.contains(&refusal)).count();
        ensure!(
            (1..=4).contains(&said),
            "{component} said {said} times that {resource} are missing:\n{}",
            process.log()
        );
    }
    Ok(())
}

/// A right that is granted later is used without restart.
#[tokio::test]
async fn fault_a_right_that_comes_later_is_used() -> Result<()> {
    let suite = bare_rights().await?;
    let process = without(&suite, RUNTIME_CTL, "deployments", "list").await?;
    until_readyz(&process, 503, &["deployments"]).await?;
    let pid = process.pid();
    let global = suite.global().await?;
    let name = format!("{}-{}", e2e::suite::OPERATOR_NAMESPACE, process.spec().name);
    let mut role = global.get(kinds::CLUSTER_ROLE, &name).await?;
    for rule in role["rules"].as_array_mut().context("rules")? {
        if rule.texts("/resources").contains(&"deployments") {
            rule["verbs"] = json!(["get", "list", "watch", "patch"]);
        }
    }
    global.patch(kinds::CLUSTER_ROLE, &name, json!({"rules": role["rules"]})).await?;
    // The back-off of a refused list ends after half a minute at most.
    process.wait_ready(secs(60)).await?;
    assert_eq!(process.pid(), pid);
    Ok(())
}

/// A watch that is refused after a list that worked is named as well.
#[tokio::test]
async fn fault_a_missing_watch_verb_is_named() -> Result<()> {
    let suite = bare_rights().await?;
    for (component, resource) in [(RUNTIME_CTL, "deployments"), (WEBHOOK, "agentruntimes")] {
        let process = without(&suite, component, resource, "watch").await?;
        wait_for(secs(30), "the refused watch to be named", async || {
            let (status, text) = readyz(&process).await?;
            ensure!(text.contains(&format!("not allowed to watch {resource}")), "{status} {text}");
            Ok(Some(()))
        })
        .await
        .with_context(|| last_lines(&process.log()))?;
    }
    Ok(())
}

/// What it needs to write is named where the user looks: in a condition.
#[tokio::test]
async fn fault_missing_write_rights_are_named_by_conditions() -> Result<()> {
    let suite = bare_rights().await?;
    // (right, condition, status/reason)
    let cases = [
        ("deployments", "patch", condition::READY, "False/ConfigApplyError"),
        ("namespaces", "patch", condition::ISTIO_MESH_ENROLLED, "Unknown/Forbidden"),
        ("configmaps", "list", condition::CONFIG_RESOLVED, "True/ConfigWarning"),
    ];
    for (resource, verb, kind, short) in cases {
        let process = without(&suite, RUNTIME_CTL, resource, verb).await?;
        let ns = suite.namespace(&format!("fault-no-{verb}-{resource}"), json!({})).await?;
        ns.create(objects::deployment("weather")).await?;
        ns.create(objects::agent_runtime("weather", "weather")).await?;
        let runtime = ns
            .until_condition(secs(40), "weather", kind, short)
            .await
            .with_context(|| last_lines(&process.log()))?;
        let message = runtime.condition(kind).message;
        ensure!(message.contains(resource) && message.contains(verb), "{resource} {verb}: {message}");
        // The API server's message does not make it through more than once. The patch of the workload is news, so the
        // status may be written once more after it.
        at_rest(&ns, secs(3), kinds::AGENT_RUNTIME, "weather").await?;
    }
    Ok(())
}

/// Without the status there is no condition to say it with; then `/readyz` or the log does, and nothing is repeated
/// without pause.
#[tokio::test]
async fn fault_a_missing_status_right_is_named() -> Result<()> {
    let suite = bare_rights().await?;
    let process = without(&suite, RUNTIME_CTL, "agentruntimes/status", "patch").await?;
    process.wait_ready(secs(30)).await?;
    let ns = suite.namespace("fault-no-status", json!({})).await?;
    ns.create(objects::deployment("weather")).await?;
    let mark = suite.cluster().audit()?.mark()?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    wait_for(secs(20), "the log to name the right", async || {
        let log = process.log();
        let named = log.lines().any(|line| line.contains("agentruntimes/status") && line.contains("patch"));
        Ok(named.then_some(()))
    })
    .await
    .with_context(|| last_lines(&process.log()))?;
    // The enrolment itself is done once.
    ns.until(secs(10), kinds::DEPLOYMENT, "weather", "its enrolment", |object| {
        object.template_annotation("kagenti.io/config-hash").is_some()
    })
    .await?;
    tokio::time::sleep(secs(5)).await;
    let refused = suite.cluster().audit()?.since(mark, |request| request.code == 403)?.len();
    ensure!((1..=30).contains(&refused), "{refused} refused requests");
    Ok(())
}

/// What admission has to write is named in the denial.
#[tokio::test]
async fn fault_missing_rights_of_admission_are_named_by_the_denial() -> Result<()> {
    let suite = bare_rights().await?;
    suite.set_platform("spiffe: {enabled: always}\n").await?;
    for (resource, verb) in [("serviceaccounts", "create"), ("configmaps", "create"), ("configmaps", "patch")]
    {
        let process = without(&suite, WEBHOOK, resource, verb).await?;
        process.wait_ready(secs(30)).await?;
        let ns =
            suite.namespace(&format!("fault-{verb}-{resource}"), json!({"kagenti-enabled": "true"})).await?;
        let admission = Admission::new(&suite.global().await?, process.webhook_port()?).await?;
        let pod = objects::pod("weather").label("kagenti.io/type", "agent");
        let answer = admission.pod(ns.name(), pod).await?;
        assert_eq!(answer["allowed"], false, "{resource} {verb}: {answer}");
        assert_eq!(answer.number("/status/code"), Some(500), "{answer}");
        let message = answer.text("/status/message");
        ensure!(message.contains(resource) && message.contains(verb), "{resource} {verb}: {message}");
    }
    Ok(())
}

/// The Lease: without it nobody may lead, and `/readyz` or the log says what to grant.
#[tokio::test]
async fn fault_missing_lease_rights_are_named() -> Result<()> {
    let suite = bare_rights().await?;
    for component in [RUNTIME_CTL, WEBHOOK] {
        let name = format!("no-lease-{component}");
        let options = named(options(&suite, component), &name)
            .args(["--leader-elect"])
            .edit_rights(|rights| assert!(rights.drop_resource("leases")));
        let process = Component::start(suite.cluster(), options).await?;
        let text = until_readyz(&process, 503, &["leases"]).await?;
        ensure!(text.contains("grant get"), "{component}: {text}");
        let lease = suite.operator().await?.find(kinds::LEASE, &format!("{component}.kagenti.dev")).await?;
        let holder = lease.unwrap_or_default().text("/spec/holderIdentity").to_owned();
        assert!(!holder.contains(&name), "{component} leads without Lease");
    }
    Ok(())
}
