//! From the serving Secret or the certificate files to the listener, and to `/readyz`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use controller_kit::{
    readiness::Readiness,
    tls::{CertFiles, DEFAULT_POLL, KeyPair, ServingCert},
};
use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

use super::{manager::Views, pki::Certificate, plan, secrets::Serving};
use crate::metrics::Metrics;

/// Name of the readiness check.
pub const CHECK: &str = "serving-certificate";
/// How often readiness is judged: looking costs nothing, and a start is not held up by it.
const JUDGE_STARTING: Duration = Duration::from_millis(20);
const JUDGE_READY: Duration = Duration::from_secs(1);

/// Serves what the serving Secret holds, for as long as it is polled. A content that cannot be used
/// is logged and counted once; the pair in use stays.
pub async fn follow_secret(views: Views, serving: ServingCert, metrics: Arc<Metrics>) {
    let mut changes = views.serving.subscribe();
    let mut complained: Option<String> = None;
    loop {
        let seen = changes.borrow_and_update().clone();
        if let Some(secret) = seen.object {
            let version = secret.metadata.resource_version.clone();
            let usable = Serving::from_secret(&secret).map_err(|e| e.to_string()).and_then(|content| {
                let (chain, key) = content.pem();
                let pair = KeyPair::from_pem(chain, key, Timestamp::now()).map_err(|e| e.to_string())?;
                Ok((pair, content.leaf))
            });
            match usable {
                Ok((pair, leaf)) => {
                    complained = None;
                    take(&serving, pair, &leaf, &metrics);
                }
                Err(error) if complained != version => {
                    complained = version;
                    metrics.cert_reload_errors.inc();
                    tracing::warn!(error, "the serving Secret cannot be used; the certificate in use stays");
                }
                Err(_) => {}
            }
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn take(serving: &ServingCert, pair: KeyPair, leaf: &Certificate, metrics: &Metrics) {
    let same = serving.current().is_some_and(|current| current.chain() == pair.chain());
    if same {
        return;
    }
    let names = leaf.names().iter().map(String::as_str).collect::<Vec<_>>().join(",");
    tracing::info!(until = %leaf.not_after(), names, "serving certificate loaded");
    metrics.cert_not_after(leaf.not_after().as_second());
    serving.set(pair);
}

/// Serves what the files hold, for as long as it is polled.
pub async fn follow_files(files: CertFiles, serving: ServingCert, metrics: Arc<Metrics>) {
    let report = move |outcome: Result<&KeyPair, &controller_kit::tls::TlsError>| match outcome {
        Ok(pair) => metrics.cert_not_after(pair.not_after.as_second()),
        Err(_) => {
            metrics.cert_reload_errors.inc();
        }
    };
    files.watch(serving, DEFAULT_POLL, report).await;
}

/// Keeps the readiness check true, for as long as it is polled: a certificate that lasts, and, when
/// it is self-managed (`views` given), configurations that trust it.
pub async fn judge(
    readiness: Readiness,
    serving: ServingCert,
    views: Option<Views>,
    names: BTreeSet<String>,
) {
    loop {
        let wait = match verdict(&serving, views.as_ref(), &names, Timestamp::now()) {
            Ok(()) => {
                readiness.set_ok(CHECK);
                JUDGE_READY
            }
            Err(reason) => {
                readiness.set_failing(CHECK, reason);
                JUDGE_STARTING
            }
        };
        sleep(wait).await;
    }
}

/// Whether admission can be served with the current certificate, else why not.
pub fn verdict(
    serving: &ServingCert,
    views: Option<&Views>,
    names: &BTreeSet<String>,
    now: Timestamp,
) -> Result<(), String> {
    let Some(pair) = serving.current() else {
        return Err("no serving certificate yet".to_owned());
    };
    let leaf = pair.chain().first().and_then(|der| Certificate::from_der(der.clone()).ok());
    let Some(leaf) = leaf else {
        return Err("the serving certificate cannot be read".to_owned());
    };
    let left = leaf.not_after().duration_since(now);
    let margin = plan::readiness_margin(&leaf);
    if left < margin {
        return Err(format!(
            "the serving certificate ends at {}, in less than {}; renew it",
            leaf.not_after(),
            text(margin)
        ));
    }
    let Some(views) = views else { return Ok(()) };
    if !names.is_subset(leaf.names()) {
        return Err("the serving certificate is for other names".to_owned());
    }
    let authority =
        views.serving.now().object.and_then(|s| Serving::from_secret(&s).ok()).map(|s| s.authority);
    match authority {
        // The Secret is gone or damaged for the moment; what is served was published before.
        None => Ok(()),
        Some(authority) if views.trust(&[&authority]) => Ok(()),
        Some(_) => {
            Err("no caBundle published yet: the webhook configurations do not trust the serving certificate"
                .to_owned())
        }
    }
}

fn text(duration: SignedDuration) -> String {
    format!("{}s", duration.as_secs())
}
