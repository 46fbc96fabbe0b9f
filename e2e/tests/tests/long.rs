//! The long suite: scenarios that last over two minutes or need thousands of objects (`just test-long`). Each has a
//! short form among the acceptance tests.

use anyhow::Result;
use e2e::scenarios::{self, Scale};
use e2e::{Suite, secs};

#[tokio::test]
#[ignore = "long: just test-long"]
async fn runtime_06_target_deleted() -> Result<()> {
    let suite = Suite::shared().await?;
    scenarios::target_deleted(&suite, "runtime-06", secs(180)).await
}

#[tokio::test]
#[ignore = "long: just test-long"]
async fn runtime_23_scale() -> Result<()> {
    scenarios::scale(Scale {
        namespaces: 100,
        workloads: 50,
        limit_seconds: 300,
        rollout_qps: 50,
        replicas: 1,
    })
    .await
}
