//! Scenario 15: Jobs end, and CronJobs leave one set of objects.

use anyhow::{Context as _, Result, ensure};
use e2e::pod_view::PodView;
use e2e::{Json as _, Ns, Suite, kinds, objects, secs};
use serde_json::json;

use super::fixture::{TYPE, managed, team};

#[tokio::test]
async fn webhook_15_the_sidecar_of_a_job_is_native() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-15").await?;
    let first = json!([{"name": "prepare", "image": "example.com/prepare:1"}]);
    ns.create(
        objects::job("report").template_label(TYPE, "agent").pod_spec(json!({"initContainers": first})),
    )
    .await?;
    let pod = pod_of(&ns, "report").await?;
    assert_eq!(pod.init_containers(), ["prepare", "proxy-init", "authbridge-proxy"]);
    assert_eq!(pod.container("authbridge-proxy")?["restartPolicy"], "Always");
    assert!(pod.container("proxy-init")?.get("restartPolicy").is_none());
    assert_eq!(pod.containers(), ["agent"]);
    ns.until(secs(30), kinds::JOB, "report", "the Job to end", |job| {
        job.condition("Complete").status == "True"
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn webhook_15_the_runs_of_a_cron_job_share_their_objects() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-15-cron").await?;
    let template = objects::job("x").template_label(TYPE, "agent").build();
    let cron_job = objects::named(kinds::CRON_JOB, "nightly").spec(json!({
        "schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": template["spec"]},
    }));
    let cron_job = ns.create(cron_job).await?;
    for run in ["run-1", "run-2"] {
        let args = ["create", "job", run, "--from=cronjob/nightly", "--namespace", ns.name()];
        suite.cluster().kubectl(args).await?;
        let pod = pod_of(&ns, run).await?;
        assert_eq!(pod.service_account(), "nightly");
        assert_eq!(pod.config_map_of("authbridge-runtime-config"), "authbridge-config-nightly");
        ensure!(pod.init_containers().contains(&"authbridge-proxy"), "{:?}", pod.init_containers());
    }
    assert_eq!(managed(&ns, kinds::SERVICE_ACCOUNT).await?, ["nightly"]);
    assert_eq!(managed(&ns, kinds::CONFIG_MAP).await?, ["authbridge-config-nightly"]);
    let map = ns.get(kinds::CONFIG_MAP, "authbridge-config-nightly").await?;
    let owner = map.items("/metadata/ownerReferences").first().context("an owner")?;
    assert_eq!((owner.text("/kind"), owner.text("/uid")), ("CronJob", cron_job.uid()));
    Ok(())
}

async fn pod_of(ns: &Ns, job: &str) -> Result<PodView> {
    let selector = format!("batch.kubernetes.io/job-name={job}");
    let pods =
        ns.until_list(secs(30), kinds::POD, &selector, "the Job's Pod", |pods| !pods.is_empty()).await?;
    pods.into_iter().next().map(PodView::new).context("a Pod")
}
