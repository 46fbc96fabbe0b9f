//! The sub-command `selftest`, which `helm test` runs: a list of checks, a table, an exit code.
//!
//! A component adds its own checks to the [common] ones: the API server answers, the rights are those
//! that are expected, every replica is ready, the Lease is alive (packaging §12, §15).

mod grant;
mod replicas;
mod review;
mod rights;

use std::fmt::Write as _;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::time::timeout;

pub use rights::ExpectedRights;

use crate::cli::{CommonArgs, Component};
use crate::commands::operator_namespace;

/// A check that takes longer has failed.
const CHECK_LIMIT: Duration = Duration::from_secs(20);

/// What the common checks compare with. The test Pod of the chart says all of it; what is not said is not checked.
// No group: a component that flattens it may call its own the same.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct SelftestArgs {
    /// Run with the Pod's own identity, as helm test does
    #[arg(long)]
    pub in_cluster: bool,
    /// Name that resolves to the address of every Pod of the component, ready or not
    #[arg(long)]
    pub replicas_at: Option<String>,
    /// How many replicas there are at least
    #[arg(long, default_value_t = 1)]
    pub replicas: usize,
    /// The rules of the component's roles and where they hold, as JSON
    #[arg(long)]
    pub expected_rights: Option<ExpectedRights>,
}

/// How a check ended, with what is to be said of it.
#[derive(Debug)]
enum Outcome {
    Passed(String),
    Skipped(String),
    Failed(String),
}

/// The checks made so far.
#[derive(Debug, Default)]
pub struct Selftest {
    lines: Vec<(String, Outcome)>,
}

impl Selftest {
    /// No checks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes one check: `Ok` with what was found, or `Err` with what is wrong and the remedy.
    pub async fn check(&mut self, name: &str, check: impl Future<Output = Result<String, String>>) {
        self.check_within(CHECK_LIMIT, name, check).await;
    }

    async fn check_within(
        &mut self,
        limit: Duration,
        name: &str,
        check: impl Future<Output = Result<String, String>>,
    ) {
        let outcome = match timeout(limit, check).await {
            Ok(Ok(found)) => Outcome::Passed(found),
            Ok(Err(wrong)) => Outcome::Failed(wrong),
            Err(_) => Outcome::Failed(format!("no result within {limit:?}")),
        };
        self.lines.push((name.to_owned(), outcome));
    }

    /// A check that could not be made, and why; it is shown, and fails nothing.
    pub fn skip(&mut self, name: &str, why: &str) {
        self.lines.push((name.to_owned(), Outcome::Skipped(why.to_owned())));
    }

    /// The table: one line per check.
    pub fn table(&self) -> String {
        let width = self.lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, outcome) in &self.lines {
            let (mark, words) = match outcome {
                Outcome::Passed(words) => ("ok    ", words),
                Outcome::Skipped(words) => ("-     ", words),
                Outcome::Failed(words) => ("FAILED", words),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{mark}  {name:width$}  {words}");
        }
        text
    }

    /// True when no check failed.
    pub fn passed(&self) -> bool {
        !self.lines.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
    }

    /// Prints the table; 0 when no check failed, else 1.
    pub fn finish(self) -> ExitCode {
        print!("{}", self.table());
        if self.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The checks of every component.
pub async fn common(
    test: &mut Selftest,
    client: &Client,
    component: &Component,
    args: &CommonArgs,
    told: &SelftestArgs,
) {
    let home = operator_namespace(args);
    test.check("api server", api_server(client)).await;
    match &told.expected_rights {
        Some(expected) => {
            test.check("rights", review::rights(client, expected, home, &args.watch_namespaces)).await;
        }
        None => test.skip("rights", "not compared: --expected-rights says with what; helm test does"),
    }
    match (&told.replicas_at, args.health_probe_bind_address.port()) {
        (Some(host), Some(port)) => {
            let ready = replicas::are_ready(host, port, told.replicas);
            test.check_within(replicas::LIMIT, "replicas", ready).await;
        }
        (Some(_), None) => {
            test.skip("replicas", "not asked: --health-probe-bind-address=0, they answer nobody");
        }
        (None, _) => test.skip("replicas", "not asked: --replicas-at says where they are; helm test does"),
    }
    if args.leader_elect {
        let lease = component.lease(&args.watch_namespaces);
        test.check("lease", lease_is_alive(client, home, &lease)).await;
    }
}

/// The API server answers.
async fn api_server(client: &Client) -> Result<String, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

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

    /// What was not checked is not said to be well.
    #[test]
    fn a_check_that_was_not_made_is_shown_and_fails_nothing() {
        let mut test = Selftest::new();
        test.skip("rights", "not compared");
        assert_eq!((test.passed(), test.table().as_str()), (true, "-       rights  not compared\n"));
    }
}
