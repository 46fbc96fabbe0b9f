//! The cluster, with the rights of the user's kubeconfig: every question has an answer, or a reason why there is none.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::{Method, Request};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use kube::api::ListParams;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long one request may take, and how long a connection.
const PATIENCE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);
/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Which cluster, as whom.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Connection {
    /// Kubeconfig file, instead of $KUBECONFIG and ~/.kube/config
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig, instead of its current one
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// Why no question can be asked at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoCluster {
    /// The kubeconfig cannot be used.
    #[error("{what}: {source}; `kubectl config get-contexts` shows what there is")]
    Kubeconfig {
        /// Which.
        what: String,
        /// Why.
        source: Box<KubeconfigError>,
    },
    /// There is none.
    #[error("no cluster to talk to: give --kubeconfig, or set KUBECONFIG: {0}")]
    Nowhere(#[source] Box<kube::config::InferConfigError>),
    /// The client cannot be made of it.
    #[error("the kubeconfig cannot be used: {}", chain(.0.as_ref()))]
    Setup(Box<kube::Error>),
    /// The credentials are refused.
    #[error("the API server at {0} does not accept the credentials of the kubeconfig; log in again")]
    Unauthorized(String),
    /// Nobody answers.
    #[error("the API server at {address} does not answer: {}", chain(.source.as_ref()))]
    Unreachable {
        /// Its address.
        address: String,
        /// What happened.
        source: Box<kube::Error>,
    },
}

/// An error with what caused it, once each.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

/// What a question needs, as RBAC names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Right {
    verb: &'static str,
    /// `deployments.apps`; without a dot in the core group.
    resource: &'static str,
    /// `None`: every namespace, or an object outside namespaces.
    namespace: Option<String>,
    namespaced: bool,
}

impl Right {
    /// In one namespace, or in all of them.
    pub(crate) fn new(verb: &'static str, resource: &'static str, namespace: Option<&str>) -> Self {
        Self { verb, resource, namespace: namespace.map(str::to_owned), namespaced: true }
    }

    /// For objects outside namespaces.
    pub(crate) fn global(verb: &'static str, resource: &'static str) -> Self {
        Self { verb, resource, namespace: None, namespaced: false }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None if self.namespaced => write!(f, " in every namespace"),
            None => Ok(()),
        }
    }
}

/// What is known of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer<T> {
    /// This.
    Known(T),
    /// Nothing, and why: it begins with `needs` when a right is missing.
    Unknown(String),
}

/// What the API server answered to something that was tried.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reply {
    /// HTTP status.
    pub(crate) status: u16,
    /// `Warning` headers: admission webhooks speak there.
    pub(crate) warnings: Vec<String>,
    /// The object, or a Status.
    pub(crate) body: Value,
}

impl Reply {
    /// What a Status says.
    pub(crate) fn message(&self) -> String {
        let message = self.body.get("message").and_then(Value::as_str);
        message.map_or_else(|| format!("HTTP status {}", self.status), str::to_owned)
    }
}

/// The API server as the user sees it.
pub(crate) struct Cluster {
    client: Client,
    address: String,
}

impl Cluster {
    /// Reads the kubeconfig; opens no connection.
    pub(crate) async fn new(connection: &Connection) -> Result<Self, NoCluster> {
        let options =
            KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
        let bad = |what: String| move |source| NoCluster::Kubeconfig { what, source: Box::new(source) };
        let mut config = match (&connection.kubeconfig, &connection.context) {
            (Some(file), _) => {
                let what = format!("kubeconfig {}", file.display());
                let read = Kubeconfig::read_from(file).map_err(bad(what.clone()))?;
                Config::from_custom_kubeconfig(read, &options).await.map_err(bad(what))?
            }
            (None, Some(context)) => {
                Config::from_kubeconfig(&options).await.map_err(bad(format!("context {context}")))?
            }
            (None, None) => Config::infer().await.map_err(|error| NoCluster::Nowhere(Box::new(error)))?,
        };
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(PATIENCE);
        let address = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| NoCluster::Setup(Box::new(error)))?;
        Ok(Self { client, address })
    }

    /// For what has no question of its own here.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The objects of one namespace, or of all.
    pub(crate) fn api<K>(&self, namespace: Option<&str>) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType: Default>,
    {
        match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Where the kubeconfig's context works.
    pub(crate) fn default_namespace(&self) -> &str {
        self.client.default_namespace()
    }

    /// The time at the API server, because the clock of this machine may be wrong; by the second.
    pub(crate) async fn time(&self) -> Result<Timestamp, NoCluster> {
        let (_, headers, _) = self.send(Method::GET, "/version", Vec::new()).await?;
        let date = headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
        let time = date.and_then(|date| rfc2822::parse(date).ok()).map(|zoned| zoned.timestamp());
        Ok(time.unwrap_or_else(Timestamp::now))
    }

    /// Creates an object on trial: it passes admission and is not stored.
    pub(crate) async fn try_create(&self, path: &str, object: &Value) -> Result<Reply, NoCluster> {
        let uri = format!("{path}?dryRun=All");
        let (status, headers, body) = self.send(Method::POST, &uri, object.to_string().into_bytes()).await?;
        let warnings = headers.get_all(http::header::WARNING).iter();
        Ok(Reply {
            status,
            warnings: warnings.filter_map(|text| text.to_str().ok()).map(str::to_owned).collect(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        })
    }

    async fn send(
        &self,
        method: Method,
        uri: &str,
        body: Vec<u8>,
    ) -> Result<(u16, http::HeaderMap, Vec<u8>), NoCluster> {
        let lost =
            |source| NoCluster::Unreachable { address: self.address.clone(), source: Box::new(source) };
        let request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
        let request = request.body(Body::from(body)).map_err(|error| lost(kube::Error::HttpError(error)))?;
        let response = self.client.send(request).await.map_err(lost)?;
        let (parts, body) = response.into_parts();
        if parts.status.as_u16() == 401 {
            return Err(NoCluster::Unauthorized(self.address.clone()));
        }
        let body = body.collect_bytes().await.map_err(lost)?;
        Ok((parts.status.as_u16(), parts.headers, body.to_vec()))
    }

    /// Whatever the API server says is an answer; that it says nothing is none.
    pub(crate) fn answer<T>(&self, needs: &Right, outcome: kube::Result<T>) -> Result<Answer<T>, NoCluster> {
        match outcome {
            Ok(known) => Ok(Answer::Known(known)),
            Err(kube::Error::Api(status)) if status.code == 401 => {
                Err(NoCluster::Unauthorized(self.address.clone()))
            }
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                Ok(Answer::Unknown(format!("needs the right to {needs}")))
            }
            Err(kube::Error::Api(status)) => {
                Ok(Answer::Unknown(format!("asked to {needs}, the API server says: {}", status.message)))
            }
            Err(error) => {
                Err(NoCluster::Unreachable { address: self.address.clone(), source: Box::new(error) })
            }
        }
    }
}

/// Every object of a list, page by page.
pub(crate) async fn list<K>(api: &Api<K>, selector: &str) -> kube::Result<Vec<K>>
where
    K: Clone + fmt::Debug + DeserializeOwned,
{
    let mut params = ListParams::default().labels(selector).limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = api.list(&params).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => params = params.continue_token(&more),
            None => return Ok(all),
        }
    }
}

/// A name that a namespace can have.
pub(crate) fn namespace_name(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    let allowed = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let sound = (1..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| allowed(byte) || *byte == b'-')
        && bytes.first().is_some_and(allowed)
        && bytes.last().is_some_and(allowed);
    if sound {
        Ok(text.to_owned())
    } else {
        Err("no name of a namespace: use lower-case letters, digits and '-', at most 63 characters"
            .to_owned())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn objects_outside_namespaces_are_in_none() {
        assert_eq!(Right::global("get", "namespaces").to_string(), "get namespaces");
    }

    #[rstest]
    #[case(Some("team1"), "list deployments.apps in namespace team1")]
    #[case(None, "list deployments.apps in every namespace")]
    fn rights_are_named_as_rbac_does(#[case] namespace: Option<&str>, #[case] expected: &str) {
        assert_eq!(Right::new("list", "deployments.apps", namespace).to_string(), expected);
    }

    #[rstest]
    #[case("team1", true)]
    #[case("a-b", true)]
    #[case("", false)]
    #[case("Team", false)]
    #[case("-a", false)]
    #[case("a/../b", false)]
    fn namespaces_are_checked_before_they_are_asked_for(#[case] name: &str, #[case] sound: bool) {
        assert_eq!(namespace_name(name).is_ok(), sound);
    }
}
