//! Card scenario 23 in short: 200 cards instead of 2 000, a period of 4 s instead of 30 s, 16 s instead of 3 min.

use std::time::Duration;

use anyhow::Result;
use e2e::card_scale::{Load, steady_state};
use e2e::secs;

use super::bare::cluster;

#[tokio::test]
async fn card_23_steady_state_short() -> Result<()> {
    let load = Load {
        name: "card-23",
        namespaces: 10,
        healthy: 18,
        black_holed: 2,
        period: secs(4),
        window: secs(16),
        slack: Duration::from_millis(600),
        limit: secs(60),
    };
    let suite = cluster().await?;
    steady_state(&suite, load).await
}
