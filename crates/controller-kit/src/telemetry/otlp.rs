//! Traces to an OTLP collector, over HTTP with protobuf.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter as OtlpExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::cli::Component;
use crate::version::VERSION;

/// Either variable turns the export on.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Say how the collector wants to be spoken to.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];

/// The exporting side of tracing.
pub(super) struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// `None` when no endpoint is set. Reads the standard `OTEL_*` variables.
    pub(super) fn from_env(component: &Component, instance: &str) -> Result<Option<Self>, String> {
        let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let Some(endpoint) = ENDPOINTS.into_iter().find_map(variable) else { return Ok(None) };
        if endpoint.starts_with("https://") {
            return Err(format!(
                "the OTLP endpoint {endpoint} is https, which is not supported: use a collector in the cluster over http"
            ));
        }
        if let Some(protocol) =
            PROTOCOLS.into_iter().find_map(variable).filter(|value| value != "http/protobuf")
        {
            return Err(format!(
                "the OTLP protocol {protocol} is not supported: use http/protobuf (port 4318 of most collectors)"
            ));
        }
        let exporter = OtlpExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .build()
            .map_err(|error| error.to_string())?;
        let resource = Resource::builder()
            .with_service_name(component.name)
            .with_attributes([
                KeyValue::new("service.version", VERSION),
                KeyValue::new("service.instance.id", instance.to_owned()),
            ])
            .build();
        let exporter = OnRuntime { inner: Arc::new(exporter), runtime: Handle::current() };
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Some(Self { provider }))
    }

    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer("kagenti"))
    }

    pub(super) async fn shutdown(self, limit: Duration) {
        // The provider's own wait blocks its thread.
        let provider = self.provider;
        let work = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit));
        if tokio::time::timeout(limit, work).await.is_err() {
            tracing::debug!("traces were not all sent in {limit:?}");
        }
    }
}

/// The batch processor exports from a thread of its own, without the runtime the HTTP client needs;
/// this hands every batch to the runtime.
#[derive(Debug)]
struct OnRuntime {
    inner: Arc<OtlpExporter>,
    runtime: Handle,
}

impl SpanExporter for OnRuntime {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let inner = Arc::clone(&self.inner);
        match self.runtime.spawn(async move { inner.export(batch).await }).await {
            Ok(result) => result,
            Err(error) => Err(OTelSdkError::InternalFailure(error.to_string())),
        }
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Called once, before anything is exported, while this is the only handle.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.set_resource(resource);
        }
    }
}
