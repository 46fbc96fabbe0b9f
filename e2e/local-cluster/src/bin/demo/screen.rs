//! What the demo shows: lines on standard output, moving progress on standard error.

use std::time::Duration;

use comfy_table::{ContentArrangement, Table};
use local_cluster::terminal::{Task, Terminal, Tone};
use local_cluster::{Cluster, Component};

/// Columns of the name in front of a line of the story.
const ACTOR_WIDTH: usize = 23;
/// From this width on tables have room between their columns.
const WIDE: usize = 100;
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

    /// A line of the story: when, who, what. On a terminal long ones go on below their beginning.
    pub(crate) fn event(&self, since: Duration, actor: &str, tone: Tone, text: &str) {
        let time = format!("{:>6.2} s ", since.as_secs_f64());
        let indent = time.len() + ACTOR_WIDTH + 1;
        let room = if self.out.interactive { self.out.width.saturating_sub(indent) } else { usize::MAX };
        let mut lines = wrapped(text, room).into_iter();
        let actor = self.out.paint(&format!("{actor:ACTOR_WIDTH$}"), tone);
        let first = lines.next().unwrap_or_default();
        self.out.line(&format!("{}{actor} {first}", self.out.paint(&time, Tone::Faint)));
        lines.for_each(|line| self.out.line(&format!("{:indent$}{line}", "")));
    }

    /// A check with its outcome.
    pub(crate) fn check(&self, holds: bool, text: &str) {
        let mark = if holds { self.out.paint("✓", Tone::Good) } else { self.out.paint("✗", Tone::Bad) };
        self.out.line(&format!("{mark} {text}"));
    }

    /// Why a check fails, below it.
    pub(crate) fn reason(&self, error: &anyhow::Error) {
        self.out.line(&format!("  {}", self.out.paint(&format!("because {error:#}"), Tone::Bad)));
    }

    /// A line below "In a browser".
    pub(crate) fn named(&self, name: &str, text: &str) {
        self.out.line(&format!("  {name:9} {text}"));
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
        let gap = if self.out.width < WIDE { 1 } else { 2 };
        table.column_iter_mut().for_each(|column| {
            column.set_padding((0, gap));
        });
        for line in table.lines() {
            self.out.line(&line);
        }
    }

    /// What kubectl says about one object: as it is, or a line per column where that would be torn.
    pub(crate) fn kubectl(&self, table: &str) {
        let lines: Vec<&str> = table.lines().map(str::trim_end).collect();
        let fits = lines.iter().all(|line| line.len() <= self.out.width);
        match lines.as_slice() {
            [header, row] if self.out.interactive && !fits => {
                let rows: Vec<[String; 2]> = columns(header, row).collect();
                self.table(["COLUMN", "VALUE"], &rows);
            }
            lines => lines.iter().for_each(|line| self.out.line(line)),
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
        self.out.line("  kubectl get agentruntimes,agentcards,pods");
        self.out.line("  kubectl describe agentruntime weather-agent-runtime");
        self.out.line(&format!("  ls {}", cluster.info().dir.join("logs").display()));
    }
}

/// Breaks a text at spaces; a longer word stays whole.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= room {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Names and values of a table with one row, by the places where the names begin.
fn columns<'a>(header: &'a str, row: &'a str) -> impl Iterator<Item = [String; 2]> + 'a {
    let begins = |at: usize| at == 0 || header.get(at - 1..at) == Some(" ");
    let starts: Vec<usize> = header
        .char_indices()
        .filter(|(at, letter)| *letter != ' ' && begins(*at))
        .map(|(at, _)| at)
        .collect();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([usize::MAX]).collect();
    starts.into_iter().zip(ends).map(move |(start, end)| {
        let part = |line: &str| line.get(start..end.min(line.len())).unwrap_or_default().trim().to_owned();
        [part(header), part(row)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_on_below() {
        assert_eq!(wrapped("put a, b into Pod c", 10), ["put a, b", "into Pod c"]);
        assert_eq!(wrapped("a-word-that-is-too-long b", 5), ["a-word-that-is-too-long", "b"]);
        assert_eq!(wrapped("short", usize::MAX), ["short"]);
    }

    #[test]
    fn a_row_is_taken_apart() {
        let rows: Vec<_> = columns("NAME   KIND   AGE", "x-card        5s").collect();
        assert_eq!(rows, [["NAME", "x-card"], ["KIND", ""], ["AGE", "5s"]]);
    }
}
