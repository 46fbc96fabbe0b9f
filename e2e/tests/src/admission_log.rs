//! Which mutating webhooks the API server called for a request: it notes them in its audit log.

use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use local_cluster::Cluster;
use serde_json::Value;

use crate::json::Json;

/// Prefix of the annotations; `round_<n>_index_<n>` follows.
const MUTATION: &str = "mutation.webhook.admission.k8s.io/";

/// The part of the audit log that begins when this value is made.
#[derive(Clone, Debug)]
pub struct AdmissionLog {
    path: PathBuf,
    from: u64,
}

/// One call of a mutating webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Name of the entry, such as `inject.kagenti.io`.
    pub webhook: String,
    /// True for a call after another plug-in changed the object (reinvocation).
    pub again: bool,
    /// Whether the answer changed the object.
    pub mutated: bool,
}

/// One answered creation of a Pod.
#[derive(Clone, Debug)]
pub struct Creation {
    /// Name of the Pod, empty when the API server made one up.
    pub name: String,
    /// HTTP status of the answer.
    pub code: i64,
    /// Webhooks that were called, in order.
    pub calls: Vec<Call>,
}

impl AdmissionLog {
    /// Begins now.
    pub fn begin(cluster: &Cluster) -> Result<Self> {
        let path = cluster.info().audit_log.clone().context("only a cluster of our own has an audit log")?;
        let from = std::fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?.len();
        Ok(Self { path, from })
    }

    /// Creations of Pods in a namespace since the beginning, dry runs too.
    pub fn pods(&self, namespace: &str) -> Result<Vec<Creation>> {
        let reading = || format!("reading {}", self.path.display());
        let mut file = std::fs::File::open(&self.path).with_context(reading)?;
        file.seek(SeekFrom::Start(self.from)).with_context(reading)?;
        let uri = format!("/api/v1/namespaces/{namespace}/pods");
        let mut found = Vec::new();
        for line in BufReader::new(file).lines() {
            let line = line.with_context(reading)?;
            // Most lines are about something else; parsing them would be slow.
            if line.contains(&uri)
                && let Ok(entry) = serde_json::from_str::<Value>(&line)
            {
                found.extend(creation(&entry, &uri));
            }
        }
        Ok(found)
    }

    /// The one creation of a Pod of this name since the beginning.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<Creation> {
        let all = self.pods(namespace)?;
        all.into_iter()
            .find(|creation| creation.name == name)
            .with_context(|| format!("nobody created Pod {name} in {namespace}"))
    }
}

fn creation(entry: &Value, uri: &str) -> Option<Creation> {
    let path = entry.text("/requestURI").split('?').next()?;
    if entry.text("/verb") != "create" || path != uri {
        return None;
    }
    let mut calls: Vec<(String, Call)> = Vec::new();
    for (key, value) in entry.pointer("/annotations").and_then(Value::as_object).into_iter().flatten() {
        let place = key.strip_prefix(MUTATION).and_then(|place| value.as_str().map(|text| (place, text)));
        let Some((place, text)) = place else { continue };
        let call: Value = serde_json::from_str(text).ok()?;
        calls.push((
            place.to_owned(),
            Call {
                webhook: call.text("/webhook").to_owned(),
                again: !place.starts_with("round_0_"),
                mutated: call.pointer("/mutated").and_then(Value::as_bool).unwrap_or_default(),
            },
        ));
    }
    calls.sort_by(|(one, _), (other, _)| one.cmp(other));
    Some(Creation {
        name: entry.text("/objectRef/name").to_owned(),
        code: entry.number("/responseStatus/code").unwrap_or_default(),
        calls: calls.into_iter().map(|(_, call)| call).collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_are_read_from_the_annotations_in_order() {
        let entry = json!({
            "verb": "create", "requestURI": "/api/v1/namespaces/a/pods?dryRun=All",
            "objectRef": {"name": "p"}, "responseStatus": {"code": 201},
            "annotations": {
                "mutation.webhook.admission.k8s.io/round_1_index_0": r#"{"webhook":"x","mutated":false}"#,
                "mutation.webhook.admission.k8s.io/round_0_index_0": r#"{"webhook":"x","mutated":true}"#,
                "patch.webhook.admission.k8s.io/round_0_index_0": "{}",
            },
        });
        let found = creation(&entry, "/api/v1/namespaces/a/pods").expect("a creation");
        let call = |again, mutated| Call { webhook: "x".to_owned(), again, mutated };
        assert_eq!(found.calls, [call(false, true), call(true, false)]);
        assert!(creation(&entry, "/api/v1/namespaces/b/pods").is_none());
    }
}
