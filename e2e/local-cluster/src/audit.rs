//! Who asked the API server for what: its audit log, read incrementally.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Deserialize;

use crate::cluster::Cluster;

/// The audit log of a cluster. Requests of the API server itself and health checks are not in it.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
}

/// A place in the audit log. Answers that were complete before [`Audit::mark`] lie before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(u64);

/// One request. A watch appears once, when it was opened; everything else once, when it was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiRequest {
    /// User name, such as `system:serviceaccount:kagenti-system:runtime-ctl`.
    pub user: String,
    /// The Pod whose token it was, when a kubelet handed it out; else empty.
    pub pod: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Plural resource with its subresource: `deployments`, `agentruntimes/status`; empty for other paths.
    pub resource: String,
    /// Namespace; empty for cluster-wide requests.
    pub namespace: String,
    /// Name of the object; empty for lists.
    pub name: String,
    /// HTTP status of the answer.
    pub code: u16,
    /// Path and query.
    pub uri: String,
    /// `User-Agent` of the caller.
    pub user_agent: String,
    /// When the answer was sent, RFC 3339 with microseconds.
    pub time: String,
    /// How long the API server worked on it.
    pub took: Duration,
}

impl ApiRequest {
    /// The ServiceAccount's name when one asked; else the user's.
    pub fn short_user(&self) -> &str {
        self.user
            .strip_prefix("system:serviceaccount:")
            .and_then(|rest| rest.split_once(':'))
            .map_or(&self.user, |(_, name)| name)
    }

    /// True for requests that change something.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }
}

/// Requests added up by what they have in common.
pub type Counts = BTreeMap<(String, String, String, u16), Sum>;

/// How many requests, and how long the API server worked on all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Their number.
    pub count: usize,
    /// Their time together.
    pub took: Duration,
}

impl Cluster {
    /// The audit log; an error for a cluster that was there already.
    pub fn audit(&self) -> Result<Audit> {
        let path = self.info().audit_log.clone();
        Ok(Audit { path: path.context("only a cluster that was started here has an audit log")? })
    }
}

impl Audit {
    /// The present end of the log.
    pub fn mark(&self) -> Result<Mark> {
        match std::fs::metadata(&self.path) {
            Ok(meta) => Ok(Mark(meta.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Mark(0)),
            Err(error) => Err(error).with_context(|| format!("reading {}", self.path.display())),
        }
    }

    /// Every request since `mark`, which moves to behind the last one read.
    pub fn read(&self, mark: &mut Mark) -> Result<Vec<ApiRequest>> {
        let mut requests = Vec::new();
        self.each(mark, |request| requests.push(request))?;
        Ok(requests)
    }

    /// Requests since `mark` that satisfy `filter`; the mark stays.
    pub fn since(&self, mark: Mark, filter: impl Fn(&ApiRequest) -> bool) -> Result<Vec<ApiRequest>> {
        let mut requests = Vec::new();
        self.each(&mut mark.clone(), |request| {
            if filter(&request) {
                requests.push(request);
            }
        })?;
        Ok(requests)
    }

    /// Requests since `mark` added up by short user name, verb, resource and status code. Holds only the
    /// counts in memory, however many requests there were.
    pub fn counts(&self, mark: Mark) -> Result<Counts> {
        let mut counts = Counts::new();
        self.each(&mut mark.clone(), |request| {
            let user = request.short_user().to_owned();
            let sum = counts.entry((user, request.verb, request.resource, request.code)).or_default();
            sum.count += 1;
            sum.took += request.took;
        })?;
        Ok(counts)
    }

    fn each(&self, mark: &mut Mark, mut visit: impl FnMut(ApiRequest)) -> Result<()> {
        let reading = || format!("reading {}", self.path.display());
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(reading),
        };
        file.seek(SeekFrom::Start(mark.0)).with_context(reading)?;
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).with_context(reading)?;
            // A line that is still being written is left for the next reader.
            if length == 0 || !line.ends_with(b"\n") {
                return Ok(());
            }
            mark.0 += length as u64;
            if let Some(request) = parse(&line) {
                visit(request);
            }
        }
    }
}

/// What the API server knows of a token that is bound to a Pod.
const POD_OF_TOKEN: &str = "authentication.kubernetes.io/pod-name";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    #[serde(default, rename = "requestURI")]
    request_uri: String,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    stage_timestamp: String,
    #[serde(default)]
    request_received_timestamp: String,
    #[serde(default)]
    user: User,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
}

#[derive(Default, Deserialize)]
struct User {
    #[serde(default)]
    username: String,
    #[serde(default)]
    extra: BTreeMap<String, Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef {
    #[serde(default)]
    api_group: String,
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

#[derive(Default, Deserialize)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

/// One line of the log; none for the stages that would count a request twice.
fn parse(line: &[u8]) -> Option<ApiRequest> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let counted = match line.stage.as_str() {
        "ResponseStarted" => line.verb == "watch",
        // A refused watch never starts a stream.
        "ResponseComplete" => line.verb != "watch" || line.response_status.code >= 300,
        _ => true,
    };
    let object = line.object_ref;
    let resource = match object.subresource.as_str() {
        "" => object.resource,
        sub => format!("{}/{sub}", object.resource),
    };
    let pod = line.user.extra.get(POD_OF_TOKEN).and_then(|pods| pods.first()).cloned().unwrap_or_default();
    let took = took(&line.request_received_timestamp, &line.stage_timestamp);
    counted.then_some(ApiRequest {
        user: line.user.username,
        pod,
        verb: line.verb,
        group: object.api_group,
        resource,
        namespace: object.namespace,
        name: object.name,
        code: line.response_status.code,
        uri: line.request_uri,
        user_agent: line.user_agent,
        time: line.stage_timestamp,
        took,
    })
}

fn took(received: &str, answered: &str) -> Duration {
    let span = || answered.parse::<Timestamp>().ok()?.duration_since(received.parse().ok()?).try_into().ok();
    span().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn line(stage: &str, verb: &str, code: u16) -> String {
        format!(
            r#"{{"kind":"Event","stage":"{stage}","requestURI":"/x","verb":"{verb}","user":{{"username":"system:serviceaccount:ops:runtime-ctl","extra":{{"authentication.kubernetes.io/pod-name":["ctl-1"]}}}},"objectRef":{{"resource":"agentruntimes","subresource":"status","namespace":"a","name":"b","apiGroup":"agent.kagenti.dev"}},"responseStatus":{{"metadata":{{}},"code":{code}}},"requestReceivedTimestamp":"2026-01-01T00:00:00.000000Z","stageTimestamp":"2026-01-01T00:00:00.012000Z"}}"#
        )
    }

    #[test]
    fn every_request_counts_once() {
        let mut log = tempfile::NamedTempFile::new().expect("a file");
        let audit = Audit { path: log.path().to_owned() };
        let mut mark = audit.mark().expect("a mark");
        for (stage, verb, code) in [
            ("ResponseStarted", "watch", 200),
            ("ResponseComplete", "watch", 200),
            ("ResponseComplete", "watch", 403),
            ("ResponseComplete", "patch", 200),
        ] {
            writeln!(log, "{}", line(stage, verb, code)).expect("written");
        }
        write!(log, "{{\"stage\":\"Resp").expect("half a line");
        let counts = audit.counts(mark).expect("counts");
        let of = |verb: &str, code| {
            counts.get(&("runtime-ctl".to_owned(), verb.to_owned(), "agentruntimes/status".to_owned(), code))
        };
        let once = Sum { count: 1, took: Duration::from_millis(12) };
        assert_eq!(
            (of("watch", 200), of("watch", 403), of("patch", 200)),
            (Some(&once), Some(&once), Some(&once))
        );
        assert_eq!(audit.read(&mut mark).expect("requests").len(), 3);
        assert!(audit.read(&mut mark).expect("nothing new").is_empty());
        let writes = audit.since(Mark(0), ApiRequest::is_write).expect("writes");
        assert_eq!(writes.iter().map(|write| write.pod.as_str()).collect::<Vec<_>>(), ["ctl-1"]);
    }

    #[test]
    fn short_names() {
        let request = ApiRequest { user: "system:kube-scheduler".to_owned(), ..ApiRequest::default() };
        assert_eq!(request.short_user(), "system:kube-scheduler");
    }
}
