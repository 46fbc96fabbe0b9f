//! Carries out the orders of [`Context::fetch`]: builds the request when its turn comes, asks the agent, keeps the
//! answer, wakes who waits for it.

use std::sync::Arc;

use agent_trust::TrustDomain;
use api_types::{CardSource, card};
use controller_kit::apply;
use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, api::GetParams};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, FetchOrders},
    error::message_of,
    fetch::{Dial, FetchError, FetchRequest, Fetched, Outcome, PeerRule},
    index::{Service, documents},
    kinds::TargetKey,
    metrics::CONFIG_MAP,
    observation::{Asked, Document},
    settings::SourceKind,
    source::{self, Way},
    workload::Workload,
};

/// Looks for ConfigMaps at once.
const LOOKS: usize = 16;

/// Works until `stop`. One task holds all that wait for a slot; the exchanges themselves run in the fetcher's tasks.
pub async fn run(ctx: Arc<Context>, mut orders: FetchOrders, stop: CancellationToken) {
    let looks = Semaphore::new(LOOKS);
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            order = orders.recv() => match order {
                Some(target) => running.push(one(&ctx, target, &looks)),
                None => return,
            },
            Some(()) = running.next(), if !running.is_empty() => {}
        }
    }
}

async fn one(ctx: &Context, target: TargetKey, looks: &Semaphore) {
    if carry_out(ctx, &target, looks).await.is_none() {
        ctx.observations.abandon(&target);
    }
    ctx.wake_readers(&target, std::time::Duration::ZERO);
}

/// `None` = there was nothing to ask for.
async fn carry_out(ctx: &Context, target: &TargetKey, looks: &Semaphore) -> Option<()> {
    if !ctx.leadership.is_leader() {
        return None;
    }
    let workload = ctx.workload(target)?;
    let service = ctx.index.services.of_workload(&workload)?;
    let held = ctx.held(target);
    let (port, mtls) = match source::choose(&ctx.settings, ctx.verified_fetch(), held, &service) {
        Way::Refused(_) => return None,
        Way::Mtls(port) => (port, true),
        Way::Plain { config_map, http, .. } => {
            if config_map && look_for_config_map(ctx, &workload, looks).await && prefers_config_map(ctx) {
                return None;
            }
            (http?, false)
        }
    };
    let host = source::host(&service.name, &target.namespace, &ctx.settings.cluster_domain);
    let of = source::fingerprint(&workload, &host, port, mtls);
    let rolled_out = |workload: &Workload| workload.rolled_out.then(|| workload.template_hash.clone());
    let template = rolled_out(&workload);
    let label = if mtls { "mtls" } else { "http" };
    let answer = match request(ctx, &workload, &service, host, port, mtls) {
        Ok(request) => ctx.fetcher.fetch(request).await,
        Err(error) => Err(error),
    };
    if !ctx.leadership.is_leader() {
        return None;
    }
    // The same one all the while, or it may have been another one's Pod that answered.
    let template = template
        .filter(|before| ctx.workload(target).and_then(|now| rolled_out(&now)).as_ref() == Some(before));
    let asked = Asked { of, template: template.map(Into::into) };
    let result = match answer {
        Ok(Fetched { outcome, validator, attested, took }) => {
            ctx.metrics.took(label, took);
            if let Some(due) = ctx.observations.due(target) {
                ctx.metrics.late(label, due.elapsed().saturating_sub(took));
            }
            let source = if mtls { CardSource::Mtls } else { CardSource::Http };
            let (document, result) = match outcome {
                Outcome::Body(body) => (Some(Document::new(body.to_vec(), source, attested)), "success"),
                Outcome::NotModified => (None, "not_modified"),
            };
            ctx.metrics.fetched(label, result);
            ctx.observations.end(target, asked, Ok(document), validator)
        }
        Err(FetchError::Stopped | FetchError::QueueFull) => return None,
        Err(error) => {
            ctx.metrics.fetched(label, error.class());
            ctx.observations.end(target, asked, Err(error), None)
        }
    };
    result.then_some(())
}

fn prefers_config_map(ctx: &Context) -> bool {
    ctx.settings.card_sources.first() == Some(&SourceKind::ConfigMap)
}

fn request(
    ctx: &Context,
    workload: &Workload,
    service: &Service,
    host: String,
    port: u16,
    mtls: bool,
) -> Result<FetchRequest, FetchError> {
    let namespace = &workload.key.namespace;
    let tls = if mtls {
        let domain: TrustDomain = ctx.trust.domain().ok_or(FetchError::NoSvid)?;
        Some(PeerRule { trust_domain: domain })
    } else {
        None
    };
    let (validator, suspect) = ctx.observations.hints(&workload.key);
    Ok(FetchRequest {
        namespace: namespace.as_str().into(),
        dial: dial(ctx, workload, service, port)?,
        host,
        port,
        tls,
        validator,
        suspect,
    })
}

fn dial(ctx: &Context, workload: &Workload, service: &Service, port: u16) -> Result<Dial, FetchError> {
    let namespace = &workload.key.namespace;
    let slices = if source::needs_slices(&ctx.settings, service) {
        ctx.need_slices();
        ctx.index.services.slices(namespace, &service.name)
    } else {
        Vec::new()
    };
    let pods = ctx.index.pods.of(&workload.key);
    let owned = |name: &str| pods.iter().any(|pod| pod.key.name == name);
    source::dial(&ctx.settings, namespace, service, port, &slices, &owned).map_err(|_| FetchError::NoAddress)
}

/// Asks for the ConfigMap of an old signer when it is time; true when that found a document. One that was there before
/// was of no use, or nobody would have ordered a fetch.
async fn look_for_config_map(ctx: &Context, workload: &Workload, looks: &Semaphore) -> bool {
    let key = &workload.key;
    if ctx.index.documents.get(&key.namespace, &key.name).is_some()
        || ctx.unlabelled.wait(key, &workload.content_hash).is_some()
        || !ctx.unlabelled.turn(key, &workload.content_hash)
    {
        return false;
    }
    let Ok(_turn) = looks.acquire().await else { return false };
    let name = card::signed_config_map(&key.name);
    let api = Api::<ConfigMap>::namespaced(ctx.client.clone(), &key.namespace);
    let known = ctx.unlabelled.get(key).map(|known| known.to_vec()).unwrap_or_default();
    ctx.refused.remove(key);
    // Any version the API server has at hand will do, so that etcd is not asked.
    let found = match api.get_with(&name, &GetParams::at("0")).await {
        Ok(map) => {
            let found = documents::candidates(&map);
            // A new document is counted when it is used.
            if !found.is_empty() && found == known {
                ctx.metrics.fetched(CONFIG_MAP, "not_modified");
            }
            found
        }
        Err(error) if apply::is_not_found(&error) => {
            ctx.metrics.fetched(CONFIG_MAP, "not_found");
            Vec::new()
        }
        Err(error) => {
            let why = message_of(&error);
            tracing::debug!(workload = %key, "cannot read ConfigMap {name}: {why}");
            if apply::is_forbidden(&error) {
                ctx.metrics.fetched(CONFIG_MAP, "forbidden");
                ctx.refused.insert(key.clone(), why);
                Vec::new()
            } else {
                ctx.metrics.fetched(CONFIG_MAP, "failed");
                // Nothing was found out, so what was there still counts.
                known
            }
        }
    };
    let any = !found.is_empty();
    ctx.unlabelled.saw(key, &workload.content_hash, found);
    any
}
