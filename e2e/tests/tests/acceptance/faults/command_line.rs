//! The process contract without a cluster: flags, help, version, exit codes.

use std::collections::BTreeMap;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use local_cluster::{Profile, components};

use super::fixture::BOTH;

async fn run(component: &'static str, args: &'static [&'static str]) -> Result<Output> {
    run_with(component, args, BTreeMap::new()).await
}

async fn run_with(
    component: &'static str,
    args: &'static [&'static str],
    env: BTreeMap<&'static str, &'static str>,
) -> Result<Output> {
    let built = tokio::task::spawn_blocking(|| components::build(&BOTH, Profile::Same)).await??;
    let mut command = tokio::process::Command::new(built.path(component)?);
    command.env_clear().args(args).envs(env).kill_on_drop(true);
    let output = tokio::time::timeout(e2e::secs(20), command.output());
    output.await.context("it does not end")?.context("starting it")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runtime §19.1, packaging §12: nothing is applied in half.
#[tokio::test]
async fn fault_bad_flags_end_with_2() -> Result<()> {
    let cases: [(&str, &[&str], &str); 10] = [
        ("runtime-ctl", &["--no-such-flag"], "--no-such-flag"),
        ("authbridge-webhook", &["--no-such-flag=1"], "--no-such-flag"),
        ("runtime-ctl", &["--webhook-cert-path=/x"], "authbridge-webhook"),
        ("authbridge-webhook", &["--rollout-qps=1"], "runtime-ctl"),
        ("runtime-ctl", &["--enable-mlflow"], "mlflow-ctl"),
        ("runtime-ctl", &["--enable-client-registration=false"], "client-registration-ctl"),
        ("authbridge-webhook", &["--require-a2a-signature"], "card-ctl"),
        ("runtime-ctl", &["--enable-kuadrant"], "feature that this suite does not have"),
        ("runtime-ctl", &["--concurrency=0"], "--concurrency"),
        ("authbridge-webhook", &["--webhook-cert-lifetime=soon"], "--webhook-cert-lifetime"),
    ];
    for (component, args, text) in cases {
        let output = run(component, args).await?;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{component} {args:?}: {said}");
        assert!(said.contains(text), "{component} {args:?} does not name {text:?}: {said}");
        assert!(output.stdout.is_empty());
    }
    // By environment as well, and there it is named after the flag.
    let env = BTreeMap::from([("RUNTIME_CTL_ROLLOUT_QPS", "many")]);
    let output = run_with("runtime-ctl", &[], env).await?;
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--rollout-qps"), "{}", stderr(&output));
    Ok(())
}

/// Every flag is also an environment variable, and `--help` says which (README decision 7).
#[tokio::test]
async fn fault_help_names_every_flag_and_variable() -> Result<()> {
    for (component, prefix, own) in [
        ("runtime-ctl", "RUNTIME_CTL", "--rollout-qps"),
        ("authbridge-webhook", "AUTHBRIDGE_WEBHOOK", "--webhook-bind-address"),
    ] {
        let output = run(component, &["--help"]).await?;
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).context("help is text")?;
        let flags = flags(&text);
        for common in [
            "--concurrency",
            "--kube-qps",
            "--kube-burst",
            "--watch-namespaces",
            "--log-level",
            "--log-format",
            "--leader-elect",
            "--health-probe-bind-address",
            "--metrics-bind-address",
            "--metrics-secure",
            "--metrics-cert-path",
            "--metrics-cert-name",
            "--metrics-cert-key",
            "--enable-http2",
            "--kubeconfig",
            own,
        ] {
            ensure!(flags.contains_key(common), "{component} --help has no {common}");
        }
        for (flag, about) in flags {
            let variable = match flag.as_str() {
                "--help" | "--version" => continue,
                "--pod-namespace" => "POD_NAMESPACE".to_owned(),
                "--pod-name" => "POD_NAME".to_owned(),
                "--watch-namespaces" => "NAMESPACES2WATCH".to_owned(),
                other => {
                    format!("{prefix}_{}", other.trim_start_matches('-').to_uppercase().replace('-', "_"))
                }
            };
            ensure!(
                about.contains(&format!("[env: {variable}=")),
                "{component} {flag} does not name {variable}: {about}"
            );
            let explained = about.split('[').next().unwrap_or_default().split_whitespace().count();
            ensure!(explained >= 3, "{component} {flag} is not explained: {about}");
        }
    }
    Ok(())
}

/// The flags of a help text and what stands behind them.
fn flags(help: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut current = None;
    for line in help.lines() {
        let words = line.trim();
        if let Some(start) = words.find("--").filter(|start| *start == 0 || words.starts_with('-')) {
            let flag =
                words.get(start..).unwrap_or_default().split([' ', '=', '[']).next().unwrap_or_default();
            let rest =
                words.get(start + flag.len()..).unwrap_or_default().trim_start_matches([' ', '=', '[']);
            // What stands in angle brackets is the value's name.
            let rest = rest.split_once('>').map_or(rest, |(_, rest)| rest).trim_start_matches(']');
            found.insert(flag.to_owned(), rest.trim().to_owned());
            current = Some(flag.to_owned());
        } else if words.is_empty() || !line.starts_with(' ') {
            current = current.filter(|_| words.is_empty());
        } else if let Some(about) = current.as_ref().and_then(|flag| found.get_mut(flag)) {
            about.push(' ');
            about.push_str(words);
        }
    }
    found
}

#[tokio::test]
async fn fault_version_names_component_version_and_revision() -> Result<()> {
    for component in BOTH {
        let output = run(component, &["version"]).await?;
        assert_eq!(output.status.code(), Some(0));
        let line = String::from_utf8(output.stdout).context("text")?;
        assert!(line.starts_with(component) && line.contains(env!("CARGO_PKG_VERSION")), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
    Ok(())
}

/// Files that are wrong at the start end the process; there is no last good version yet (webhook §7).
#[tokio::test]
async fn fault_bad_files_at_start_end_with_2() -> Result<()> {
    let cases: [(&str, &[&str], &str); 2] = [
        ("authbridge-webhook", &["--config-path=/dev/stdin", "--kubeconfig=/nonexistent"], "kubeconfig"),
        ("runtime-ctl", &["--kubeconfig=/nonexistent"], "kubeconfig"),
    ];
    for (component, args, text) in cases {
        let output = run(component, args).await?;
        assert_eq!(output.status.code(), Some(2), "{component} {args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(text), "{component}: {}", stderr(&output));
    }
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, "sidecars: {layout: both}\nproxy: {port: 80}\n")?;
    let built = tokio::task::spawn_blocking(|| components::build(&BOTH, Profile::Same)).await??;
    let mut command = tokio::process::Command::new(built.path("authbridge-webhook")?);
    command.env_clear().arg(format!("--config-path={}", file.display())).kill_on_drop(true);
    let output = tokio::time::timeout(e2e::secs(20), command.output()).await.context("it does not end")??;
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for problem in ["sidecars.layout", "proxy.port", "config.yaml"] {
        assert!(said.contains(problem), "{said} does not name {problem}");
    }
    Ok(())
}
