//! The guard against a predecessor that is still running, with paused time (packaging §12).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::api_server::{Answer, client, failure};
use controller_kit::lease::Leadership;
use controller_kit::legacy_guard::LegacyGuard;
use controller_kit::readiness::Readiness;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::sleep;

struct Old {
    lease: Arc<Mutex<Option<Value>>>,
    leadership: Leadership,
    readiness: Readiness,
}

fn lease(renewed: Timestamp) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
           "metadata": {"name": "b7c4ae34.kagenti.dev", "namespace": "kagenti-system"},
           "spec": {"holderIdentity": "old_1", "leaseDurationSeconds": 15, "renewTime": format!("{renewed:.6}")}})
}

fn start(initial: Option<Value>, forbidden: bool) -> Old {
    let stored = Arc::new(Mutex::new(initial));
    let script = Arc::clone(&stored);
    let (client, _) = client(move |call| {
        assert_eq!(
            call.path,
            "/apis/coordination.k8s.io/v1/namespaces/kagenti-system/leases/b7c4ae34.kagenti.dev"
        );
        if forbidden {
            return failure(403, "Forbidden");
        }
        match script.lock().unwrap().clone() {
            Some(lease) => Answer::Json(200, lease),
            None => failure(404, "NotFound"),
        }
    });
    let readiness = Readiness::new();
    let (guard, open) = LegacyGuard::new(client, "kagenti-system", readiness.clone());
    tokio::spawn(guard.run());
    Old { lease: stored, leadership: Leadership::always().with_guard(open), readiness }
}

/// On a bare cluster the guard costs one request.
#[tokio::test(start_paused = true)]
async fn without_a_predecessor_it_opens_at_once() {
    let old = start(None, false);
    assert!(!old.leadership.is_leader(), "closed until the first look");
    tokio::time::timeout(Duration::from_secs(1), old.leadership.wait_until_leader()).await.unwrap();
    assert!(old.readiness.is_ready());
}

/// Scenario 17: nothing is written while the old operator renews, /readyz names its lease, and writing
/// starts when the lease has expired.
#[tokio::test(start_paused = true)]
async fn it_stays_closed_while_the_old_lease_is_renewed() {
    let now = Timestamp::now();
    let old = start(Some(lease(now)), false);
    for second in 0..30 {
        *old.lease.lock().unwrap() = Some(lease(now + SignedDuration::from_secs(second)));
        sleep(Duration::from_secs(1)).await;
        assert!(!old.leadership.is_leader());
        assert!(old.leadership.holds_lease(), "its own lease and the CA may be written");
    }
    let report = old.readiness.report();
    assert!(!report.ready);
    assert!(report.checks[0].reason.contains("kagenti-system/b7c4ae34.kagenti.dev"), "{report:?}");
    let start = tokio::time::Instant::now();
    old.leadership.wait_until_leader().await;
    let took = start.elapsed();
    assert!((Duration::from_secs(12)..Duration::from_secs(20)).contains(&took), "{took:?}");
    assert!(old.readiness.is_ready());
}

/// A roll-back: the old operator comes back while we run.
#[tokio::test(start_paused = true)]
async fn it_closes_again_when_the_old_operator_returns() {
    let old = start(None, false);
    old.leadership.wait_until_leader().await;
    *old.lease.lock().unwrap() = Some(lease(Timestamp::now()));
    sleep(Duration::from_secs(11)).await;
    assert!(!old.leadership.is_leader());
}

/// Whether the old operator runs cannot be known without the right to look: closed, and said so.
#[tokio::test(start_paused = true)]
async fn a_missing_right_keeps_it_closed_and_is_named() {
    let old = start(None, true);
    sleep(Duration::from_secs(60)).await;
    assert!(!old.leadership.is_leader());
    let report = old.readiness.report();
    assert!(report.checks[0].reason.contains("grant get on leases"), "{report:?}");
}
