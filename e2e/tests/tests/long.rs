//! The long suite: scenarios that last over two minutes or need thousands of objects (`just test-long`). Each has a
//! short form among the acceptance tests.

use anyhow::Result;
use e2e::scale::{Load, admit};
use e2e::scenarios::{self, Scale};
use e2e::{Options, Suite, card_scale, secs, split_scale};
use local_cluster::{ClusterOptions, Profile};

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

#[tokio::test]
#[ignore = "long: just test-long"]
async fn webhook_22_scale() -> Result<()> {
    // Measured as shipped: unoptimised code would say little about a limit of the product.
    let cluster = ClusterOptions { profile: Profile::Release, ..ClusterOptions::default() };
    let suite = Suite::own(Options { cluster, ..Options::default().without_runtime_ctl() }).await?;
    let load = Load { namespaces: 500, deployments: 4, replicas: 5, limit: secs(900) };
    let figures = admit(&suite, load).await?;
    eprintln!("webhook 22: {figures:?}");
    figures.check()
}

#[tokio::test]
#[ignore = "long: just test-long"]
async fn split_14_scale() -> Result<()> {
    let cluster = ClusterOptions { profile: Profile::Release, ..ClusterOptions::default() };
    let options = Options { cluster, ..Options::default() };
    let suite = Suite::own(options.without_runtime_ctl().platform("sidecars: {layout: split}\n")).await?;
    let load = Load { namespaces: 200, deployments: 2, replicas: 5, limit: secs(900) };
    let figures = split_scale::admit_twice(&suite, load).await?;
    println!("split 14: {figures:?}");
    figures.check()
}

/// A control plane where nothing acts but card-ctl, which is measured as shipped.
async fn cards() -> Result<Suite> {
    let cluster = ClusterOptions {
        nodes: 0,
        controller_manager: false,
        scheduler: false,
        profile: Profile::Release,
        ..ClusterOptions::default()
    };
    Suite::own(Options { cluster, ..Options::default().without_webhook().without_runtime_ctl() }).await
}

#[tokio::test]
#[ignore = "long: just test-long"]
async fn card_23_steady_state() -> Result<()> {
    let load = card_scale::Load {
        name: "card-23",
        namespaces: 50,
        healthy: 36,
        black_holed: 4,
        period: secs(30),
        window: secs(180),
        slack: secs(1),
        limit: secs(300),
    };
    card_scale::steady_state(&cards().await?, load).await
}

#[tokio::test]
#[ignore = "long: just test-long"]
async fn fault_card_killed_in_mid_sync() -> Result<()> {
    card_scale::killed_in_mid_sync(&cards().await?, "fault-card-killed", 1_000).await
}
