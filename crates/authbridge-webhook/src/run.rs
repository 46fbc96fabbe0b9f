//! Wiring: from parsed flags to a running process.

use std::{process::ExitCode, sync::Arc, time::Duration};

use api_types::names::LEGACY_LEASE;
use axum::Router;
use controller_kit::{
    cli::CommonArgs,
    lease::Leadership,
    process::Process,
    serve::{Listener, Server},
    tls::{CertFiles, ServingCert, server_config},
    watch::{WatchOptions, watch_stream},
};
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    core::v1::Secret,
};
use kube::{Api, runtime::watcher};

use crate::{
    caches::Caches,
    certificates::{
        manager::{Manager, Place, Views},
        plan::Lifetimes,
        serving,
        views::View,
    },
    config::{Config, Reloader},
    live::Live,
    metrics::Metrics,
    owners::Owners,
    pods::PodEndpoint,
    registration::{CARDS_PATH, PODS_PATH, RUNTIMES_PATH},
    server::{
        admission_gate::Limits,
        endpoint::{Endpoint, Handler, router},
    },
    settings::{COMPONENT, Settings},
    sweeper::Sweeper,
    validators::{CardValidator, RuntimeValidator, recent::Recent},
    watches,
    writes::{Writer, WritesAllowed},
};

/// Most connections at a time; with HTTP/1.1 an API server holds one per call in flight.
const MAX_CONNECTIONS: usize = 4096;
/// An idle connection is closed after this; API servers close theirs after 90 s.
const IDLE: Duration = Duration::from_mins(2);
/// After SIGTERM: unready, but serving, until API servers and proxies have learned it (webhook §16).
const SHUTDOWN_DELAY: Duration = Duration::from_secs(10);
/// Then running calls may finish; longer than the deadline of a call.
const DRAIN: Duration = Duration::from_secs(9);
/// Room of the Pod endpoint: calls wait on the API server, not on a processor.
const POD_LIMITS: Limits = Limits { running: 512, waiting: 1024 };
/// Room of each validator.
const VALIDATOR_LIMITS: Limits = Limits { running: 64, waiting: 256 };

/// Runs the webhook until it is told to stop.
pub async fn run(common: &CommonArgs, own: &Settings) -> ExitCode {
    let lifetimes = match own.lifetimes() {
        Ok(lifetimes) => lifetimes,
        Err(error) => return unusable(&error),
    };
    let metrics = Arc::new(Metrics::default());
    let (config, reloader) = match Config::load(&own.config_path, &own.feature_gates_path, metrics.clone()) {
        Ok(loaded) => loaded,
        Err(error) => return unusable(&error),
    };
    let mut process = match Process::start(&COMPONENT, common).await {
        Ok(process) => process,
        Err(error) => return error.report(&COMPONENT),
    };
    process.metrics().with_registry(|registry| metrics.register(registry));
    process.set_shutdown_delay(SHUTDOWN_DELAY);
    process.set_grace(DRAIN + Duration::from_secs(1));
    if let Err(error) = start(&process, own, lifetimes, metrics, config, reloader).await {
        return error.report(&COMPONENT);
    }
    process.run().await
}

/// Settings or files that cannot be used: says why; exit code 2 (README decision 21).
pub fn unusable(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("{}: {error}", COMPONENT.name);
    ExitCode::from(2)
}

async fn start(
    process: &Process,
    own: &Settings,
    lifetimes: Lifetimes,
    metrics: Arc<Metrics>,
    config: Arc<Config>,
    reloader: Reloader,
) -> Result<(), controller_kit::process::StartError> {
    let client = process.client();
    let caches = Arc::new(Caches::default());
    let leadership = process.leadership();

    // Once it serves, it goes on serving from its indexes while the API server restarts.
    process.readiness().latch("kubernetes-api");
    let (tasks, synced) = watches::tasks(&client, process.scope(), &process.watches(), &caches);
    for (name, task) in tasks {
        endless(process, name, task);
    }
    let stop = process.stop();
    process.spawn("configuration files", async move {
        reloader.run(stop).await;
        Ok(())
    });

    let sweeper = Sweeper::new(
        client.clone(),
        caches.clone(),
        metrics.clone(),
        leader_only(leadership.clone()),
        own.patience(),
    );
    let sweeps = {
        let leadership = leadership.clone();
        async move {
            leadership.wait_until_leader().await;
            sweeper.run().await;
        }
    };
    endless(process, "orphan sweeper", sweeps);
    if !own.serves() {
        tracing::info!("ENABLE_WEBHOOKS is false: admission is not served");
        return Ok(());
    }

    let owners = Arc::new(Owners::new(client.clone(), metrics.clone()));
    let live = Arc::new(Live::new(client.clone(), metrics.clone()));
    let writer = Arc::new(Writer::new(
        client.clone(),
        caches.clone(),
        owners.clone(),
        live.clone(),
        metrics.clone(),
        guarded(leadership.clone()),
    ));
    let pods = PodEndpoint {
        caches: caches.clone(),
        config,
        owners,
        live: live.clone(),
        writer,
        metrics: metrics.clone(),
        events: process.events(),
        scope: process.scope().clone(),
        operator_namespace: process.operator_namespace().to_owned(),
        synced,
    };
    let runtimes = RuntimeValidator {
        caches: caches.clone(),
        live: live.clone(),
        recent: Recent::default(),
        scope: process.scope().clone(),
    };
    let cards = CardValidator { caches, live, recent: Recent::default(), scope: process.scope().clone() };
    let router = endpoints(Arc::new(pods), Arc::new(runtimes), Arc::new(cards), &metrics);

    let certificate = ServingCert::empty();
    certificates(process, own, lifetimes, &certificate, &leadership, &metrics);
    if let Some(listener) = Listener::bind("admission", own.webhook_bind_address).await? {
        let http2 = process.http2();
        let tls = server_config(certificate, http2)
            .map_err(controller_kit::process::StartError::MetricsCertificate)?;
        let server = Server {
            tls: Some(tls),
            http2,
            max_connections: MAX_CONNECTIONS,
            idle: IDLE,
            drain: DRAIN,
            leaving: process.leaving(),
        };
        let stop = process.stop();
        process.spawn("admission", async move {
            server.run(listener, router, stop).await;
            Ok(())
        });
    }
    Ok(())
}

/// The router of the three endpoints, each with its own room.
pub fn endpoints(
    pods: Arc<dyn Handler>,
    runtimes: Arc<dyn Handler>,
    cards: Arc<dyn Handler>,
    metrics: &Arc<Metrics>,
) -> Router {
    router([
        Endpoint::new(PODS_PATH, POD_LIMITS, pods, metrics.clone()),
        Endpoint::new(RUNTIMES_PATH, VALIDATOR_LIMITS, runtimes, metrics.clone()),
        Endpoint::new(CARDS_PATH, VALIDATOR_LIMITS, cards, metrics.clone()),
    ])
}

/// Starts whatever keeps the serving certificate good.
fn certificates(
    process: &Process,
    own: &Settings,
    lifetimes: Lifetimes,
    certificate: &ServingCert,
    leadership: &Leadership,
    metrics: &Arc<Metrics>,
) {
    let readiness = process.readiness();
    readiness.register(serving::CHECK, "no serving certificate yet");
    let place = own.place(process.operator_namespace());
    if !own.manages_certificate() {
        let files =
            CertFiles::new(own.webhook_cert_path.as_ref(), &own.webhook_cert_name, &own.webhook_cert_key);
        endless(
            process,
            "certificate files",
            serving::follow_files(files, certificate.clone(), metrics.clone()),
        );
        let judge = serving::judge(readiness, certificate.clone(), None, place.names);
        endless(process, "certificate readiness", judge);
        return;
    }
    let views = watch_certificates(process, own, &place);
    endless(
        process,
        "serving certificate",
        serving::follow_secret(views.clone(), certificate.clone(), metrics.clone()),
    );
    let judge = serving::judge(readiness, certificate.clone(), Some(views.clone()), place.names.clone());
    endless(process, "certificate readiness", judge);
    let manager = Manager::new(process.client(), place, lifetimes, views);
    endless(process, "certificate writer", manager.run(leadership.clone()));
}

/// Watches the two Secrets and, where this process publishes to them, the two configurations.
fn watch_certificates(process: &Process, own: &Settings, place: &Place) -> Views {
    let client = process.client();
    let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    let secrets = Api::<Secret>::namespaced(client.clone(), &place.namespace);
    let mut views = Views::default();
    for (view, name) in [(&views.serving, place.secret.clone()), (&views.authority, place.authority_secret())]
    {
        let options = WatchOptions::new("secrets").check(format!("secret {name}"));
        let events = watch_stream(&process.watches(), secrets.clone(), named(&name), options);
        let view: View<Secret> = view.clone();
        endless(process, "watch certificate secret", async move { view.follow(events).await });
    }
    if !own.webhook_publish_ca || process.scope().is_namespaced() {
        return views;
    }
    let view = View::<MutatingWebhookConfiguration>::default();
    let name = own.mutating_configuration();
    let options = WatchOptions::new("mutatingwebhookconfigurations").check(name.clone());
    let events = watch_stream(&process.watches(), Api::all(client.clone()), named(&name), options);
    views.mutating = Some(view.clone());
    endless(process, "watch mutating configuration", async move { view.follow(events).await });

    let view = View::<ValidatingWebhookConfiguration>::default();
    let name = own.validating_configuration();
    let options = WatchOptions::new("validatingwebhookconfigurations").check(name.clone());
    let events = watch_stream(&process.watches(), Api::all(client), named(&name), options);
    views.validating = Some(view.clone());
    endless(process, "watch validating configuration", async move { view.follow(events).await });
    views
}

/// Runs a task that never ends until the process stops.
fn endless(process: &Process, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    let stop = process.stop();
    process.spawn(name, async move {
        stop.run_until_cancelled(task).await;
        Ok(())
    });
}

/// Admission writes on every replica, but not beside the operator this product replaces.
fn guarded(leadership: Leadership) -> WritesAllowed {
    Arc::new(move || if leadership.guard_is_open() { Ok(()) } else { Err(LEGACY_LEASE) })
}

/// The sweeper's writes need the Lease as well.
fn leader_only(leadership: Leadership) -> WritesAllowed {
    Arc::new(move || if leadership.is_leader() { Ok(()) } else { Err(LEGACY_LEASE) })
}
