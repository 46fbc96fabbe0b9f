//! Scenario 14 in short: what is written and asked. How long it takes is judged by the long run, which has the machine
//! for itself; here other tests run beside it.

use anyhow::Result;
use e2e::scale::Load;
use e2e::{secs, split_scale};

use super::fixture::SPLIT;

#[tokio::test]
async fn split_14_scale_short() -> Result<()> {
    let suite = SPLIT.alone().await?;
    let load = Load { namespaces: 10, deployments: 2, replicas: 5, limit: secs(120) };
    let figures = split_scale::admit_twice(&suite, load).await?;
    eprintln!("split 14, short: {figures:?}");
    figures.check_work()
}
