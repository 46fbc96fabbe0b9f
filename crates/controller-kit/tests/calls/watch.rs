//! Watches against a scripted API server (runtime §2.7, packaging §7, §12).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::api_server::{Answer, Call, client, count, failure};
use controller_kit::metrics::{KindLabel, Metrics};
use controller_kit::readiness::Readiness;
use controller_kit::watch::{
    OptionalKind, Step, WatchOptions, Watches, feed, guarded_watch_stream, watch_stream,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Resource};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

fn watches() -> Watches {
    Watches { metrics: Metrics::new("test"), readiness: Readiness::new() }
}

fn config_map(name: &str, version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
           "metadata": {"name": name, "namespace": "team1", "resourceVersion": version, "uid": name, "generation": 3}})
}

fn list(items: &[Value]) -> Answer {
    Answer::Json(
        200,
        json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "10"}, "items": items}),
    )
}

fn is_watch(call: &Call) -> bool {
    call.query.contains("watch=true")
}

/// The names that an index would keep, and what changed them.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<(BTreeSet<String>, Vec<String>)>>);

impl Kept {
    /// Follows a watch until the test ends.
    fn of<K: Resource + Send + 'static>(events: BoxStream<'static, Event<K>>) -> Self {
        let kept = Self::default();
        let fed = kept.clone();
        tokio::spawn(feed(events, move |step| {
            let (names, changes) = &mut *fed.0.lock().unwrap();
            let mut gone = |name: String, names: &mut BTreeSet<String>| {
                if names.remove(&name) {
                    changes.push(format!("-{name}"));
                }
            };
            match step {
                Step::Remove(object) => gone(object.meta().name.clone().unwrap(), names),
                Step::Listed(seen) => {
                    for name in names.clone().into_iter().filter(|name| !seen.contains(name)) {
                        gone(name, names);
                    }
                }
                Step::Put(object, listing) => {
                    let name = object.meta().name.clone().unwrap();
                    listing.saw(name.clone());
                    if names.insert(name.clone()) {
                        changes.push(format!("+{name}"));
                    }
                }
            }
        }));
        kept
    }

    async fn until(&self, done: impl Fn(&BTreeSet<String>) -> bool) {
        let waiting = async {
            while !done(&self.0.lock().unwrap().0) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(Duration::from_secs(61), waiting).await.expect("within a minute");
    }
}

/// Runtime §2.7: one undecodable object stops neither list nor watch; it is counted and reported.
#[tokio::test(start_paused = true)]
async fn one_undecodable_object_does_not_stop_the_others() {
    let mut broken = config_map("broken", "2");
    broken["data"] = json!("not a map");
    let in_list = broken.clone();
    let (client, calls) = client(move |call| {
        if is_watch(call) {
            let mut later = broken.clone();
            later["metadata"]["name"] = "late".into();
            later["metadata"]["resourceVersion"] = "11".into();
            return Answer::Watch(vec![
                json!({"type": "ADDED", "object": later}),
                json!({"type": "ADDED", "object": config_map("c", "12")}),
            ]);
        }
        list(&[config_map("a", "1"), in_list.clone(), config_map("b", "3")])
    });
    let watches = watches();
    let bad = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&bad);
    let mut events = guarded_watch_stream::<ConfigMap>(
        &watches,
        &client,
        Some("team1"),
        Config::default(),
        WatchOptions::new("configmaps"),
        move |object| seen.lock().unwrap().push(object),
    );
    assert!(!watches.readiness.is_ready());
    let mut good = 0;
    while good < 3 {
        let event = timeout(Duration::from_secs(5), events.next()).await.expect("events go on").unwrap();
        if let Event::InitApply(DeserializeGuard(Ok(_))) | Event::Apply(DeserializeGuard(Ok(_))) = event {
            good += 1;
        }
    }
    assert!(watches.readiness.is_ready());
    let bad = bad.lock().unwrap();
    assert_eq!(bad[0].name, "broken");
    assert_eq!(
        (bad[0].namespace.as_str(), bad[0].uid.as_str(), bad[0].generation),
        ("team1", "broken", Some(3))
    );
    assert!(bad[0].error.contains("map"), "{}", bad[0].error);
    assert_eq!(bad[1].name, "late");
    let kind = KindLabel { kind: "configmaps".to_owned() };
    assert_eq!(watches.metrics.undecodable_objects.get_or_create(&kind).get(), 2);
    assert!(count(&calls, |call| call.path == "/api/v1/namespaces/team1/configmaps") >= 2);
}

/// Packaging §7: first retry after about 1 s, later ones at most a minute apart; heals without restart.
#[tokio::test(start_paused = true)]
async fn a_refused_watch_is_retried_with_back_off_and_heals() {
    let code = Arc::new(AtomicU16::new(403));
    let script = Arc::clone(&code);
    let times = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&times);
    let (client, _) = client(move |call| {
        log.lock().unwrap().push(Instant::now());
        match script.load(Ordering::Relaxed) {
            200 if is_watch(call) => Answer::Silence,
            200 => list(&[]),
            code => failure(code, "Forbidden"),
        }
    });
    let watches = watches();
    let api = Api::<ConfigMap>::namespaced(client, "team1");
    let mut events = watch_stream(&watches, api, Config::default(), WatchOptions::new("configmaps"));
    let waited = timeout(Duration::from_secs(300), async {
        while let Some(event) = events.next().await {
            if matches!(event, Event::InitDone) {
                return;
            }
        }
    });
    waited.await.expect_err("nothing but refusals");
    let report = watches.readiness.report();
    assert_eq!(report.checks[0].name, "configmaps in team1");
    assert!(
        report.checks[0].reason.contains("not allowed to list configmaps in namespace team1"),
        "{report:?}"
    );
    {
        let times = times.lock().unwrap();
        let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps[0] >= Duration::from_secs(1) && gaps[0] < Duration::from_secs(2), "{gaps:?}");
        assert!(gaps.iter().all(|gap| *gap <= Duration::from_secs(60)), "{gaps:?}");
        assert!(gaps.len() < 20, "{} attempts in five minutes", gaps.len());
    }
    code.store(200, Ordering::Relaxed);
    while !watches.readiness.is_ready() {
        timeout(Duration::from_secs(60), events.next()).await.expect("it heals");
    }
}

/// A CRD that is absent at start is waited for, without a crash loop (style part 3).
#[tokio::test(start_paused = true)]
async fn an_absent_kind_is_picked_up_when_it_appears() {
    let code = Arc::new(AtomicU16::new(404));
    let script = Arc::clone(&code);
    let (client, _) = client(move |call| match script.load(Ordering::Relaxed) {
        200 if is_watch(call) => Answer::Silence,
        200 => list(&[config_map("a", "1")]),
        code => failure(code, "NotFound"),
    });
    let watches = watches();
    let api = Api::<PartialObjectMeta<ConfigMap>>::all(client);
    let options = WatchOptions::new("sandboxes").optional_kind();
    let kept = Kept::of(watch_stream(&watches, api, Config::default(), options));
    kept.until(|names| names.is_empty() && watches.readiness.is_ready()).await;
    code.store(200, Ordering::Relaxed);
    kept.until(|names| names.len() == 1).await;
}

/// A watch that expired (410) lists again and delivers what was missed as a difference.
#[tokio::test(start_paused = true)]
async fn an_expired_watch_lists_again() {
    let lists = Arc::new(AtomicU16::new(0));
    let script = Arc::clone(&lists);
    let (client, _) = client(move |call| {
        if !is_watch(call) {
            return match script.fetch_add(1, Ordering::Relaxed) {
                0 => list(&[config_map("a", "1"), config_map("b", "2")]),
                _ => list(&[config_map("b", "2"), config_map("c", "11")]),
            };
        }
        if script.load(Ordering::Relaxed) == 1 {
            let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
                              "reason": "Expired", "message": "too old resource version"});
            return Answer::Watch(vec![json!({"type": "ERROR", "object": gone})]);
        }
        Answer::Silence
    });
    let watches = watches();
    let api = Api::<ConfigMap>::all(client);
    let kept = Kept::of(watch_stream(&watches, api, Config::default(), WatchOptions::new("configmaps")));
    kept.until(|names| names.iter().eq(["b", "c"])).await;
    assert_eq!(kept.0.lock().unwrap().1, ["+a", "+b", "+c", "-a"]);
    assert!(watches.readiness.is_ready(), "an expired watch is everyday life");
}

/// A watch of one named object: the check and the message name it (resourceNames in RBAC).
#[tokio::test(start_paused = true)]
async fn a_watch_of_one_object_names_it() {
    let (client, _) = client(|_| failure(403, "Forbidden"));
    let watches = watches();
    let api = Api::<Secret>::namespaced(client, "kagenti-system");
    let options = WatchOptions::new("secrets").check("serving-certificate");
    let config = Config::default().fields("metadata.name=webhook-cert");
    let mut events = watch_stream(&watches, api, config, options);
    timeout(Duration::from_secs(5), async { while events.next().await.is_some() {} })
        .await
        .expect_err("refused");
    let report = watches.readiness.report();
    assert_eq!(report.checks[0].name, "serving-certificate in kagenti-system");
    assert!(
        report.checks[0].reason.contains("list secrets webhook-cert in namespace kagenti-system"),
        "{report:?}"
    );
}

/// A kind is watched in the best version that is served, in each namespace, and no longer than that (runtime §7.4).
#[tokio::test(start_paused = true)]
async fn an_optional_kind_is_followed() {
    const THINGS: OptionalKind = OptionalKind {
        group: "example.org",
        kind: "Thing",
        versions: &["v2", "v1"],
        when_served: "Things are served",
    };
    let served = Arc::new(Mutex::new(Vec::<&str>::new()));
    let script = served.clone();
    let (client, _) = client(move |call| {
        let version = call.path.rsplit('/').next().unwrap();
        if !script.lock().unwrap().contains(&version) {
            return failure(404, "NotFound");
        }
        let thing =
            json!({"name": "things", "kind": "Thing", "namespaced": true, "singularName": "", "verbs": []});
        let group = format!("example.org/{version}");
        Answer::Json(200, json!({"kind": "APIResourceList", "groupVersion": group, "resources": [thing]}))
    });
    let (log, namespaces) = (Arc::new(Mutex::new(Vec::new())), [Some("a".to_owned()), Some("b".to_owned())]);
    let (told, watched) = (log.clone(), log.clone());
    tokio::spawn(async move {
        let found = |version: Option<&'static str>| told.lock().unwrap().push(format!("{version:?}"));
        let watch = |version, namespace: Option<String>| {
            let line = format!("watch {version} in {}", namespace.unwrap());
            let log = watched.clone();
            async move {
                log.lock().unwrap().push(line);
                std::future::pending::<()>().await;
            }
        };
        THINGS.follow(&client, &namespaces, found, watch).await;
    });
    let after = async |minutes: u64| {
        tokio::time::sleep(Duration::from_mins(minutes)).await;
        let mut lines: Vec<String> = std::mem::take(&mut *log.lock().unwrap());
        lines.dedup();
        lines
    };
    assert_eq!(after(2).await, ["None"]);
    served.lock().unwrap().push("v1");
    assert_eq!(after(2).await, [r#"Some("v1")"#, "watch v1 in a", "watch v1 in b"]);
    served.lock().unwrap().push("v2");
    assert_eq!(after(2).await, [r#"Some("v2")"#, "watch v2 in a", "watch v2 in b"]);
    served.lock().unwrap().clear();
    assert_eq!(after(2).await, ["None"]);
}
