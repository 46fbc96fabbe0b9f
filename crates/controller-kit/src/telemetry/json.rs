//! Log lines as JSON: one flat object per line, so that every field can be queried by its name.

use std::fmt::{self, Debug};
use std::io::Write;

use opentelemetry::trace::TraceContextExt;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Fields of a span, kept with it.
#[derive(Default)]
struct SpanFields(Map<String, Value>);

pub(super) struct JsonLines<W> {
    writer: W,
}

/// A layer that writes lines to what `writer` makes.
pub(super) fn layer<W>(writer: W) -> JsonLines<W> {
    JsonLines { writer }
}

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = SpanFields::default();
            attributes.record(&mut Fields(&mut fields.0));
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<SpanFields>()
        {
            values.record(&mut Fields(&mut fields.0));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Map::new();
        let metadata = event.metadata();
        line.insert("timestamp".to_owned(), format!("{:.6}", jiff::Timestamp::now()).into());
        line.insert("level".to_owned(), metadata.level().as_str().into());
        // Holds the place, so that the message stands before the other fields.
        line.insert("message".to_owned(), Value::String(String::new()));
        line.insert("target".to_owned(), metadata.target().into());
        if let Some(scope) = context.event_scope(event) {
            // From the root inwards: an inner span's field wins, the event's own wins over all.
            for span in scope.from_root() {
                if let Some(fields) = span.extensions().get::<SpanFields>() {
                    line.extend(fields.0.iter().map(|(key, value)| (key.clone(), value.clone())));
                }
            }
            if let Some(trace) = current_trace() {
                line.insert("trace_id".to_owned(), trace.into());
            }
        }
        event.record(&mut Fields(&mut line));
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // A log line that cannot be written cannot be complained about either.
        let _ = self.writer.make_writer_for(metadata).write_all(text.as_bytes());
    }
}

fn current_trace() -> Option<String> {
    let context = tracing::Span::current().context();
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| context.trace_id().to_string())
}

/// Collects fields as JSON values.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        let name = field.name().trim_start_matches("r#");
        // A field must not hide what the line itself says.
        let name = match name {
            "timestamp" | "level" | "target" => format!("field.{name}"),
            name => name.to_owned(),
        };
        self.0.insert(name, value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set(field, Chain(value).to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.set(field, format!("{value:?}"));
    }
}

/// An error with its sources, leaving out what the outer text says already.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().map_err(|_| io::ErrorKind::Other)?.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(work: impl FnOnce()) -> Vec<Value> {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        tracing::subscriber::with_default(Registry::default().with(layer(move || writer.clone())), work);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Packaging §11: timestamp, level, message, target, span fields.
    #[test]
    fn a_line_is_flat_and_carries_the_spans_fields() {
        let lines = lines(|| {
            let outer = tracing::info_span!("reconcile", k8s.namespace.name = "team1", attempt = 1);
            let _outer = outer.enter();
            let inner = tracing::info_span!("patch", attempt = 2, late = tracing::field::Empty);
            let _inner = inner.enter();
            inner.record("late", true);
            tracing::warn!(count = 3, level = "x", "hello {}", "world");
        });
        let line = &lines[0];
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "hello world");
        assert_eq!(line["target"], module_path!());
        assert_eq!(line["k8s.namespace.name"], "team1");
        assert_eq!(line["attempt"], 2, "the inner span wins");
        assert_eq!(line["late"], true);
        assert_eq!(line["count"], 3);
        assert_eq!(line["field.level"], "x");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot apply")]
    struct Outer(#[source] io::Error);

    #[test]
    fn errors_keep_their_chain_without_repetition() {
        let lines = lines(|| {
            let error = Outer(io::Error::other("connection refused"));
            tracing::error!(error = &error as &(dyn std::error::Error + 'static), "failed");
        });
        assert_eq!(lines[0]["error"], "cannot apply: connection refused");
    }
}
