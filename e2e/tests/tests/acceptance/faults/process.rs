//! The process contract with an API server: signals, leases, a start without one, probes and doors (packaging §11, §12).

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::suite::{OPERATOR_NAMESPACE, RUNTIME_CTL, WEBHOOK};
use e2e::{Stopwatch, Suite, api, kinds, objects, secs, wait_for};
use local_cluster::{Component, Signal, http};
use serde_json::json;

use super::fixture::{BOTH, bare, door, flag, holder, named, options, readyz, start_webhook, token};

async fn start(suite: &Suite, component: &str, instance: &str, args: &[&str]) -> Result<Component> {
    let options = named(options(suite, component), instance).args(args.iter().copied());
    if component == WEBHOOK {
        start_webhook(suite, options).await
    } else {
        Component::start(suite.cluster(), options).await
    }
}

/// SIGTERM ends with 0 and gives the Lease away; the other replica has it within 3 s of the end.
#[tokio::test]
async fn fault_a_graceful_end_releases_the_lease() -> Result<()> {
    let suite = bare().await?;
    for component in BOTH {
        let lease = format!("{component}.kagenti.dev");
        let first = start(&suite, component, &format!("{component}-first"), &["--leader-elect"]).await?;
        first.wait_ready(secs(30)).await?;
        wait_for(secs(20), "the first one to lead", async || {
            Ok(holder(&suite, &lease).await?.contains("-first").then_some(()))
        })
        .await?;
        let second = start(&suite, component, &format!("{component}-second"), &["--leader-elect"]).await?;
        second.wait_ready(secs(30)).await.context("a follower is ready")?;
        assert!(holder(&suite, &lease).await?.contains("-first"));

        let exit = first.terminate().await?;
        let ended = Stopwatch::start();
        assert_eq!((exit.code, exit.signal), (Some(0), None), "{component}");
        wait_for(secs(20), "the second one to lead", async || {
            Ok(holder(&suite, &lease).await?.contains("-second").then_some(()))
        })
        .await?;
        ensure!(ended.spent() <= secs(5), "{component}: taken over after {:?}", ended.spent());
    }
    Ok(())
}

/// A second signal does not wait for anything: 130.
#[tokio::test]
async fn fault_a_second_signal_ends_at_once() -> Result<()> {
    let suite = bare().await?;
    for component in BOTH {
        let process = start(&suite, component, &format!("{component}-signals"), &[]).await?;
        process.wait_ready(secs(30)).await?;
        // Frozen, so that both signals are there when it goes on, however quick it would have ended.
        process.signal(Signal::Stop).await?;
        process.signal(Signal::Term).await?;
        process.signal(Signal::Int).await?;
        let started = Stopwatch::start();
        process.signal(Signal::Cont).await?;
        let exit = process.ended().await?;
        assert_eq!((exit.code, exit.signal), (Some(130), None), "{component}");
        ensure!(started.spent() < secs(2), "{component}: {:?}", started.spent());
    }
    Ok(())
}

/// Without an API server a process stays alive and unready, and works once there is one.
#[tokio::test]
async fn fault_start_without_api_server() -> Result<()> {
    let suite = bare().await?;
    let mut processes = Vec::new();
    for component in BOTH {
        let process = start(&suite, component, &format!("{component}-early"), &[]).await?;
        process.wait_ready(secs(30)).await?;
        process.kill9().await?;
        processes.push(process);
    }
    suite.cluster().api_server().stop().await?;
    let outcome = async {
        for process in &processes {
            process.restart().await?;
        }
        let pids: Vec<i32> = processes.iter().map(Component::pid).collect();
        let started = Stopwatch::start();
        let mut seen = 0;
        while started.spent() < secs(8) {
            for process in &processes {
                let Ok((status, text)) = readyz(process).await else {
                    ensure!(started.spent() < secs(3), "no probes of {}", process.spec().name);
                    continue;
                };
                ensure!(status == 503, "{} is ready without API server: {text}", process.spec().name);
                let (alive, _) = http::get(&format!("{}/healthz", process.probe_url())).await?;
                ensure!(alive.is_success(), "{} is not alive", process.spec().name);
                seen += 1;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        ensure!(seen > 20, "hardly any answer");
        Ok(pids)
    }
    .await;
    suite.cluster().api_server().start().await?;
    let pids: Vec<i32> = outcome?;
    for (process, pid) in processes.iter().zip(pids) {
        process.wait_ready(secs(60)).await?;
        assert_eq!(process.pid(), pid, "the same process: {}", process.spec().name);
        assert!(!process.log().contains("panic"), "{}", process.log());
    }
    let ns = suite.namespace("fault-early", json!({})).await?;
    ns.create(objects::deployment("early")).await?;
    ns.create(objects::agent_runtime("early", "early")).await?;
    ns.until_ready(secs(20), "early").await?;
    Ok(())
}

/// The metrics port: HTTPS, a token of somebody who may get `/metrics`, and only `GET /metrics`.
#[tokio::test]
async fn fault_metrics_door() -> Result<()> {
    let suite = bare().await?;
    let operator = suite.operator().await?;
    let (reader, stranger) = (token(&operator, "scraper").await?, token(&operator, "stranger").await?);
    let global = suite.global().await?;
    global
        .apply(objects::named(kinds::CLUSTER_ROLE, "scraper").with(json!({
            "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}],
        })))
        .await?;
    global
        .apply(objects::named(kinds::CLUSTER_ROLE_BINDING, "scraper").with(json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "scraper"},
            "subjects": [{"kind": "ServiceAccount", "name": "scraper", "namespace": OPERATOR_NAMESPACE}],
        })))
        .await?;
    for component in BOTH {
        let process =
            start(&suite, component, &format!("{component}-doors"), &["--metrics-secure=true"]).await?;
        process.wait_ready(secs(30)).await?;
        let address = flag(&process, "metrics-bind-address")?.to_owned();
        let https = format!("https://{address}");
        let get = async |token: Option<&str>, method: &str, path: &str| {
            let client = door(&https, token.map(str::to_owned))?;
            api::send(&client, method, path, "text/plain", Vec::new()).await
        };
        assert_eq!(get(None, "GET", "/metrics").await?.status, 401, "{component}: without token");
        assert_eq!(get(Some("nonsense"), "GET", "/metrics").await?.status, 401, "{component}: a wrong token");
        assert_eq!(get(Some(&stranger), "GET", "/metrics").await?.status, 403, "{component}: no right");
        let page = wait_for(secs(15), "the scraper to be let in", async || {
            let reply = get(Some(&reader), "GET", "/metrics").await?;
            ensure!(reply.status == 200, "{}", reply.status);
            Ok(Some(reply.body.as_str().unwrap_or_default().to_owned()))
        })
        .await?;
        assert!(page.contains(&format!("kagenti_build_info{{component=\"{component}\"")), "{page}");
        assert_eq!(get(Some(&reader), "POST", "/metrics").await?.status, 405, "{component}");
        for path in ["/", "/healthz", "/debug/pprof", "/log-level"] {
            assert_eq!(get(Some(&reader), "GET", path).await?.status, 404, "{component} {path}");
        }
        // Nobody gets in without encryption.
        assert!(http::get(&format!("http://{address}/metrics")).await.is_err(), "{component}: plain");
        // A token never shows up in the log.
        assert!(!process.log().contains(&reader), "{component}");

        process.terminate().await?;
        process.restart_with(&["--metrics-secure=false".to_owned()]).await?;
        process.wait_ready(secs(30)).await?;
        let (status, page) = http::get(&format!("http://{address}/metrics")).await?;
        assert!(status.is_success() && page.contains("process_resident_memory_bytes"), "{component}: {page}");
        let (status, _) = http::get(&format!("http://{address}/")).await?;
        assert_eq!(status.as_u16(), 404, "{component}");
    }
    Ok(())
}

/// Without the right to review callers the metrics stay closed, and the probes still work.
#[tokio::test]
async fn fault_metrics_stay_closed_without_reviews() -> Result<()> {
    let suite = bare().await?;
    let options = named(options(&suite, RUNTIME_CTL), "ctl-blind")
        .args(["--metrics-secure=true"])
        .edit_rights(|rights| assert!(rights.drop_resource("tokenreviews")));
    let process = Component::start(suite.cluster(), options).await?;
    process.wait_ready(secs(30)).await?;
    let token = token(&suite.operator().await?, "scraper").await?;
    let client = door(&format!("https://{}", flag(&process, "metrics-bind-address")?), Some(token))?;
    let reply = api::send(&client, "GET", "/metrics", "text/plain", Vec::new()).await?;
    assert_eq!(reply.status, 503, "{}", reply.message());
    assert!(process.log().contains("tokenreviews"), "the log names the right: {}", process.log());
    Ok(())
}

/// `PUT /log-level` from this machine changes what is logged, and nothing else may be done there.
#[tokio::test]
async fn fault_log_level_at_run_time() -> Result<()> {
    let suite = bare().await?;
    for component in BOTH {
        let process = start(&suite, component, &format!("{component}-levels"), &[]).await?;
        process.wait_ready(secs(30)).await?;
        let client = door(&process.probe_url(), None)?;
        let put = async |level: &str| {
            api::send(&client, "PUT", "/log-level", "text/plain", level.as_bytes().to_vec()).await
        };
        assert!(!process.log().contains("\"level\":\"DEBUG\""), "info at the start");
        assert_eq!(put("debug").await?.status, 200, "{component}");
        wait_for(secs(30), "a debug line", async || {
            // Whatever it does next is logged.
            http::get(&format!("{}/readyz", process.probe_url())).await?;
            let debug = process.log().lines().any(|line| line.to_lowercase().contains("\"level\":\"debug\""));
            Ok(debug.then_some(()))
        })
        .await?;
        assert_eq!(put("no,such=level=").await?.status, 400, "{component}");
        assert_eq!(put("error").await?.status, 200, "{component}");
        let reply = api::send(&client, "POST", "/healthz", "text/plain", Vec::new()).await?;
        assert_eq!(reply.status, 405, "{component}");
    }
    Ok(())
}
