//! Scenario 23, short form: the long suite has the 5 000 of the scenario.

use anyhow::Result;
use e2e::scenarios::{self, Scale};

#[tokio::test]
async fn runtime_23_scale_short() -> Result<()> {
    scenarios::scale(Scale { namespaces: 10, workloads: 30, limit_seconds: 60, rollout_qps: 50, replicas: 0 })
        .await
}
