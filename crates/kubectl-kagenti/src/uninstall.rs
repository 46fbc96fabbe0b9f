//! `uninstall --remove-finalizers`: the last resort for objects that wait for components which are gone (packaging §15).
//!
//! A finalizer keeps an object until its owner has cleaned up what lies outside of it. Nobody cleans up here: the finalizer is
//! taken off, and what stays behind is named. So nothing is done while a component runs that would clean up, finalizers of others
//! are left alone, and somebody has to say yes.

mod holder;
mod leftover;
mod release;
mod report;
mod stuck;

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Args;

use crate::cli::Failure;
use crate::cluster::{Cluster, Connection, namespace_name};
use crate::installation;
use crate::print::{Form, document, print};

use holder::Holder;
use report::Report;
use stuck::Stuck;

/// What to take off, and from where.
#[derive(Args, Debug)]
pub(crate) struct Uninstall {
    #[command(flatten)]
    connection: Connection,
    /// Take the suite's finalizers off objects that are being deleted while nobody is left to do it
    #[arg(long, required = true)]
    remove_finalizers: bool,
    /// Only in this namespace, instead of all namespaces
    #[arg(short, long, value_name = "NAME", value_parser = namespace_name)]
    namespace: Option<String>,
    /// Also off objects that nobody has deleted, so that they can be deleted later
    #[arg(long)]
    all: bool,
    /// Do it although components run that would clean up, or although it is not known whether they do
    #[arg(long)]
    even_if_running: bool,
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// What to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// Somebody would still clean up.
    #[error(
        "nothing was changed: what would clean up is still there:\n{}\nLet it work, or mend it (`kubectl kagenti check`); \
         --even-if-running takes the finalizers off all the same",
        lines(.0)
    )]
    Running(Vec<String>),
    /// It cannot be found out.
    #[error(
        "nothing was changed: it is not known whether components run that would clean up:\n{}\nAsk somebody who may \
         look, or say --even-if-running if you know that they are gone",
        lines(.0)
    )]
    Unknown(Vec<String>),
    /// Nobody to ask.
    #[error("nothing was changed: there is no terminal to ask on; look with --dry-run, then say --yes")]
    NoTerminal,
    /// Somebody said no.
    #[error("nothing was changed")]
    NotConfirmed,
    /// The answer cannot be read.
    #[error("nothing was changed: the answer cannot be read: {0}")]
    Answer(io::Error),
}

fn lines(items: &[String]) -> String {
    items.iter().map(|item| format!("  {item}")).collect::<Vec<_>>().join("\n")
}

impl Uninstall {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let cluster = Cluster::new(&self.connection).await?;
        let found = stuck::find(&cluster, self.namespace.as_deref()).await?;
        let (wanted, spared): (Vec<Stuck>, Vec<Stuck>) =
            found.objects.into_iter().partition(|object| object.deleting || self.all);
        let mut report = Report::new(self.dry_run, spared.len(), found.unknown);
        if wanted.is_empty() {
            return self.end(&report);
        }
        if !self.even_if_running {
            self.nobody_left(&cluster, &wanted).await?;
        }
        if self.dry_run {
            report.objects = wanted.iter().map(report::planned).collect();
            return self.end(&report);
        }
        if !self.yes {
            confirm(&wanted)?;
        }
        report.objects = release::all(&cluster, wanted).await?;
        self.end(&report)
    }

    /// Refuses while somebody is there who would clean up.
    async fn nobody_left(&self, cluster: &Cluster, wanted: &[Stuck]) -> Result<(), Failure> {
        let found = installation::find(cluster, None).await?;
        let running = holder::running(wanted, &found.components);
        if !running.is_empty() {
            return Err(Refused::Running(running).into());
        }
        let mut unknown: Vec<String> = found.unknown.into_iter().collect();
        let leases = holder::leases(cluster).await?;
        match leases {
            Ok(leases) => {
                let relevant: Vec<Holder> =
                    leases.into_iter().filter(|lease| lease.concerns(wanted, &found.components)).collect();
                let seen = holder::watch(cluster, relevant).await?;
                if !seen.renewed.is_empty() {
                    return Err(Refused::Running(seen.renewed).into());
                }
                unknown.extend(seen.unknown);
            }
            Err(why) => unknown.push(why),
        }
        if unknown.is_empty() { Ok(()) } else { Err(Refused::Unknown(unknown).into()) }
    }

    fn end(&self, report: &Report) -> Result<ExitCode, Failure> {
        match self.output {
            Form::Table => {
                print(&report.text())?;
                report.unknown.iter().for_each(|unknown| eprintln!("unknown: {unknown}"));
            }
            form => print(&document(form, report)?)?,
        }
        Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Asks on standard error, so that standard output has the result and nothing else.
fn confirm(wanted: &[Stuck]) -> Result<(), Refused> {
    if !io::stdin().is_terminal() {
        return Err(Refused::NoTerminal);
    }
    let namespaces: BTreeSet<&str> = wanted.iter().map(|object| object.namespace.as_str()).collect();
    eprint!(
        "{}\nThe finalizers go, and what they stand for is not cleaned up any more. Objects: {}, namespaces: {}.\nType \
         yes to go on: ",
        report::plan(wanted),
        wanted.len(),
        namespaces.len()
    );
    io::stderr().flush().map_err(Refused::Answer)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(Refused::Answer)?;
    if answer.trim() == "yes" { Ok(()) } else { Err(Refused::NotConfirmed) }
}
