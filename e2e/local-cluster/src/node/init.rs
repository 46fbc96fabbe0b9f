//! `local-cluster node-init`: the node's first process.
//!
//! It comes in two halves. The outer one makes the namespaces and waits: on SIGTERM it kills the inner one, and the
//! kernel lets it go on only when every process of the node is gone. The inner one is process 1 of the node: it mounts,
//! starts containerd, kubelet and kube-proxy, buries orphans, and ends when containerd does or another one goes on ending.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::cgroup;
use crate::supervisor::protocol::ProcessSpec;
use crate::wait::log_tail;

/// How long containerd may take to answer.
const CONTAINERD_WITHIN: Duration = Duration::from_secs(60);

/// How often programs of the node are started again, all together.
const RESTARTS: usize = 5;
/// Not at once: what they miss needs a moment.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// What the kubelet wants of the kernel, for all of the machine. It writes what differs, so it is shown files that hold
/// what it wants: nobody asked it to change this machine.
const TUNABLES: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// What is started, and where.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The node's directory.
    pub home: PathBuf,
    /// Name of its cgroups.
    pub cgroup: String,
    /// Where containerd answers.
    pub socket: PathBuf,
    /// Started first.
    pub containerd: ProcessSpec,
    /// Started when containerd answers.
    pub others: Vec<ProcessSpec>,
}

/// Arguments of `local-cluster node-init`.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// File that holds the plan.
    plan: PathBuf,
    /// This is process 1 of the node.
    #[arg(long)]
    inside: bool,
}

/// Runs the node until it is told to end; returns with an error when containerd ends before, or another of its programs goes on
/// ending.
pub fn run(args: &InitArgs) -> Result<()> {
    let text = fs::read_to_string(&args.plan).with_context(|| format!("reading {}", args.plan.display()))?;
    let plan: Plan =
        serde_json::from_str(&text).with_context(|| format!("reading {}", args.plan.display()))?;
    if args.inside { inside(&plan) } else { outside(&plan, &args.plan) }
}

#[cfg(not(target_os = "linux"))]
fn outside(_plan: &Plan, _path: &Path) -> Result<()> {
    bail!("a real node needs Linux")
}

/// Makes the namespaces, starts the inner half, and ends it when told to.
#[cfg(target_os = "linux")]
fn outside(plan: &Plan, path: &Path) -> Result<()> {
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::signal::{SigSet, Signal};

    cgroup::make(&plan.cgroup)?;
    // Blocked, so that they wait until they are asked for; programs that are started begin with none blocked.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD]);
    signals.thread_block().context("blocking signals")?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)
        .context("making namespaces; this needs root")?;
    let mut child = Command::new("/proc/self/exe")
        .args(["node-init", "--inside"])
        .arg(path)
        .stdin(Stdio::piped())
        // Signals for this process are not for the node's.
        .process_group(0)
        .spawn()
        .context("starting the node's first process")?;
    // It waits for this: then it has asked to die with this process, and this process is still there.
    let mut stdin = child.stdin.take().context("the first process has no standard input")?;
    stdin.write_all(b"\n").context("starting the node")?;
    loop {
        if signals.wait().context("waiting for signals")? == Signal::SIGCHLD {
            if let Some(status) = child.try_wait().context("looking after the node's first process")? {
                bail!("the node ended with {status}");
            }
        } else {
            // Not before every process of the namespace is gone.
            child.kill().and_then(|()| child.wait()).context("ending the node")?;
            return Ok(());
        }
    }
}

fn inside(plan: &Plan) -> Result<()> {
    wait_for_parent()?;
    mount(plan)?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")
        .context("switching on forwarding in the node's network")?;
    let _ = fs::remove_file(&plan.socket);
    let mut running = vec![(&plan.containerd, start(&plan.containerd)?)];
    wait_for_containerd(plan, &mut running)?;
    for spec in &plan.others {
        running.push((spec, start(spec)?));
    }
    bury(running)
}

/// Asks to die with the outer half and waits until that is sure to have been there.
fn wait_for_parent() -> Result<()> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .context("asking to die with the parent")?;
    ensure!(std::process::id() == 1, "`node-init --inside` is only started by `node-init`");
    let mut byte = [0];
    std::io::stdin().read_exact(&mut byte).context("the outer half of node-init is gone")
}

#[cfg(not(target_os = "linux"))]
fn mount(_plan: &Plan) -> Result<()> {
    bail!("a real node needs Linux")
}

/// A view of the file system in which the usual directories of node programs are the cluster's.
#[cfg(target_os = "linux")]
fn mount(plan: &Plan) -> Result<()> {
    use nix::mount::{MsFlags, mount};

    const NONE: Option<&str> = None;
    let propagation = |flag: MsFlags| mount(NONE, "/", NONE, MsFlags::MS_REC | flag, NONE);
    // Nothing of it is seen outside; containers see what is mounted later.
    propagation(MsFlags::MS_PRIVATE).and_then(|()| propagation(MsFlags::MS_SHARED)).context("own mounts")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), NONE).context("mounting /proc")?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .context("mounting /run")?;
    let bind = |from: &Path, to: &Path| {
        mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE)
            .with_context(|| format!("mounting {} over {}", from.display(), to.display()))
    };
    bind(&plan.home.join("lib"), Path::new("/var/lib"))?;
    bind(&plan.home.join("log"), Path::new("/var/log"))?;
    for (name, value) in TUNABLES {
        let tunable = Path::new("/proc/sys").join(name);
        if tunable.exists() {
            let file = plan.home.join("sysctl").join(name.replace('/', "."));
            fs::write(&file, value).with_context(|| format!("writing {}", file.display()))?;
            bind(&file, &tunable)?;
        }
    }
    Ok(())
}

fn start(spec: &ProcessSpec) -> Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(&spec.log);
    let log = log.with_context(|| format!("opening {}", spec.log.display()))?;
    Command::new(&spec.program)
        .args(&spec.args)
        .envs(&spec.env)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("sharing a log file")?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {} ({})", spec.name, spec.program.display()))
}

fn wait_for_containerd(plan: &Plan, running: &mut [(&ProcessSpec, Child)]) -> Result<()> {
    let started = Instant::now();
    while UnixStream::connect(&plan.socket).is_err() {
        for (spec, child) in &mut *running {
            if let Some(status) = child.try_wait().with_context(|| format!("looking after {}", spec.name))? {
                return Err(ended(spec, &status.to_string()));
            }
        }
        if started.elapsed() > CONTAINERD_WITHIN {
            return Err(ended(&plan.containerd, "no answer"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Waits for every process of the node, orphans of containerd among them, until one of the programs has ended. A kubelet ends
/// when containerd answers and is not done with starting; as on any node, it is then started again.
fn bury(mut running: Vec<(&ProcessSpec, Child)>) -> Result<()> {
    let mut attempts = RESTARTS;
    loop {
        let status = nix::sys::wait::wait().context("waiting for the node's programs")?;
        let pid = status.pid().and_then(|pid| u32::try_from(pid.as_raw()).ok());
        let Some(index) = running.iter().position(|(_, child)| Some(child.id()) == pid) else { continue };
        let (spec, _) = running.remove(index);
        // The first one is containerd, which takes everything with it.
        if index == 0 || attempts == 0 {
            return Err(ended(spec, &format!("{status:?}")));
        }
        attempts -= 1;
        std::thread::sleep(RESTART_AFTER);
        running.push((spec, start(spec)?));
    }
}

fn ended(spec: &ProcessSpec, how: &str) -> anyhow::Error {
    anyhow::anyhow!("{} ended ({how}); its log ends with:\n{}", spec.name, log_tail(&spec.log, 10))
}
