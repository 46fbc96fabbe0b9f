//! TLS-bridge CA: one cert-manager Certificate per workload that decrypts outbound HTTPS (runtime §15).

use api_types::{
    AgentRuntime,
    names::{MANAGED_BY_OPERATOR, condition, label, manager, reason},
    owner::tls_bridge_secret_name,
};
use controller_kit::apply::{self, FieldManager};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, PostParams, Preconditions},
};
use serde_json::{Value, json};

use crate::{
    context::Context,
    drift::short_hash,
    error::{Error, code_of, message_of},
    index::{Certificate, CertificateView, OwnerKey, RuntimeKey},
    settings::{IssuerName, TlsBridgeCa},
    status::Verdict,
    workload::Workload,
};

/// The issuer made in a namespace when no flag names another one.
const SELF_SIGNED: &str = "authbridge-tls-bridge-selfsigned";
/// Longest common name that cert-manager accepts, in bytes.
const LONGEST_NAME: usize = 64;

/// What the bridge asks of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Condition TLSBridgeReady; absent while the mode is disabled.
    pub verdict: Option<Verdict>,
    /// Annotation `kagenti.io/tls-bridge-ca-hash`, from the second revision of the certificate on.
    pub ca_hash: Option<String>,
}

/// Makes or removes the Certificate of a workload.
///
/// # Errors
/// Only [`Error::Pass`], when this replica does not lead; what the API server refuses is in the condition.
pub async fn ensure(
    ctx: &Context,
    runtime: &AgentRuntime,
    workload: &Workload,
    enabled: bool,
) -> Result<Bridge, Error> {
    if ctx.settings.enable_tls_bridge_ca == TlsBridgeCa::False {
        return Ok(Bridge::default());
    }
    let name = tls_bridge_secret_name(&workload.key.name);
    remove_others(ctx, runtime, workload, enabled.then_some(name.as_str())).await?;
    if !enabled {
        drop_secret(ctx, workload).await;
        return Ok(Bridge::default());
    }
    ctx.orphaned_secrets.remove(&workload.key);
    if !ctx.cert_manager() {
        let verdict = Verdict::no(
            reason::CERT_MANAGER_MISSING,
            "tlsBridgeMode is enabled, but cert-manager (cert-manager.io/v1) is not installed: Pods wait for Secret \
             {name}; install cert-manager, or set tlsBridgeMode to disabled"
                .replace("{name}", &name),
        );
        return Ok(Bridge { verdict: Some(verdict), ca_hash: None });
    }
    let verdict = match issue(ctx, runtime, workload, &name).await? {
        Ok(certificate) => return Ok(observe(&certificate)),
        Err(verdict) => verdict,
    };
    tracing::debug!(workload = %workload.key, "{}: {}", condition::TLS_BRIDGE_READY, verdict.message);
    Ok(Bridge { verdict: Some(verdict), ca_hash: None })
}

/// Pure: what the state of the Certificate means.
fn observe(certificate: &Certificate) -> Bridge {
    let of = |type_: &str| certificate.status.conditions.iter().find(|c| c.type_ == type_);
    let name = &certificate.name;
    if of("Ready").is_some_and(|ready| ready.status == "True") && !certificate.deleting {
        let revision = certificate.status.revision.unwrap_or(1);
        let hash = (revision >= 2).then(|| short_hash(format!("{}/{revision}", certificate.uid).as_bytes()));
        let verdict = Verdict::yes(reason::ISSUED, format!("Certificate {name} is issued"));
        return Bridge { verdict: Some(verdict), ca_hash: hash };
    }
    let failed = of("Issuing").filter(|issuing| issuing.status == "False" && issuing.reason == "Failed");
    let verdict = match failed {
        Some(issuing) => Verdict::no(
            reason::ISSUE_FAILED,
            format!("Certificate {name} could not be issued: {}", issuing.message),
        ),
        None => Verdict::no(
            reason::WAITING_FOR_CERTIFICATE,
            format!("Certificate {name} is not issued yet; new Pods wait for Secret {name}"),
        ),
    };
    Bridge { verdict: Some(verdict), ca_hash: None }
}

/// The common name: over the limit its first 55 bytes and 8 hex of its SHA-256.
fn common_name(runtime: &str) -> String {
    let full = format!("authbridge-tls-bridge-ca-{runtime}");
    if full.len() <= LONGEST_NAME {
        return full;
    }
    let hash = short_hash(full.as_bytes());
    let head = crate::status::cut(&full, 55);
    format!("{head}-{}", hash.get(..8).unwrap_or(&hash))
}

/// Pure: the wanted spec.
fn spec(runtime: &str, name: &str, issuer: Option<&IssuerName>) -> Value {
    json!({
        "isCA": true,
        "commonName": common_name(runtime),
        "secretName": name,
        "duration": "2160h",
        "renewBefore": "360h",
        "privateKey": { "algorithm": "ECDSA", "size": 256 },
        "usages": ["cert sign", "digital signature"],
        "issuerRef": {
            "name": issuer.map_or(SELF_SIGNED, |issuer| issuer.name.as_str()),
            "kind": issuer.map_or("Issuer", |issuer| issuer.kind),
            "group": "cert-manager.io",
        },
    })
}

/// True when a live spec is the wanted one. The API server and cert-manager add fields and spell durations out.
fn same_spec(live: &Value, wanted: &Value) -> bool {
    let mut live = live.clone();
    for key in ["duration", "renewBefore"] {
        let spelled = live
            .get(key)
            .and_then(Value::as_str)
            .and_then(|text| text.strip_suffix("0m0s"))
            .map(str::to_owned);
        if let (Some(text), Some(slot)) = (spelled, live.get_mut(key)) {
            *slot = Value::String(text);
        }
    }
    apply::covers(&live, wanted)
}

fn certificates(ctx: &Context, namespace: &str) -> Api<CertificateView> {
    Api::namespaced(ctx.client.clone(), namespace)
}

async fn issue(
    ctx: &Context,
    runtime: &AgentRuntime,
    workload: &Workload,
    name: &str,
) -> Result<Result<Certificate, Verdict>, Error> {
    let namespace = &workload.key.namespace;
    let wanted = spec(&runtime.name_any(), name, ctx.settings.tls_bridge_issuer.as_ref());
    let known = ctx.index.certificates.get(namespace, name);
    if let Some(known) = &known {
        let ours = Some(&known.runtime_uid) == runtime.metadata.uid.as_ref();
        if ours && (known.deleting || same_spec(&known.spec, &wanted)) {
            return Ok(Ok(known.as_ref().clone()));
        }
    }
    ctx.may_write()?;
    if ctx.settings.tls_bridge_issuer.is_none()
        && let Err(error) = ensure_issuer(ctx, namespace).await
    {
        return Ok(Err(failed(name, &error)));
    }
    let api = certificates(ctx, namespace);
    let manager = FieldManager::new(manager::RUNTIME_CTL);
    let body = json!({
        "metadata": {
            "namespace": namespace,
            "labels": { label::MANAGED_BY: MANAGED_BY_OPERATOR },
            "ownerReferences": [owner_reference(runtime)],
        },
        "spec": wanted,
    });
    let answer = match known {
        // Ours with an older spec, or of the AgentRuntime that owned the workload before: its list of owners is
        // replaced as a whole.
        Some(known) => {
            let preconditions = Preconditions {
                uid: Some(known.uid.clone()),
                resource_version: Some(known.resource_version.clone()),
            };
            match apply::merge_patch(&api, name, manager, body, &preconditions).await {
                Ok(_) => api.get(name).await,
                Err(error) => Err(error),
            }
        }
        None => create(&api, name, body).await,
    };
    Ok(match answer.map(Certificate::from_view) {
        Ok(Some(certificate)) => {
            ctx.index.certificates.upsert(certificate.clone());
            tracing::info!(workload = %workload.key, certificate = name, "requested the TLS-bridge CA");
            Ok(certificate)
        }
        Ok(None) => Err(conflict(namespace, name)),
        Err(error) if code_of(&error) == 409 => Err(conflict(namespace, name)),
        Err(error) => Err(failed(name, &error)),
    })
}

async fn create(api: &Api<CertificateView>, name: &str, mut body: Value) -> kube::Result<CertificateView> {
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("name".into(), name.into());
    }
    let certificate: CertificateView = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
    let params = PostParams { field_manager: Some(manager::RUNTIME_CTL.into()), ..PostParams::default() };
    // A plain create, never an apply: a Certificate that somebody else made must not be taken over.
    match api.create(&params, &certificate).await {
        // The watch may be behind our own create.
        Err(error) if code_of(&error) == 409 => api.get(name).await,
        answer => answer,
    }
}

fn owner_reference(runtime: &AgentRuntime) -> Value {
    json!({
        "apiVersion": format!("{}/{}", api_types::names::GROUP, api_types::names::VERSION),
        "kind": "AgentRuntime",
        "name": runtime.name_any(),
        "uid": runtime.uid(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

fn conflict(namespace: &str, name: &str) -> Verdict {
    Verdict::no(
        reason::CONFLICT,
        format!(
            "Certificate {name} in namespace {namespace} exists and belongs to somebody else: delete it to have the \
             TLS-bridge CA issued"
        ),
    )
}

fn failed(name: &str, error: &kube::Error) -> Verdict {
    Verdict::no(
        reason::ISSUE_FAILED,
        format!("Certificate {name} could not be requested: {}", message_of(error)),
    )
}

async fn ensure_issuer(ctx: &Context, namespace: &str) -> kube::Result<()> {
    let resource = ApiResource {
        group: "cert-manager.io".into(),
        version: "v1".into(),
        api_version: "cert-manager.io/v1".into(),
        kind: "Issuer".into(),
        plural: "issuers".into(),
    };
    let api = Api::<DynamicObject>::namespaced_with(ctx.client.clone(), namespace, &resource);
    // A live read, only when a Certificate is about to be requested.
    if api.get_metadata_opt(SELF_SIGNED).await?.is_some() {
        return Ok(());
    }
    let mut issuer = DynamicObject::new(SELF_SIGNED, &resource).data(json!({ "spec": { "selfSigned": {} } }));
    issuer.labels_mut().insert(label::MANAGED_BY.into(), MANAGED_BY_OPERATOR.into());
    let params = PostParams { field_manager: Some(manager::RUNTIME_CTL.into()), ..PostParams::default() };
    match api.create(&params, &issuer).await {
        Err(error) if code_of(&error) != 409 => Err(error),
        _ => Ok(()),
    }
}

/// Deletes the Certificates of an AgentRuntime but the wanted one.
async fn remove_others(
    ctx: &Context,
    runtime: &AgentRuntime,
    workload: &Workload,
    wanted: Option<&str>,
) -> Result<(), Error> {
    let mine = ctx.index.certificates.controlled_by(&RuntimeKey::of(runtime));
    for certificate in mine.iter().filter(|c| !c.deleting && wanted != Some(c.name.as_str())) {
        ctx.may_write()?;
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(certificate.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        match certificates(ctx, &certificate.namespace).delete(&certificate.name, &params).await {
            Err(error) if !matches!(code_of(&error), 404 | 409) => {
                tracing::warn!(certificate = certificate.name, "cannot be deleted: {}", message_of(&error));
            }
            _ => {
                tracing::info!(certificate = certificate.name, "TLS-bridge CA removed");
                ctx.index.certificates.remove(&certificate.namespace, &certificate.name);
                ctx.orphaned_secrets.insert(workload.key.clone(), certificate.name.clone());
            }
        }
    }
    Ok(())
}

/// Deletes the Secret of a removed Certificate once no Pod mounts it. Without the right to (there is none
/// cluster-wide, runtime §19.3) it stays.
async fn drop_secret(ctx: &Context, workload: &Workload) {
    let Some(name) = ctx.orphaned_secrets.get(&workload.key) else { return };
    let pods = ctx.index.pods.of(&OwnerKey::from(&workload.key));
    if pods.iter().any(|pod| pod.resolved.as_ref().is_some_and(|resolved| resolved.tls_bridge == Some(true)))
    {
        return;
    }
    ctx.orphaned_secrets.remove(&workload.key);
    let api = Api::<Secret>::namespaced(ctx.client.clone(), &workload.key.namespace);
    if let Err(error) = api.delete(&name, &DeleteParams::default()).await
        && code_of(&error) != 404
    {
        tracing::info!(
            namespace = workload.key.namespace,
            "Secret {name} of the former TLS-bridge CA stays: {}",
            message_of(&error)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::CertificateView;
    use rstest::rstest;

    fn certificate(status: &Value) -> Certificate {
        let view: CertificateView = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "w-tls-bridge-ca", "uid": "u", "ownerReferences": [
                {"apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime", "name": "rt", "uid": "r",
                 "controller": true}]},
            "status": status,
        }))
        .unwrap();
        Certificate::from_view(view).unwrap()
    }

    #[rstest]
    #[case(json!({}), reason::WAITING_FOR_CERTIFICATE, false)]
    #[case(json!({"revision": 1, "conditions": [{"type": "Ready", "status": "True"}]}), reason::ISSUED, false)]
    #[case(json!({"revision": 2, "conditions": [{"type": "Ready", "status": "True"}]}), reason::ISSUED, true)]
    #[case(json!({"conditions": [{"type": "Issuing", "status": "False", "reason": "Failed", "message": "no"}]}),
        reason::ISSUE_FAILED, false)]
    fn states(#[case] status: Value, #[case] reason: &str, #[case] hash: bool) {
        let bridge = observe(&certificate(&status));
        assert_eq!(bridge.verdict.unwrap().reason, reason);
        assert_eq!(bridge.ca_hash.is_some(), hash);
    }

    /// README decision 19: the hash follows uid and revision, nothing else.
    #[test]
    fn the_hash_follows_the_revision() {
        let of = |revision: i64| {
            observe(&certificate(
                &json!({"revision": revision, "conditions": [{"type": "Ready", "status": "True"}]}),
            ))
            .ca_hash
        };
        assert_eq!(of(2), of(2));
        assert_ne!(of(2), of(3));
        assert_eq!(of(2).unwrap().len(), 16);
    }

    #[test]
    fn long_common_names_are_shortened() {
        assert_eq!(common_name("weather"), "authbridge-tls-bridge-ca-weather");
        let long = common_name(&"x".repeat(60));
        assert_eq!(long.len(), 64);
        assert!(long.starts_with("authbridge-tls-bridge-ca-xxx"));
        assert_ne!(long, common_name(&"x".repeat(61)));
    }

    #[test]
    fn spelled_out_durations_are_the_same() {
        let wanted = spec("rt", "w-tls-bridge-ca", None);
        let mut live = wanted.clone();
        live["duration"] = json!("2160h0m0s");
        live["privateKey"]["rotationPolicy"] = json!("Always");
        assert!(same_spec(&live, &wanted));
        let issuer: IssuerName = "ClusterIssuer/ca".parse().unwrap();
        assert!(!same_spec(&live, &spec("rt", "w-tls-bridge-ca", Some(&issuer))));
    }
}
