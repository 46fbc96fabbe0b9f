//! Istio ambient mesh: two labels on the namespaces of agents (runtime §10).

use std::{collections::BTreeMap, time::Duration};

use api_types::names::{annotation, label, manager, reason};
use controller_kit::memory::Memory;
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::PartialObjectMeta,
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    context::Context,
    error::{Error, PassError, code_of, message_of},
    index::{NamespaceFacts, NamespaceState},
    status::{Truth, Verdict},
};

/// What we set, in the order of the specification.
const LABELS: [(&str, &str); 2] =
    [(label::ISTIO_DISCOVERY, "enabled"), (label::ISTIO_DATAPLANE_MODE, "ambient")];

/// How long a refusal of the API server is believed.
const REFUSED_FOR: Duration = Duration::from_secs(600);
const FAILED_FOR: Duration = Duration::from_secs(30);

/// What is remembered about namespaces that could not be labelled.
#[derive(Default)]
pub struct MeshMemory {
    refused: Memory<String, (Instant, Verdict)>,
    /// resourceVersion at which a namespace that opted out was found to carry no label of ours.
    clean: Memory<String, String>,
}

/// What to do with a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wish {
    /// Nothing; this is the condition.
    Leave(Verdict),
    /// Opted out, but mesh labels are there: take off those that we set.
    TakeOff,
    /// Set the labels.
    Label,
}

fn enrolled(namespace: &str) -> Verdict {
    Verdict::yes(reason::NAMESPACE_LABELED, format!("Namespace {namespace} enrolled in Istio ambient mesh"))
}

fn opted_out(namespace: &str) -> Verdict {
    Verdict::no(
        reason::OPTED_OUT,
        format!("Namespace {namespace} has annotation {}=disabled", annotation::ISTIO_MESH),
    )
}

/// Pure: what the labels and annotations of a namespace ask for.
fn wish(namespace: &str, operator_namespace: &str, facts: &NamespaceFacts) -> Wish {
    let label = |key: &str| facts.labels.get(key).map(String::as_str);
    if namespace == operator_namespace || namespace.starts_with("kube-") {
        return Wish::Leave(Verdict::no(
            reason::OPTED_OUT,
            format!("Namespace {namespace} belongs to the system and is never enrolled in the mesh"),
        ));
    }
    if facts.istio_mesh.as_deref() == Some("disabled") {
        let labelled = LABELS.iter().any(|(key, value)| label(key) == Some(value));
        return if labelled { Wish::TakeOff } else { Wish::Leave(opted_out(namespace)) };
    }
    let conflict = match (label(label::ISTIO_DATAPLANE_MODE), label(label::ISTIO_INJECTION)) {
        (Some(mode), _) if mode != "ambient" => Some((label::ISTIO_DATAPLANE_MODE, mode)),
        (_, Some("enabled")) => Some((label::ISTIO_INJECTION, "enabled")),
        _ => None,
    };
    if let Some((key, value)) = conflict {
        return Wish::Leave(Verdict::no(
            reason::CONFLICTING_LABEL,
            format!(
                "Namespace {namespace} has label {key}={value}, which is kept: remove it to enrol the namespace in the \
                 ambient mesh, or set annotation {}=disabled",
                annotation::ISTIO_MESH
            ),
        ));
    }
    if LABELS.iter().all(|(key, value)| label(key) == Some(value)) {
        return Wish::Leave(enrolled(namespace));
    }
    Wish::Label
}

/// Condition IstioMeshEnrolled of a namespace; labels it first when need be. `None` = the flag is off.
///
/// # Errors
/// Only [`Error::Pass`], when this replica does not lead; what the API server refuses is in the condition.
pub async fn ensure(ctx: &Context, namespace: &str) -> Result<Option<Verdict>, Error> {
    if !ctx.settings.enable_istio_mesh {
        return Ok(None);
    }
    // Settled namespaces need no lock, and that is nearly all of them nearly always.
    if let Some(Wish::Leave(verdict)) = current(ctx, namespace)? {
        return Ok(Some(verdict));
    }
    let _alone = ctx.namespace_locks.lock(namespace).await;
    match current(ctx, namespace)? {
        None => Ok(Some(unreadable(namespace))),
        Some(Wish::Leave(verdict)) => Ok(Some(verdict)),
        Some(Wish::Label) => label_namespace(ctx, namespace).await.map(Some),
        Some(Wish::TakeOff) => take_off(ctx, namespace).await.map(Some),
    }
}

fn current(ctx: &Context, namespace: &str) -> Result<Option<Wish>, Error> {
    match ctx.index.namespaces.get(namespace) {
        NamespaceState::Known(facts) => {
            let wish = wish(namespace, &ctx.operator_namespace, &facts);
            let clean =
                || ctx.mesh.clean.get(&namespace.to_owned()).is_some_and(|v| v == facts.resource_version);
            Ok(Some(if wish == Wish::TakeOff && clean() { Wish::Leave(opted_out(namespace)) } else { wish }))
        }
        NamespaceState::Unreadable => Ok(None),
        NamespaceState::Absent => Err(PassError::NotSynced("namespaces").into()),
    }
}

fn unreadable(namespace: &str) -> Verdict {
    Verdict::new(
        Truth::Unknown,
        reason::FORBIDDEN,
        format!(
            "Namespace {namespace} cannot be read: grant get and patch on namespaces to enrol it in the mesh"
        ),
    )
}

async fn label_namespace(ctx: &Context, namespace: &str) -> Result<Verdict, Error> {
    if let Some((until, verdict)) = ctx.mesh.refused.get(&namespace.to_owned())
        && Instant::now() < until
    {
        return Ok(verdict);
    }
    ctx.may_write()?;
    let labels: BTreeMap<_, _> = LABELS.into_iter().collect();
    let verdict = match patch(ctx, namespace, &json!({ "metadata": { "labels": labels } })).await {
        Ok(()) => {
            tracing::info!(namespace, "enrolled in the Istio ambient mesh");
            ctx.mesh.refused.remove(&namespace.to_owned());
            return Ok(enrolled(namespace));
        }
        Err(error) if code_of(&error) == 403 => Verdict::new(
            Truth::Unknown,
            reason::FORBIDDEN,
            format!(
                "Namespace {namespace} cannot be labelled: grant patch on namespaces: {}",
                message_of(&error)
            ),
        ),
        Err(error) => Verdict::no(
            reason::PATCH_FAILED,
            format!("Namespace {namespace} could not be labelled: {}", message_of(&error)),
        ),
    };
    tracing::warn!(namespace, "{}", verdict.message);
    let pause = if verdict.truth == Truth::Unknown { REFUSED_FOR } else { FAILED_FOR };
    ctx.mesh.refused.insert(namespace.to_owned(), (Instant::now() + pause, verdict.clone()));
    Ok(verdict)
}

/// Removes the mesh labels that our field manager owns.
async fn take_off(ctx: &Context, namespace: &str) -> Result<Verdict, Error> {
    let api = Api::<PartialObjectMeta<Namespace>>::all(ctx.client.clone());
    // A live read: who set a label is in the managed fields, which the index does not keep. It happens once per
    // version of a namespace that opted out.
    let live = match api.get(namespace).await {
        Ok(live) => live.metadata,
        Err(error) => {
            tracing::debug!(namespace, "cannot read the managed fields: {}", message_of(&error));
            return Ok(opted_out(namespace));
        }
    };
    let version = live.resource_version.clone().unwrap_or_default();
    let ours = owned_labels(&live);
    if ours.is_empty() {
        ctx.mesh.clean.insert(namespace.to_owned(), version);
        return Ok(opted_out(namespace));
    }
    ctx.may_write()?;
    let labels: BTreeMap<_, Option<&str>> = ours.into_iter().map(|key| (key, None)).collect();
    let body = json!({ "metadata": { "resourceVersion": version, "labels": labels } });
    match patch(ctx, namespace, &body).await {
        Ok(()) => tracing::info!(namespace, "taken out of the Istio ambient mesh"),
        Err(error) => tracing::warn!(namespace, "mesh labels could not be removed: {}", message_of(&error)),
    }
    Ok(opted_out(namespace))
}

fn owned_labels(metadata: &ObjectMeta) -> Vec<&'static str> {
    let ours = |key: &&'static str| {
        let field = format!("f:{key}");
        metadata.managed_fields.iter().flatten().any(|entry| {
            entry.manager.as_deref() == Some(manager::RUNTIME_CTL)
                && entry.fields_v1.as_ref().is_some_and(|fields| {
                    fields
                        .0
                        .pointer("/f:metadata/f:labels")
                        .is_some_and(|labels| labels.get(&field).is_some())
                })
        })
    };
    LABELS.into_iter().map(|(key, _)| key).filter(ours).collect()
}

async fn patch(ctx: &Context, namespace: &str, body: &serde_json::Value) -> kube::Result<()> {
    let api = Api::<Namespace>::all(ctx.client.clone());
    let params = PatchParams { field_manager: Some(manager::RUNTIME_CTL.into()), ..PatchParams::default() };
    let answer = api.patch_metadata(namespace, &params, &Patch::Merge(body)).await?;
    // The next AgentRuntime of the namespace must not label it again.
    ctx.index.namespaces.upsert(namespace, NamespaceFacts::from_meta(answer.metadata));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn facts(labels: &[(&str, &str)], mesh: Option<&str>) -> NamespaceFacts {
        NamespaceFacts {
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            istio_mesh: mesh.map(str::to_owned),
            ..NamespaceFacts::default()
        }
    }

    const BOTH: [(&str, &str); 2] = LABELS;

    /// Runtime §10 and scenario 15.
    #[rstest]
    #[case::bare("team1", &[], None, None)]
    #[case::half("team1", &BOTH[..1], None, None)]
    #[case::done("team1", &BOTH, None, Some(reason::NAMESPACE_LABELED))]
    #[case::opted_out("team1", &[], Some("disabled"), Some(reason::OPTED_OUT))]
    #[case::other_value("team1", &BOTH, Some("off"), Some(reason::NAMESPACE_LABELED))]
    #[case::none_mode("team1", &[(label::ISTIO_DATAPLANE_MODE, "none")], None, Some(reason::CONFLICTING_LABEL))]
    #[case::injection("team1", &[(label::ISTIO_INJECTION, "enabled")], None, Some(reason::CONFLICTING_LABEL))]
    #[case::no_injection("team1", &[(label::ISTIO_INJECTION, "disabled")], None, None)]
    #[case::ours("kagenti-system", &[], None, Some(reason::OPTED_OUT))]
    #[case::system("kube-system", &[], None, Some(reason::OPTED_OUT))]
    fn wishes(
        #[case] namespace: &str,
        #[case] labels: &[(&str, &str)],
        #[case] annotation: Option<&str>,
        #[case] reason: Option<&str>,
    ) {
        let wish = wish(namespace, "kagenti-system", &facts(labels, annotation));
        match reason {
            None => assert_eq!(wish, Wish::Label),
            Some(reason) => assert!(matches!(&wish, Wish::Leave(v) if v.reason == reason), "{wish:?}"),
        }
    }

    #[test]
    fn opting_out_later_takes_off_what_is_ours_only() {
        assert_eq!(wish("team1", "kagenti-system", &facts(&BOTH, Some("disabled"))), Wish::TakeOff);
        let metadata = serde_json::from_value(json!({"managedFields": [
            {"manager": "kubectl", "fieldsV1": {"f:metadata": {"f:labels": {"f:istio.io/dataplane-mode": {}}}}},
            {"manager": "kagenti-runtime-ctl", "fieldsV1": {"f:metadata": {"f:labels": {"f:istio-discovery": {}}}}},
        ]}))
        .unwrap();
        assert_eq!(owned_labels(&metadata), [label::ISTIO_DISCOVERY]);
    }
}
