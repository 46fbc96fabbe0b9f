//! AgentRuntimes that this build cannot read (runtime §2.7).
//!
//! Everything goes by untyped merge patches: server-side apply refuses an object whose stored fields do not fit the
//! schema, even where it would not touch them.

use api_types::{
    AgentRuntime,
    names::{condition, finalizer, manager, reason},
};
use controller_kit::{apply, watch::Undecodable};
use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    cleanup::{self, Released},
    context::Context,
    error::{Error, PassError},
    index::{RuntimeKey, WorkloadLink},
    kinds::WorkloadKind,
    reconcile::Next,
    sandbox,
    sources::Source,
    status::OWNED,
};

/// Sets `Ready=False`, reason `InvalidSpec`; lets go what is being deleted.
///
/// # Errors
/// What the API server says.
pub async fn report(ctx: &Context, key: &RuntimeKey, bad: &Undecodable) -> Result<Next, Error> {
    let resource = ApiResource::erase::<AgentRuntime>(&());
    let api = Api::<DynamicObject>::namespaced_with(ctx.client.clone(), &key.namespace, &resource);
    let object = || format!("AgentRuntime {key}");
    // A live read: the watch could not decode the object, so its status is not known.
    let Some(live) = api.get_opt(&key.name).await.map_err(PassError::api("read", object()))? else {
        ctx.undecodable.remove(key);
        return Ok(None);
    };
    if live.metadata.deletion_timestamp.is_some() {
        return let_go(ctx, key, &api, &live).await;
    }
    let known = live.data.pointer("/status/conditions").cloned().unwrap_or_default();
    let Some(ready) = condition(&known, bad, live.metadata.generation, ctx.now()) else {
        return Ok(None);
    };
    ctx.may_write()?;
    let body = json!({
        // The list of conditions is replaced as a whole.
        "metadata": { "resourceVersion": live.metadata.resource_version },
        "status": {
            "observedGeneration": live.metadata.generation,
            "phase": "Error",
            "configuredPods": 0,
            "linkedSkills": [],
            "conditions": beside(&known, ready),
        },
    });
    match api.patch_status(&key.name, &params(), &Patch::Merge(&body)).await {
        Err(error) if !apply::is_not_found(&error) => {
            Err(PassError::api("write", format!("the status of {}", object()))(error).into())
        }
        _ => Ok(None),
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(manager::RUNTIME_CTL.into()), ..PatchParams::default() }
}

/// Ends the enrolments that carry its name: its target cannot be read, but the workloads say whose they are.
async fn let_go(
    ctx: &Context,
    key: &RuntimeKey,
    api: &Api<DynamicObject>,
    live: &DynamicObject,
) -> Result<Next, Error> {
    if !live.finalizers().iter().any(|name| name == finalizer::CLEANUP) {
        return Ok(None);
    }
    for kind in [WorkloadKind::Deployment, WorkloadKind::StatefulSet] {
        if !ctx.sources.is_synced(Source::Workloads(kind), &key.namespace) {
            return Err(PassError::NotSynced("workloads").into());
        }
    }
    for workload in ctx.index.workloads.linked(&WorkloadLink::EnrolledBy(key.clone())) {
        if cleanup::release(ctx, key, &workload).await? == Released::Waiting {
            return Ok(Some(sandbox::LOOK_AGAIN));
        }
    }
    ctx.may_write()?;
    let others: Vec<_> = live.finalizers().iter().filter(|name| *name != finalizer::CLEANUP).collect();
    let body = json!({
        "metadata": { "resourceVersion": live.metadata.resource_version, "finalizers": others },
    });
    match api.patch(&key.name, &params(), &Patch::Merge(&body)).await {
        Err(error) if !apply::is_not_found(&error) => {
            Err(PassError::api("change", format!("the finalizers of AgentRuntime {key}"))(error).into())
        }
        _ => {
            ctx.forget(key);
            Ok(None)
        }
    }
}

/// The conditions of others and this one: what runtime-ctl said about an older spec is not true of this one.
fn beside(known: &Value, ready: Value) -> Vec<Value> {
    let foreign = |condition: &&Value| {
        let kind = condition.get("type").and_then(Value::as_str).unwrap_or_default();
        !OWNED.contains(&kind)
    };
    let mut all: Vec<Value> = known.as_array().into_iter().flatten().filter(foreign).cloned().collect();
    all.push(ready);
    all
}

/// Pure: the condition, or `None` when it is there already.
fn condition(known: &Value, bad: &Undecodable, generation: Option<i64>, now: Timestamp) -> Option<Value> {
    let message = format!("the object cannot be read by this version: {}; correct the field", bad.error);
    let ready = known
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c.get("type").and_then(Value::as_str) == Some(condition::READY));
    let is = |field: &str, want: &Value| ready.and_then(|c| c.get(field)) == Some(want);
    let since = if is("status", &json!("False")) {
        ready.and_then(|c| c.get("lastTransitionTime")).cloned().unwrap_or_else(|| json!(now.to_string()))
    } else {
        json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    };
    let same = is("status", &json!("False"))
        && is("reason", &json!(reason::INVALID_SPEC))
        && is("message", &json!(message))
        && is("observedGeneration", &json!(generation));
    (!same).then(|| {
        json!({
            "type": condition::READY,
            "status": "False",
            "reason": reason::INVALID_SPEC,
            "message": message,
            "observedGeneration": generation,
            "lastTransitionTime": since,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_others_stay() {
        let known = json!([{"type": "Ready"}, {"type": "TargetResolved"}, {"type": "Audited"}]);
        let all = beside(&known, json!({"type": "Ready", "status": "False"}));
        assert_eq!(all, [json!({"type": "Audited"}), json!({"type": "Ready", "status": "False"})]);
    }

    #[test]
    fn it_is_said_once() {
        let bad = Undecodable {
            namespace: "ns".into(),
            name: "rt".into(),
            uid: "u".into(),
            generation: Some(3),
            error: "invalid type: integer `1`, expected a string".into(),
        };
        let first = condition(&Value::Null, &bad, Some(3), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(first["lastTransitionTime"], "1970-01-01T00:00:00Z");
        let later = Timestamp::from_second(5).unwrap();
        assert_eq!(condition(&json!([first]), &bad, Some(3), later), None);
        let next = condition(&json!([first]), &bad, Some(4), later).unwrap();
        assert_eq!(next["lastTransitionTime"], first["lastTransitionTime"]);
    }
}
