//! Scenario 8: in Jobs the sidecars are native, so that the Job can end.

use anyhow::{Context as _, Result};
use e2e::pod_view::PodView;
use e2e::{Json as _, kinds, objects, secs};

use super::fixture::{REGISTRATION, split};
use crate::webhook::fixture::TYPE;

#[tokio::test]
async fn split_08_jobs() -> Result<()> {
    let (_suite, ns) = split("split-08").await?;
    let job = objects::job("report").template_label(TYPE, "agent").template_label(REGISTRATION, "true");
    ns.create(job).await?;
    let selector = "batch.kubernetes.io/job-name=report";
    let pods =
        ns.until_list(secs(30), kinds::POD, selector, "the Job's Pod", |pods| !pods.is_empty()).await?;
    let pod = pods.into_iter().next().map(PodView::new).context("a Pod")?;
    let sidecars = ["spiffe-helper", "kagenti-client-registration", "envoy-proxy"];
    assert_eq!(pod.init_containers(), ["proxy-init", sidecars[0], sidecars[1], sidecars[2]]);
    assert_eq!(pod.containers(), ["agent"]);
    assert!(pod.container("proxy-init")?.get("restartPolicy").is_none());
    for name in sidecars {
        assert_eq!(pod.container(name)?["restartPolicy"], "Always", "{name}");
        assert!(
            pod.container(name)?.get("startupProbe").is_none(),
            "{name}: a Keycloak outage must not hold the Job"
        );
    }
    ns.until(secs(30), kinds::JOB, "report", "the Job to end", |job| {
        job.condition("Complete").status == "True"
    })
    .await?;
    Ok(())
}
