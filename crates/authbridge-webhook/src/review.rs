//! AdmissionReview on the wire (webhook §4): the request as raw JSON, the answer built by hand.
//!
//! The object stays a JSON tree: a typed round trip would drop fields newer than this build.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// API version of requests and answers.
pub const API_VERSION: &str = "admission.k8s.io/v1";
/// Longest message of a denial, in bytes; the API server puts it into Events.
const MAX_MESSAGE: usize = 2048;
/// Longest warning, in characters (webhook §4.8).
const MAX_WARNING: usize = 256;
/// Most warnings of one answer (webhook §4.8).
const MAX_WARNINGS: usize = 6;

/// A body that is not an admission review; answered with HTTP 400.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Not JSON, or not of the expected shape.
    #[error("the body is not an AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    /// Another kind or version.
    #[error("expected kind AdmissionReview of {API_VERSION}, got {kind} of {api_version}")]
    Kind {
        /// The kind that was sent.
        kind: String,
        /// The version that was sent.
        api_version: String,
    },
    /// A review without request.
    #[error("the AdmissionReview has no request")]
    Empty,
}

/// Group, version and kind of the object under review.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ObjectKind {
    /// API group; empty for core.
    #[serde(default)]
    pub group: String,
    /// API version.
    #[serde(default)]
    pub version: String,
    /// Kind.
    #[serde(default)]
    pub kind: String,
}

/// The part of an admission request that the endpoints read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Identifies the call; echoed in the answer.
    pub uid: String,
    /// Kind of the object.
    #[serde(default)]
    pub kind: ObjectKind,
    /// Sub-resource, when the call is not about the whole object.
    #[serde(default)]
    pub sub_resource: Option<String>,
    /// Name of the object; empty when the API server generates it.
    #[serde(default)]
    pub name: String,
    /// Namespace of the object.
    #[serde(default)]
    pub namespace: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    #[serde(default)]
    pub operation: String,
    /// The object as sent.
    #[serde(default)]
    pub object: Value,
    /// The stored object of an update.
    #[serde(default)]
    pub old_object: Value,
    /// Nothing may be written.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

impl Request {
    /// Reads the body of a call.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Review {
            #[serde(default)]
            api_version: String,
            #[serde(default)]
            kind: String,
            request: Option<Request>,
        }
        let review: Review = serde_json::from_slice(body)?;
        if review.kind != "AdmissionReview" || review.api_version != API_VERSION {
            return Err(Malformed::Kind { kind: review.kind, api_version: review.api_version });
        }
        review.request.ok_or(Malformed::Empty)
    }

    /// Whether this is a dry run.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run.unwrap_or(false)
    }
}

/// What an endpoint decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Whether the object may be stored.
    pub allowed: bool,
    /// HTTP-like code of a denial.
    pub code: u16,
    /// Text of the denial, or of the skip.
    pub message: String,
    /// Shown to the user by kubectl.
    pub warnings: Vec<String>,
    /// JSON patch operations, encoded; `None` = no patch.
    pub patch: Option<Vec<u8>>,
}

impl Answer {
    /// Allowed without change.
    pub fn allow(message: impl Into<String>) -> Self {
        Self { allowed: true, message: message.into(), ..Self::default() }
    }

    /// Allowed with a JSON patch, given as the JSON text of its operations.
    pub fn patch(operations: Vec<u8>) -> Self {
        Self { allowed: true, patch: Some(operations), ..Self::default() }
    }

    /// Refused with a code (400, 403, 500, 503) and a message that names the remedy.
    pub fn deny(code: u16, message: impl Into<String>) -> Self {
        Self { allowed: false, code, message: message.into(), ..Self::default() }
    }

    /// The same answer with warnings.
    #[must_use]
    pub fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }

    /// The whole review as it goes over the wire.
    pub fn encode(&self, uid: &str) -> Result<Bytes, serde_json::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Review<'a> {
            api_version: &'a str,
            kind: &'a str,
            response: Response<'a>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Response<'a> {
            uid: &'a str,
            allowed: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            status: Option<Status<'a>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            patch_type: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            patch: Option<String>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            warnings: Vec<&'a str>,
        }
        #[derive(Serialize)]
        struct Status<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            code: Option<u16>,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            reason: Option<&'a str>,
        }
        let status = if self.allowed {
            (!self.message.is_empty()).then(|| Status { code: None, message: &self.message, reason: None })
        } else {
            Some(Status {
                code: Some(self.code),
                message: cut(&self.message, MAX_MESSAGE),
                reason: Some(reason_of(self.code)),
            })
        };
        let patch = self.patch.as_ref().map(|operations| STANDARD.encode(operations));
        let review = Review {
            api_version: API_VERSION,
            kind: "AdmissionReview",
            response: Response {
                uid,
                allowed: self.allowed,
                status,
                patch_type: patch.as_ref().map(|_| "JSONPatch"),
                patch,
                warnings: self.warnings.iter().take(MAX_WARNINGS).map(|w| short(w)).collect(),
            },
        };
        serde_json::to_vec(&review).map(Bytes::from)
    }
}

/// The machine-readable reason that API machinery pairs with a code.
fn reason_of(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        403 => "Forbidden",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    }
}

fn short(warning: &str) -> &str {
    warning.char_indices().nth(MAX_WARNING).map_or(warning, |(at, _)| warning.get(..at).unwrap_or(warning))
}

fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn wire(answer: &Answer) -> Value {
        serde_json::from_slice(&answer.encode("u1").unwrap()).unwrap()
    }

    #[test]
    fn an_answer_echoes_the_uid_and_encodes_the_patch() {
        let answer = Answer::patch(br#"[{"op":"add","path":"/x","value":1}]"#.to_vec());
        let wire = wire(&answer);
        assert_eq!(wire["apiVersion"], API_VERSION);
        assert_eq!(wire["response"]["uid"], "u1");
        assert_eq!(wire["response"]["patchType"], "JSONPatch");
        let patch = STANDARD.decode(wire["response"]["patch"].as_str().unwrap()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&patch).unwrap()[0]["path"], "/x");
        assert!(wire["response"].get("status").is_none());
    }

    #[test]
    fn a_skip_carries_its_message_and_no_patch() {
        let wire = wire(&Answer::allow("injection not enabled"));
        assert_eq!(wire["response"]["status"]["message"], "injection not enabled");
        assert!(wire["response"].get("patch").is_none());
        assert!(wire["response"].get("patchType").is_none());
    }

    #[rstest]
    #[case(403, "Forbidden")]
    #[case(500, "InternalError")]
    #[case(503, "ServiceUnavailable")]
    fn a_denial_carries_code_and_reason(#[case] code: u16, #[case] reason: &str) {
        let wire = wire(&Answer::deny(code, "because"));
        assert_eq!(wire["response"]["allowed"], false);
        assert_eq!(wire["response"]["status"]["code"], code);
        assert_eq!(wire["response"]["status"]["reason"], reason);
    }

    #[test]
    fn warnings_are_bounded_in_number_and_length() {
        let warnings = vec!["ä".repeat(300); 9];
        let wire = wire(&Answer::allow("").with_warnings(warnings));
        let warnings = wire["response"]["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 6);
        assert_eq!(warnings[0].as_str().unwrap().chars().count(), 256);
    }

    #[rstest]
    #[case("{")]
    #[case(r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1","request":{"uid":"x"}}"#)]
    #[case(r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#)]
    #[case(r#"{"kind":"Pod","apiVersion":"v1"}"#)]
    fn other_bodies_are_malformed(#[case] body: &str) {
        assert!(Request::parse(body.as_bytes()).is_err());
    }

    #[test]
    fn nulls_of_a_real_call_are_read() {
        let body = json!({"kind": "AdmissionReview", "apiVersion": API_VERSION, "request": {
            "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
            "namespace": "team1", "object": {"a": 1}, "oldObject": null, "dryRun": true, "options": null}});
        let request = Request::parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(request.kind.kind, "Pod");
        assert!(request.is_dry_run());
        assert!(request.old_object.is_null());
    }
}
