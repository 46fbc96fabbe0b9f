//! AgentRuntimes that this build cannot read (runtime §2.7).

use api_types::{
    AgentRuntime,
    names::{condition, manager, reason},
};
use controller_kit::watch::Undecodable;
use jiff::Timestamp;
use kube::{
    Api, Resource,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    context::Context,
    error::{Error, code_of},
    index::RuntimeKey,
    reconcile::{Next, safety_look},
};

/// Sets `Ready=False`, reason `InvalidSpec`, by an untyped patch.
///
/// # Errors
/// What the API server says.
pub async fn report(ctx: &Context, key: &RuntimeKey, bad: &Undecodable) -> Result<Next, Error> {
    let resource = ApiResource::erase::<AgentRuntime>(&());
    let api = Api::<DynamicObject>::namespaced_with(ctx.client.clone(), &key.namespace, &resource);
    let object = || format!("AgentRuntime {key}");
    // A live read: the watch could not decode the object, so its status is not known.
    let Some(live) = api.get_opt(&key.name).await.map_err(Error::api("read", object()))? else {
        ctx.undecodable.remove(key);
        return Ok(None);
    };
    let known = live.data.pointer("/status/conditions").cloned().unwrap_or_default();
    let Some(ready) = condition(&known, bad, live.meta().generation, ctx.now()) else {
        return Ok(safety_look());
    };
    ctx.may_write()?;
    let body = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": { "name": key.name },
        "status": {
            "observedGeneration": live.meta().generation,
            "phase": "Error",
            "configuredPods": 0,
            "linkedSkills": [],
            "conditions": [ready],
        },
    });
    let params = PatchParams::apply(manager::RUNTIME_CTL).force();
    match api.patch_status(&key.name, &params, &Patch::Apply(&body)).await {
        Err(error) if code_of(&error) != 404 => {
            Err(Error::api("write", format!("the status of {}", object()))(error))
        }
        _ => Ok(safety_look()),
    }
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
