//! Calm output for people: colour only where it is welcome, one moving line on a terminal, plain lines
//! with a heartbeat everywhere else.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use console::{Alignment, pad_str, truncate_str};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a running task says that it is still running where nothing can be redrawn.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// Used when the width of the output is unknown.
const DEFAULT_WIDTH: usize = 100;

/// What standard error can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Lines can be redrawn.
    pub interactive: bool,
    /// Colours are welcome (`NO_COLOR` unset, not `TERM=dumb`, a terminal).
    pub color: bool,
    /// Columns available.
    pub width: usize,
}

/// The meaning of a piece of text; the terminal decides how it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Body text.
    Plain,
    /// A heading or the thing the line is about.
    Strong,
    /// Detail that may be skipped.
    Faint,
    /// Something came true.
    Good,
    /// Something is wrong.
    Bad,
}

impl Terminal {
    /// Looks at standard error, `NO_COLOR` and `TERM`.
    pub fn stderr() -> Self {
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        let interactive = std::io::stderr().is_terminal() && !dumb;
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = if interactive { usize::from(console::Term::stderr().size().1) } else { DEFAULT_WIDTH };
        Self { interactive, color: interactive && !no_color, width: width.max(20) }
    }

    /// Text in the given tone, with escape codes only when colours are welcome.
    pub fn paint(&self, text: &str, tone: Tone) -> String {
        let style = console::Style::new().force_styling(self.color);
        match tone {
            Tone::Plain => text.to_owned(),
            Tone::Strong => style.bold().apply_to(text).to_string(),
            Tone::Faint => style.dim().apply_to(text).to_string(),
            Tone::Good => style.green().apply_to(text).to_string(),
            Tone::Bad => style.red().apply_to(text).to_string(),
        }
    }

    /// Writes one line to standard error. Not `eprintln!`: the test harness would swallow progress.
    pub fn line(&self, text: &str) {
        let mut out = std::io::stderr().lock();
        let _ = writeln!(out, "{}", text.trim_end());
    }

    /// A line of `label` (padded to `label_width` columns) and text that is cut to the terminal's width.
    pub fn labelled(&self, label: &str, tone: Tone, label_width: usize, text: &str) -> String {
        let label = pad_str(label, label_width, Alignment::Left, None).into_owned();
        let room = self.width.saturating_sub(label_width + 1);
        let text = if self.interactive { truncate_str(text, room, "…") } else { text.into() };
        format!("{} {text}", self.paint(&label, tone))
    }

    /// Starts showing a task that may take long.
    pub fn task(&self, title: &str) -> Task {
        let bar = self.interactive.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar.set_message(title.to_owned());
            bar
        });
        if bar.is_none() {
            self.line(&format!("{title} ..."));
        }
        let now = Instant::now();
        Task { terminal: *self, title: title.to_owned(), started: now, spoken: now, bar }
    }
}

/// A running task on display.
#[derive(Debug)]
pub struct Task {
    terminal: Terminal,
    title: String,
    started: Instant,
    spoken: Instant,
    bar: Option<ProgressBar>,
}

impl Task {
    /// Shows a detail behind the title; elsewhere than on a terminal at most every 20 s.
    pub fn detail(&mut self, detail: &str) {
        let text = format!("{}: {detail}", self.title);
        if let Some(bar) = &self.bar {
            let room = self.terminal.width.saturating_sub(12);
            bar.set_message(truncate_str(&text, room, "…").into_owned());
        } else if self.spoken.elapsed() >= HEARTBEAT {
            self.spoken = Instant::now();
            self.terminal.line(&format!("{text} ({})", seconds(self.started.elapsed())));
        }
    }

    /// Ends the display with a line that says how long it took.
    pub fn done(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let text = format!("{} {}", self.title, seconds(self.started.elapsed()));
        self.terminal.line(&format!("{} {text}", self.terminal.paint("✓", Tone::Good)));
    }

    /// Ends the display without a word, before an error is reported.
    pub fn cleared(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A duration for people: `0.4 s`, `12.3 s`, `4 min 05 s`.
pub fn seconds(duration: Duration) -> String {
    let total = duration.as_secs_f64();
    let mut text = String::new();
    if total < 60.0 {
        let _ = write!(text, "{total:.1} s");
    } else {
        let _ = write!(text, "{} min {:02} s", duration.as_secs() / 60, duration.as_secs() % 60);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(412)), "0.4 s");
        assert_eq!(seconds(Duration::from_secs(245)), "4 min 05 s");
    }

    #[test]
    fn no_escape_codes_without_colour() {
        let plain = Terminal { interactive: false, color: false, width: 80 };
        assert_eq!(plain.paint("ready", Tone::Good), "ready");
        let colourful = Terminal { color: true, ..plain };
        assert!(colourful.paint("ready", Tone::Good).contains("\u{1b}["));
    }

    #[test]
    fn narrow_terminals_cut_text_not_labels() {
        let narrow = Terminal { interactive: true, color: false, width: 24 };
        let line = narrow.labelled("pod", Tone::Plain, 8, "a text that does not fit in here");
        assert_eq!(console::measure_text_width(&line), 24);
        assert!(line.starts_with("pod "));
    }
}
