//! Builds missing programs with the Go toolchain into the per-user cache.
//!
//! One process builds at a time (file lock per module); a program appears in the cache by a rename, so an
//! interrupted build leaves nothing that looks finished.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{Program, Tool, cached_path, preflight};
use crate::terminal::Terminal;

/// Lines of compiler output kept for an error report; the first ones name the cause.
const KEPT_LINES: usize = 40;

/// Builds every module that has one of the missing programs.
pub(super) fn build(missing: &[Program], cache: &Path, terminal: Terminal) -> Result<()> {
    let mut tools: Vec<&'static Tool> = Vec::new();
    for program in missing {
        let tool = program.tool();
        if !tools.iter().any(|known| known.name == tool.name) {
            tools.push(tool);
        }
    }
    preflight::require(&tools)?;
    // The small ones first: a first success is seen early.
    tools.sort_by_key(|tool| tool.programs.len());
    for tool in tools {
        build_tool(tool, cache, terminal)
            .with_context(|| format!("building {} for the local cluster", tool.name))?;
    }
    Ok(())
}

fn build_tool(tool: &Tool, cache: &Path, terminal: Terminal) -> Result<()> {
    let home = cache.join("toolchain").join(tool.key());
    fs::create_dir_all(home.join("bin")).with_context(|| format!("creating {}", home.display()))?;
    let _lock = exclusive_lock(&home.join("lock"), tool, terminal)?;
    let wanted: Vec<Program> =
        tool.programs.iter().copied().filter(|program| !cached_path(cache, *program).is_file()).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    // Below the module's directory: the rename must not cross file systems.
    let staging = home.join("staging");
    if staging.exists() {
        fs::remove_dir_all(&staging).with_context(|| format!("removing {}", staging.display()))?;
    }
    fs::create_dir_all(&staging).with_context(|| format!("creating {}", staging.display()))?;
    fs::write(home.join("go.mod"), tool.go_mod).context("writing go.mod")?;
    fs::write(home.join("go.sum"), tool.go_sum).context("writing go.sum")?;
    if let Some(main) = tool.main_go {
        fs::write(home.join("main.go"), main).context("writing main.go")?;
    }
    let names: Vec<&str> = wanted.iter().map(|program| program.name()).collect();
    go_build(tool, &wanted, &home, &format!("building {} (once per machine)", names.join(", ")), terminal)?;
    for program in wanted {
        let built = staging.join(built_name(program));
        let target = cached_path(cache, program);
        fs::rename(&built, &target)
            .with_context(|| format!("moving {} to {}", built.display(), target.display()))?;
    }
    fs::remove_dir_all(&staging).with_context(|| format!("removing {}", staging.display()))
}

/// `go build` names a program after the last element of its package that is not a version.
fn built_name(program: Program) -> &'static str {
    if program == Program::Etcd { "server" } else { program.name() }
}

fn exclusive_lock(path: &Path, tool: &Tool, terminal: Terminal) -> Result<File> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    if file.try_lock().is_err() {
        let task = terminal.task(&format!("waiting for another process that builds {}", tool.name));
        file.lock().with_context(|| format!("locking {}", path.display()))?;
        task.done();
    }
    Ok(file)
}

fn go_build(tool: &Tool, wanted: &[Program], home: &Path, title: &str, terminal: Terminal) -> Result<()> {
    let mut task = terminal.task(title);
    let mut child = Command::new("go")
        .args(["build", "-v", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags"])
        .arg(tool.linker_flags())
        .args(["-o", "staging/"])
        .args(wanted.iter().map(|program| program.package()))
        .current_dir(home)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting `go build`")?;
    let stderr = child.stderr.take().context("`go build` has no standard error")?;
    let (sender, lines) = channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut said: Vec<String> = Vec::new();
    let mut compiled = 0_usize;
    let mut at = "starting".to_owned();
    loop {
        match lines.recv_timeout(Duration::from_secs(1)) {
            Ok(line) if line.starts_with("go: downloading ") => {
                line.trim_start_matches("go: ").clone_into(&mut at);
            }
            // With -v the compiler prints the import path of each package it finished.
            Ok(line) if !line.contains(' ') && !line.starts_with('#') => {
                compiled += 1;
                at = format!("{compiled} packages, {line}");
            }
            Ok(line) if said.len() < KEPT_LINES => said.push(line),
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        task.detail(&at);
    }
    let status = child.wait().context("waiting for `go build`")?;
    let _ = reader.join();
    if !status.success() {
        task.cleared();
        bail!("`go build` ended with {status}:\n{}", said.join("\n"));
    }
    task.done();
    Ok(())
}
