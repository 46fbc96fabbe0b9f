//! Writing to the API server: only owned fields, nothing when nothing differs (README decision 9).
//!
//! Whole objects of ours and status go by server-side apply; a few keys of someone else's object go
//! by merge patch. There is no PUT anywhere: it would drop fields this build does not know.

use std::fmt::Debug;
use std::future::Future;

use kube::api::{Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Who writes a set of fields. One constant per purpose: an apply drops what the same manager
/// applied before and did not repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldManager(&'static str);

impl FieldManager {
    /// A manager, e.g. `kagenti-runtime-ctl`; at most 128 characters.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// The name sent to the API server.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// Server-side apply of `fields` to the object `name`, forced. Creates the object when it is missing,
/// unless `fields` carries `metadata.uid` or `metadata.resourceVersion`. `apiVersion`, `kind` and
/// `metadata.name` are filled in.
pub async fn apply<K>(api: &Api<K>, name: &str, manager: FieldManager, fields: Value) -> kube::Result<K>
where
    K: Resource<DynamicType: Default> + Clone + DeserializeOwned + Debug,
{
    let body = identified::<K>(name, fields);
    api.patch(name, &PatchParams::apply(manager.as_str()).force(), &Patch::Apply(&body)).await
}

/// Server-side apply of `{"status": status}` to the status subresource, forced.
pub async fn apply_status<K>(
    api: &Api<K>,
    name: &str,
    manager: FieldManager,
    status: Value,
) -> kube::Result<K>
where
    K: Resource<DynamicType: Default> + Clone + DeserializeOwned + Debug,
{
    let body = identified::<K>(name, json!({ "status": status }));
    api.patch_status(name, &PatchParams::apply(manager.as_str()).force(), &Patch::Apply(&body)).await
}

/// JSON merge patch of `patch` on the object `name`; never creates. `preconditions` go into the
/// patch: another resourceVersion in the server is a 409, another uid a 409 or 422 (see
/// [`is_stale`]). Answers with the new metadata only, which keeps big objects off the wire.
pub async fn merge_patch<K>(
    api: &Api<K>,
    name: &str,
    manager: FieldManager,
    patch: Value,
    preconditions: &Preconditions,
) -> kube::Result<PartialObjectMeta<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let body = with_preconditions(patch, preconditions);
    api.patch_metadata(name, &params(manager), &Patch::Merge(&body)).await
}

/// JSON merge patch of the status subresource. Works on objects that the typed client cannot read
/// when `K` is [`kube::api::DynamicObject`] or [`PartialObjectMeta`].
pub async fn merge_patch_status<K>(
    api: &Api<K>,
    name: &str,
    manager: FieldManager,
    status: Value,
) -> kube::Result<K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    api.patch_status(name, &params(manager), &Patch::Merge(&json!({ "status": status }))).await
}

/// True when `live` already carries everything in `desired`; then no request need be sent. Arrays
/// must be equal in length and order.
pub fn covers(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(l), Value::Object(d)) => {
            d.iter().all(|(key, want)| l.get(key).is_some_and(|have| covers(have, want)))
        }
        (Value::Array(l), Value::Array(d)) => {
            l.len() == d.len() && l.iter().zip(d).all(|(have, want)| covers(have, want))
        }
        (l, d) => l == d,
    }
}

/// True when the merge patch `patch` would change nothing in `live`: its `null`s are absent there
/// and the rest is equal.
pub fn merge_is_noop(live: &Value, patch: &Value) -> bool {
    match (live, patch) {
        (Value::Object(l), Value::Object(p)) => p.iter().all(|(key, want)| match (l.get(key), want) {
            (None, want) => is_empty_merge(want),
            (Some(_), Value::Null) => false,
            (Some(have), want) => merge_is_noop(have, want),
        }),
        (l, p) => l == p,
    }
}

/// Merging it into nothing adds nothing but perhaps empty objects.
fn is_empty_merge(patch: &Value) -> bool {
    match patch {
        Value::Null => true,
        Value::Object(map) => !map.is_empty() && map.values().all(is_empty_merge),
        _ => false,
    }
}

/// Runs `attempt` again at once while it ends with a conflict, at most `limit` times in all. The
/// closure reads the object anew each time; it is told the number of the attempt, from 0, so that the
/// first one may use the store's copy.
pub async fn retry_conflicts<T, F, Fut>(limit: u32, mut attempt: F) -> kube::Result<T>
where
    F: FnMut(u32) -> Fut,
    Fut: Future<Output = kube::Result<T>>,
{
    let mut number = 0;
    loop {
        match attempt(number).await {
            Err(error) if is_conflict(&error) && number + 1 < limit => number += 1,
            result => return result,
        }
    }
}

/// The API server refused because the object changed since it was read (409).
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

/// The object, or the kind itself, does not exist (404).
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// A right is missing (403).
pub fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_forbidden())
}

/// What was read is not what the server has any more: changed, deleted, or deleted and made anew
/// under the same name.
pub fn is_stale(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => {
            status.is_conflict()
                || status.code == 404
                || (status.code == 422 && status.message.contains("metadata.uid"))
        }
        _ => false,
    }
}

/// HTTP code of the answer; 0 when there was none.
pub fn code_of(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

fn params(manager: FieldManager) -> PatchParams {
    PatchParams { field_manager: Some(manager.as_str().to_owned()), ..PatchParams::default() }
}

fn identified<K: Resource<DynamicType: Default>>(name: &str, fields: Value) -> Value {
    let kind = K::DynamicType::default();
    let mut body = into_object(fields);
    body.insert("apiVersion".to_owned(), K::api_version(&kind).into_owned().into());
    body.insert("kind".to_owned(), K::kind(&kind).into_owned().into());
    metadata_of(&mut body).insert("name".to_owned(), name.into());
    Value::Object(body)
}

fn with_preconditions(patch: Value, preconditions: &Preconditions) -> Value {
    let mut body = into_object(patch);
    let wanted = [("uid", &preconditions.uid), ("resourceVersion", &preconditions.resource_version)];
    for (key, value) in wanted {
        if let Some(value) = value {
            metadata_of(&mut body).insert(key.to_owned(), value.as_str().into());
        }
    }
    Value::Object(body)
}

fn into_object(value: Value) -> serde_json::Map<String, Value> {
    match value {
        Value::Object(map) => map,
        // Every patch of this suite is an object; anything else carries no fields.
        _ => serde_json::Map::new(),
    }
}

fn metadata_of(body: &mut serde_json::Map<String, Value>) -> &mut serde_json::Map<String, Value> {
    let metadata = body.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(serde_json::Map::new());
    }
    match metadata {
        Value::Object(map) => map,
        #[allow(clippy::unreachable, reason = "made an object two lines above")]
        _ => unreachable!(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use rstest::rstest;

    #[rstest]
    #[case(json!({"a": 1, "b": 2}), json!({"a": 1}), true)]
    #[case(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 1}}), true)]
    #[case(json!({"a": 1}), json!({"a": 2}), false)]
    #[case(json!({}), json!({"a": null}), false)]
    #[case(json!({"a": null}), json!({}), true)]
    #[case(json!([1, 2]), json!([1]), false)]
    #[case(json!([{"n": 1, "x": 0}]), json!([{"n": 1}]), true)]
    fn covers_is_field_wise(#[case] live: Value, #[case] desired: Value, #[case] want: bool) {
        assert_eq!(covers(&live, &desired), want);
    }

    #[rstest]
    #[case(json!({"a": 1}), json!({"a": 1}), true)]
    #[case(json!({"a": 1}), json!({"b": null}), true)]
    #[case(json!({"a": 1}), json!({"a": null}), false)]
    #[case(json!({"m": {"l": {"x": "1"}}}), json!({"m": {"l": {"x": "1", "y": null}}}), true)]
    #[case(json!({}), json!({"m": {"l": {"y": null}}}), true)]
    #[case(json!({}), json!({"m": {"l": {"y": "1"}}}), false)]
    #[case(json!({"a": [1]}), json!({"a": [1, 2]}), false)]
    fn a_merge_that_changes_nothing_is_seen(#[case] live: Value, #[case] patch: Value, #[case] want: bool) {
        assert_eq!(merge_is_noop(&live, &patch), want);
    }

    #[test]
    fn bodies_carry_identity_and_preconditions() {
        let body = identified::<ConfigMap>("c", json!({"metadata": {"labels": {"a": "b"}}}));
        assert_eq!(
            body,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "labels": {"a": "b"}}})
        );
        let preconditions =
            Preconditions { uid: Some("u".to_owned()), resource_version: Some("7".to_owned()) };
        assert_eq!(
            with_preconditions(json!({"spec": {}}), &preconditions),
            json!({"spec": {}, "metadata": {"uid": "u", "resourceVersion": "7"}})
        );
        assert_eq!(with_preconditions(json!({}), &Preconditions::default()), json!({}));
    }

    fn api_error(code: u16, reason: &str) -> kube::Error {
        kube::Error::Api(kube::core::Status::failure("no", reason).with_code(code).boxed())
    }

    #[tokio::test]
    async fn conflicts_are_retried_up_to_the_limit_and_other_errors_are_not() {
        let mut calls = 0;
        let result: kube::Result<()> = retry_conflicts(5, |number| {
            assert_eq!(number, calls);
            calls += 1;
            async { Err(api_error(409, "Conflict")) }
        })
        .await;
        assert!(is_conflict(&result.unwrap_err()));
        assert_eq!(calls, 5);

        calls = 0;
        let result: kube::Result<()> = retry_conflicts(5, |_| {
            calls += 1;
            async { Err(api_error(403, "Forbidden")) }
        })
        .await;
        assert!(is_forbidden(&result.unwrap_err()));
        assert_eq!(calls, 1);
    }
}
