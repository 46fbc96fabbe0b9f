//! What serves the process itself, and not the work of the component.

use std::future::Future;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use tokio_util::sync::CancellationToken;

use super::StartError;
use crate::authz::Reviewer;
use crate::cli::CommonArgs;
use crate::client::Reachability;
use crate::events::EventSender;
use crate::lease::Election;
use crate::metrics::Metrics;
use crate::metrics_door;
use crate::readiness::Readiness;
use crate::serve::{Listener, Server};
use crate::supervise::{Supervisor, Tasks};
use crate::tls::{CertFiles, DEFAULT_POLL, KeyPair, ServingCert, TlsError, self_signed, server_config};

/// Self-signed metrics certificate; a process that lives longer is restarted by then.
const METRICS_CERT_DAYS: i64 = 3650;

/// Name of the task that renews the Lease.
pub(super) const LEASE_TASK: &str = "lease";

/// The tasks that serve the process itself. They outlive the component's: probes answer and the
/// Lease is renewed until the work has ended.
pub(super) struct System {
    pub(super) tasks: Tasks,
    pub(super) supervisor: Supervisor,
    pub(super) halt: CancellationToken,
}

impl System {
    pub(super) fn endless(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let halt = self.halt.clone();
        self.tasks.spawn(name, async move {
            halt.run_until_cancelled(task).await;
            Ok(())
        });
    }

    pub(super) fn serve(&self, name: &'static str, server: Server, listener: Listener, router: axum::Router) {
        let halt = self.halt.clone();
        self.tasks.spawn(name, async move {
            server.run(listener, router, halt).await;
            Ok(())
        });
    }

    pub(super) fn reachability(
        &self,
        reachability: Arc<Reachability>,
        client: &Client,
        readiness: &Readiness,
    ) {
        reachability.register(readiness);
        let (client, readiness) = (client.clone(), readiness.clone());
        self.endless("reachability", async move { reachability.run(client, readiness).await });
    }

    pub(super) fn events(&self, sender: EventSender) {
        let halt = self.halt.clone();
        self.tasks.spawn("events", async move {
            sender.run(halt).await;
            Ok(())
        });
    }

    pub(super) fn election(&self, election: Election) {
        let halt = self.halt.clone();
        self.tasks.spawn(LEASE_TASK, async move { election.run(halt).await.map_err(Into::into) });
    }

    pub(super) async fn metrics_door(
        &self,
        listener: Listener,
        args: &CommonArgs,
        client: &Client,
        metrics: &Metrics,
    ) -> Result<(), StartError> {
        let mut server = Server::small();
        let mut reviewer = None;
        if args.metrics_secure {
            let serving = ServingCert::empty();
            match &args.metrics_cert_path {
                Some(directory) => {
                    let files = CertFiles::new(directory, &args.metrics_cert_name, &args.metrics_cert_key);
                    let pair = files.load(Timestamp::now()).await.map_err(StartError::MetricsCertificate)?;
                    serving.set(pair);
                    self.endless("metrics-certificate", files.watch(serving.clone(), DEFAULT_POLL, |_| {}));
                }
                None => serving.set(own_certificate().map_err(StartError::MetricsCertificate)?),
            }
            server.tls =
                Some(server_config(serving, args.enable_http2).map_err(StartError::MetricsCertificate)?);
            server.http2 = args.enable_http2;
            reviewer = Some(Reviewer::new(client.clone(), "/metrics"));
        }
        self.serve("metrics", server, listener, metrics_door::router(metrics.clone(), reviewer));
        Ok(())
    }
}

fn own_certificate() -> Result<KeyPair, TlsError> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let (certificate, key) = self_signed(names, SignedDuration::from_hours(24 * METRICS_CERT_DAYS))?;
    KeyPair::from_pem(certificate.as_bytes(), key.as_bytes(), Timestamp::now())
}
