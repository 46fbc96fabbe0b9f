//! The checks of `helm test` against a scripted API server (packaging §15).

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that stops here has failed"
)]

mod common;

use common::{Answer, client, failure};
use controller_kit::selftest::{Right, lease_is_alive, rights};
use jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use serde_json::json;

/// A component that is scaled to 0 or hangs fails the check by name.
#[rstest]
#[case("pod-1", 2, Ok("held by pod-1"))]
#[case("", 2, Err("scaled to 0"))]
#[case("pod-1", 60, Err("last renewed 6"))]
#[tokio::test]
async fn a_lease_tells_whether_the_component_lives(
    #[case] holder: &'static str,
    #[case] age: i64,
    #[case] want: Result<&str, &str>,
) {
    let (client, _) = client(move |_| {
        let renewed = Timestamp::now() - SignedDuration::from_secs(age);
        Answer::Json(
            200,
            json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15,
                   "renewTime": format!("{renewed:.6}")}}),
        )
    });
    match (lease_is_alive(&client, "kagenti-system", "l").await, want) {
        (Ok(have), Ok(want)) | (Err(have), Err(want)) => assert!(have.contains(want), "{have}"),
        (have, want) => panic!("{have:?}, not {want:?}"),
    }
}

#[tokio::test]
async fn a_missing_lease_is_named() {
    let (client, _) = client(|_| failure(404, "NotFound"));
    let error = lease_is_alive(&client, "kagenti-system", "l").await.unwrap_err();
    assert!(error.contains("kagenti-system/l"), "{error}");
}

/// The missing rights are listed, with subresource and namespace.
#[tokio::test]
async fn missing_rights_are_listed() {
    let (client, calls) = client(|call| {
        let allowed = call.body["spec"]["resourceAttributes"]["verb"] != "patch";
        Answer::Json(201, json!({"spec": {}, "status": {"allowed": allowed}}))
    });
    let wanted = [
        Right { group: "apps", resource: "deployments", verb: "list", namespace: None },
        Right {
            group: "agent.kagenti.dev",
            resource: "agentruntimes/status",
            verb: "patch",
            namespace: Some("team1"),
        },
    ];
    assert_eq!(rights(&client, &wanted).await.unwrap_err(), "missing: patch agentruntimes/status in team1");
    assert_eq!(rights(&client, &wanted[..1]).await.unwrap(), "1 rights");
    let attributes = calls.lock().unwrap()[1].body["spec"]["resourceAttributes"].clone();
    assert_eq!(attributes["resource"], "agentruntimes");
    assert_eq!(attributes["subresource"], "status");
    assert_eq!(attributes["namespace"], "team1");
}
