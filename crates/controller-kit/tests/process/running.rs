//! A child process with its log, its ports and its end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Set for the process under test.
pub(crate) const CHILD: &str = "KIT_TEST_CHILD";

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Running {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Ends with the child's log.
    reader: JoinHandle<()>,
}

/// The program with a clean environment.
pub(crate) fn command(args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(args).env_clear().env(CHILD, "1").envs(env.iter().copied()).kill_on_drop(true);
    command
}

impl Running {
    pub(crate) fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = command(args, env).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (sink, stderr) = (Arc::clone(&log), child.stderr.take().unwrap());
        let reader = tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                sink.lock().unwrap().push(line);
            }
        });
        Self { child, log, reader }
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The first log line that fits, as JSON.
    pub(crate) async fn line(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let found =
            || self.log().iter().filter_map(|line| serde_json::from_str(line).ok()).find(|line| fits(line));
        eventually(|| async { found() }).await.unwrap_or_else(|| panic!("no such line in {:#?}", self.log()))
    }

    /// Where a listener is, from the log: the way to find a port that the kernel chose.
    pub(crate) async fn address(&self, listener: &str) -> SocketAddr {
        let line = self.line(|line| line["message"] == "listening" && line["listener"] == listener).await;
        let mut address: SocketAddr = line["address"].as_str().unwrap().parse().unwrap();
        address.set_ip([127, 0, 0, 1].into());
        address
    }

    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("still running").to_string();
        assert!(Command::new("/bin/kill").args(["-s", name, &pid]).status().await.unwrap().success());
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) async fn end(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let status = timeout(LIMIT, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("still running: {:#?}", self.log())).unwrap();
        let took = start.elapsed();
        // What it said last may still be in the pipe.
        timeout(LIMIT, &mut self.reader).await.expect("the end of its log").unwrap();
        (status, took)
    }
}

/// Asks until there is an answer.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(ask: impl Fn() -> F) -> Option<T> {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        if let Some(value) = ask().await {
            return Some(value);
        }
        sleep(Duration::from_millis(20)).await;
    }
    None
}

/// One request on a connection of its own: status, headers, body.
pub(crate) async fn call<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, HashMap<String, String>, String) {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request.extend([*name, ": ", *value, "\r\n"]);
    }
    stream.write_all(format!("{request}\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A TLS peer that closes without a notice is an error only after everything has arrived.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or("0").parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    (status, headers, body.to_owned())
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (status, _, body) = call(stream, "GET", path, &[], "").await;
    (status, body)
}

/// Waits for a status of a path.
pub(crate) async fn until(address: SocketAddr, path: &str, want: u16) -> String {
    let answered = eventually(|| async {
        let (status, body) = get(address, path).await;
        (status == want).then_some(body)
    });
    match answered.await {
        Some(body) => body,
        None => panic!("{path} never answers {want}: {:?}", get(address, path).await),
    }
}
