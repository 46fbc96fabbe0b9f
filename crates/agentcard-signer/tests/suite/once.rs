//! The init container: card scenario 25 and its neighbours.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::pod::api::Api;
use crate::pod::{CARD, ID, Pod, signers};
use agent_trust::json;
use agent_trust::sign::Signed;
use agentcard_signer::{ApiError, HttpError, KubeApi, run};
use http::Method;
use rstest::rstest;
use serde_json::{Value, json};

const NAMED: [(&str, &str); 2] = [("AGENT_NAME", "weather"), ("POD_NAMESPACE", "team1")];

fn no_api() -> Result<KubeApi, ApiError> {
    Err(ApiError::Http(HttpError::Connect))
}

fn is_success(code: ExitCode) -> bool {
    code == ExitCode::SUCCESS
}

/// Signs with the API server at hand.
async fn signed_with(pod: &Pod, api: &Api) -> bool {
    is_success(run(&pod.settings(&NAMED), || Ok(api.client())).await)
}

fn labelled(object: &Value) -> bool {
    object["metadata"]["labels"]["kagenti.io/card-signed"] == "true"
}

fn member_names(document: &str) -> Vec<String> {
    let value = json::parse(document.as_bytes()).expect("JSON");
    value.members().expect("an object").iter().map(|(name, _)| name.clone()).collect()
}

#[tokio::test]
async fn card_25_unknown_members_two_signatures_and_the_config_map() {
    let (pod, api) = (Pod::new(CARD), Api::start().await);
    assert!(signed_with(&pod, &api).await);
    let document = pod.signed();
    let names = [
        "version",
        "x-vendor",
        "name",
        "url",
        "capabilities",
        "price",
        "description",
        "skills",
        "signatures",
    ];
    assert_eq!(member_names(&document), names, "everything is kept, in its order");
    assert!(document.contains("\"price\": 1.50"), "numbers keep their text:\n{document}");
    assert_eq!(signers(&document, &pod.ca.bundle()), [Some(ID.to_owned()), Some(ID.to_owned())]);
    let object = api.object().expect("a ConfigMap");
    assert!(labelled(&object), "{object}");
    assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/managed-by"], "agentcard-signer");
    assert_eq!(object["data"], json!({"agent-card.json": document}));
    assert_eq!(pod.leftovers(), ["agent-card.json"]);
}

#[tokio::test]
async fn header_names_algorithm_key_and_chain() {
    use base64::Engine as _;
    let pod = Pod::new(CARD);
    assert!(is_success(run(&pod.settings(&[]), no_api).await));
    let value: Value = serde_json::from_str(&pod.signed()).expect("JSON");
    let protected = value["signatures"][0]["protected"].as_str().expect("a header");
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(protected).expect("base64url");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    assert_eq!((&header["alg"], &header["typ"]), (&json!("ES256"), &json!("JOSE")));
    assert_eq!(header["kid"].as_str().map(str::len), Some(16));
    assert_eq!(header["x5c"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn equal_payloads_are_signed_once() {
    let pod = Pod::new(r#"{"name":"weather","version":"1"}"#);
    assert!(is_success(run(&pod.settings(&[]), no_api).await));
    assert_eq!(signers(&pod.signed(), &pod.ca.bundle()).len(), 1);
}

#[tokio::test]
async fn chosen_profiles() {
    let pod = Pod::new(CARD);
    assert!(is_success(run(&pod.settings(&[("CARD_SIGNATURE_PROFILES", "jcs")]), no_api).await));
    assert_eq!(signers(&pod.signed(), &pod.ca.bundle()), [Some(ID.to_owned())]);
}

#[tokio::test]
async fn previous_signatures_are_replaced() {
    let pod = Pod::new(CARD);
    assert!(is_success(run(&pod.settings(&[]), no_api).await));
    let first = pod.signed();
    pod.write_card(&first);
    pod.rotate("spiffe://example.org/ns/team1/sa/other");
    assert!(is_success(run(&pod.settings(&[]), no_api).await));
    let other = Some("spiffe://example.org/ns/team1/sa/other".to_owned());
    assert_eq!(signers(&pod.signed(), &pod.ca.bundle()), [other.clone(), other]);
}

#[rstest]
#[case(None)]
#[case(Some("{"))]
#[case(Some("[]"))]
#[case(Some("\"text\""))]
#[case(Some(r#"{"name":"a","name":"b"}"#))]
#[case(Some(r#"{"name":7}"#))]
#[case(Some("\u{feff}{\"name\":\"a\"}"))]
#[case(Some(r#"{"name":"a"} "#))]
#[tokio::test]
async fn card_25_an_unreadable_card_ends_with_1_and_no_file(#[case] card: Option<&str>) {
    let pod = Pod::new(card.unwrap_or_default());
    if card.is_none() {
        std::fs::remove_file(pod.path("agent.json")).expect("removed");
    }
    // Only the trailing blank is fine.
    let fine = card.is_some_and(|card| card.ends_with(' '));
    assert_eq!(is_success(run(&pod.settings(&[]), no_api).await), fine);
    assert_eq!(pod.leftovers().is_empty(), !fine);
}

#[tokio::test]
async fn a_card_over_a_mebibyte_is_refused() {
    let pod = Pod::new(&format!(r#"{{"name":"{}"}}"#, "x".repeat(1024 * 1024)));
    assert!(!is_success(run(&pod.settings(&[]), no_api).await));
    assert!(pod.leftovers().is_empty());
}

#[tokio::test]
async fn an_output_that_cannot_be_written_ends_with_1() {
    let pod = Pod::new(CARD);
    std::fs::write(pod.path("out"), "a file where a directory must be").expect("written");
    assert!(!is_success(run(&pod.settings(&[]), no_api).await));
}

#[tokio::test]
async fn without_an_svid_it_waits_for_the_timeout_and_ends_with_1() {
    let pod = Pod::without_svid(CARD);
    let started = Instant::now();
    assert!(!is_success(run(&pod.settings(&[("SIGN_TIMEOUT", "700ms")]), no_api).await));
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(700) && took < Duration::from_secs(20), "{took:?}");
    assert!(pod.leftovers().is_empty());
}

#[tokio::test]
async fn an_svid_that_comes_late_is_used() {
    let pod = Pod::without_svid(CARD);
    let settings = pod.settings(&[]);
    let signing = run(&settings, no_api);
    let issuing = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        pod.rotate(ID);
    };
    let (code, ()) = futures::future::join(signing, issuing).await;
    assert!(is_success(code));
}

#[rstest]
#[case(&[("AGENT_NAME", "weather")])]
#[case(&[("POD_NAMESPACE", "team1")])]
#[case(&[])]
#[tokio::test]
async fn card_25_without_name_or_namespace_no_config_map_is_written(#[case] variables: &[(&str, &str)]) {
    let (pod, api) = (Pod::new(CARD), Api::start().await);
    assert!(is_success(run(&pod.settings(variables), || Ok(api.client())).await));
    assert!(api.state.lock().expect("unpoisoned").requests.is_empty());
}

#[tokio::test]
async fn a_config_map_that_cannot_be_written_is_no_failure() {
    let (pod, api) = (Pod::new(CARD), Api::start().await);
    assert!(is_success(run(&pod.settings(&NAMED), no_api).await), "no API server");
    api.state.lock().expect("unpoisoned").forbidden = vec![Method::GET];
    assert!(signed_with(&pod, &api).await, "no rights");
    assert_eq!(signers(&pod.signed(), &pod.ca.bundle()).len(), 2);
}

#[tokio::test]
async fn the_same_card_and_certificate_cost_no_write() {
    let (pod, api) = (Pod::new(CARD), Api::start().await);
    assert!(signed_with(&pod, &api).await);
    let before = api.object();
    assert!(signed_with(&pod, &api).await);
    assert_eq!((api.writes().len(), api.object()), (1, before), "signatures differ, nothing else does");
    pod.rotate(ID);
    assert!(signed_with(&pod, &api).await);
    assert_eq!(api.writes().len(), 2, "a new certificate is news");
    pod.write_card(r#"{"name":"weather","version":"2"}"#);
    assert!(signed_with(&pod, &api).await);
    assert_eq!(api.writes().len(), 3, "and so is another card");
}

fn foreign() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "weather-card-signed",
            "resourceVersion": "7",
            "labels": {"team": "a", "app.kubernetes.io/managed-by": "Helm"},
            "annotations": {"note": "keep"},
        },
        "data": {"mine": "1"},
    })
}

/// Rights of the previous signer (`update`) and of ours (`patch`).
#[rstest]
#[case(&[], "PATCH")]
#[case(&[Method::PATCH], "PUT")]
#[tokio::test]
async fn what_others_wrote_into_the_config_map_stays(#[case] forbidden: &[Method], #[case] last: &str) {
    let (pod, api) = (Pod::new(CARD), Api::start().await);
    {
        let mut state = api.state.lock().expect("unpoisoned");
        state.object = Some(foreign());
        state.forbidden = forbidden.to_vec();
    }
    assert!(signed_with(&pod, &api).await);
    let object = api.object().expect("the ConfigMap");
    assert_eq!(object["data"], json!({"mine": "1", "agent-card.json": pod.signed()}));
    assert!(labelled(&object));
    let labels = &object["metadata"]["labels"];
    assert_eq!((&labels["team"], &labels["app.kubernetes.io/managed-by"]), (&json!("a"), &json!("Helm")));
    assert_eq!(object["metadata"]["annotations"]["note"], "keep");
    assert!(api.writes().last().expect("a write").starts_with(last), "{:?}", api.writes());
}

#[tokio::test]
async fn a_replica_that_was_faster_is_no_failure() {
    let (pod, api) = (Pod::new(CARD), Api::start().await);
    api.state.lock().expect("unpoisoned").conflicts = 3;
    assert!(signed_with(&pod, &api).await);
    let object = api.object().expect("a ConfigMap");
    assert_eq!(object["data"]["agent-card.json"], pod.signed());
    assert_eq!(object["data"]["theirs"], "1");
}

/// Signature number `number` of a document.
fn signature(document: &str, number: usize) -> String {
    let document: Value = serde_json::from_str(document).expect("JSON");
    document["signatures"][number]["signature"].as_str().expect("a signature").to_owned()
}

/// The same text with one signature's first byte changed.
fn spoilt(document: &str, number: usize) -> String {
    let good = signature(document, number);
    let first = if good.starts_with('A') { "B" } else { "A" };
    document.replace(&good, &format!("{first}{}", &good[1..]))
}

fn swapped(document: &str) -> String {
    let (first, second) = (signature(document, 0), signature(document, 1));
    document.replace(&first, "@@").replace(&second, &first).replace("@@", &second)
}

/// What stands in the ConfigMap is what card-ctl judges: damage must not stay until the next certificate.
#[rstest]
#[case::first_signature(|good: &str| spoilt(good, 0))]
#[case::second_signature(|good: &str| spoilt(good, 1))]
#[case::each_over_the_payload_of_the_other(swapped)]
#[case::header(|good: &str| good.replacen("\"protected\": \"ey", "\"protected\": \"e3", 1))]
#[case::content(|good: &str| good.replace("1.50", "1.51"))]
#[case::another_text_of_the_same(|good: &str| good.replace("1.50", "1.5"))]
#[tokio::test]
async fn a_damaged_document_is_written_again(#[case] damage: fn(&str) -> String) {
    let (pod, api) = (Pod::new(CARD), Api::start().await);
    assert!(signed_with(&pod, &api).await);
    let good = pod.signed();
    let damaged = damage(&good);
    assert_ne!(damaged, good);
    let put = |document: &str| {
        let mut state = api.state.lock().expect("unpoisoned");
        state.object.as_mut().expect("there")["data"]["agent-card.json"] = json!(document);
    };
    put(&damaged);
    assert!(signed_with(&pod, &api).await);
    assert_eq!(api.writes().len(), 2);
    assert_eq!(api.object().expect("there")["data"]["agent-card.json"], pod.signed());
    put(&good);
    assert!(signed_with(&pod, &api).await);
    assert_eq!(api.writes().len(), 2, "what another replica signed holds");
}

fn unsigned() -> Signed {
    Signed { document: CARD.into(), profiles: Vec::new() }
}

#[tokio::test]
async fn endless_conflicts_end() {
    let (pod, api) = (Pod::new(CARD), Api::start().await);
    api.state.lock().expect("unpoisoned").conflicts = 1000;
    let error = agentcard_signer::publish(&api.client(), "team1", "weather", &unsigned())
        .await
        .expect_err("given up");
    assert!(error.to_string().contains("team1/weather-card-signed"), "{error}");
    assert!(signed_with(&pod, &api).await, "the file is what counts");
    assert!(api.writes().len() <= 10);
}

#[tokio::test]
async fn refusals_name_the_remedy_and_quote_nothing() {
    let api = Api::start().await;
    for (forbidden, verb) in [(Method::GET, "get"), (Method::POST, "create")] {
        api.state.lock().expect("unpoisoned").forbidden = vec![forbidden];
        let error = agentcard_signer::publish(&api.client(), "team1", "weather", &unsigned())
            .await
            .expect_err("refused");
        let text = error.to_string();
        assert!(text.contains(verb) && text.contains("403") && text.contains("ServiceAccount"), "{text}");
        assert!(!text.contains("SECRET"), "{text}");
    }
}
