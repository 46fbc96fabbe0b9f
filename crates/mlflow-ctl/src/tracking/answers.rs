//! What the answers of MLflow mean (MLflow §5.3). Pure.
//!
//! The error code in the body decides before the HTTP status does: MLflow answers "already exists" with 400 and
//! "feature disabled" with 500. Refusals by whatever stands in front of it have no JSON at all.

use rest_client::{BaseUrl, CallError, Secret, options::Verdict, quote, response::Response};
use serde::Deserialize;
use serde_json::Value;

use super::requests::{NAMESPACE_TAG, Operation};

/// Longest text of a server that reaches an Event or a condition, in characters.
const QUOTED: usize = 256;
/// Longest id that is believed.
const LONGEST_ID: usize = 64;

/// When something that went wrong is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Somebody has to change something: every 30 minutes.
    Permanent,
    /// Somebody has to change something on the server: every 5 minutes.
    PermanentSlow,
    /// It may go away by itself: with back-off.
    Transient,
}

/// What went wrong, from a closed set; it is in Events and conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// The answer is not one of MLflow.
    UnexpectedResponse,
    /// The experiment is deleted and is not to be restored.
    ExperimentDeleted,
    /// An experiment of this name belongs to another namespace.
    ExperimentNameTaken,
    /// The server does not know the namespace as workspace.
    WorkspaceNotFound,
    /// The server has workspaces switched off, and the flag demands them.
    WorkspacesDisabled,
    /// The server refuses name or workspace.
    InvalidRequest,
    /// The server refuses the token.
    Unauthenticated,
    /// The controller may not do this.
    PermissionDenied,
    /// The server does not accept our `Host` header.
    HostRejected,
    /// The server only serves artifacts.
    NotATrackingServer,
    /// The server's certificate is not trusted, or the handshake fails otherwise.
    TlsError,
    /// Another refusal.
    RequestRejected,
    /// The server asks for patience.
    Throttled,
    /// The server fails, or does not answer.
    ServerUnavailable,
}

impl Code {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnexpectedResponse => "UnexpectedResponse",
            Self::ExperimentDeleted => "ExperimentDeleted",
            Self::ExperimentNameTaken => "ExperimentNameTaken",
            Self::WorkspaceNotFound => "WorkspaceNotFound",
            Self::WorkspacesDisabled => "WorkspacesDisabled",
            Self::InvalidRequest => "InvalidRequest",
            Self::Unauthenticated => "Unauthenticated",
            Self::PermissionDenied => "PermissionDenied",
            Self::HostRejected => "HostRejected",
            Self::NotATrackingServer => "NotATrackingServer",
            Self::TlsError => "TLSError",
            Self::RequestRejected => "RequestRejected",
            Self::Throttled => "Throttled",
            Self::ServerUnavailable => "ServerUnavailable",
        }
    }

    /// When to look again.
    pub const fn pace(self) -> Pace {
        match self {
            Self::UnexpectedResponse
            | Self::ExperimentDeleted
            | Self::ExperimentNameTaken
            | Self::WorkspacesDisabled
            | Self::InvalidRequest
            | Self::RequestRejected => Pace::Permanent,
            Self::WorkspaceNotFound
            | Self::Unauthenticated
            | Self::PermissionDenied
            | Self::HostRejected
            | Self::NotATrackingServer
            | Self::TlsError => Pace::PermanentSlow,
            Self::Throttled | Self::ServerUnavailable => Pace::Transient,
        }
    }
}

/// What went wrong, with a sentence for people: what was tried, what came back, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Problem {
    /// The word.
    pub code: Code,
    /// The sentence; holds at most 256 characters of the server's text and no header.
    pub message: String,
}

impl Problem {
    /// A problem.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A call without answer.
    pub fn unanswered(error: &CallError, base: &BaseUrl) -> Self {
        let code = if error.is_tls() {
            Code::TlsError
        } else if error.is_transient() {
            Code::ServerUnavailable
        } else {
            Code::UnexpectedResponse
        };
        let remedy = if code == Code::TlsError { "; --mlflow-ca-file adds a CA" } else { "" };
        Self::new(code, format!("MLflow server {base}: {error}{remedy}"))
    }
}

/// An experiment as MLflow tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Experiment {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// It is in stage `deleted`.
    pub deleted: bool,
    /// Its tag `kagenti.io/namespace`.
    pub namespace: Option<String>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// 2xx with JSON; `Null` for an empty body.
    Success(Value),
    /// The name is taken, by an active or a deleted experiment.
    AlreadyExists,
    /// There is no such experiment.
    Missing,
    /// The server has workspaces switched off.
    FeatureDisabled,
    /// Anything else.
    Problem(Problem),
}

/// Status and body.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Of an answer that arrived.
    pub fn of(response: &'a Response) -> Self {
        Self { status: response.status(), body: response.body() }
    }

    fn contains(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// The body of a refusal, when it is one of MLflow's.
    fn error(&self) -> Option<ErrorBody> {
        if self.is_success() { None } else { serde_json::from_slice(self.body).ok() }
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// What a server says, fit for a message: short, on one line, and without the token that it may have been sent.
fn told(text: &str, token: Option<&Secret>) -> String {
    match token.filter(|token| !token.is_empty() && text.contains(token.expose())) {
        Some(token) => quote::bounded(&text.replace(token.expose(), "<token>"), QUOTED),
        None => quote::bounded(text, QUOTED),
    }
}

/// Error codes by which answers are counted; MLflow has more, and whatever stands before it may invent some.
const COUNTED: [&str; 11] = [
    "BAD_REQUEST",
    "FEATURE_DISABLED",
    "INTERNAL_ERROR",
    "INVALID_PARAMETER_VALUE",
    "PERMISSION_DENIED",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_EXHAUSTED",
    "TEMPORARILY_UNAVAILABLE",
    "UNAUTHENTICATED",
];

/// The error code of a refusal, when it is a known one; from a closed set, for metrics.
pub fn error_code(reply: Reply<'_>) -> Option<&'static str> {
    let error = reply.error()?;
    COUNTED.into_iter().find(|code| *code == error.error_code)
}

/// What was sent, for the meaning and the message.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// What was asked.
    pub operation: Operation,
    /// The server.
    pub base: &'a BaseUrl,
    /// The workspace that was named.
    pub workspace: Option<&'a str>,
    /// The token that went with it; it is kept out of messages.
    pub token: Option<&'a Secret>,
}

#[derive(Deserialize)]
struct ErrorBody {
    error_code: String,
    #[serde(default)]
    message: String,
}

/// The meaning of an answer.
pub fn interpret(reply: Reply<'_>, sent: Sent<'_>) -> Answer {
    let Sent { operation, base, workspace, token } = sent;
    if reply.is_success() {
        if reply.body.iter().all(u8::is_ascii_whitespace) {
            return Answer::Success(Value::Null);
        }
        return serde_json::from_slice(reply.body).map_or_else(
            |_| {
                let text = "answers with something else than JSON, like a login page or a proxy";
                unexpected(sent, reply.status, text)
            },
            Answer::Success,
        );
    }
    let error = reply.error();
    let told = match &error {
        Some(error) => told(&error.message, token),
        None => told(&String::from_utf8_lossy(reply.body), token),
    };
    let status = reply.status;
    let says = |what: &str| {
        let tail = if told.is_empty() { String::new() } else { format!(": {told}") };
        format!("MLflow server {base} {what} (HTTP {status}){tail}")
    };
    let problem = |code: Code, what: &str| Answer::Problem(Problem::new(code, says(what)));
    match error.as_ref().map(|error| error.error_code.as_str()) {
        Some("RESOURCE_ALREADY_EXISTS") => return Answer::AlreadyExists,
        Some("RESOURCE_DOES_NOT_EXIST") => {
            return match workspace {
                Some(name) if operation == Operation::Create || is_workspace_message(&told) => {
                    let what = format!(
                        "does not know the namespace {name} as workspace: create the workspace in MLflow, or set \
                         --mlflow-workspaces=never"
                    );
                    problem(Code::WorkspaceNotFound, &what)
                }
                _ => Answer::Missing,
            };
        }
        Some("FEATURE_DISABLED") => return Answer::FeatureDisabled,
        Some("INVALID_PARAMETER_VALUE" | "BAD_REQUEST") => {
            return problem(Code::InvalidRequest, "refuses the name of the experiment or the workspace");
        }
        Some("UNAUTHENTICATED") => return problem(Code::Unauthenticated, "refuses the token"),
        Some("PERMISSION_DENIED") => {
            return problem(Code::PermissionDenied, "does not let the controller work with experiments");
        }
        Some("REQUEST_LIMIT_EXCEEDED" | "RESOURCE_EXHAUSTED") => {
            return problem(Code::Throttled, "asks for patience");
        }
        Some("TEMPORARILY_UNAVAILABLE") => return problem(Code::ServerUnavailable, "is not available"),
        _ => {}
    }
    match status {
        300..=399 => problem(Code::Unauthenticated, "redirects, as to a login page, instead of answering"),
        401 => problem(
            Code::Unauthenticated,
            "refuses the token; one with basic authentication refuses every token",
        ),
        403 if reply.contains("Invalid Host header") => {
            let what = format!(
                "does not accept its own address: add \"{}\" to --allowed-hosts or MLFLOW_SERVER_ALLOWED_HOSTS of the \
                 server",
                base.authority()
            );
            problem(Code::HostRejected, &what)
        }
        403 => problem(Code::PermissionDenied, "does not let the controller work with experiments"),
        404 | 405 if error.is_none() => {
            let text = "is no route there: check the path of the address";
            unexpected(sent, status, text)
        }
        429 => problem(Code::Throttled, "asks for patience"),
        503 if reply.contains("--artifacts-only") => {
            problem(Code::NotATrackingServer, "only serves artifacts: name a tracking server")
        }
        500..=599 => problem(Code::ServerUnavailable, "fails"),
        400..=499 => problem(Code::RequestRejected, "refuses the request"),
        _ => unexpected(sent, status, "is no answer of MLflow"),
    }
}

fn unexpected(sent: Sent<'_>, status: u16, text: &str) -> Answer {
    let message = format!("MLflow server {}: {} {text} (HTTP {status})", sent.base, sent.operation.path());
    Answer::Problem(Problem::new(Code::UnexpectedResponse, message))
}

fn is_workspace_message(message: &str) -> bool {
    message.starts_with("Workspace '") && message.contains("' not found")
}

/// Whether an answer is worth a repetition; for the client.
pub fn classify(response: &Response) -> Verdict {
    if is_transient(Reply::of(response)) { Verdict::Transient } else { Verdict::Final }
}

fn is_transient(reply: Reply<'_>) -> bool {
    // Which answers are transient depends on neither address nor operation.
    let Ok(base) = BaseUrl::parse("http://localhost") else { return false };
    let sent = Sent { operation: Operation::LookUp, base: &base, workspace: None, token: None };
    matches!(interpret(reply, sent), Answer::Problem(problem) if problem.code.pace() == Pace::Transient)
}

/// The id in the answer to "create".
///
/// # Errors
/// The answer has none.
pub fn created(body: &Value, sent: Sent<'_>) -> Result<String, Problem> {
    id_of(body).ok_or_else(|| no_experiment(sent))
}

/// The experiment in the answer to a look-up.
///
/// # Errors
/// The answer has none.
pub fn experiment(body: &Value, sent: Sent<'_>) -> Result<Experiment, Problem> {
    let read = || {
        let experiment = body.get("experiment")?;
        let tags = experiment.get("tags").and_then(Value::as_array);
        let tag = tags.into_iter().flatten().find(|tag| tag["key"] == NAMESPACE_TAG);
        Some(Experiment {
            id: id_of(experiment)?,
            name: experiment.get("name")?.as_str()?.to_owned(),
            deleted: match experiment.get("lifecycle_stage").and_then(Value::as_str) {
                Some("deleted") => true,
                Some("active") | None => false,
                Some(_) => return None,
            },
            namespace: tag.and_then(|tag| tag["value"].as_str()).map(str::to_owned),
        })
    };
    read().ok_or_else(|| no_experiment(sent))
}

fn no_experiment(sent: Sent<'_>) -> Problem {
    let text =
        format!("MLflow server {}: the answer of {} names no experiment", sent.base, sent.operation.path());
    Problem::new(Code::UnexpectedResponse, text)
}

fn id_of(object: &Value) -> Option<String> {
    let id = object.get("experiment_id")?.as_str()?;
    let fits = (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| id.to_owned())
}

#[cfg(test)]
mod tests;
