//! The program itself: exit codes, log lines, signals, a real Workload API socket.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use crate::pod::{CARD, ID, Pod};
use rstest::rstest;
use scripted_workload_api::{Issuer, Server};
use serde_json::Value;
use tokio::process::Command;

fn signer(variables: &[(String, String)], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentcard-signer"));
    command.args(arguments).env_clear().envs(variables.iter().cloned());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn output(variables: &[(String, String)], arguments: &[&str]) -> Output {
    let run = signer(variables, arguments).output();
    tokio::time::timeout(Duration::from_secs(30), run).await.expect("ends in time").expect("runs")
}

/// The log: every line one object, every value a string.
fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("one object per line")).collect();
    for line in &lines {
        let members = line.as_object().expect("an object");
        assert!(members.values().all(Value::is_string), "{line}");
        assert!(["level", "ts", "msg"].iter().all(|name| members.contains_key(*name)), "{line}");
    }
    lines
}

fn has(lines: &[Value], level: &str, text: &str) -> bool {
    lines.iter().any(|line| line["level"] == level && line.to_string().contains(text))
}

#[tokio::test]
async fn signs_and_says_so_without_secrets() {
    let pod = Pod::new(CARD);
    let done = output(&pod.variables(&[]), &[]).await;
    assert_eq!(done.status.code(), Some(0));
    let log = lines(&done);
    let line = log.iter().find(|line| line["msg"] == "card signed").expect("the line");
    assert_eq!(line["spiffe_id"], ID);
    assert_eq!(line["output_path"], pod.output().display().to_string());
    let text = String::from_utf8(done.stderr).expect("UTF-8");
    let key = std::fs::read_to_string(pod.path("svid_key.pem")).expect("read");
    let secret = key.lines().nth(1).expect("a line of the key");
    let certificate = std::fs::read_to_string(pod.path("svid.pem")).expect("read");
    let certificate = certificate.lines().nth(1).expect("a line of the certificate");
    for forbidden in [secret, certificate, "SECRET-CARD-TEXT"] {
        assert!(!text.contains(forbidden), "{text}");
    }
}

#[rstest]
#[case(&[("POD_NAMESPACE", ""), ("AGENT_NAME", "weather")], 0, "warn", "POD_NAMESPACE")]
#[case(&[("POD_NAMESPACE", "team1"), ("AGENT_NAME", "weather")], 0, "warn", "KUBERNETES_SERVICE_HOST")]
#[case(&[("SIGN_TIMEOUT", "soon")], 1, "error", "SIGN_TIMEOUT")]
#[case(&[("SIGNER_MODE", "never")], 1, "error", "SIGNER_MODE")]
#[case(&[("UNSIGNED_CARD_PATH", "/nowhere/agent.json")], 1, "error", "/nowhere/agent.json")]
#[case(&[("SVID_CERT_PATH", "/nowhere/c"), ("SIGN_TIMEOUT", "200ms")], 1, "error", "no SVID")]
#[tokio::test]
async fn card_25_exit_codes(
    #[case] variables: &[(&str, &str)],
    #[case] code: i32,
    #[case] level: &str,
    #[case] text: &str,
) {
    let pod = Pod::new(CARD);
    let done = output(&pod.variables(variables), &[]).await;
    assert_eq!(done.status.code(), Some(code));
    assert!(has(&lines(&done), level, text), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn unknown_arguments_end_with_1() {
    let pod = Pod::new(CARD);
    for arguments in [&["--what"][..], &["--check", "--what"]] {
        let done = output(&pod.variables(&[]), arguments).await;
        assert_eq!(done.status.code(), Some(1));
        assert!(has(&lines(&done), "error", "unknown argument"));
    }
    assert!(output(&[], &["--help"]).await.stdout.starts_with(b"Usage:"));
}

/// Packaging 20: as the other programs say it.
#[tokio::test]
async fn packaging_20_version_names_the_revision() {
    let revision = option_env!("KAGENTI_REVISION").unwrap_or("unknown");
    let wanted = format!("agentcard-signer {} ({revision})\n", env!("CARGO_PKG_VERSION"));
    for argument in ["version", "--version"] {
        let said = output(&[], &[argument]).await;
        assert_eq!((said.status.code(), String::from_utf8_lossy(&said.stdout).as_ref()), (Some(0), &*wanted));
    }
}

#[tokio::test]
async fn check_tells_whether_the_output_is_good() {
    let pod = Pod::new(CARD);
    let variables = pod.variables(&[]);
    assert_eq!(output(&variables, &["--check"]).await.status.code(), Some(1), "nothing there");
    assert_eq!(output(&variables, &[]).await.status.code(), Some(0));
    assert_eq!(output(&variables, &["--check"]).await.status.code(), Some(0));

    // Long enough to sign with on a busy machine, and on any other not longer than needed.
    let mut lifetimes = [2, 4, 8, 16].into_iter();
    let lifetime = loop {
        let lifetime = lifetimes.next().expect("signed before the certificate ends");
        let (cert, key) = pod.ca.issue(ID, lifetime);
        std::fs::write(pod.path("svid.pem"), cert).expect("written");
        std::fs::write(pod.path("svid_key.pem"), key).expect("written");
        if output(&variables, &[]).await.status.code() == Some(0) {
            break lifetime;
        }
    };
    tokio::time::sleep(Duration::from_secs(lifetime + 1)).await;
    let expired = output(&variables, &["--check"]).await;
    assert_eq!(expired.status.code(), Some(1));
    assert!(has(&lines(&expired), "error", "not valid now"));
}

#[tokio::test]
async fn a_ready_socket_is_used_at_once() {
    let issuer = Issuer::new("example.org");
    let api = Server::start(issuer.answer("/ns/team1/sa/weather", 3600));
    let pod = Pod::new(CARD);
    let socket = format!("unix://{}", api.socket().display());
    let variables =
        pod.variables(&[("SPIFFE_ENDPOINT_SOCKET", &socket), ("SVID_CERT_PATH", ""), ("SVID_KEY_PATH", "")]);
    // The promise is 300 ms; a test machine that builds beside it gets more, and more than one try.
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        let done = output(&variables, &[]).await;
        shortest = shortest.min(started.elapsed());
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
        assert!(has(&lines(&done), "info", ID));
        if shortest < Duration::from_secs(2) {
            break;
        }
    }
    assert!(shortest < Duration::from_secs(2), "{shortest:?}");
    println!("start to signed: {shortest:?}");
}

/// Whether a process has a handler for SIGTERM, which would end it otherwise.
fn catches_term(id: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & (1 << 14) != 0)
}

#[rstest]
#[case("watch", 0)]
#[case("once", 1)]
#[tokio::test]
async fn sigterm_ends_it(#[case] mode: &str, #[case] code: i32) {
    let pod = if mode == "watch" { Pod::new(CARD) } else { Pod::without_svid(CARD) };
    let mut child = signer(&pod.variables(&[("SIGNER_MODE", mode)]), &[]).spawn().expect("runs");
    let id = child.id().expect("running").to_string();
    let under_way = async {
        while !(catches_term(&id) && (mode == "once" || pod.output().exists())) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), under_way).await.expect("under way");
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.expect("kill").success());
    let ended = tokio::time::timeout(Duration::from_secs(5), child.wait()).await.expect("ends at once");
    assert_eq!(ended.expect("a status").code(), Some(code));
}
