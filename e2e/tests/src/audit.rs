//! Requests that somebody sent, from the audit log of the API server.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::json::Json;

/// The audit log of a cluster.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
}

/// A place in the log, for counting what came after it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark(u64);

/// One answered request (a watch: one that began).
#[derive(Clone, Debug)]
pub struct Entry {
    /// User name, such as `system:serviceaccount:kagenti-system:runtime-ctl`.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// API group, empty for the core group.
    pub group: String,
    /// Plural name.
    pub resource: String,
    /// `status`, `finalizers`, empty for the object itself.
    pub subresource: String,
    /// Namespace, empty outside.
    pub namespace: String,
    /// Name of the object, empty for lists.
    pub name: String,
    /// HTTP status.
    pub code: i64,
    /// URL with query.
    pub uri: String,
    /// When the request came (RFC 3339, microseconds).
    pub at: String,
}

impl Entry {
    fn read(line: &Value) -> Self {
        let text = |pointer: &str| line.text(pointer).to_owned();
        Self {
            user: text("/user/username"),
            verb: text("/verb"),
            group: text("/objectRef/apiGroup"),
            resource: text("/objectRef/resource"),
            subresource: text("/objectRef/subresource"),
            namespace: text("/objectRef/namespace"),
            name: text("/objectRef/name"),
            code: line.number("/responseStatus/code").unwrap_or_default(),
            uri: text("/requestURI"),
            at: text("/requestReceivedTimestamp"),
        }
    }

    /// Whether it changes objects (Events and Leases count too; filter them by resource).
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// A write to something other than Events, Leases and reviews of access.
    pub fn is_object_write(&self) -> bool {
        self.is_write()
            && !matches!(
                self.resource.as_str(),
                "events" | "leases" | "tokenreviews" | "subjectaccessreviews"
            )
    }
}

impl Audit {
    /// The log in this file.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The end of the log as it is now.
    pub fn mark(&self) -> Result<Mark> {
        let file =
            std::fs::metadata(&self.path).with_context(|| format!("reading {}", self.path.display()))?;
        Ok(Mark(file.len()))
    }

    /// Requests after `mark` by the ServiceAccount of this name (any namespace), oldest answer first.
    pub fn since(&self, mark: Mark, service_account: &str) -> Result<Vec<Entry>> {
        let mut file =
            std::fs::File::open(&self.path).with_context(|| format!("opening {}", self.path.display()))?;
        file.seek(SeekFrom::Start(mark.0)).context("going to the mark")?;
        let mut text = String::new();
        file.read_to_string(&mut text).context("reading the audit log")?;
        let suffix = format!(":{service_account}\"");
        // Only lines that name the user are parsed: the log of a shared cluster is long.
        let lines = text.lines().filter(|line| line.contains(&suffix));
        let entries =
            lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()).map(|line| Entry::read(&line));
        let user = format!(":{service_account}");
        Ok(entries.filter(|entry| entry.user.ends_with(&user)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn only_what_came_after_the_mark_counts() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let line = |verb: &str, user: &str| {
            format!(
                r#"{{"user":{{"username":"{user}"}},"verb":"{verb}","objectRef":{{"resource":"pods"}},"responseStatus":{{"code":200}}}}"#
            )
        };
        let ours = "system:serviceaccount:kagenti-system:runtime-ctl";
        writeln!(file, "{}", line("create", ours)).expect("written");
        let audit = Audit::new(file.path());
        let mark = audit.mark().expect("a mark");
        writeln!(file, "{}\n{}", line("patch", ours), line("patch", "admin")).expect("written");
        let seen = audit.since(mark, "runtime-ctl").expect("entries");
        assert_eq!(seen.len(), 1);
        assert!(seen.iter().all(|entry| entry.verb == "patch" && entry.is_object_write()));
    }
}
