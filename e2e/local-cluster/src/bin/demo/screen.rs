//! What the demo shows: lines on standard output, moving progress on standard error.

use std::time::Duration;

use comfy_table::{ContentArrangement, Table};
use local_cluster::terminal::{Task, Terminal, Tone};
use local_cluster::{Cluster, Component};

/// Columns of the name in front of a line of the story.
const ACTOR_WIDTH: usize = 18;
/// Lines of a component's log that explain a failure.
const LOG_LINES: usize = 15;

/// Both output streams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    out: Terminal,
    err: Terminal,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { out: Terminal::stdout(), err: Terminal::stderr() }
    }

    /// Progress of something that takes a while.
    pub(crate) fn task(&self, title: &str) -> Task {
        self.err.task(title)
    }

    pub(crate) fn heading(&self, text: &str) {
        self.out.line("");
        self.plain(text, Tone::Strong);
    }

    pub(crate) fn plain(&self, text: &str, tone: Tone) {
        self.out.line(&self.out.paint(text, tone));
    }

    /// A line of the story: when, who, what.
    pub(crate) fn event(&self, since: Duration, actor: &str, tone: Tone, text: &str) {
        let time = format!("{:>6.2} s ", since.as_secs_f64());
        let line = self.out.labelled(actor, tone, ACTOR_WIDTH, text);
        self.out.line(&format!("{}{line}", self.out.paint(&time, Tone::Faint)));
    }

    /// A check with its outcome.
    pub(crate) fn check(&self, holds: bool, text: &str) {
        let mark = if holds { self.out.paint("✓", Tone::Good) } else { self.out.paint("✗", Tone::Bad) };
        self.out.line(&format!("{mark} {text}"));
    }

    /// A table that fits the width.
    pub(crate) fn table<const N: usize>(&self, header: [&str; N], rows: &[[String; N]]) {
        let mut table = Table::new();
        table
            .load_style(comfy_table::presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(u16::try_from(self.out.width).unwrap_or(u16::MAX))
            .force_no_tty()
            .set_header(header)
            .add_rows(rows.iter().cloned());
        for line in table.lines() {
            self.out.line(&line);
        }
    }

    /// The end of a component's log.
    pub(crate) fn log(&self, component: &Component) {
        let text = component.log();
        let lines: Vec<&str> = text.lines().collect();
        self.err.line(&self.err.paint(&format!("{} wrote:", component.spec().name), Tone::Strong));
        for line in lines.iter().skip(lines.len().saturating_sub(LOG_LINES)) {
            self.err.line(line);
        }
    }

    pub(crate) fn error(&self, error: &anyhow::Error) {
        self.err.line(&format!("{} {error:#}", self.err.paint("error:", Tone::Bad)));
    }

    /// How to look around.
    pub(crate) fn explore(&self, cluster: &Cluster) {
        self.out.line("Explore it from another terminal:");
        self.out.line(&format!("  export KUBECONFIG={}", cluster.kubeconfig().display()));
        let kubectl = cluster.kubectl_path().display();
        self.out.line(&format!("  alias kubectl={kubectl}   # if you have none"));
        self.out.line("  kubectl get agentruntimes,pods -o wide");
        self.out.line("  kubectl describe agentruntime weather-agent-runtime");
        self.out.line(&format!("  ls {}", cluster.info().dir.join("logs").display()));
    }
}
