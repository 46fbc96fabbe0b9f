//! Calm output for people: colour only where it is welcome, one moving line on a terminal, plain lines
//! with a heartbeat everywhere else.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use console::truncate_str;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a running task says that it is still running where nothing can be redrawn.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// What ends within this time is not announced, only reported.
const SLOW: Duration = Duration::from_secs(2);
/// Used when the width of the output is unknown.
const DEFAULT_WIDTH: usize = 100;

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// What a program is asked for.
    Stdout,
    /// What it says beside that.
    Stderr,
}

/// What an output stream can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Where lines go.
    pub stream: Stream,
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
    /// Standard output.
    pub fn stdout() -> Self {
        let term = console::Term::stdout();
        Self::new(Stream::Stdout, std::io::stdout().is_terminal(), &term)
    }

    /// Standard error.
    pub fn stderr() -> Self {
        let term = console::Term::stderr();
        Self::new(Stream::Stderr, std::io::stderr().is_terminal(), &term)
    }

    /// Looks at the stream, `NO_COLOR` and `TERM`.
    fn new(stream: Stream, is_terminal: bool, term: &console::Term) -> Self {
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        let interactive = is_terminal && !dumb;
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = if interactive { usize::from(term.size().1) } else { DEFAULT_WIDTH };
        Self { stream, interactive, color: interactive && !no_color, width: width.max(20) }
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

    /// Writes one line. Not `println!`: that ends the program when nobody reads any more, and the test
    /// harness swallows it.
    pub fn line(&self, text: &str) {
        let text = text.trim_end();
        let _ = match self.stream {
            Stream::Stdout => writeln!(std::io::stdout().lock(), "{text}"),
            Stream::Stderr => writeln!(std::io::stderr().lock(), "{text}"),
        };
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
        let slow = bar.is_none().then(|| self.say_when_slow(title));
        let now = Instant::now();
        Task { terminal: *self, title: title.to_owned(), started: now, spoken: now, bar, slow }
    }
}

impl Terminal {
    /// Writes the title unless the sender is dropped soon.
    fn say_when_slow(self, title: &str) -> Sender<()> {
        let (sender, dropped) = channel();
        let text = format!("{title} ...");
        std::thread::spawn(move || {
            if dropped.recv_timeout(SLOW) == Err(RecvTimeoutError::Timeout) {
                self.line(&text);
            }
        });
        sender
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
    /// Dropped with the task, which keeps a quick one from being announced.
    #[expect(dead_code, reason = "its end is its use")]
    slow: Option<Sender<()>>,
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

    /// Writes a line elsewhere without disturbing the display.
    pub fn beside(&self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
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
        let plain = Terminal { stream: Stream::Stderr, interactive: false, color: false, width: 80 };
        assert_eq!(plain.paint("ready", Tone::Good), "ready");
        let colourful = Terminal { color: true, ..plain };
        assert!(colourful.paint("ready", Tone::Good).contains("\u{1b}["));
    }
}
