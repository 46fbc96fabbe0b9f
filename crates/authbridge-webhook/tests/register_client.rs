//! The registration script (split §7, scenario 12), run by `sh` with a stand-in for the registration program.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rstest::rstest;

const SCRIPT: &str = include_str!("../assets/register-client.sh");
/// Longest time a TERM may take (split §7.1).
const STOP: Duration = Duration::from_secs(1);

/// How long tasks of this machine have waited for a CPU: time in which nothing here could end either.
fn stalled() -> Duration {
    let text = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let some = text.lines().find(|line| line.starts_with("some"));
    let total =
        some.and_then(|line| line.rsplit_once("total=")).and_then(|(_, total)| total.trim().parse().ok());
    Duration::from_micros(total.unwrap_or_default())
}

/// One container: its two volumes and a program that fails `failures` times.
struct Container {
    root: tempfile::TempDir,
    child: Child,
}

/// How a container is started.
struct Start<'a> {
    spire: bool,
    auth_type: &'a str,
    /// The stand-in: `$TRY` is the number of the attempt.
    program: &'a str,
    token: Option<&'a str>,
}

impl Default for Start<'_> {
    fn default() -> Self {
        Self {
            spire: false,
            auth_type: "client-secret",
            program: "printf s3cret >\"$SECRET_FILE_PATH\"",
            token: None,
        }
    }
}

impl Container {
    fn start(start: &Start<'_>) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        for dir in ["opt", "shared"] {
            fs::create_dir(root.path().join(dir)).expect("a volume");
        }
        let program = root.path().join("program.sh");
        let count = root.path().join("tries");
        let text = format!(
            "echo >>{count}\nTRY=$(wc -l <{count})\n{program}\n",
            count = count.display(),
            program = start.program
        );
        fs::write(&program, text).expect("a program");
        if let Some(token) = start.token {
            fs::write(root.path().join("opt/jwt_svid.token"), token).expect("a token");
        }
        let log = fs::File::create(root.path().join("log")).expect("a log");
        let child = Command::new("sh")
            .args(["-c", SCRIPT])
            .env("SVID_DIR", root.path().join("opt"))
            .env("SHARED_DIR", root.path().join("shared"))
            .env("SECRET_FILE_PATH", root.path().join("shared/client-secret.txt"))
            .env("REGISTER_CMD", format!("sh {}", program.display()))
            .env("SPIRE_ENABLED", if start.spire { "true" } else { "false" })
            .env("CLIENT_NAME", "team1/weather")
            .env("CLIENT_AUTH_TYPE", start.auth_type)
            .env("KEYCLOAK_ADMIN_PASSWORD", "never-printed")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("sh");
        Self { root, child }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.root.path().join(file)
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.path(file)).ok()
    }

    fn log(&self) -> String {
        self.read("log").unwrap_or_default()
    }

    /// Waits for a file.
    fn wait_for(&self, file: &str, limit: Duration) {
        let start = Instant::now();
        while self.read(file).is_none() {
            assert!(start.elapsed() < limit, "no {file} after {limit:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn wait_for_log(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < Duration::from_secs(60), "log never says {text:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends TERM and expects exit code 0 in time.
    fn terminate(&mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        let (start, before) = (Instant::now(), stalled());
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                assert!(status.success(), "{status}:\n{}", self.log());
                return;
            }
            // At most two thirds of the time count as the machine's.
            let (took, stalled) = (start.elapsed(), stalled().saturating_sub(before));
            let spent = took.saturating_sub(stalled).max(took / 3);
            assert!(spent < STOP, "still running {took:?} after TERM:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Only when a test failed: a container that was stopped is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

fn token(payload: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
}

#[test]
fn a_failed_registration_is_repeated() {
    let program = "[ \"$TRY\" -ge 3 ] || exit 1\nprintf s3 >\"$SECRET_FILE_PATH\"\nsleep 0.3\nprintf cret >>\"$SECRET_FILE_PATH\"";
    let started = Instant::now();
    let mut container = Container::start(&Start { program, ..Start::default() });
    container.wait_for("shared/client-id.txt", Duration::from_secs(60));
    assert_eq!(container.read("shared/client-id.txt").as_deref(), Some("team1/weather"));
    assert!(container.read("shared/client-secret.txt").is_none(), "the id comes first");
    // 2 s and 4 s between three tries.
    container.wait_for("shared/client-secret.txt", Duration::from_secs(60));
    let took = started.elapsed();
    assert!(took > Duration::from_secs(6), "{took:?}");
    assert_eq!(container.read("shared/client-secret.txt").as_deref(), Some("s3cret"), "never seen partial");
    for file in ["shared/client-id.txt", "shared/client-secret.txt"] {
        assert_eq!(mode(&container.path(file)), 0o644, "{file}");
    }
    container.wait_for_log("registered");
    let log = container.log();
    assert!(log.contains("attempt 2 failed (exit code 1"), "{log}");
    assert!(!log.contains("s3cret") && !log.contains("never-printed"), "{log}");
    container.terminate();
}

#[test]
fn success_without_a_secret_is_a_failure() {
    let mut container = Container::start(&Start { program: "exit 0", ..Start::default() });
    container.wait_for_log("attempt 1 failed (exit code 0");
    assert!(container.read("shared/client-secret.txt").is_none());
    container.terminate();
}

#[test]
fn federated_clients_need_no_secret() {
    let start = Start { program: "exit 0", auth_type: "federated-jwt", ..Start::default() };
    let mut container = Container::start(&start);
    container.wait_for("shared/client-secret.txt", Duration::from_secs(60));
    assert_eq!(container.read("shared/client-secret.txt").as_deref(), Some("unused"));
    container.terminate();
}

// Payloads whose base64url text contains `-` and `_`, with every length of padding.
#[rstest]
#[case("{\"sub\":\"spiffe://d/ns/team1/sa/weather\",\"x\":\"???>>>\"}")]
#[case("{\"sub\":\"spiffe://d/ns/team1/sa/weather\",\"x\":\"???>>>1\"}")]
#[case("{\"sub\":\"spiffe://d/ns/team1/sa/weather\",\"x\":\"???>>>12\"}")]
#[case("{\"aud\":[{\"sub\":\"no\"}],\"sub\":\"spiffe://d/ns/team1/sa/weather\",\"x\":\"???>>>12\"}")]
fn the_client_id_is_the_subject_of_the_token(#[case] payload: &str) {
    let token = token(payload);
    assert!(token.contains(['-', '_']), "the case shows nothing: {token}");
    let mut container = Container::start(&Start { spire: true, token: Some(&token), ..Start::default() });
    container.wait_for("shared/client-id.txt", Duration::from_secs(60));
    assert_eq!(container.read("shared/client-id.txt").as_deref(), Some("spiffe://d/ns/team1/sa/weather"));
    container.terminate();
}

#[test]
fn a_late_or_half_written_token_is_waited_for() {
    let mut container = Container::start(&Start { spire: true, ..Start::default() });
    container.wait_for_log("waiting for the JWT-SVID");
    let whole = token("{\"sub\":\"spiffe://d/sa\"}");
    fs::write(container.path("opt/jwt_svid.token"), &whole[..whole.len() / 2]).expect("half a token");
    container.wait_for_log("no readable subject");
    assert!(container.read("shared/client-id.txt").is_none());
    fs::write(container.path("opt/jwt_svid.token"), &whole).expect("a token");
    container.wait_for("shared/client-id.txt", Duration::from_secs(60));
    assert_eq!(container.read("shared/client-id.txt").as_deref(), Some("spiffe://d/sa"));
    container.terminate();
}

// Split §7.1: TERM in each phase.
#[rstest]
#[case::waiting_for_token(Start { spire: true, ..Start::default() }, "waiting for the JWT-SVID")]
#[case::bad_token(Start { spire: true, token: Some("x.y.z"), ..Start::default() }, "no readable subject")]
#[case::registering(Start { program: "echo running\nexec sleep 60", ..Start::default() }, "running")]
#[case::deaf_program(
    Start { program: "trap '' TERM\necho running\nwhile :; do sleep 1; done", ..Start::default() },
    "running"
)]
#[case::between_tries(Start { program: "exit 7", ..Start::default() }, "exit code 7")]
#[case::idle(Start::default(), "registered")]
fn term_ends_every_phase(#[case] start: Start<'_>, #[case] phase: &str) {
    let mut container = Container::start(&start);
    container.wait_for_log(phase);
    container.terminate();
    let left: Vec<_> = fs::read_dir(container.path("shared"))
        .expect("a volume")
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

// The kubelet expands `$(NAME)` and halves `$$` in a command; the script must mean the same before and after.
#[test]
fn the_script_survives_the_kubelet() {
    assert!(!SCRIPT.contains("$$"));
    assert!(!SCRIPT.contains('\r'));
}
