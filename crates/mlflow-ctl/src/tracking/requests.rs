//! The requests (MLflow §5.1). Pure.

use http::{HeaderName, header::ACCEPT};
use rest_client::{BaseUrl, Endpoint, Request, Secret};
use serde_json::json;

/// Names the workspace of a request.
const WORKSPACE: HeaderName = HeaderName::from_static("x-mlflow-workspace");
/// Tag of an experiment: the namespace it was made for.
pub const NAMESPACE_TAG: &str = "kagenti.io/namespace";
/// Tag of an experiment: kind and name of the workload it was made for.
const WORKLOAD_TAG: &str = "kagenti.io/workload";

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Create an experiment.
    Create,
    /// Look an experiment up by its name.
    LookUp,
    /// Look an experiment up by its id.
    Verify,
    /// Restore a deleted experiment.
    Restore,
    /// What the server can do.
    ServerInfo,
}

impl Operation {
    /// Metric label `endpoint`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::LookUp => "get-by-name",
            Self::Verify => "get",
            Self::Restore => "restore",
            Self::ServerInfo => "server-info",
        }
    }

    fn endpoint(self) -> Endpoint {
        let experiments = |last| ["api", "2.0", "mlflow", "experiments", last];
        let endpoint = Endpoint::new(self.as_str());
        match self {
            Self::Create => endpoint.segments(experiments("create")),
            Self::LookUp => endpoint.segments(experiments("get-by-name")),
            Self::Verify => endpoint.segments(experiments("get")),
            Self::Restore => endpoint.segments(experiments("restore")),
            Self::ServerInfo => endpoint.segments(["api", "3.0", "mlflow", "server-info"]),
        }
    }

    /// Path below the base, for messages.
    pub fn path(self) -> String {
        self.endpoint().path().to_owned()
    }
}

/// Where requests go.
#[derive(Debug)]
pub struct Destination<'a> {
    /// The server.
    pub base: &'a BaseUrl,
    /// The workspace, where workspaces are used.
    pub workspace: Option<&'a str>,
    /// The bearer token, where it may be sent.
    pub token: Option<&'a Secret>,
}

impl Destination<'_> {
    fn complete(&self, request: Request) -> Request {
        let mut request = request.header(ACCEPT, "application/json");
        if let Some(workspace) = self.workspace {
            request = request.header(WORKSPACE, workspace);
        }
        if let Some(token) = self.token {
            request = request.bearer(token);
        }
        request
    }

    /// Creates an experiment. Each tag key occurs once: a repeated one would be answered "already exists".
    pub fn create(&self, name: &str, namespace: &str, workload: &str) -> Request {
        let body = json!({
            "name": name,
            "tags": [{"key": NAMESPACE_TAG, "value": namespace}, {"key": WORKLOAD_TAG, "value": workload}],
        });
        self.complete(Request::post(self.base, Operation::Create.endpoint()).json(&body))
    }

    /// Looks an experiment up by its name; finds deleted ones too.
    pub fn look_up(&self, name: &str) -> Request {
        let endpoint = Operation::LookUp.endpoint().query("experiment_name", name);
        self.complete(Request::get(self.base, endpoint))
    }

    /// Looks an experiment up by its id; finds deleted ones too.
    pub fn verify(&self, id: &str) -> Request {
        let endpoint = Operation::Verify.endpoint().query("experiment_id", id);
        self.complete(Request::get(self.base, endpoint))
    }

    /// Restores a deleted experiment.
    pub fn restore(&self, id: &str) -> Request {
        let body = json!({ "experiment_id": id });
        self.complete(Request::post(self.base, Operation::Restore.endpoint()).json(&body))
    }

    /// Asks what the server can do; it ignores workspaces.
    pub fn server_info(&self) -> Request {
        let plain = Destination { base: self.base, workspace: None, token: self.token };
        plain.complete(Request::get(self.base, Operation::ServerInfo.endpoint()))
    }
}
