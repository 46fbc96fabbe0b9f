//! The certificate writer against a small API server that stores (packaging §8, scenario 11).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use crate::api_server::{Call, Calls, Reply, api, refusal};
use authbridge_webhook::certificates::{
    manager::{Manager, Place, Views},
    plan::{Action, Lifetimes},
    secrets::Serving,
    views::View,
};
use axum::http::Method;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

const LEAF: SignedDuration = SignedDuration::from_mins(20);
const SECRETS: &str = "/api/v1/namespaces/ns/secrets";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/m";

type Objects = Arc<Mutex<BTreeMap<String, Value>>>;

struct World {
    manager: Manager,
    views: Views,
    objects: Objects,
    calls: Calls,
    now: Timestamp,
}

fn merge(target: &mut Value, patch: &Value) {
    json_patch::merge(target, patch);
}

/// Stores Secrets and the configuration; a merge patch must name the stored resourceVersion.
fn server(objects: &Objects) -> impl FnMut(&Call) -> Reply + Send + 'static {
    let objects = objects.clone();
    let mut version = 100;
    move |call| {
        version += 1;
        let mut objects = objects.lock().unwrap();
        let stamp = |mut object: Value| {
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            object
        };
        match call.method {
            Method::GET => {
                objects.get(&call.path).cloned().map_or_else(|| refusal(404, "NotFound"), Reply::from)
            }
            Method::POST => {
                let path = format!("{}/{}", call.path, call.body["metadata"]["name"].as_str().unwrap());
                if objects.contains_key(&path) {
                    return refusal(409, "AlreadyExists");
                }
                let mut object = stamp(call.body.clone());
                object["metadata"]["uid"] = json!(format!("uid-{version}"));
                objects.insert(path, object.clone());
                object.into()
            }
            Method::PATCH if call.query.contains("force=true") => {
                let Some(object) = objects.get_mut(&call.path) else { return refusal(404, "NotFound") };
                assert_eq!(call.body["metadata"]["uid"], object["metadata"]["uid"]);
                for (entry, patch) in object["webhooks"]
                    .as_array_mut()
                    .unwrap()
                    .iter_mut()
                    .zip(call.body["webhooks"].as_array().unwrap())
                {
                    merge(entry, patch);
                }
                *object = stamp(object.clone());
                object.clone().into()
            }
            Method::PATCH => {
                let Some(object) = objects.get_mut(&call.path) else { return refusal(404, "NotFound") };
                if call.body["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                    return refusal(409, "Conflict");
                }
                merge(object, &call.body);
                *object = stamp(object.clone());
                object.clone().into()
            }
            _ => refusal(405, "MethodNotAllowed"),
        }
    }
}

fn names() -> BTreeSet<String> {
    ["hook.ns.svc".to_owned()].into()
}

fn world() -> World {
    let objects: Objects = Arc::default();
    let entry = |name: &str| json!({"name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://x"}});
    objects.lock().unwrap().insert(
        MUTATING.to_owned(),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "m", "uid": "m-1", "resourceVersion": "1"},
            "webhooks": [entry("a"), entry("b")],
        }),
    );
    let (client, calls) = api(server(&objects));
    let views = Views { mutating: Some(View::default()), ..Views::default() };
    let place = Place { namespace: "ns".to_owned(), secret: "cert".to_owned(), names: names() };
    let lifetimes = Lifetimes {
        authority: SignedDuration::from_mins(100),
        leaf: LEAF,
        overlap: SignedDuration::from_mins(2),
    };
    let manager = Manager::new(client, place, lifetimes, views.clone());
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let world = World { manager, views, objects, calls, now };
    world.watch();
    world
}

impl World {
    fn stored(&self, path: &str) -> Option<Value> {
        self.objects.lock().unwrap().get(path).cloned()
    }

    /// What the watches would tell.
    fn watch(&self) {
        let secret = |name: &str| {
            self.stored(&format!("{SECRETS}/{name}"))
                .map(|value| serde_json::from_value::<Secret>(value).unwrap())
        };
        self.views.serving.set(secret("cert"));
        self.views.authority.set(secret("cert-ca"));
        let configuration = self.stored(MUTATING).map(|value| serde_json::from_value(value).unwrap());
        self.views.mutating.as_ref().unwrap().set(configuration);
    }

    async fn step(&mut self) -> Action {
        self.manager.remember(self.now);
        self.manager.step(self.now).await.unwrap()
    }

    /// Steps until nothing is left to do; the actions on the way.
    async fn settle(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..6 {
            match self.step().await {
                Action::Rest => return actions,
                action => actions.push(action),
            }
        }
        panic!("does not settle: {actions:?}");
    }

    fn serving(&self) -> Serving {
        let secret: Secret =
            serde_json::from_value(self.stored(&format!("{SECRETS}/cert")).unwrap()).unwrap();
        Serving::from_secret(&secret).unwrap()
    }

    fn bundle_sizes(&self) -> Vec<usize> {
        use base64::Engine as _;
        let configuration = self.stored(MUTATING).unwrap();
        configuration["webhooks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|w| {
                let bundle = w["clientConfig"]["caBundle"].as_str().unwrap_or_default();
                let pem = base64::engine::general_purpose::STANDARD.decode(bundle).unwrap();
                String::from_utf8(pem).unwrap().matches("BEGIN CERTIFICATE").count()
            })
            .collect()
    }

    fn trusted(&self) -> bool {
        self.views.trust(&[&self.serving().authority])
    }
}

#[tokio::test]
async fn a_bare_start_publishes_before_it_serves_and_then_rests() {
    let mut world = world();
    assert_eq!(world.settle().await, [Action::NewAuthority, Action::Issue]);
    let lines: Vec<_> = world.calls.take_all().iter().map(Call::line).collect();
    let (post, patch) = (format!("POST {SECRETS}"), format!("PATCH {MUTATING}"));
    assert_eq!(lines, [post.clone(), patch, post], "authority, bundle, certificate");
    assert_eq!(world.bundle_sizes(), [1, 1]);
    assert!(world.trusted());
    let configuration = world.stored(MUTATING).unwrap();
    assert_eq!(configuration["webhooks"][0]["clientConfig"]["url"], "https://x", "nothing else is touched");
    assert_eq!(world.settle().await, []);
    assert_eq!(world.calls.take(), [""; 0], "in sync: no request");
}

/// Two steps: both authorities published for the whole overlap, then the leaf; the old one leaves
/// with its last leaf. At every moment the served leaf is trusted.
#[tokio::test]
async fn an_authority_changes_in_two_steps() {
    let mut world = world();
    world.settle().await;
    let first = world.serving().authority;
    let mut seen = Vec::new();
    for _ in 0..130 {
        world.now += SignedDuration::from_mins(1);
        seen.extend(world.settle().await);
        assert!(world.trusted(), "the served leaf is trusted at every moment");
        assert!(world.serving().leaf.valid_at(world.now));
    }
    let at = |wanted: Action| seen.iter().position(|a| *a == wanted).unwrap();
    assert!(at(Action::NewAuthority) < at(Action::DropPrevious));
    assert!(seen.iter().filter(|a| **a == Action::Issue).count() >= 7, "{seen:?}");
    assert_ne!(world.serving().authority, first);
    assert_eq!(world.bundle_sizes(), [1, 1], "the old authority is gone");
}

/// A break in the published bundle starts the overlap again: an API server may have read the gap.
#[tokio::test]
async fn a_damaged_bundle_is_repaired_and_restarts_the_overlap() {
    let mut world = world();
    world.settle().await;
    // The authority's Secret is lost: its successor is announced first.
    world.objects.lock().unwrap().remove(&format!("{SECRETS}/cert-ca"));
    world.watch();
    assert_eq!(world.settle().await, [Action::NewAuthority]);
    assert_eq!(world.bundle_sizes(), [2, 2]);
    world.now += SignedDuration::from_secs(90);
    assert_eq!(world.settle().await, [], "the overlap is not over");
    world.objects.lock().unwrap().get_mut(MUTATING).unwrap()["webhooks"][1]["clientConfig"]["caBundle"] =
        json!("");
    world.watch();
    assert_eq!(world.settle().await, []);
    assert_eq!(world.bundle_sizes(), [2, 2], "repaired at once");
    world.now += SignedDuration::from_secs(60);
    assert_eq!(world.settle().await, [], "150 s after the first publication, 60 s after the break");
    world.now += SignedDuration::from_secs(61);
    assert_eq!(world.settle().await, [Action::Issue]);
    assert!(world.trusted());
}

/// A deleted or damaged serving Secret comes back as it was: no replica has to change anything.
#[tokio::test]
async fn a_lost_or_damaged_secret_is_put_back() {
    let mut world = world();
    world.settle().await;
    let before = world.serving().leaf;
    world.objects.lock().unwrap().remove(&format!("{SECRETS}/cert"));
    world.watch();
    assert_eq!(world.settle().await, [Action::Restore]);
    assert_eq!(world.serving().leaf, before);
    {
        let mut objects = world.objects.lock().unwrap();
        let secret = objects.get_mut(&format!("{SECRETS}/cert")).unwrap();
        secret["data"]["tls.key"] = json!("eHh4");
    }
    world.watch();
    assert_eq!(world.settle().await, [Action::Restore]);
    assert_eq!(world.serving().leaf, before);
    assert_eq!(world.bundle_sizes(), [1, 1]);
}

/// Writes use the version that was looked at; a conflict reads again and decides anew.
#[tokio::test]
async fn a_conflict_reads_again_and_writes_nothing_over() {
    let mut world = world();
    world.settle().await;
    world.now += LEAF * 3 / 4;
    let path = format!("{SECRETS}/cert");
    world.objects.lock().unwrap().get_mut(&path).unwrap()["metadata"]["resourceVersion"] = json!("1");
    world.calls.take();
    world.step().await;
    assert_eq!(world.calls.take(), [format!("GET {path}"), format!("PATCH {path}")]);
    assert_eq!(world.settle().await, [Action::Issue], "decided on what is there now");
    assert!(world.serving().leaf.not_after() > world.now + LEAF / 2);
}

/// Packaging §15: the certificate that cert-manager left is served on while its successor is made.
#[tokio::test]
async fn a_foreign_certificate_is_adopted() {
    let mut world = world();
    world.settle().await;
    let left = world.stored(&format!("{SECRETS}/cert")).unwrap();
    let fresh = self::world();
    let World { mut manager, views, objects, .. } = fresh;
    objects.lock().unwrap().insert(format!("{SECRETS}/cert"), left.clone());
    let adopted = World {
        manager: {
            manager.remember(world.now);
            manager
        },
        views,
        objects,
        calls: Calls::default(),
        now: world.now,
    };
    let mut adopted = adopted;
    adopted.watch();
    assert_eq!(adopted.settle().await, [Action::NewAuthority], "no new certificate yet");
    assert_eq!(adopted.stored(&format!("{SECRETS}/cert")).unwrap()["data"], left["data"]);
    assert_eq!(adopted.bundle_sizes(), [2, 2]);
    adopted.now += SignedDuration::from_mins(2);
    assert_eq!(adopted.settle().await, [Action::Issue]);
    assert!(adopted.trusted());
}
