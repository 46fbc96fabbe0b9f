//! Log lines as users of the previous signer parse them: `level`, `ts`, `msg` and string fields (card §16.1).

use std::fmt::{self, Debug};
use std::io::Write;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

/// Libraries that speak too; what others log could hold bodies.
const TARGETS: [&str; 2] = ["agentcard_signer", "spiffe_svid"];

/// Sends what this process logs to stderr. A second call does nothing.
pub(crate) fn start() {
    let _ = Registry::default().with(Lines { write: || std::io::stderr().lock() }).try_init();
}

struct Lines<W> {
    write: W,
}

impl<S: Subscriber, O: Write, W: Fn() -> O + 'static> Layer<S> for Lines<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let ours = TARGETS.iter().any(|target| metadata.target().starts_with(target));
        if !ours || *metadata.level() > Level::INFO {
            return;
        }
        let level = match *metadata.level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            _ => "info",
        };
        let mut line = Map::new();
        line.insert("level".to_owned(), level.into());
        line.insert("ts".to_owned(), format!("{:.3}", jiff::Timestamp::now()).into());
        line.insert("msg".to_owned(), Value::String(String::new()));
        event.record(&mut Fields(&mut line));
        // A log line that cannot be written cannot be complained about either.
        let _ = writeln!((self.write)(), "{}", Value::Object(line));
    }
}

/// Every field becomes a string.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn set(&mut self, field: &Field, value: String) {
        let name = if field.name() == "message" { "msg" } else { field.name() };
        self.0.insert(name.to_owned(), Value::String(value));
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.set(field, fmt::format(format_args!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn one_object_per_line_with_string_fields() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = Registry::default().with(Lines { write: move || writer.clone() });
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(spiffe_id = "spiffe://td/a", signatures = 2, "card signed");
            tracing::warn!(error = %"no\nsuch thing", "trouble");
            tracing::debug!("too much");
            tracing::error!(target: "hyper::proto", "not ours");
        });
        let text = String::from_utf8(sink.0.lock().expect("unpoisoned").clone()).expect("UTF-8");
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
        assert_eq!(lines.len(), 2, "{text}");
        let member = |line: usize, name: &str| lines[line][name].as_str().map(str::to_owned);
        assert_eq!(member(0, "level").as_deref(), Some("info"));
        assert_eq!(member(0, "msg").as_deref(), Some("card signed"));
        assert_eq!(member(0, "spiffe_id").as_deref(), Some("spiffe://td/a"));
        assert_eq!(member(0, "signatures").as_deref(), Some("2"), "numbers are strings too");
        assert!(member(0, "ts").expect("a time").parse::<jiff::Timestamp>().is_ok());
        assert_eq!(member(1, "error").as_deref(), Some("no\nsuch thing"));
    }
}
