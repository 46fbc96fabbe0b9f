//! Looks at everything now and then (client-registration §10): Secrets whose workload is no agent any more, and
//! registrations that wait while a Keycloak is down.

use std::{sync::Arc, time::Duration};

use controller_kit::backoff::jitter;

use crate::context::{Context, Key};

/// Over this time the looks are spread.
const SPREAD: Duration = Duration::from_secs(60);

/// Asks for a look at every Secret and every workload once per resync period; never ends.
pub async fn run(ctx: Arc<Context>) {
    loop {
        tokio::time::sleep(jitter(ctx.settings.resync_period, 0.2)).await;
        let spread = || SPREAD.min(ctx.settings.resync_period).mul_f64(fastrand::f64());
        for key in ctx.index.secrets.keys() {
            let Some(secret) = ctx.index.secrets.get(&key) else { continue };
            if secret.deleting.is_some() && secret.finalizer {
                ctx.queue.add(Key::Secret(key.namespace.clone(), key.name.clone()), spread());
            }
            if let Some(unit) = &secret.unit {
                ctx.wake(unit.clone(), spread());
            }
        }
        ctx.wake_namespaces();
    }
}

/// A Keycloak that answers again need not be waited for any longer; never ends.
pub async fn recoveries(ctx: Arc<Context>) {
    loop {
        ctx.metrics.calls.recovered.notified().await;
        ctx.wake_all(None);
    }
}
