//! What a process listens on: probes, metrics, the log level; and what it logs.

use anyhow::{Context as _, Result, ensure};
use e2e::suite::repository;
use e2e::{Json as _, Ns, api, kinds, objects, openmetrics, secs, wait_for};
use http::header::{ACCEPT, CONTENT_TYPE};
use kube::client::Body;
use kube::config::AuthInfo;
use kube::{Client, Config};
use local_cluster::{Component, http as plain};
use serde_json::{Value, json};

use super::{CLUSTER, Stage, each, ready};

/// What Prometheus sends.
const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
/// What every program tells (packaging §11).
const COMMON: [&str; 7] = [
    "kagenti_build_info",
    "kagenti_store_objects",
    "rest_client_requests_total",
    "leader_election_master_status",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
];

/// A client of one of a process's own listeners, with a bearer token or without; its certificate may be self-signed.
fn door(url: &str, token: Option<&str>) -> Result<Client> {
    let mut config = Config::new(url.parse().with_context(|| url.to_owned())?);
    config.accept_invalid_certs = true;
    // A 503 is an answer to look at.
    config.default_retry = false;
    config.auth_info = AuthInfo { token: token.map(|token| token.to_owned().into()), ..AuthInfo::default() };
    Client::try_from(config).with_context(|| format!("a client of {url}"))
}

/// A token of a ServiceAccount, which is created.
async fn token(ns: &Ns, service_account: &str) -> Result<String> {
    ns.apply(objects::named(kinds::SERVICE_ACCOUNT, service_account)).await?;
    let path = format!("{}/{service_account}/token", kinds::SERVICE_ACCOUNT.path(Some(ns.name())));
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let answer = api::call(ns.client(), "POST", &path, "application/json", Some(&request)).await?.ok()?;
    Ok(answer.text("/status/token").to_owned())
}

/// The address of a process's metrics.
fn metrics_address(component: &Component) -> Result<&str> {
    let args = component.spec().args.iter();
    args.filter_map(|arg| arg.strip_prefix("--metrics-bind-address=")).next_back().context("no address")
}

/// The ClusterRole for scrapers as the umbrella ships it; the files in `deploy` are its rendering.
fn shipped_reader() -> Result<Value> {
    let path = repository().join("deploy/default/suite.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let all: Vec<Value> = serde_saphyr::from_multiple(&text).context("reading YAML")?;
    let old_name = |role: &Value| role.label("kagenti.io/legacy-name") == Some("kagenti-metrics-reader");
    let reader = all.into_iter().find(|object| object.text("/kind") == "ClusterRole" && old_name(object));
    reader.context("no ClusterRole for scrapers")
}

/// Content type and text of the metrics that this client gets.
async fn scrape(client: &Client, accept: &str) -> Result<(String, String)> {
    let request = http::Request::get("/metrics").header(ACCEPT, accept).body(Body::empty())?;
    let response = client.send(request).await?;
    ensure!(response.status() == 200, "{}", response.status());
    let kind = response.headers().get(CONTENT_TYPE).context("no content type")?.to_str()?.to_owned();
    let bytes = response.into_body().collect_bytes().await?;
    Ok((kind, String::from_utf8(bytes.to_vec())?))
}

/// Packaging 15: HTTPS, a token of somebody whom the chart's role lets in, and only `GET /metrics`; as OpenMetrics for
/// those who want it. Without reviews plain, and for everyone.
#[tokio::test]
async fn contract_metrics_door() -> Result<()> {
    let suite = CLUSTER.share().await?;
    let stage = Stage::new(&suite, "contract-doors").await?;
    let (reader, stranger) = (token(&stage.ns, "scraper").await?, token(&stage.ns, "stranger").await?);
    let role = shipped_reader()?;
    let global = suite.global().await?;
    global.apply(role.clone()).await?;
    global
        .apply(objects::named(kinds::CLUSTER_ROLE_BINDING, "contract-scraper").with(json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role.name()},
            "subjects": [{"kind": "ServiceAccount", "name": "scraper", "namespace": stage.ns.name()}],
        })))
        .await?;
    let processes =
        stage.start("doors", |options| options.args(["--metrics-secure=true", "--leader-elect"])).await?;
    ready(&processes).await?;
    each(&processes, async |one| {
        let (process, program) = (&one.process, one.program.name);
        let address = metrics_address(process)?;
        let https = format!("https://{address}");
        let get = async |token: Option<&str>, method: &str, path: &str| {
            let answer = api::send(&door(&https, token)?, method, path, "text/plain", Vec::new()).await?;
            anyhow::Ok(answer.status)
        };
        ensure!(get(None, "GET", "/metrics").await? == 401, "without token");
        ensure!(get(Some("nonsense"), "GET", "/metrics").await? == 401, "a wrong token");
        ensure!(get(Some(&stranger), "GET", "/metrics").await? == 403, "no right");
        let client = door(&https, Some(&reader))?;
        let (kind, page) = wait_for(secs(15), "the scraper to be let in", async || {
            scrape(&client, PROMETHEUS).await.map(Some)
        })
        .await?;
        ensure!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
        openmetrics::check(&page)?;
        ensure!(page.contains(&format!("kagenti_build_info{{component=\"{program}\",version=")), "{page}");
        let has = |page: &str, name: &str| {
            page.lines()
                .any(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")))
        };
        for name in COMMON {
            ensure!(has(&page, name), "no {name}: {page}");
        }
        let (kind, page) = scrape(&client, "text/plain;version=0.0.4").await?;
        ensure!(kind.starts_with("text/plain; version=0.0.4") && !page.contains("# EOF"), "{kind}: {page}");
        ensure!(get(Some(&reader), "POST", "/metrics").await? == 405);
        for path in ["/", "/healthz", "/debug/pprof", "/log-level"] {
            ensure!(get(Some(&reader), "GET", path).await? == 404, "{path}");
        }
        // Nobody gets in without encryption.
        ensure!(plain::get(&format!("http://{address}/metrics")).await.is_err(), "plain");
        // A token never shows up in the log.
        ensure!(!process.log().contains(&reader) && !process.log().contains(&stranger), "a token is logged");

        process.kill9().await?;
        process.restart_with(&["--metrics-secure=false".to_owned()]).await?;
        process.wait_ready(secs(60)).await?;
        let (status, page) = plain::get(&format!("http://{address}/metrics")).await?;
        ensure!(status.is_success() && page.contains("process_resident_memory_bytes"), "{page}");
        let (status, _) = plain::get(&format!("http://{address}/")).await?;
        ensure!(status == 404, "{status}");
        Ok(())
    })
    .await?;
    Ok(())
}

/// Without the right to review callers the metrics stay closed, and the probes still work.
#[tokio::test]
async fn contract_metrics_stay_closed_without_reviews() -> Result<()> {
    let suite = CLUSTER.share().await?;
    let stage = Stage::new(&suite, "contract-reviews").await?;
    let processes = stage
        .start("blind", |options| {
            options
                .args(["--metrics-secure=true"])
                .edit_rights(|rights| assert!(rights.drop_resource("tokenreviews")))
        })
        .await?;
    ready(&processes).await?;
    let token = token(&stage.ns, "scraper").await?;
    each(&processes, async |one| {
        let client = door(&format!("https://{}", metrics_address(&one.process)?), Some(&token))?;
        let reply = api::send(&client, "GET", "/metrics", "text/plain", Vec::new()).await?;
        ensure!(reply.status == 503, "{}: {}", reply.status, reply.message());
        ensure!(one.process.log().contains("tokenreviews"), "the log does not name the right");
        Ok(())
    })
    .await?;
    Ok(())
}

/// Packaging §12: the checks with their reasons, as JSON and as text, and nothing else on that port; packaging §11: lines
/// of JSON, whose level `PUT /log-level` changes, or text.
#[tokio::test]
async fn contract_probes_and_logs() -> Result<()> {
    let suite = CLUSTER.share().await?;
    let stage = Stage::new(&suite, "contract-probes").await?;
    let processes = stage.start("probes", |options| options).await?;
    ready(&processes).await?;
    each(&processes, async |one| {
        let (process, url) = (&one.process, one.process.probe_url());
        let client = door(&url, None)?;
        let ask = async |method: &str, path: &str, body: &str| {
            api::send(&client, method, path, "text/plain", body.as_bytes().to_vec()).await
        };
        let alive = ask("GET", "/healthz", "").await?;
        ensure!(alive.status == 200 && alive.body["healthy"] == true, "{alive:?}");
        let report = ask("GET", "/readyz", "").await?.ok()?;
        ensure!(report["ready"] == true, "{report}");
        let checks = report.items("/checks");
        for check in checks {
            let (name, found) = (check.text("/name"), check.text("/state"));
            ensure!(!name.is_empty() && (found == "ok" || !check.text("/reason").is_empty()), "{check}");
        }
        let (_, text) = plain::get(&format!("{url}/readyz?verbose")).await?;
        ensure!(text.lines().count() == checks.len() + 1 && text.ends_with("\nready\n"), "{text}");
        for (method, path, status) in [
            ("POST", "/healthz", 405),
            ("GET", "/log-level", 405),
            ("GET", "/metrics", 404),
            ("GET", "/", 404),
            ("PUT", "/log-level", 400),
        ] {
            let found = ask(method, path, "no,such=level=").await?.status;
            ensure!(found == status, "{method} {path}: {found}");
        }

        ensure!(!lines(&process.log())?.iter().any(|line| line["level"] == "DEBUG"), "info at the start");
        ensure!(ask("PUT", "/log-level", "debug").await?.status == 200);
        wait_for(secs(30), "a debug line", async || {
            // Whatever it does next is logged.
            plain::get(&format!("{url}/readyz")).await?;
            Ok(lines(&process.log())?.iter().any(|line| line["level"] == "DEBUG").then_some(()))
        })
        .await?;
        ensure!(ask("PUT", "/log-level", "error").await?.status == 200);

        process.kill9().await?;
        let before = process.log().len();
        process.restart_with(&["--log-format=text".to_owned(), "--log-level=debug".to_owned()]).await?;
        process.wait_ready(secs(60)).await?;
        let log = process.log();
        let text = log.get(before..).context("a log that grows")?;
        ensure!(text.contains("DEBUG") && text.contains("starting"), "{text}");
        let of_json = text.lines().find(|line| line.starts_with('{'));
        ensure!(of_json.is_none() && !text.contains('\u{1b}'), "{of_json:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

/// The complete lines of a log, which are objects that say when, how bad, what and where.
fn lines(log: &str) -> Result<Vec<Value>> {
    let complete = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let read = |line: &str| {
        let object: Value = serde_json::from_str(line).with_context(|| format!("the line {line:?}"))?;
        for member in ["timestamp", "level", "message", "target"] {
            ensure!(object[member].is_string(), "no {member} in {object}");
        }
        Ok(object)
    };
    complete.lines().map(read).collect()
}
