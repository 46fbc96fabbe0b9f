//! Without a cluster: flags, variables, help, version, refusals at the start.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use serde_json::Value;

use super::programs::{PROGRAMS, Program, SIGNER, run};

/// A server that nobody asks: what is refused is refused before.
const KUBECONFIG: &str = "{apiVersion: v1, kind: Config, current-context: x, \
    contexts: [{name: x, context: {cluster: x, user: x}}], users: [{name: x, user: {}}], \
    clusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}]}";

/// The flags that every program has (README decision 7).
const COMMON: [&str; 20] = [
    "--concurrency",
    "--kube-qps",
    "--kube-burst",
    "--watch-namespaces",
    "--log-level",
    "--log-format",
    "--leader-elect",
    "--leader-elect-lease-duration",
    "--leader-elect-renew-deadline",
    "--leader-elect-retry-period",
    "--health-probe-bind-address",
    "--metrics-bind-address",
    "--metrics-secure",
    "--metrics-cert-path",
    "--metrics-cert-name",
    "--metrics-cert-key",
    "--enable-http2",
    "--kubeconfig",
    "--pod-namespace",
    "--pod-name",
];

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A process that could not start: 2, the reason on stderr for people, nothing on stdout.
fn refuses(output: &Output, word: &str) -> Result<()> {
    let text = said(output);
    ensure!(output.status.code() == Some(2), "{}: {text}", output.status);
    ensure!(text.contains(word), "{word:?} is not named: {text}");
    ensure!(!text.contains("panicked"), "{text}");
    ensure!(output.stdout.is_empty(), "on stdout: {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// Does the same with every program at once.
async fn with_each(check: impl AsyncFn(&'static Program) -> Result<()>) -> Result<()> {
    let check = &check;
    let checks = PROGRAMS.iter().map(async |program| check(program).await.context(program.name));
    try_join_all(checks).await.map(drop)
}

/// Runtime §19.1, packaging §12: nothing is applied in half.
#[tokio::test]
async fn contract_bad_flags_end_with_2() -> Result<()> {
    with_each(async |program| {
        let common: [(&[&str], &str); 9] = [
            (&["--no-such-flag"], "--no-such-flag"),
            (&["no-such-command"], "no-such-command"),
            (&["--concurrency=0"], "--concurrency"),
            (&["--kube-qps=none"], "--kube-qps"),
            (&["--log-format=xml"], "--log-format"),
            (&["--leader-elect-lease-duration=soon"], "--leader-elect-lease-duration"),
            (&["--health-probe-bind-address=nowhere"], "--health-probe-bind-address"),
            (&["--watch-namespaces=team1,Team_2"], "Team_2"),
            (&["--enable-kuadrant"], "feature that this suite does not have"),
        ];
        for (args, word) in common.iter().chain(program.refused) {
            let output = run(program.name, args, &[]).await?;
            refuses(&output, word).with_context(|| format!("{args:?}"))?;
        }
        // By environment as well, and there it is named after the flag.
        for flag in ["--kube-burst", "--metrics-secure"] {
            let output = run::<&str>(program.name, &[], &[(&program.variable(flag), "many")]).await?;
            refuses(&output, flag).with_context(|| program.variable(flag))?;
        }
        Ok(())
    })
    .await
}

/// What only the start can find out: files, addresses, flags that do not go together.
#[tokio::test]
async fn contract_a_start_that_cannot_work_ends_with_2() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let kubeconfig = dir.path().join("kubeconfig");
    std::fs::write(&kubeconfig, KUBECONFIG)?;
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    with_each(async |program| {
        let cases = [
            (vec!["--kubeconfig=/nonexistent".to_owned()], "/nonexistent"),
            (vec![kubeconfig.clone(), "--log-level=louder".to_owned()], "louder"),
            (vec![kubeconfig.clone(), "--leader-elect-renew-deadline=1h".to_owned()], "renew deadline"),
            (vec![kubeconfig.clone(), format!("--health-probe-bind-address={taken}")], taken.as_str()),
            (
                vec![
                    kubeconfig.clone(),
                    "--health-probe-bind-address=127.0.0.1:0".to_owned(),
                    "--metrics-bind-address=127.0.0.1:0".to_owned(),
                    "--metrics-cert-path=/nonexistent".to_owned(),
                ],
                "/nonexistent",
            ),
        ];
        for (args, word) in cases {
            let own = program.args.iter().map(|&arg| arg.to_owned());
            let args: Vec<String> = own.chain(args).collect();
            refuses(&run(program.name, &args, &[]).await?, word).with_context(|| format!("{args:?}"))?;
        }
        Ok(())
    })
    .await
}

/// A platform configuration that is wrong at the start: there is no last good one yet (webhook §7).
#[tokio::test]
async fn contract_a_bad_platform_configuration_ends_with_2() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, "sidecars: {layout: both}\nproxy: {port: 80}\n")?;
    let output = run(e2e::suite::WEBHOOK, &[format!("--config-path={}", file.display())], &[]).await?;
    for problem in ["sidecars.layout", "proxy.port", "config.yaml"] {
        refuses(&output, problem)?;
    }
    Ok(())
}

/// Every flag is also an environment variable, and `--help` says which (README decision 7).
#[tokio::test]
async fn contract_help_names_every_flag_and_variable() -> Result<()> {
    with_each(async |program| {
        let output = run(program.name, &["--help"], &[]).await?;
        ensure!(output.status.code() == Some(0), "{}", output.status);
        let text = String::from_utf8(output.stdout).context("help is text")?;
        for command in ["version", "selftest"] {
            let named = text.lines().any(|line| line.split_whitespace().next() == Some(command));
            ensure!(named, "--help has no sub-command {command}");
        }
        let flags = flags(&text);
        for flag in COMMON.iter().chain([&program.own_flag]) {
            ensure!(flags.contains_key(*flag), "--help has no {flag}");
        }
        for (flag, about) in flags {
            if flag == "--help" || flag == "--version" {
                continue;
            }
            let variable = program.variable(&flag);
            ensure!(
                about.contains(&format!("[env: {variable}=")),
                "{flag} does not name {variable}: {about}"
            );
            let explained = about.split('[').next().unwrap_or_default().split_whitespace().count();
            ensure!(explained >= 3, "{flag} is not explained: {about}");
        }
        for other in PROGRAMS.iter().filter(|other| other.name != program.name) {
            ensure!(!text.contains(other.own_flag), "--help has {} of {}", other.own_flag, other.name);
        }
        Ok(())
    })
    .await
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

/// One line with name, version and revision, and nothing needed for it.
#[tokio::test]
async fn contract_version_names_component_version_and_revision() -> Result<()> {
    for name in PROGRAMS.map(|program| program.name).into_iter().chain([SIGNER]) {
        let output = run(name, &["version"], &[]).await?;
        ensure!(output.status.code() == Some(0), "{name}: {}", output.status);
        let line = String::from_utf8(output.stdout).context("text")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [program, version, revision] = words.as_slice() else { anyhow::bail!("{name}: {line:?}") };
        ensure!((*program, *version) == (name, env!("CARGO_PKG_VERSION")), "{line:?}");
        ensure!(revision.starts_with('(') && revision.ends_with(')') && revision.len() > 2, "{line:?}");
        ensure!(line.lines().count() == 1, "{line:?}");
    }
    Ok(())
}

/// The signer's settings are variables and its errors log lines; every refusal is 1 (README decision 21, card §16.1).
#[tokio::test]
async fn contract_the_signer_refuses_with_1() -> Result<()> {
    let cases: [(&[&str], (&str, &str), &str); 4] = [
        (&["--no-such-flag"], ("SIGNER_MODE", "once"), "--no-such-flag"),
        (&[], ("SIGNER_MODE", "never"), "SIGNER_MODE"),
        (&[], ("SIGN_TIMEOUT", "soon"), "SIGN_TIMEOUT"),
        (&["--check"], ("SPIFFE_ENDPOINT_SOCKET", "tcp://10.0.0.1:1"), "SPIFFE_ENDPOINT_SOCKET"),
    ];
    for (args, variable, word) in cases {
        let output = run(SIGNER, args, &[variable]).await?;
        let text = said(&output);
        ensure!(output.status.code() == Some(1), "{variable:?}: {}: {text}", output.status);
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            ensure!(line["level"] == "error", "{line}");
        }
        ensure!(text.contains(word), "{word:?} is not named: {text}");
    }
    Ok(())
}
