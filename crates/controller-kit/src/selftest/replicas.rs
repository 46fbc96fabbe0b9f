//! Whether every replica is ready, without a right: the headless Service of the component names the addresses of its Pods,
//! ready or not, and each is asked itself. Reading Deployments or Pods instead would be a right that the running component
//! does not need and would have for good, because its tests run under its own account.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout};

/// How long replicas may take. One that leaves at the end of a rollout is named as long as the cluster's DNS keeps the answer,
/// which is half a minute by default.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long the whole check may take.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one replica is waited for.
const ANSWER: Duration = Duration::from_secs(3);
/// So much of an answer is read.
const MOST: usize = 64 * 1024;

/// Every replica behind `host` answers `/readyz` with 200, and there are at least `wanted` of them.
pub(super) async fn are_ready(host: &str, port: u16, wanted: usize) -> Result<String, String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let seen = look(host, port, wanted).await;
        if seen.is_ok() || Instant::now() >= end {
            return seen;
        }
        sleep(PAUSE).await;
    }
}

async fn look(host: &str, port: u16, wanted: usize) -> Result<String, String> {
    let found: Result<BTreeSet<SocketAddr>, _> = lookup_host((host, port)).await.map(Iterator::collect);
    let addresses = match found {
        Ok(addresses) => addresses,
        // A name without addresses does not resolve: there is no replica.
        Err(_) if wanted == 0 => return Ok("none is asked for".to_owned()),
        Err(error) => return Err(format!("0 of {wanted} are there: {host}: {error}; is it scaled to 0?")),
    };
    let answers = join_all(addresses.iter().map(|address| async move {
        let answer = timeout(ANSWER, ask(*address)).await;
        answer
            .unwrap_or_else(|_| Err(format!("no answer within {ANSWER:?}")))
            .map_err(|why| format!("{address}: {why}"))
    }))
    .await;
    let troubles: Vec<String> = answers.into_iter().filter_map(Result::err).collect();
    let ready = addresses.len() - troubles.len();
    if !troubles.is_empty() {
        return Err(format!("{ready} of {} are ready: {}", addresses.len().max(wanted), troubles.join("; ")));
    }
    if ready < wanted {
        return Err(format!(
            "{ready} of {wanted} are ready, the others have no address yet: kubectl describe pods"
        ));
    }
    Ok(format!("{ready} of {} are ready", wanted.max(ready)))
}

/// `/readyz` of one replica; what holds it up.
async fn ask(address: SocketAddr) -> Result<(), String> {
    let words = |error: &dyn std::error::Error| error.to_string();
    let tcp = TcpStream::connect(address).await.map_err(|error| words(&error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await;
    let (mut sender, connection) = handshake.map_err(|error| words(&error))?;
    let serving = tokio::spawn(connection);
    let request = http::Request::get("/readyz?verbose")
        .header(http::header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|error| words(&error))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(|error| words(&error))?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), MOST).collect().await.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        let held_up = text.lines().filter(|line| line.starts_with("[-]")).collect::<Vec<_>>().join(", ");
        if status.is_success() { Ok(()) } else { Err(format!("not ready ({status}) {held_up}")) }
    };
    let answer = answered.await;
    serving.abort();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// A replica that answers every question like this.
    async fn replica(status: &'static str, body: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(head.as_bytes()).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn replicas_that_are_there_and_ready_pass() {
        let port = replica("200 OK", "ready\n").await;
        assert_eq!(look("127.0.0.1", port, 1).await.unwrap(), "1 of 1 are ready");
        // Somebody scaled it up, or asked for none.
        assert_eq!(look("127.0.0.1", port, 0).await.unwrap(), "1 of 1 are ready");
    }

    #[tokio::test]
    async fn one_that_is_not_ready_says_what_holds_it_up() {
        let port = replica(
            "503 Service Unavailable",
            "[+] leases\n[-] agentcards: not allowed to list\nnot ready\n",
        )
        .await;
        let said = look("127.0.0.1", port, 1).await.unwrap_err();
        let want = format!(
            "0 of 1 are ready: 127.0.0.1:{port}: not ready (503 Service Unavailable) [-] agentcards: not allowed to list"
        );
        assert_eq!(said, want);
    }

    #[tokio::test]
    async fn one_that_does_not_listen_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let said = look("127.0.0.1", port, 1).await.unwrap_err();
        assert!(said.starts_with(&format!("0 of 1 are ready: 127.0.0.1:{port}: ")), "{said}");
    }

    #[tokio::test]
    async fn too_few_are_not_enough() {
        let port = replica("200 OK", "ready\n").await;
        let said = look("127.0.0.1", port, 2).await.unwrap_err();
        assert!(said.starts_with("1 of 2 are ready, the others have no address yet"), "{said}");
        assert_eq!(look("nobody.invalid", port, 0).await.unwrap(), "none is asked for");
        let said = look("nobody.invalid", port, 1).await.unwrap_err();
        assert!(said.starts_with("0 of 1 are there: nobody.invalid: "), "{said}");
    }
}
