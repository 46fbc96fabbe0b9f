//! The guides of `docs/`, word for word: every block of shell commands, in their order, in one shell.
//!
//! Only the values of the first block are the test's. `cargo run --bin` starts the program that is built already.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::Suite;
use e2e::services::{bare, keycloak, mlflow};
use local_cluster::components;

/// Longest time of a guide on a busy machine; each takes about a minute on one that is not.
const LIMIT: Duration = Duration::from_mins(8);
/// Before the blocks. Whatever the reader would see fail ends the script.
const BEFORE: &str = r#"set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
cargo() {
  while [ "$1" != --bin ]; do shift; done
  local program=$2
  shift 3
  exec "$PROGRAMS/$program" "$@"
}
"#;

/// A page, the values of its first block, and where its programs are.
struct Guide<'a> {
    page: &'a str,
    values: &'a [(&'a str, &'a str)],
    program: &'a str,
    path: Vec<PathBuf>,
    env: Vec<(&'a str, String)>,
}

impl Guide<'_> {
    /// What it prints on both streams.
    async fn follow(&self, suite: &Suite) -> Result<String> {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(self.page);
        let page = std::fs::read_to_string(&docs).with_context(|| format!("reading {}", docs.display()))?;
        let script = script(&page, self.values)?;
        let (program, profile) = (self.program.to_owned(), suite.cluster().options().profile);
        let built = tokio::task::spawn_blocking(move || components::build(&[&program], profile));
        let program = built.await.context("building it")??.path(self.program)?.to_owned();
        let kubectl = suite.cluster().kubectl_path().parent().context("kubectl is nowhere")?.to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = self.path.iter().cloned().chain([kubectl]).chain(std::env::split_paths(&path));
        let home = tempfile::tempdir().context("a scratch directory")?;
        let mut command = tokio::process::Command::new("bash");
        command
            .args(["-c", &script])
            .current_dir(home.path())
            .env("HOME", home.path())
            .env("PATH", std::env::join_paths(path)?)
            .env("KUBECONFIG", suite.cluster().kubeconfig())
            .env("PROGRAMS", program.parent().context("the program is nowhere")?)
            // kcadm.sh keeps its login there.
            .env("KC_OPTS", format!("-Duser.home={}", home.path().display()))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(LIMIT, command.output()).await.context("it never ends")??;
        let said = [output.stdout, b"\n".to_vec(), output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(output.status.success(), "{} ended with {}:\n{said}", self.page, output.status);
        Ok(said)
    }
}

/// The blocks of shell commands with the values of the first one exchanged.
fn script(page: &str, values: &[(&str, &str)]) -> Result<String> {
    let mut script = BEFORE.to_owned();
    let mut block = false;
    let mut exchanged = 0;
    for line in page.lines() {
        match line {
            "```sh" => block = true,
            "```" => block = false,
            _ if !block => {}
            _ => {
                let own = values.iter().find(|(name, _)| line.starts_with(&format!("export {name}=")));
                exchanged += usize::from(own.is_some());
                let line =
                    own.map_or_else(|| line.to_owned(), |(name, value)| format!("export {name}={value}"));
                script.push_str(&line);
                script.push('\n');
            }
        }
    }
    ensure!(exchanged == values.len(), "the page sets {exchanged} of {} values", values.len());
    Ok(script)
}

/// Fails unless each of these lines was printed.
fn says(said: &str, lines: &[&str]) -> Result<()> {
    for line in lines {
        ensure!(said.lines().any(|printed| printed.trim() == *line), "no line {line:?} in\n{said}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn guides_bring_your_own_keycloak() -> Result<()> {
    let keycloak = keycloak().await?;
    let suite = Suite::own(bare()).await?;
    let guide = Guide {
        page: "bring-your-own-keycloak.md",
        values: &[("KEYCLOAK_URL", keycloak.url()), ("REALM", "guide"), ("NAMESPACE", "guided")],
        program: "client-registration-ctl",
        path: vec![keycloak.tools().to_owned()],
        env: vec![("KC_CLI_PASSWORD", keycloak.admin_password().to_owned())],
    };
    let said = guide.follow(&suite).await?;
    let issuer = format!("\"iss\": \"{}/realms/guide\",", keycloak.url());
    says(
        &said,
        &[
            "agentruntime.agent.kagenti.dev/weather condition met",
            &issuer,
            "\"aud\": \"guided/weather\"",
            "true",
            "unauthorized_client",
            "[ ]",
        ],
    )?;
    ensure!(said.contains("Registered: client guided/weather"), "{said}");
    ensure!(!said.contains(keycloak.admin_password()), "the administrator's password is on the screen");
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn guides_bring_your_own_mlflow() -> Result<()> {
    let mlflow = mlflow().await?;
    let suite = Suite::own(bare()).await?;
    let python = mlflow.python().parent().context("Python is nowhere")?.to_owned();
    let guide = Guide {
        page: "bring-your-own-mlflow.md",
        values: &[("MLFLOW_URL", mlflow.url()), ("NAMESPACE", "guided")],
        program: "mlflow-ctl",
        path: vec![python],
        env: Vec::new(),
    };
    let said = guide.follow(&suite).await?;
    let uri = format!("MLFLOW_TRACKING_URI={}", mlflow.url());
    says(
        &said,
        &[
            "OK",
            "Default",
            &uri,
            "MLFLOW_EXPERIMENT_NAME=guided/weather",
            "FINISHED city=Rome degrees=24",
            "true",
        ],
    )?;
    ensure!(said.contains("Configured: Experiment \"guided/weather\""), "{said}");
    Ok(())
}

#[test]
fn blocks_and_values_of_a_page() {
    let page = "text\n```sh\nexport A=1\necho $A\n```\n```json\n{}\n```\n```sh\nb\n```\n";
    let script = script(page, &[("A", "2")]).expect("a script");
    assert_eq!(script.strip_prefix(BEFORE), Some("export A=2\necho $A\nb\n"));
    assert!(super::guides::script(page, &[("B", "2")]).is_err(), "a value that the page does not set");
}
