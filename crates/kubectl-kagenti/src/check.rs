//! `check`: why something does not work, and what to do (packaging §16).
//!
//! Every look is of the user's own rights. A question that may not be asked has the result "unknown" and names the right.

mod admission;
mod certificate;
mod components;
mod definitions;
mod finding;
mod leases;
mod namespace;
mod webhooks;

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::cli::Failure;
use crate::cluster::{Cluster, Connection, namespace_name};
use crate::installation;
use crate::print::{Form, document, print};

use finding::{Finding, Verdict, text};

/// Where to look.
#[derive(Args, Debug)]
pub(crate) struct Check {
    #[command(flatten)]
    connection: Connection,
    /// Also look at this namespace of agents, and try admission there (else in the namespace of the kubeconfig)
    #[arg(short, long, value_name = "NAME", value_parser = namespace_name)]
    namespace: Option<String>,
    /// What to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Serialize)]
struct Report {
    findings: Vec<Finding>,
}

impl Check {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let cluster = Cluster::new(&self.connection).await?;
        let now = cluster.time().await?;
        let found = installation::find(&cluster, None).await?;
        let mut findings = definitions::check(&cluster).await?;
        findings.extend(components::check(&cluster, &found).await?);
        findings.extend(leases::check(&cluster, &found, now).await?);
        let webhooks = webhooks::look(&cluster, &found).await?;
        findings.extend(webhooks::judge(&webhooks, &found, now));
        let tried = self.namespace.as_deref().unwrap_or(cluster.default_namespace());
        if webhooks.is_configured() {
            // Where somebody said to look is looked.
            let unsuited = admission::unsuited(tried, &found).filter(|_| self.namespace.is_none());
            match unsuited {
                Some(unsuited) => findings.push(unsuited),
                None => findings.extend(admission::check(&cluster, tried).await?),
            }
        }
        if let Some(namespace) = &self.namespace {
            findings.extend(namespace::check(&cluster, namespace, &found, now).await?);
        }
        let fine = findings.iter().all(|f| matches!(f.result, Verdict::Ok | Verdict::Warning));
        match self.output {
            Form::Table => print(&text(&findings))?,
            form => print(&document(form, &Report { findings })?)?,
        }
        Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
