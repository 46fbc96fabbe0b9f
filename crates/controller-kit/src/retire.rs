//! Sending a running controller into retirement before what it made is taken away, or it would make it anew.
//!
//! Helm runs the hook that cleans up while the Deployment still runs. The hook takes the Lease: the leader notices at
//! its next renewal and ends, and whoever starts after it waits until the Lease has expired, long after the hook.

use std::{future::Future, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{apply::is_not_found, message::message_of};

/// How long nobody else leads after the last renewal; the Deployment is gone by then.
const SECONDS: u32 = 60;
/// How often the Lease is renewed while the clean-up works.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Who holds the Lease meanwhile.
pub const HOLDER: &str = "cleanup";
/// The leader's running writes end within this time after it noticed (packaging §12).
const LAST_WRITES: Duration = Duration::from_secs(1);

/// Takes the Lease as field manager `manager`, if there is one, and waits until its holder has noticed, which takes it
/// `renewal` at most.
///
/// # Errors
/// What the API server says, in words.
pub async fn take_over(
    client: &Client,
    namespace: &str,
    name: &str,
    manager: &str,
    renewal: Duration,
) -> Result<(), String> {
    let api = Api::<Lease>::namespaced(client.clone(), namespace);
    let failed = |error: &kube::Error| format!("cannot take Lease {namespace}/{name}: {}", message_of(error));
    let Some(lease) = api.get_opt(name).await.map_err(|error| failed(&error))? else { return Ok(()) };
    let spec = lease.spec.unwrap_or_default();
    let holder = spec.holder_identity.unwrap_or_default();
    let held = !holder.is_empty() && holder != HOLDER;
    let now = format!("{:.6}", Timestamp::now());
    let body = json!({
        "metadata": {"resourceVersion": lease.metadata.resource_version},
        "spec": {
            "holderIdentity": HOLDER,
            "leaseDurationSeconds": SECONDS,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": spec.lease_transitions.unwrap_or_default().saturating_add(i32::from(holder != HOLDER)),
        },
    });
    let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    match api.patch(name, &params, &Patch::Merge(&body)).await {
        Ok(_) => {}
        Err(error) if is_not_found(&error) => return Ok(()),
        Err(error) => return Err(failed(&error)),
    }
    if held {
        tokio::time::sleep(renewal + LAST_WRITES).await;
    }
    Ok(())
}

/// Renews the Lease that was taken over for as long as `work` takes: a clean-up may be longer than the Lease.
pub async fn while_retired<T>(
    client: &Client,
    namespace: &str,
    name: &str,
    manager: &str,
    work: impl Future<Output = T>,
) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(RENEW_EVERY) => {}
        }
        // One that fails is made up for by the next: the Lease outlasts several.
        let _ = take_over(client, namespace, name, manager, Duration::ZERO).await;
    }
}
