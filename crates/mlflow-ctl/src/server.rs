//! Which MLflow server a workload uses (MLflow §4). Pure.

use api_types::mlflow::annotation;
use controller_kit::lean::{ConditionView, LeanObject};
use jiff::Timestamp;
use kube::discovery::ApiResource;
use rest_client::base_url::BaseUrl;
use serde::{Deserialize, de::IgnoredAny};

/// `mlflow.opendatahub.io/v1` MLflow, the part that matters.
pub type MlflowView = LeanObject<IgnoredAny, MlflowStatus>;

/// Status of an MLflow object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct MlflowStatus {
    /// Conditions.
    pub conditions: Vec<ConditionView>,
    /// Address of the external gateway.
    pub url: Option<String>,
    /// Address in the cluster.
    pub address: Option<MlflowAddress>,
}

/// `status.address`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct MlflowAddress {
    /// The address.
    pub url: Option<String>,
}

/// The resource of MLflow objects.
pub fn resource() -> ApiResource {
    ApiResource {
        group: "mlflow.opendatahub.io".into(),
        version: "v1".into(),
        api_version: "mlflow.opendatahub.io/v1".into(),
        kind: "MLflow".into(),
        plural: "mlflows".into(),
    }
}

/// `--mlflow-url-source`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum UrlSource {
    /// `status.url`, else `status.address.url`.
    #[default]
    External,
    /// `status.address.url`, else `status.url`.
    Internal,
}

/// An MLflow object with a usable address, as kept in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Namespace; empty for a cluster-scoped object.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Creation time.
    pub created: Option<Timestamp>,
    /// Annotation `mlflow.kagenti.io/default: "true"`.
    pub preferred: bool,
    /// Condition `Available` is `True`.
    pub available: bool,
    /// Its address.
    pub url: BaseUrl,
}

impl Candidate {
    /// `None` without usable address: `http` or `https`, a host, no user info, no fragment.
    pub fn of(view: MlflowView, source: UrlSource) -> Option<Self> {
        let address = view.status.address.and_then(|address| address.url);
        let texts = match source {
            UrlSource::External => [view.status.url, address],
            UrlSource::Internal => [address, view.status.url],
        };
        let url = texts.into_iter().flatten().find_map(|text| BaseUrl::parse(&text).ok())?;
        let annotations = view.metadata.annotations.unwrap_or_default();
        Some(Self {
            namespace: view.metadata.namespace.unwrap_or_default(),
            name: view.metadata.name?,
            created: view.metadata.creation_timestamp.map(|time| time.0),
            preferred: annotations.get(annotation::DEFAULT).is_some_and(|value| value == "true"),
            available: view.status.conditions.iter().any(|c| c.type_ == "Available" && c.status == "True"),
            url,
        })
    }
}

/// The servers there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Servers {
    /// `--mlflow-tracking-uri`: the only one, when it is set.
    pub fixed: Option<BaseUrl>,
    /// MLflow objects.
    pub candidates: Vec<Candidate>,
}

/// The server of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its address, as given to agents.
    pub url: BaseUrl,
    /// The text that goes to the workload: what is recorded there already, when it names the same server.
    pub text: String,
    /// From `--mlflow-tracking-uri`, not from an MLflow object.
    pub fixed: bool,
}

/// Why a workload has no server now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoServer {
    /// No MLflow object is available.
    Nothing,
    /// Its own one exists and is not available: it waits for that one, another one would move its traces.
    OwnUnavailable,
}

impl Servers {
    /// Chooses; `recorded` is the tracking URI on the workload.
    ///
    /// # Errors
    /// Why there is none.
    pub fn choose(&self, recorded: Option<&str>) -> Result<Server, NoServer> {
        let recorded_url = recorded.and_then(|text| BaseUrl::parse(text).ok());
        let server = |url: &BaseUrl, fixed: bool| {
            let same = recorded.filter(|_| recorded_url.as_ref() == Some(url));
            Server { url: url.clone(), text: same.unwrap_or(url.as_str()).trim().to_owned(), fixed }
        };
        if let Some(url) = &self.fixed {
            return Ok(server(url, true));
        }
        let own = |candidate: &&Candidate| Some(&candidate.url) == recorded_url.as_ref();
        let available = || self.candidates.iter().filter(|candidate| candidate.available);
        if let Some(own) = available().find(own) {
            return Ok(server(&own.url, false));
        }
        if self.candidates.iter().any(|candidate| own(&candidate)) {
            return Err(NoServer::OwnUnavailable);
        }
        let rank = |candidate: &&Candidate| {
            (
                !candidate.preferred,
                candidate.name != "mlflow",
                candidate.created.unwrap_or(Timestamp::MAX),
                candidate.namespace.clone(),
                candidate.name.clone(),
            )
        };
        available().min_by_key(rank).map(|chosen| server(&chosen.url, false)).ok_or(NoServer::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[allow(clippy::needless_pass_by_value, reason = "tests hand over what `json!` made")]
    fn view(name: &str, change: Value) -> MlflowView {
        let mut object = json!({
            "metadata": {"name": name, "creationTimestamp": "2026-01-02T00:00:00Z"},
            "status": {"conditions": [{"type": "Available", "status": "True"}], "url": format!("https://{name}.example.com/mlflow/")},
        });
        json_patch::merge(&mut object, &change);
        serde_json::from_value(object).unwrap()
    }

    fn candidate(name: &str, change: Value) -> Candidate {
        Candidate::of(view(name, change), UrlSource::External).unwrap()
    }

    fn servers(candidates: Vec<Candidate>) -> Servers {
        Servers { fixed: None, candidates }
    }

    #[rstest]
    #[case::external(json!({"url": "https://a", "address": {"url": "http://b:80/"}}), UrlSource::External, Some("https://a"))]
    #[case::internal(json!({"url": "https://a", "address": {"url": "http://b:80/"}}), UrlSource::Internal, Some("http://b"))]
    #[case::only_address(json!({"url": null, "address": {"url": "http://b/x//"}}), UrlSource::External, Some("http://b/x"))]
    #[case::only_url(json!({"url": " https://A/m/ "}), UrlSource::Internal, Some("https://a/m"))]
    #[case::unusable_first(json!({"url": "ftp://a", "address": {"url": "http://b"}}), UrlSource::External, Some("http://b"))]
    #[case::no_host(json!({"url": "https://"}), UrlSource::External, None)]
    #[case::user(json!({"url": "https://u:p@a"}), UrlSource::External, None)]
    #[case::fragment(json!({"url": "https://a#x"}), UrlSource::External, None)]
    #[case::text(json!({"url": "a"}), UrlSource::External, None)]
    #[case::none(json!({"url": null}), UrlSource::External, None)]
    fn usable_addresses(#[case] status: Value, #[case] source: UrlSource, #[case] want: Option<&str>) {
        let found = Candidate::of(view("m", json!({ "status": status })), source);
        assert_eq!(found.as_ref().map(|candidate| candidate.url.as_str()), want);
    }

    /// MLflow §4: annotation, then name, then age, then namespace/name; never the order of a list.
    #[rstest]
    #[case::preferred(vec![
        candidate("mlflow", json!({})),
        candidate("b", json!({"metadata": {"annotations": {"mlflow.kagenti.io/default": "true"}}}))], "b")]
    #[case::name(vec![
        candidate("a", json!({"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"}})),
        candidate("mlflow", json!({}))], "mlflow")]
    #[case::age(vec![
        candidate("a", json!({})),
        candidate("b", json!({"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"}}))], "b")]
    #[case::order(vec![candidate("b", json!({})), candidate("a", json!({}))], "a")]
    #[case::unavailable(vec![
        candidate("mlflow", json!({"status": {"conditions": [{"type": "Available", "status": "False"}]}})),
        candidate("b", json!({}))], "b")]
    fn the_choice_is_deterministic(#[case] candidates: Vec<Candidate>, #[case] want: &str) {
        let want = format!("https://{want}.example.com/mlflow");
        let mut reversed = candidates.clone();
        reversed.reverse();
        for candidates in [candidates, reversed] {
            assert_eq!(servers(candidates).choose(None).unwrap().url.as_str(), want);
        }
    }

    /// A workload stays with its server, and the recorded text stays as it is.
    #[test]
    fn the_choice_is_sticky() {
        let two = servers(vec![candidate("mlflow", json!({})), candidate("b", json!({}))]);
        let recorded = "https://B.example.com:443/mlflow/";
        let chosen = two.choose(Some(recorded)).unwrap();
        assert_eq!((chosen.url.as_str(), chosen.text.as_str()), ("https://b.example.com/mlflow", recorded));
        let moved = two.choose(Some("https://gone.example.com")).unwrap();
        assert_eq!(moved.text, "https://mlflow.example.com/mlflow");
    }

    /// MLflow §13: no workload changes because an object is not available for a while.
    #[test]
    fn an_own_server_that_is_unavailable_is_waited_for() {
        let down = json!({"status": {"conditions": [{"type": "Available", "status": "False"}]}});
        let two = servers(vec![candidate("b", down), candidate("mlflow", json!({}))]);
        assert_eq!(two.choose(Some("https://b.example.com/mlflow")), Err(NoServer::OwnUnavailable));
        assert_eq!(two.choose(None).unwrap().url.as_str(), "https://mlflow.example.com/mlflow");
        assert_eq!(servers(vec![]).choose(None), Err(NoServer::Nothing));
    }

    #[test]
    fn a_fixed_address_is_the_only_one() {
        let fixed = Servers {
            fixed: Some(BaseUrl::parse("http://stock:5000").unwrap()),
            candidates: vec![candidate("mlflow", json!({}))],
        };
        let chosen = fixed.choose(Some("http://stock:5000/")).unwrap();
        assert!(chosen.fixed);
        assert_eq!(chosen.text, "http://stock:5000/");
    }
}
