//! What went wrong with a watch, in a closed set of kinds and in words with a remedy.

use kube::core::Status;
use kube::runtime::watcher;

/// What a watch looks at, read from its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `<plural>.<group>`, or the plural alone for the core group.
    pub resource: String,
    /// The namespace of a namespaced watch.
    pub namespace: Option<String>,
    /// The one object of a watch by name.
    pub name: Option<String>,
}

impl Target {
    /// From the path of the list request, e.g. `/apis/apps/v1/namespaces/team1/deployments`.
    pub fn new(url: &str, field_selector: Option<&str>) -> Self {
        let parts: Vec<&str> = url.split('/').filter(|part| !part.is_empty()).collect();
        let (group, rest) = match parts.as_slice() {
            ["api", _version, rest @ ..] => ("", rest),
            ["apis", group, _version, rest @ ..] => (*group, rest),
            _ => ("", parts.as_slice()),
        };
        let (namespace, plural) = match rest {
            ["namespaces", namespace, plural, ..] => (Some((*namespace).to_owned()), *plural),
            [plural, ..] => (None, *plural),
            [] => (None, url),
        };
        let resource = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        let name = field_selector.and_then(|fields| fields.strip_prefix("metadata.name=")).map(str::to_owned);
        Self { resource, namespace, name }
    }

    fn place(&self) -> String {
        self.namespace.as_ref().map_or_else(|| "the cluster".to_owned(), |ns| format!("namespace {ns}"))
    }

    fn objects(&self) -> String {
        self.name.as_ref().map_or_else(|| self.resource.clone(), |name| format!("{} {name}", self.resource))
    }
}

/// The closed set of things that go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// 403.
    Forbidden,
    /// 401.
    Unauthorized,
    /// 404: the kind is not served.
    NotServed,
    /// 410: the watch is too far behind and lists again.
    Expired,
    /// 429.
    TooManyRequests,
    /// Any other answer of the API server.
    Server,
    /// No answer.
    Connection,
    /// An answer that is not what it should be.
    Decode,
    /// Anything else.
    Other,
}

impl TroubleKind {
    /// The metric label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::Unauthorized => "unauthorized",
            Self::NotServed => "not_found",
            Self::Expired => "expired",
            Self::TooManyRequests => "too_many_requests",
            Self::Server => "server",
            Self::Connection => "connection",
            Self::Decode => "decode",
            Self::Other => "other",
        }
    }
}

/// One failure of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Its kind.
    pub kind: TroubleKind,
    /// What to tell people: object, what is wrong, remedy. Equal for repetitions.
    pub text: String,
}

impl Trouble {
    /// Reads a watcher's error.
    pub fn of(error: &watcher::Error, target: &Target) -> Self {
        let (verb, kind) = match error {
            watcher::Error::InitialListFailed(error) => ("list", kind_of(error)),
            watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
                ("watch", kind_of(error))
            }
            watcher::Error::WatchError(status) => ("watch", kind_of_status(status)),
            watcher::Error::NoResourceVersion => ("list", TroubleKind::Decode),
        };
        let (objects, place) = (target.objects(), target.place());
        let text = match kind {
            TroubleKind::Forbidden => {
                let hint = if target.namespace.is_some() { " (or the namespace does not exist)" } else { "" };
                format!(
                    "not allowed to {verb} {objects} in {place}: grant get, list, watch on {}{hint}",
                    target.resource
                )
            }
            TroubleKind::Unauthorized => {
                format!("cannot {verb} {objects} in {place}: the API server does not accept our credentials")
            }
            TroubleKind::NotServed => {
                format!(
                    "{} is not served by this cluster: install its CustomResourceDefinition",
                    target.resource
                )
            }
            TroubleKind::Connection => {
                format!("cannot {verb} {objects} in {place}: no answer from the API server")
            }
            TroubleKind::TooManyRequests => {
                format!("cannot {verb} {objects} in {place}: the API server is throttling")
            }
            _ => format!("cannot {verb} {objects} in {place}: {}", kind.label()),
        };
        Self { kind, text }
    }
}

fn kind_of(error: &kube::Error) -> TroubleKind {
    match error {
        kube::Error::Api(status) => kind_of_status(status),
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => TroubleKind::Decode,
        kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => {
            TroubleKind::Connection
        }
        _ => TroubleKind::Other,
    }
}

fn kind_of_status(status: &Status) -> TroubleKind {
    match status.code {
        401 => TroubleKind::Unauthorized,
        403 => TroubleKind::Forbidden,
        404 => TroubleKind::NotServed,
        410 => TroubleKind::Expired,
        429 => TroubleKind::TooManyRequests,
        _ => TroubleKind::Server,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("/api/v1/configmaps", None, "configmaps", None, None)]
    #[case("/api/v1/namespaces/team1/pods", None, "pods", Some("team1"), None)]
    #[case("/api/v1/namespaces", None, "namespaces", None, None)]
    #[case("/apis/apps/v1/deployments", None, "deployments.apps", None, None)]
    #[case(
        "/apis/agent.kagenti.dev/v1alpha1/namespaces/a/agentruntimes",
        None,
        "agentruntimes.agent.kagenti.dev",
        Some("a"),
        None
    )]
    #[case("/api/v1/namespaces/a/configmaps", Some("metadata.name=x"), "configmaps", Some("a"), Some("x"))]
    fn the_url_says_what_is_watched(
        #[case] url: &str,
        #[case] fields: Option<&str>,
        #[case] resource: &str,
        #[case] namespace: Option<&str>,
        #[case] name: Option<&str>,
    ) {
        let target = Target::new(url, fields);
        assert_eq!(target.resource, resource);
        assert_eq!(target.namespace.as_deref(), namespace);
        assert_eq!(target.name.as_deref(), name);
    }

    #[rstest]
    #[case(403, "forbidden", "grant get, list, watch on pods (or the namespace does not exist)")]
    #[case(404, "not_found", "install its CustomResourceDefinition")]
    #[case(401, "unauthorized", "does not accept our credentials")]
    #[case(410, "expired", "cannot list pods")]
    #[case(429, "too_many_requests", "throttling")]
    #[case(500, "server", "cannot list pods in namespace team1")]
    fn every_answer_has_a_label_and_a_remedy(#[case] code: u16, #[case] label: &str, #[case] text: &str) {
        let status = Status::failure("x", "Y").with_code(code).boxed();
        let error = watcher::Error::InitialListFailed(kube::Error::Api(status));
        let trouble = Trouble::of(&error, &Target::new("/api/v1/namespaces/team1/pods", None));
        assert_eq!(trouble.kind.label(), label);
        assert!(trouble.text.contains(text), "{}", trouble.text);
    }
}
