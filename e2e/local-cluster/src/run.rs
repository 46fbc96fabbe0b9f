//! Programs that are run to their end and asked what they said.

use std::io::{self, ErrorKind};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// Runs a program without standard input and takes what it writes. One that does not end within `limit` is killed; the
/// error is then of kind [`ErrorKind::TimedOut`] and carries what it had said. Other errors are those of its start.
pub async fn run_within(mut command: Command, limit: Duration) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let run = async { tokio::try_join!(child.wait(), read(out, &mut stdout), read(err, &mut stderr)) };
    if let Ok(ended) = tokio::time::timeout(limit, run).await {
        return Ok(Output { status: ended?.0, stdout, stderr });
    }
    child.kill().await?;
    let said = [stdout, stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // One line: where programs are looked for, an error is one.
    let text = match said.lines().collect::<Vec<_>>().join("; ").trim() {
        "" => "saying nothing".to_owned(),
        said => format!("saying: {said}"),
    };
    Err(io::Error::new(ErrorKind::TimedOut, format!("not done within {limit:?} and killed, {text}")))
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) -> io::Result<()> {
    match pipe {
        Some(mut pipe) => pipe.read_to_end(into).await.map(drop),
        None => Ok(()),
    }
}

/// What a program that succeeded has written to standard output; else an error with `name`, its status, and what it wrote
/// to standard error.
pub(crate) fn stdout_of(name: &str, output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!("{name} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn what_it_said_comes_back() {
        let output = run_within(sh("cat; echo out; echo err >&2; exit 3"), Duration::from_secs(30)).await;
        let output = output.expect("it ends");
        assert_eq!(
            (output.status.code(), &*output.stdout, &*output.stderr),
            (Some(3), &b"out\n"[..], &b"err\n"[..])
        );
        let error = stdout_of("sh", &output).expect_err("it failed").to_string();
        assert!(error.starts_with("sh ended with") && error.ends_with(": err"), "{error}");
    }

    #[tokio::test]
    async fn one_that_goes_on_is_killed() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("pid");
        let script = format!("echo $$ >'{}'; echo begun; exec sleep 600", file.display());
        // Longer than a shell takes to begin on a busy machine.
        let error = run_within(sh(&script), Duration::from_secs(5)).await.expect_err("killed");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().ends_with("saying: begun"), "{error}");
        let pid = std::fs::read_to_string(file).expect("its id");
        assert!(!std::path::Path::new("/proc").join(pid.trim()).exists(), "it still runs");
    }

    #[tokio::test]
    async fn one_that_is_missing_is_told_apart() {
        let error = run_within(Command::new("/nowhere/program"), Duration::from_secs(1)).await;
        assert_eq!(error.expect_err("missing").kind(), ErrorKind::NotFound);
    }
}
