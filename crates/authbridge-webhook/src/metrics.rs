//! Metrics of the webhook (webhook §17, packaging §8). No label holds a namespace or an object's name.

use std::{
    hash::Hash,
    sync::atomic::{AtomicI64, AtomicU64},
    time::Instant,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::Registry,
};

/// Labels of `kagenti_authbridge_admissions_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AdmissionLabels {
    /// injected, skipped, denied, error, reinvoked.
    pub result: &'static str,
    /// Why, from a closed set.
    pub reason: &'static str,
    /// Resolved mode; empty when none was resolved.
    pub mode: &'static str,
}

/// Label `result`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// As in [`AdmissionLabels`].
    pub result: &'static str,
}

/// Labels of `kagenti_authbridge_api_requests_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiLabels {
    /// get, list, create, apply, delete.
    pub verb: &'static str,
    /// Plural of the resource.
    pub resource: &'static str,
    /// ok, exists, not_found, conflict, error.
    pub outcome: &'static str,
}

/// Labels of `kagenti_authbridge_config_fallbacks_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FallbackLabels {
    /// mode, mtls, egress, ...
    pub field: &'static str,
    /// Source string of webhook §8.
    pub source: &'static str,
}

/// Label `reason`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// Code of a warning.
    pub reason: &'static str,
}

/// Labels of `kagenti_authbridge_config_reloads_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReloadLabels {
    /// platform or feature-gates.
    pub file: &'static str,
    /// ok or error.
    pub outcome: &'static str,
}

/// Label `file`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FileLabel {
    /// platform or feature-gates.
    pub file: &'static str,
}

/// Label `container`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ContainerLabel {
    /// Name of an injected container.
    pub container: &'static str,
}

/// Labels of `controller_runtime_webhook_requests_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WebhookCodeLabels {
    /// Path of the endpoint.
    pub webhook: &'static str,
    /// HTTP status.
    pub code: u16,
}

/// Label `webhook`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WebhookLabel {
    /// Path of the endpoint.
    pub webhook: &'static str,
}

/// Buckets of the latency histograms, in seconds: 1 ms to 10 s.
#[derive(Clone, Debug, Default)]
struct Latency;

impl MetricConstructor<Histogram> for Latency {
    fn new_metric(&self) -> Histogram {
        Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0])
    }
}

/// A family of latency histograms.
#[derive(Clone, Debug)]
struct Latencies<L: Clone + Hash + Eq>(Family<L, Histogram, Latency>);

impl<L: Clone + Hash + Eq> Default for Latencies<L> {
    fn default() -> Self {
        Self(Family::new_with_constructor(Latency))
    }
}

type Seconds = Gauge<f64, AtomicU64>;

/// Every metric of this component.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Admissions of Pods by result.
    pub admissions: Family<AdmissionLabels, Counter>,
    admission_duration: Latencies<ResultLabel>,
    /// Requests to the API server made for admissions.
    pub api_requests: Family<ApiLabels, Counter>,
    /// Values that fell back to another.
    pub config_fallbacks: Family<FallbackLabels, Counter>,
    /// Warnings returned to users.
    pub warnings: Family<ReasonLabel, Counter>,
    /// Reloads of the two files.
    pub config_reloads: Family<ReloadLabels, Counter>,
    config_last_success: Family<FileLabel, Seconds>,
    /// Keys of the two files that have no effect.
    pub config_ignored: Family<FileLabel, Gauge<i64, AtomicI64>>,
    /// ConfigMaps deleted by the sweeper.
    pub swept: Counter,
    /// Containers injected in layout split.
    pub split_containers: Family<ContainerLabel, Counter>,
    cert_not_after: Seconds,
    /// Certificate files or Secrets that could not be used.
    pub cert_reload_errors: Counter,
    webhook_requests: Family<WebhookCodeLabels, Counter>,
    webhook_latency: Latencies<WebhookLabel>,
    webhook_in_flight: Family<WebhookLabel, Gauge>,
    shed: Family<WebhookLabel, Counter>,
    panics: Family<WebhookLabel, Counter>,
}

impl Metrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        let mut add = |name: &str, help: &str, metric: &dyn Fn(&mut Registry, &str, &str)| {
            metric(registry, name, help);
        };
        macro_rules! metric {
            ($name:literal, $help:literal, $($field:tt)+) => {
                add($name, $help, &|r, n, h| r.register(n, h, self.$($field)+.clone()));
            };
        }
        metric!("kagenti_authbridge_admissions", "Admissions of Pods by result", admissions);
        metric!(
            "kagenti_authbridge_admission_duration_seconds",
            "Time of an admission",
            admission_duration.0
        );
        metric!("kagenti_authbridge_api_requests", "API requests made for admissions", api_requests);
        metric!("kagenti_authbridge_config_fallbacks", "Invalid or overruled values", config_fallbacks);
        metric!("kagenti_authbridge_warnings", "Warnings returned to users", warnings);
        metric!("kagenti_authbridge_config_reloads", "Reloads of configuration files", config_reloads);
        metric!(
            "kagenti_authbridge_config_last_success_timestamp_seconds",
            "When a configuration file was last read without error",
            config_last_success
        );
        metric!(
            "kagenti_authbridge_config_ignored_keys",
            "Keys of a configuration file that have no effect",
            config_ignored
        );
        metric!("kagenti_authbridge_swept", "Orphaned ConfigMaps deleted", swept);
        metric!(
            "kagenti_authbridge_split_containers",
            "Containers injected in layout split",
            split_containers
        );
        metric!("kagenti_webhook_cert_not_after_seconds", "End of the serving certificate", cert_not_after);
        metric!(
            "kagenti_webhook_cert_reload_errors",
            "Certificates that could not be used",
            cert_reload_errors
        );
        metric!("controller_runtime_webhook_requests", "Admission requests by HTTP code", webhook_requests);
        metric!(
            "controller_runtime_webhook_latency_seconds",
            "Time of an admission request",
            webhook_latency.0
        );
        metric!(
            "controller_runtime_webhook_requests_in_flight",
            "Admission requests being served",
            webhook_in_flight
        );
        metric!("kagenti_webhook_shed", "Admission requests refused for lack of room", shed);
        metric!("kagenti_webhook_panics", "Handlers that panicked", panics);
    }

    /// Starts the measurement of one call.
    pub fn webhook_call(&self, webhook: &'static str) -> CallTimer<'_> {
        self.webhook_in_flight.get_or_create(&WebhookLabel { webhook }).inc();
        CallTimer { metrics: self, webhook, started: Instant::now(), code: 499 }
    }

    /// A call was refused for lack of room.
    pub fn shed(&self, webhook: &'static str) {
        self.shed.get_or_create(&WebhookLabel { webhook }).inc();
    }

    /// A handler panicked.
    pub fn panicked(&self, webhook: &'static str) {
        self.panics.get_or_create(&WebhookLabel { webhook }).inc();
    }

    /// One admission of a Pod ended.
    pub fn admission(&self, labels: &AdmissionLabels, seconds: f64) {
        let result = ResultLabel { result: labels.result };
        self.admission_duration.0.get_or_create(&result).observe(seconds);
        self.admissions.get_or_create(labels).inc();
    }

    /// One request to the API server ended.
    pub fn api(&self, verb: &'static str, resource: &'static str, outcome: &'static str) {
        self.api_requests.get_or_create(&ApiLabels { verb, resource, outcome }).inc();
    }

    /// A file was read without error at this Unix time.
    pub fn config_read(&self, file: &'static str, unix_seconds: i64) {
        self.config_last_success.get_or_create(&FileLabel { file }).set(unix_seconds as f64);
    }

    /// The certificate that is served ends at this Unix time.
    pub fn cert_not_after(&self, unix_seconds: i64) {
        self.cert_not_after.set(unix_seconds as f64);
    }
}

/// Counts a call when it ends, also when the caller hung up.
#[derive(Debug)]
pub struct CallTimer<'a> {
    metrics: &'a Metrics,
    webhook: &'static str,
    started: Instant,
    code: u16,
}

impl CallTimer<'_> {
    /// The call was answered with this HTTP status.
    pub fn done(mut self, code: u16) {
        self.code = code;
    }
}

impl Drop for CallTimer<'_> {
    fn drop(&mut self) {
        let label = WebhookLabel { webhook: self.webhook };
        self.metrics.webhook_in_flight.get_or_create(&label).dec();
        self.metrics.webhook_latency.0.get_or_create(&label).observe(self.started.elapsed().as_secs_f64());
        let labels = WebhookCodeLabels { webhook: self.webhook, code: self.code };
        self.metrics.webhook_requests.get_or_create(&labels).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_chapter() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        metrics.webhook_call("/x").done(200);
        metrics.admission(
            &AdmissionLabels { result: "injected", reason: "injected", mode: "proxy-sidecar" },
            0.004,
        );
        metrics.swept.inc();
        metrics.cert_not_after(5);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"kagenti_authbridge_admissions_total{result="injected",reason="injected",mode="proxy-sidecar"} 1"#,
            r#"kagenti_authbridge_admission_duration_seconds_bucket{le="0.005",result="injected"} 1"#,
            "kagenti_authbridge_swept_total 1",
            "kagenti_webhook_cert_not_after_seconds 5.0",
            r#"controller_runtime_webhook_requests_total{webhook="/x",code="200"} 1"#,
            r#"controller_runtime_webhook_requests_in_flight{webhook="/x"} 0"#,
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }
}
