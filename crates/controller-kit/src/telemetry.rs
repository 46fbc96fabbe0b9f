//! Logs and traces of a process.
//!
//! Logs are JSON lines on stderr (`timestamp, level, message, target`, event and span fields,
//! `trace_id`), or text for people; the level can be changed while the process runs (packaging §11).
//! Spans go to an OTLP collector when an endpoint is set in the environment; a collector that is
//! slow or away never blocks or ends the process.

mod json;
mod otlp;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::cli::{CommonArgs, Component, LogFormat};

/// Libraries whose own complaints the kit replaces with better ones.
const QUIET: &str = "kube_runtime=error,kube_client=warn,hyper=warn,hyper_util=warn,rustls=warn,h2=warn,tower=warn,\
                     reqwest=warn,opentelemetry=warn,opentelemetry_sdk=error,opentelemetry_otlp=error";

/// A log level or filter that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogLevelError {
    /// Not a level and not a filter.
    #[error(
        "{text:?} is not a log level: use error, warn, info, debug, trace, or a filter such as info,kube=debug: {reason}"
    )]
    Malformed {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Logging is not set up by this process.
    #[error("the log level cannot be changed: {0}")]
    Unavailable(String),
}

type SetLevel = dyn Fn(EnvFilter) -> Result<(), LogLevelError> + Send + Sync;

/// Changes the log level while the process runs.
#[derive(Clone)]
pub struct LogLevel {
    apply: Arc<SetLevel>,
}

impl LogLevel {
    /// A handle that checks its input and changes nothing, for tests.
    pub fn detached() -> Self {
        Self { apply: Arc::new(|_| Ok(())) }
    }

    /// Applies a level (`debug`) or a filter (`info,kube=debug`).
    pub fn set(&self, text: &str) -> Result<(), LogLevelError> {
        (self.apply)(filter(text)?)
    }
}

/// What must be kept until the end of the process and flushed then.
pub struct Telemetry {
    log_level: LogLevel,
    traces: Option<otlp::Traces>,
}

impl Telemetry {
    /// Sets up logging and, when an endpoint is set, tracing for the whole process. Where a subscriber
    /// exists already (a test), it stays and levels cannot be changed.
    pub fn start(component: &Component, args: &CommonArgs, instance: &str) -> Result<Self, LogLevelError> {
        let from_env = || std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
        let (level, format) = if args.zap_devel {
            (args.log_level.clone().or_else(|| Some("debug".to_owned())), LogFormat::Text)
        } else {
            (args.log_level.clone(), args.log_format)
        };
        let level = level.or_else(from_env).unwrap_or_else(|| "info".to_owned());
        let (filter, handle) = reload::Layer::<EnvFilter, Registry>::new(filter(&level)?);
        let (traces, trace_error) = match otlp::Traces::from_env(component, instance) {
            Ok(traces) => (traces, None),
            Err(error) => (None, Some(error)),
        };
        let lines = match format {
            LogFormat::Json => json::layer(std::io::stderr).boxed(),
            LogFormat::Text => {
                // Only a person at a terminal sees colours; files and `NO_COLOR` get plain text.
                let colours = std::io::stderr().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
                tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours).boxed()
            }
        };
        let subscriber =
            Registry::default().with(filter).with(traces.as_ref().map(otlp::Traces::layer)).with(lines);
        let installed = tracing::subscriber::set_global_default(subscriber).is_ok();
        if let Some(error) = trace_error {
            tracing::warn!(%error, "traces are not exported");
        }
        let log_level = LogLevel {
            apply: Arc::new(move |filter| {
                if !installed {
                    return Err(LogLevelError::Unavailable("another subscriber is in place".to_owned()));
                }
                handle.reload(filter).map_err(|error| LogLevelError::Unavailable(error.to_string()))
            }),
        };
        Ok(Self { log_level, traces })
    }

    /// The handle to change the level with.
    pub fn log_level(&self) -> LogLevel {
        self.log_level.clone()
    }

    /// Sends what is left of the traces, for at most `limit`.
    pub async fn flush(self, limit: Duration) {
        if let Some(traces) = self.traces {
            traces.shutdown(limit).await;
        }
    }
}

/// A level or a filter. zap's way to ask for more (a number above 0) means debug.
fn filter(text: &str) -> Result<EnvFilter, LogLevelError> {
    let malformed = |reason: String| LogLevelError::Malformed { text: text.to_owned(), reason };
    let text = text.trim();
    if text.is_empty() {
        return Err(malformed("it is empty".to_owned()));
    }
    let text = match text.parse::<u8>() {
        Ok(0) => "info",
        Ok(_) => "debug",
        Err(_) => text,
    };
    let level = text.to_ascii_lowercase();
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    let directives = match level.as_str() {
        "warning" => format!("warn,{QUIET}"),
        // A bare word that is no level would be taken for the name of a module.
        word if !word.contains(['=', ',']) && !known.contains(&word) => {
            return Err(malformed("it is no level".to_owned()));
        }
        word if known.contains(&word) && !matches!(word, "trace" | "off" | "error") => {
            format!("{word},{QUIET}")
        }
        _ => text.to_owned(),
    };
    EnvFilter::try_new(directives).map_err(|error| malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("info", "info")]
    #[case("WARNING", "warn")]
    #[case("3", "debug")]
    #[case("0", "info")]
    #[case("info,kube=debug", "kube=debug")]
    #[case("trace", "trace")]
    fn levels_filters_and_the_forms_of_zap_are_read(#[case] text: &str, #[case] part: &str) {
        assert!(filter(text).unwrap().to_string().contains(part));
    }

    #[rstest]
    #[case("")]
    #[case("louder")]
    #[case("info,a=b=c")]
    fn anything_else_is_refused(#[case] text: &str) {
        assert!(matches!(filter(text), Err(LogLevelError::Malformed { .. })));
    }
}
