//! The operator that this suite replaces, as far as others see that it runs: it renews its Lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::kinds;
use crate::objects;
use crate::space::Ns;

/// Name of its Lease.
pub const LEASE: &str = api_types::names::LEGACY_LEASE;
/// Who holds it.
pub const HOLDER: &str = "old-operator-0";

/// It runs until it is told to stop; it does not release its Lease then.
#[derive(Debug)]
pub struct OldOperator {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl OldOperator {
    /// Starts it in a namespace, with a Lease of so many seconds that is renewed eight times in that time.
    pub async fn start(operator: &Ns, seconds: u32) -> Result<Self> {
        renew(operator, seconds).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let (operator, stopped) = (operator.clone(), stop.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::SeqCst) {
                renew(&operator, seconds).await?;
                tokio::time::sleep(Duration::from_secs(seconds.into()) / 8).await;
            }
            Ok(())
        });
        Ok(Self { stop, task })
    }

    /// Stops it; an error when it could not renew its Lease all the time.
    pub async fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await?
    }
}

async fn renew(operator: &Ns, seconds: u32) -> Result<()> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let lease = objects::named(kinds::LEASE, LEASE).spec(json!({
        "holderIdentity": HOLDER, "leaseDurationSeconds": seconds, "acquireTime": now, "renewTime": now,
    }));
    operator.apply(lease).await.map(drop)
}
