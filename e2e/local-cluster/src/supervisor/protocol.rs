//! What is said between a supervisor and the process that uses the cluster: one JSON value per line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::options::ClusterOptions;
use crate::programs::Programs;

/// The first line to a supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// What the cluster should look like.
    pub options: ClusterOptions,
    /// Where the programs are.
    pub programs: Programs,
    /// The program that holds a Pod's namespaces, linked statically; for a real node.
    pub pause: Option<PathBuf>,
    /// Tarballs of further images for a real node.
    #[serde(default)]
    pub images: Vec<PathBuf>,
}

/// A further line to a supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the asker, repeated in the answer.
    pub id: u64,
    /// What to do.
    #[serde(flatten)]
    pub act: Act,
}

/// What a supervisor can be asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case")]
pub enum Act {
    /// Start a process; the answer is its process id.
    Spawn(Box<ProcessSpec>),
    /// Send a signal to a process that this supervisor started.
    Signal {
        /// Its process id.
        pid: i32,
        /// The signal.
        signal: Signal,
    },
    /// Answer when a process has ended, with how it ended.
    Wait {
        /// Its process id.
        pid: i32,
    },
    /// End a program of the control plane (`kube-apiserver`, ...).
    StopProgram {
        /// Its name.
        name: String,
    },
    /// Start a program of the control plane again, with more arguments; the answer is its process id.
    StartProgram {
        /// Its name.
        name: String,
        /// Appended to its usual arguments; for flags that are given twice the last one counts.
        extra: Vec<String>,
    },
}

/// Signals that tests send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Signal {
    /// Please end.
    Term,
    /// End at once.
    Kill,
    /// Ctrl-C.
    Int,
    /// Freeze.
    Stop,
    /// Go on.
    Cont,
    /// Reload, for programs that know it.
    Hup,
}

/// A process to start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// For messages and the log.
    pub name: String,
    /// Path of the program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment but `PATH`, `HOME`, `TMPDIR` and `LANG`, which are passed on.
    pub env: BTreeMap<String, String>,
    /// Where its output goes (appended).
    pub log: PathBuf,
    /// Network namespace to run in (a file like `/run/netns/<name>`).
    pub netns: Option<PathBuf>,
}

/// A line from a supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "notice", rename_all = "kebab-case")]
pub enum Notice {
    /// What it is doing.
    Progress {
        /// For people.
        text: String,
    },
    /// The cluster works.
    Ready(Box<ClusterInfo>),
    /// The cluster could not be started; the supervisor exits.
    Failed {
        /// What happened, with the chain of causes.
        error: String,
    },
    /// The answer to a request.
    Answer {
        /// The request's id.
        id: u64,
        /// The result, or what went wrong.
        #[serde(flatten)]
        outcome: Outcome,
    },
}

/// How a request went.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The process id asked for, or how a process ended.
    Done(Value),
    /// What went wrong.
    Error(String),
}

/// What an answer carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// Nothing to say.
    Nothing,
    /// A process id.
    Pid(i32),
    /// How a process ended: `exit status: 0`, `signal: 9 (SIGKILL)`.
    Ended(Exit),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// Where everything of a running cluster is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// Admin kubeconfig.
    pub kubeconfig: PathBuf,
    /// `https://127.0.0.1:<port>`.
    pub server: String,
    /// The cluster's directory: logs, keys, data. Gone when the cluster is.
    pub dir: PathBuf,
    /// Audit log of the API server; none for a cluster that was there already.
    pub audit_log: Option<PathBuf>,
    /// Client URL of etcd; none for a cluster that was there already.
    pub etcd: Option<String>,
    /// Process ids of the control plane at its start, by program name.
    pub pids: BTreeMap<String, i32>,
    /// Process id of the supervisor.
    pub supervisor: i32,
    /// Range of the Pods' addresses.
    pub pod_range: Option<String>,
    /// Network namespace in which that range is local.
    pub netns: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_the_trip() {
        let notice = Notice::Answer {
            id: 7,
            outcome: Outcome::Done(Value::Ended(Exit { code: None, signal: Some(9) })),
        };
        let line = serde_json::to_string(&notice).expect("a line");
        assert!(!line.contains('\n'));
        let back: Notice = serde_json::from_str(&line).expect("the same");
        assert!(matches!(back, Notice::Answer { id: 7, outcome: Outcome::Done(Value::Ended(_)) }));
        let request = Request { id: 1, act: Act::Signal { pid: 5, signal: Signal::Term } };
        let line = serde_json::to_string(&request).expect("a line");
        assert_eq!(line, r#"{"id":1,"act":"signal","pid":5,"signal":"TERM"}"#);
        let Act::Signal { pid: 5, .. } = serde_json::from_str::<Request>(&line).expect("the same").act else {
            panic!("another act");
        };
    }
}
