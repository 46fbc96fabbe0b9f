//! AgentCards that this build cannot read (card §19).
//!
//! Everything goes by untyped merge patches, as the fields that cannot be read must stay as they are.

use api_types::{
    AgentCard,
    card::{condition, reason as card_reason},
    names::{finalizer, manager, reason},
};
use controller_kit::{apply, events::NewEvent, watch::Undecodable};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Map, Value, json};

use crate::{
    conditions::{MESSAGE_LIMIT, clean},
    context::Context,
    error::Error,
    events,
    index::ObjectKey,
    reconcile::Next,
};

/// What card-ctl says in conditions; those of others stay.
const OWNED: [&str; 6] = [
    condition::SYNCED,
    condition::VERIFIED,
    condition::SIGNATURE_VERIFIED,
    "SigstoreVerified",
    condition::BOUND,
    condition::READY,
];
/// What stands for an identity or a signature: nobody vouches for it any more.
const TRUST: [&str; 18] = [
    "validSignature",
    "signatureVerificationDetails",
    "signatureKeyId",
    "signatureSpiffeId",
    "signatureIdentityMatch",
    "signatureProfile",
    "signatureNotAfter",
    "attestedAgentSpiffeId",
    "expectedSpiffeID",
    "bindingStatus",
    "unsignedMembers",
    "lastVerifiedTime",
    "verifiedTemplateHash",
    "sigstoreBundleVerified",
    "sigstoreIdentity",
    "rekorLogIndex",
    "slsaRepository",
    "slsaCommitSHA",
];

/// Says in conditions and an Event what is wrong; lets go what is being deleted.
///
/// # Errors
/// What the API server says.
pub async fn report(ctx: &Context, key: &ObjectKey, bad: &Undecodable) -> Result<Next, Error> {
    let resource = ApiResource::erase::<AgentCard>(&());
    let api = Api::<DynamicObject>::namespaced_with(ctx.client.clone(), &key.namespace, &resource);
    let object = || format!("AgentCard {key}");
    // A live read: the watch could not decode the object, so its status is not known.
    let Some(live) = api.get_opt(&key.name).await.map_err(Error::api("read", object()))? else {
        ctx.forget_card(key);
        return Ok(None);
    };
    if let Some(rest) = without_legacy(live.finalizers()) {
        ctx.may_write()?;
        let metadata = json!({ "resourceVersion": live.metadata.resource_version, "finalizers": rest });
        let body = json!({ "metadata": metadata });
        let answer = api.patch(&key.name, &params(), &Patch::Merge(&body)).await;
        return match answer {
            Err(error) if !apply::is_stale(&error) => {
                Err(Error::api("change", format!("the finalizers of {}", object()))(error))
            }
            _ => Ok(Some(std::time::Duration::ZERO)),
        };
    }
    if live.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let known = live.data.get("status").cloned().unwrap_or_default();
    let message = clean(
        &format!("the object cannot be read by this version: {}; correct the field", bad.error),
        MESSAGE_LIMIT,
    );
    let Some(status) = status(&known, &message, live.metadata.generation, ctx.mechanisms().any(), ctx.now())
    else {
        return Ok(None);
    };
    if ctx.news(key, events::INVALID_SPEC, &message) {
        let event = NewEvent::warning(events::INVALID_SPEC, "Reconcile", message);
        ctx.events.publish(&reference(key, bad), event);
    }
    ctx.may_write()?;
    let metadata = json!({ "resourceVersion": live.metadata.resource_version });
    let body = json!({ "metadata": metadata, "status": status });
    match api.patch_status(&key.name, &params(), &Patch::Merge(&body)).await {
        Ok(_) => {
            ctx.metrics.status_writes.inc();
            Ok(None)
        }
        Err(error) if apply::is_not_found(&error) => Ok(None),
        Err(error) if apply::is_stale(&error) => Ok(Some(std::time::Duration::ZERO)),
        Err(error) => Err(Error::api("write", format!("the status of {}", object()))(error)),
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(manager::CARD_CTL.into()), ..PatchParams::default() }
}

fn reference(key: &ObjectKey, bad: &Undecodable) -> ObjectReference {
    ObjectReference {
        api_version: Some(format!("{}/{}", api_types::names::GROUP, api_types::names::VERSION)),
        kind: Some("AgentCard".into()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: Some(bad.uid.clone()),
        ..ObjectReference::default()
    }
}

/// The finalizers without those of the previous operator; `None` = there are none of them.
fn without_legacy(all: &[String]) -> Option<Vec<&String>> {
    let legacy = [finalizer::LEGACY_CARD, finalizer::LEGACY_NETWORK_POLICY];
    let rest: Vec<&String> = all.iter().filter(|name| !legacy.contains(&name.as_str())).collect();
    (rest.len() < all.len()).then_some(rest)
}

/// Pure: the merge patch of the status, or `None` when it says so already. A verdict is given only while a mechanism is
/// on (card §10.1): nobody knows, and the marks of the workload do not count such a card.
fn status(
    known: &Value,
    message: &str,
    generation: Option<i64>,
    verdict: bool,
    now: Timestamp,
) -> Option<Value> {
    let conditions = known.get("conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let of_type =
        |kind: &str| conditions.iter().find(|c| c.get("type").and_then(Value::as_str) == Some(kind));
    let set = |kind: &str, status: &str, reason: &str, message: &str| {
        let old = of_type(kind).filter(|old| old.get("status").and_then(Value::as_str) == Some(status));
        let since = old
            .and_then(|old| old.get("lastTransitionTime"))
            .cloned()
            .unwrap_or_else(|| json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "observedGeneration": generation, "lastTransitionTime": since,
        })
    };
    let foreign = |condition: &&Value| {
        !OWNED.contains(&condition.get("type").and_then(Value::as_str).unwrap_or_default())
    };
    let mut next: Vec<Value> = conditions.iter().filter(foreign).cloned().collect();
    let ready = clean(&format!("{}: {message}", reason::INVALID_SPEC), MESSAGE_LIMIT);
    next.push(set(condition::READY, "False", card_reason::SYNC_FAILED, &ready));
    next.push(set(condition::SYNCED, "False", reason::INVALID_SPEC, message));
    if verdict {
        next.push(set(condition::VERIFIED, "Unknown", reason::INVALID_SPEC, message));
    }
    let mut patch: Map<String, Value> = TRUST
        .into_iter()
        .filter(|field| known.get(field).is_some())
        .map(|field| (field.to_owned(), Value::Null))
        .collect();
    if conditions != next.as_slice() {
        patch.insert("conditions".into(), json!(next));
    }
    if known.get("observedGeneration") != Some(&json!(generation)) {
        patch.insert("observedGeneration".into(), json!(generation));
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(known: &Value, patch: &Value) -> Value {
        let mut all = known.as_object().cloned().unwrap_or_default();
        for (key, value) in patch.as_object().unwrap() {
            if value.is_null() {
                all.remove(key)
            } else {
                all.insert(key.clone(), value.clone())
            };
        }
        Value::Object(all)
    }

    /// Card §2.2, §19: what cannot be evaluated is not called verified, and it is said once.
    #[test]
    fn nothing_that_was_verified_stays() {
        let known = json!({
            "card": {"name": "e"}, "validSignature": true, "signatureSpiffeId": "spiffe://d/x",
            "conditions": [
                {"type": "Audited", "status": "True"},
                {"type": "Bound", "status": "True"},
                {"type": "Verified", "status": "True", "reason": "SignatureVerified"},
            ],
        });
        let patch = status(&known, "m", Some(3), true, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(patch["validSignature"], Value::Null);
        let next = merged(&known, &patch);
        let said: Vec<_> = next["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| (c["type"].as_str().unwrap(), c["status"].as_str().unwrap()))
            .collect();
        assert_eq!(
            said,
            [("Audited", "True"), ("Ready", "False"), ("Synced", "False"), ("Verified", "Unknown")]
        );
        let later = Timestamp::from_second(60).unwrap();
        assert_eq!(status(&next, "m", Some(3), true, later), None);
        let other = status(&next, "n", Some(4), true, later).unwrap();
        assert_eq!(other["conditions"][1]["lastTransitionTime"], "1970-01-01T00:00:00Z");
        assert_eq!(other["observedGeneration"], 4);
        let off = status(&json!({}), "m", Some(3), false, later).unwrap();
        assert_eq!(off["conditions"].as_array().map(Vec::len), Some(2), "no mechanism, no verdict");
    }

    #[test]
    fn exactly_the_finalizers_of_the_previous_operator_go() {
        let all = ["x/y".to_owned(), finalizer::LEGACY_CARD.to_owned()];
        assert_eq!(without_legacy(&all), Some(vec![&all[0]]));
        assert_eq!(without_legacy(&all[..1]), None);
    }
}
