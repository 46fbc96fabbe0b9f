//! The sub-command `selftest`, which `helm test` runs: a list of checks, a table, an exit code.
//!
//! A component adds its own checks to the common ones: the API server answers, the rights are those
//! that are expected, the Lease is alive (packaging §12, §15).

use std::fmt::Write as _;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::timeout;

use crate::scope::Scope;

/// A check that takes longer has failed.
const CHECK_LIMIT: Duration = Duration::from_secs(20);

/// One right: `verb` on `resource` (plural, optionally `/subresource`) of `group`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right<'a> {
    /// API group, empty for core.
    pub group: &'a str,
    /// Plural, e.g. `deployments` or `agentruntimes/status`.
    pub resource: &'a str,
    /// Verb, e.g. `patch`.
    pub verb: &'a str,
    /// Namespace, or `None` for all of them.
    pub namespace: Option<&'a str>,
}

/// `(group, resource, verb)` each, in every namespace that a process may look at.
pub fn everywhere<'a>(rights: &[(&'a str, &'a str, &'a str)], scope: &'a Scope) -> Vec<Right<'a>> {
    let namespaces = match scope {
        Scope::Cluster => vec![None],
        Scope::Namespaces(names) => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    namespaces
        .into_iter()
        .flat_map(|namespace| {
            rights.iter().map(move |&(group, resource, verb)| Right { group, resource, verb, namespace })
        })
        .collect()
}

/// The checks made so far.
#[derive(Debug, Default)]
pub struct Selftest {
    lines: Vec<(String, Result<String, String>)>,
}

impl Selftest {
    /// No checks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes one check: `Ok` with what was found, or `Err` with what is wrong and the remedy.
    pub async fn check(&mut self, name: &str, check: impl Future<Output = Result<String, String>>) {
        let result = match timeout(CHECK_LIMIT, check).await {
            Ok(result) => result,
            Err(_) => Err(format!("no result within {CHECK_LIMIT:?}")),
        };
        self.lines.push((name.to_owned(), result));
    }

    /// The table: one line per check.
    pub fn table(&self) -> String {
        let width = self.lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, result) in &self.lines {
            let (mark, words) = match result {
                Ok(words) => ("ok    ", words),
                Err(words) => ("FAILED", words),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{mark}  {name:width$}  {words}");
        }
        text
    }

    /// True when every check passed.
    pub fn passed(&self) -> bool {
        self.lines.iter().all(|(_, result)| result.is_ok())
    }

    /// Prints the table; 0 when every check passed, else 1.
    pub fn finish(self) -> ExitCode {
        print!("{}", self.table());
        if self.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The API server answers.
pub async fn api_server(client: &Client) -> Result<String, String> {
    let version = client.apiserver_version().await.map_err(|error| format!("no answer: {error}"))?;
    Ok(format!("Kubernetes {}", version.git_version))
}

/// Somebody holds the Lease and renews it, so the component works.
pub async fn lease_is_alive(client: &Client, namespace: &str, name: &str) -> Result<String, String> {
    let api = Api::<Lease>::namespaced(client.clone(), namespace);
    let lease =
        api.get(name).await.map_err(|error| format!("cannot read Lease {namespace}/{name}: {error}"))?;
    let spec = lease.spec.unwrap_or_default();
    let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
    let Some(holder) = holder else {
        return Err(format!("nobody holds Lease {namespace}/{name}: is the component scaled to 0?"));
    };
    let limit = i64::from(spec.lease_duration_seconds.unwrap_or(15));
    let age = spec.renew_time.map_or(i64::MAX, |time| Timestamp::now().as_second() - time.0.as_second());
    if age > limit {
        return Err(format!("Lease {namespace}/{name} of {holder} was last renewed {age} s ago"));
    }
    Ok(format!("held by {holder}"))
}

/// Every right is there.
pub async fn rights(client: &Client, rights: &[Right<'_>]) -> Result<String, String> {
    let api = Api::<SelfSubjectAccessReview>::all(client.clone());
    let mut missing = Vec::new();
    for right in rights {
        let (resource, subresource) = match right.resource.split_once('/') {
            Some((resource, sub)) => (resource, Some(sub.to_owned())),
            None => (right.resource, None),
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(right.group.to_owned()),
                    resource: Some(resource.to_owned()),
                    subresource,
                    verb: Some(right.verb.to_owned()),
                    namespace: right.namespace.map(str::to_owned),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = api.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| format!("cannot review rights: {error}"))?;
        if !answer.status.is_some_and(|status| status.allowed) {
            let place = right.namespace.map(|ns| format!(" in {ns}")).unwrap_or_default();
            missing.push(format!("{} {}{place}", right.verb, right.resource));
        }
    }
    if missing.is_empty() {
        Ok(format!("{} rights", rights.len()))
    } else {
        Err(format!("missing: {}", missing.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_asked_for_in_every_namespace_of_ours() {
        let places = |scope: &str| {
            let scope = Scope::parse(scope).unwrap();
            let rights = everywhere(&[("", "pods", "watch"), ("", "secrets", "get")], &scope);
            rights
                .iter()
                .map(|right| (right.resource.to_owned(), right.namespace.map(str::to_owned)))
                .collect::<Vec<_>>()
        };
        let right = |resource: &str, place: &Option<String>| (resource.to_owned(), place.clone());
        assert_eq!(places(""), [right("pods", &None), right("secrets", &None)]);
        let (a, b) = (Some("a".to_owned()), Some("b".to_owned()));
        assert_eq!(
            places("b,a"),
            [right("pods", &a), right("secrets", &a), right("pods", &b), right("secrets", &b)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_or_endless_check_is_named_and_fails_the_test() {
        let mut test = Selftest::new();
        test.check("api server", async { Ok("Kubernetes v1.36".to_owned()) }).await;
        assert!(test.passed());
        test.check("webhook", std::future::pending()).await;
        assert!(!test.passed());
        assert_eq!(
            test.table(),
            "ok      api server  Kubernetes v1.36\nFAILED  webhook     no result within 20s\n"
        );
    }
}
