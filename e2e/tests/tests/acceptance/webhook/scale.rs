//! Scenario 22 in short; the whole of it is in the long suite.

use anyhow::Result;
use e2e::scale::{Load, admit};
use e2e::{Options, Suite, secs};

#[tokio::test]
async fn webhook_22_scale_short() -> Result<()> {
    let suite = Suite::own(Options::default().without_runtime_ctl()).await?;
    let load = Load { namespaces: 10, deployments: 4, replicas: 5, limit: secs(90) };
    let figures = admit(&suite, load).await?;
    eprintln!("webhook 22, short: {figures:?}");
    figures.check()
}
