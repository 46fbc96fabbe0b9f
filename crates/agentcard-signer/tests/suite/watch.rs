//! The native sidecar (card §16.3).

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::pod::api::Api;
use crate::pod::{CARD, ID, Pod, signers};
use agentcard_signer::{ApiError, HttpError, KubeApi, run};
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

const POLL: Duration = Duration::from_millis(50);
const OTHER: &str = "spiffe://example.org/ns/team1/sa/other";

fn no_api() -> Result<KubeApi, ApiError> {
    Err(ApiError::Http(HttpError::Connect))
}

/// Runs the sidecar beside `story`, which must end first.
async fn beside(
    pod: &Pod,
    variables: &[(&str, &str)],
    api: impl Fn() -> Result<KubeApi, ApiError>,
    story: impl Future<Output = ()>,
) {
    let mut all = vec![("SIGNER_MODE", "watch")];
    all.extend_from_slice(variables);
    let settings = pod.settings(&all).with_poll(POLL);
    tokio::select! {
        code = run(&settings, api) => assert_eq!(code, std::process::ExitCode::SUCCESS, "it must not end"),
        () = story => {}
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect(what);
}

fn signed_by(pod: &Pod, id: &str) -> bool {
    pod.output().exists()
        && signers(&pod.signed(), &pod.ca.bundle()).iter().all(|by| by.as_deref() == Some(id))
}

#[tokio::test]
async fn signs_again_when_the_svid_the_card_or_the_file_changes() {
    let pod = Pod::new(CARD);
    beside(&pod, &[], no_api, async {
        until("signed at start", || signed_by(&pod, ID)).await;
        let first = pod.signed();
        tokio::time::sleep(POLL * 5).await;
        assert_eq!(pod.signed(), first, "nothing changed, nothing is written");

        pod.rotate(OTHER);
        until("signed by the new SVID", || signed_by(&pod, OTHER)).await;

        pod.write_card(r#"{"name":"weather","version":"2"}"#);
        until("the new card", || pod.signed().contains("\"version\": \"2\"")).await;

        std::fs::remove_file(pod.output()).expect("removed");
        until("written again", || signed_by(&pod, OTHER)).await;
    })
    .await;
}

#[tokio::test]
async fn a_bad_card_leaves_the_last_good_one() {
    let pod = Pod::new(CARD);
    beside(&pod, &[], no_api, async {
        until("signed", || signed_by(&pod, ID)).await;
        let first = pod.signed();
        pod.write_card("{");
        tokio::time::sleep(POLL * 5).await;
        assert_eq!(pod.signed(), first);
        pod.write_card(r#"{"name":"better","version":"1"}"#);
        until("the better card", || pod.signed().contains("better")).await;
    })
    .await;
}

#[tokio::test]
async fn a_card_that_is_bad_from_the_start_ends_with_1() {
    let pod = Pod::new("{");
    let settings = pod.settings(&[("SIGNER_MODE", "watch")]).with_poll(POLL);
    assert_eq!(run(&settings, no_api).await, std::process::ExitCode::FAILURE);
    let pod = Pod::without_svid(CARD);
    let settings = pod.settings(&[("SIGNER_MODE", "watch"), ("SIGN_TIMEOUT", "300ms")]).with_poll(POLL);
    assert_eq!(run(&settings, no_api).await, std::process::ExitCode::FAILURE, "no SVID");
}

#[tokio::test]
async fn the_config_map_follows_and_is_retried() {
    let (pod, api) = (Pod::new(CARD), Api::start().await);
    api.state.lock().expect("unpoisoned").forbidden = vec![Method::POST];
    let named = [("AGENT_NAME", "weather"), ("POD_NAMESPACE", "team1")];
    beside(&pod, &named, || Ok(api.client()), async {
        until("a refused attempt", || !api.writes().is_empty()).await;
        api.state.lock().expect("unpoisoned").forbidden.clear();
        until("created later", || api.object().is_some()).await;
        let writes = api.writes().len();
        tokio::time::sleep(POLL * 5).await;
        assert_eq!(api.writes().len(), writes, "no request while nothing changes");
        pod.rotate(OTHER);
        let held = || {
            let object = api.object().expect("the ConfigMap");
            let card = object["data"]["agent-card.json"].as_str().expect("a card").to_owned();
            signers(&card, &pod.ca.bundle()).iter().all(|by| by.as_deref() == Some(OTHER))
        };
        until("updated", held).await;
    })
    .await;
}

/// The agent of the Pod: serves the card that it is given, with the count of requests.
struct Agent {
    url: String,
    card: Arc<Mutex<String>>,
    task: tokio::task::JoinHandle<()>,
}

impl Agent {
    /// Listens on a port that [`reserved`] gave.
    fn start(socket: TcpSocket, card: &str) -> Self {
        let listener = socket.listen(8).expect("now it listens");
        let url = format!("http://{}/.well-known/agent-card.json", listener.local_addr().expect("bound"));
        let card = Arc::new(Mutex::new(card.to_owned()));
        let served = card.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // All of it: closing a connection with unread bytes resets it.
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    request.push(byte);
                }
                let body = served.lock().expect("unpoisoned").clone();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            }
        });
        Self { url, card, task }
    }
}

/// A port that refuses now and is the agent's later; bound, so that nobody else gets it.
fn reserved() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = socket.local_addr().expect("bound").to_string();
    (socket, address)
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn the_live_card_replaces_the_skeleton_and_is_not_replaced_by_it() {
    let pod = Pod::new(r#"{"name":"skeleton","version":"0"}"#);
    let (socket, address) = reserved();
    let url = format!("http://{address}/.well-known/agent-card.json");
    beside(&pod, &[("UNSIGNED_CARD_URL", &url)], no_api, async {
        until("the skeleton, while the agent is not up", || {
            signed_by(&pod, ID) && pod.signed().contains("skeleton")
        })
        .await;
        let agent = Agent::start(socket, r#"{"name":"live","version":"1","skills":[{"id":"s"}]}"#);
        assert_eq!(agent.url, url);
        until("the live card", || pod.signed().contains("live")).await;
        assert!(signed_by(&pod, ID));

        // An agent that serves what was signed: its signatures are not news.
        let signed = pod.signed();
        agent.card.lock().expect("unpoisoned").clone_from(&signed);
        tokio::time::sleep(POLL * 5).await;
        assert_eq!(pod.signed(), signed);

        drop(agent);
        tokio::time::sleep(POLL * 5).await;
        assert_eq!(pod.signed(), signed, "the skeleton does not come back");
    })
    .await;
}

#[tokio::test]
async fn without_a_skeleton_it_waits_for_the_agent() {
    let pod = Pod::new(CARD);
    std::fs::remove_file(pod.path("agent.json")).expect("removed");
    let (socket, address) = reserved();
    let url = format!("http://{address}/card");
    beside(&pod, &[("UNSIGNED_CARD_URL", &url)], no_api, async {
        tokio::time::sleep(POLL * 5).await;
        assert!(pod.leftovers().is_empty());
        let _agent = Agent::start(socket, CARD);
        until("signed", || signed_by(&pod, ID)).await;
    })
    .await;
}
