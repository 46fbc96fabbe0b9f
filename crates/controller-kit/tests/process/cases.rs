//! The cases. Each one says its rule.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use controller_kit::tls::self_signed;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::kubernetes::{Kubernetes, write_kubeconfig};
use crate::running::{Running, call, command, eventually, get, until};

const LEASE: &str = "test-ctl.kagenti.dev";
/// Well below the grace period of 8 s, so that an end "at once" is told from an orderly one, and far
/// above what a busy machine adds. How soon exactly is measured with a clock that stands, in `lease.rs`.
const SOON: Duration = Duration::from_secs(6);
const PLAIN: [&str; 3] = [
    "--health-probe-bind-address=127.0.0.1:0",
    "--metrics-bind-address=127.0.0.1:0",
    "--metrics-secure=false",
];
const POD: [(&str, &str); 2] = [("POD_NAMESPACE", "kagenti-system"), ("POD_NAME", "pod-1")];

macro_rules! cases {
    ($filter:expr, $($name:ident),+ $(,)?) => {{
        let mut running = Vec::new();
        $(if $filter.is_none_or(|filter| stringify!($name).contains(filter)) {
            running.push((stringify!($name), tokio::spawn($name())));
        })+
        running
    }};
}

/// Runs the cases whose names contain `filter`; says how many failed.
pub(crate) async fn run(filter: Option<&str>) -> usize {
    let running = cases!(
        filter,
        sigterm_finishes_work_releases_the_lease_and_exits_zero,
        a_second_signal_exits_with_130_at_once,
        a_dead_task_ends_the_process_with_1,
        a_lost_lease_ends_the_process_with_1,
        who_serves_others_goes_on_without_the_lease_for_the_shutdown_delay,
        a_follower_is_ready_and_does_nothing,
        without_an_api_server_it_waits_unready,
        an_old_operator_holds_everything_back,
        metrics_are_served_over_tls_to_reviewed_callers,
        bad_flags_and_files_exit_with_2,
        flags_come_from_the_environment,
        the_log_level_changes_while_it_runs,
        text_logs_have_no_colours_in_a_pipe,
        traces_are_flushed_at_the_end,
    );
    let total = running.len();
    let mut failed = 0;
    for (name, task) in running {
        let ok = task.await.is_ok();
        failed += usize::from(!ok);
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
    }
    println!(
        "\ntest result: {}. {} passed; {failed} failed",
        if failed == 0 { "ok" } else { "FAILED" },
        total - failed
    );
    failed
}

struct Cluster {
    directory: TempDir,
    kubernetes: Kubernetes,
    kubeconfig: String,
}

impl Cluster {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        let kubernetes = Kubernetes::default();
        kubernetes.clone().start(&path).await;
        Self { directory, kubernetes, kubeconfig: format!("--kubeconfig={}", path.display()) }
    }

    fn run(&self, args: &[&str]) -> Running {
        let mut all: Vec<&str> = PLAIN.to_vec();
        all.push(&self.kubeconfig);
        all.extend(args);
        Running::start(&all, &POD)
    }
}

/// Packaging §12, scenario 19: SIGTERM: unready, running work finishes, lease released, exit 0.
async fn sigterm_finishes_work_releases_the_lease_and_exits_zero() {
    let cluster = Cluster::start().await;
    let mut process = cluster.run(&["--leader-elect", "--mode=slow"]);
    let (probes, metrics) = (process.address("probes").await, process.address("metrics").await);
    until(probes, "/readyz", 200).await;
    assert_eq!(get(probes, "/healthz").await.0, 200);
    process.line(|line| line["message"] == "leading").await;
    assert_eq!(cluster.kubernetes.holder(LEASE).as_deref(), Some("pod-1"));
    let (_, text) = get(metrics, "/metrics").await;
    for sample in [
        "leader_election_master_status{name=\"test-ctl.kagenti.dev\"} 1",
        "kagenti_build_info{component=\"test-ctl\"",
        "rest_client_requests_total{code=\"201\",method=\"POST\"",
    ] {
        assert!(text.contains(sample), "{sample} missing in {text}");
    }
    assert!(cluster.kubernetes.user_agents().iter().all(|agent| agent.starts_with("test-ctl/")));

    process.signal("TERM").await;
    let body = until(probes, "/readyz", 503).await;
    assert!(body.contains("the process is stopping"), "{body}");
    assert_eq!(cluster.kubernetes.holder(LEASE).as_deref(), Some("pod-1"), "held while work is running");
    let (status, took) = process.end().await;
    assert_eq!(status.code(), Some(0));
    assert!(took < SOON, "{took:?}");
    assert!(process.log().iter().any(|line| line.contains("work finished")));
    assert_eq!(cluster.kubernetes.holder(LEASE).as_deref(), Some(""));
}

/// Packaging §12: a second signal: exit 130 at once.
async fn a_second_signal_exits_with_130_at_once() {
    let cluster = Cluster::start().await;
    let mut process = cluster.run(&["--mode=stuck"]);
    process.line(|line| line["message"] == "leading").await;
    process.signal("TERM").await;
    process.line(|line| line["message"] == "stopping").await;
    sleep(Duration::from_millis(200)).await;
    assert!(process.is_running(), "the grace period has not passed");
    process.signal("INT").await;
    let (status, took) = process.end().await;
    assert_eq!((status.code(), status.signal()), (Some(130), None));
    assert!(took < SOON, "{took:?}");
}

/// Style 2.7: the first task that ends ends the process, and is named.
async fn a_dead_task_ends_the_process_with_1() {
    let cluster = Cluster::start().await;
    let mut process = cluster.run(&["--mode=panic", "--leader-elect"]);
    let (status, _) = process.end().await;
    assert_eq!(status.code(), Some(1));
    let log = process.log().join("\n");
    assert!(log.contains("task work panicked: made to"), "{log}");
    assert!(log.lines().all(|line| line.starts_with('{')), "panics are JSON lines too: {log}");
    assert_eq!(cluster.kubernetes.holder(LEASE).as_deref(), Some(""), "the lease was still ours to release");
}

/// Packaging §12: loss of the lease ends the process with exit 1 within 1 s of being seen.
async fn a_lost_lease_ends_the_process_with_1() {
    let cluster = Cluster::start().await;
    let mut process = cluster.run(&["--leader-elect", "--mode=stuck"]);
    process.line(|line| line["message"] == "leading").await;
    let mut lease = cluster.kubernetes.lease(LEASE).unwrap();
    lease["spec"]["holderIdentity"] = "pod-2".into();
    cluster.kubernetes.set_lease(LEASE, lease);
    let (status, took) = process.end().await;
    assert_eq!(status.code(), Some(1));
    assert!(took < SOON, "{took:?}");
    assert_eq!(
        cluster.kubernetes.holder(LEASE).as_deref(),
        Some("pod-2"),
        "somebody else's lease is left alone"
    );
    assert!(process.log().iter().any(|line| line.contains("held by pod-2")));
}

/// Packaging §10 and §12: a lost lease ends what this replica writes at once, and what it serves when callers know of it.
async fn who_serves_others_goes_on_without_the_lease_for_the_shutdown_delay() {
    let cluster = Cluster::start().await;
    let mut process = cluster.run(&["--leader-elect", "--mode=slow", "--shutdown-delay-seconds=2"]);
    let probes = process.address("probes").await;
    process.line(|line| line["message"] == "leading").await;
    let mut lease = cluster.kubernetes.lease(LEASE).unwrap();
    lease["spec"]["holderIdentity"] = "pod-2".into();
    cluster.kubernetes.set_lease(LEASE, lease);
    let body = until(probes, "/readyz", 503).await;
    assert!(body.contains("the process is stopping"), "{body}");
    let (status, _) = process.end().await;
    assert_eq!(status.code(), Some(1));
    assert!(process.log().iter().any(|line| line.contains("work finished")), "work ends in order");
    assert_eq!(cluster.kubernetes.holder(LEASE).as_deref(), Some("pod-2"));
}

/// Packaging §12: followers are warm and ready and write nothing.
async fn a_follower_is_ready_and_does_nothing() {
    let cluster = Cluster::start().await;
    cluster.kubernetes.set_lease(
        LEASE,
        json!({"metadata": {"name": LEASE}, "spec": {"holderIdentity": "pod-0", "leaseDurationSeconds": 15}}),
    );
    let mut process = cluster.run(&["--leader-elect"]);
    until(process.address("probes").await, "/readyz", 200).await;
    sleep(Duration::from_secs(3)).await;
    let writes: Vec<_> =
        cluster.kubernetes.requests().into_iter().filter(|call| !call.starts_with("GET")).collect();
    assert_eq!(writes, Vec::<String>::new());
    process.signal("TERM").await;
    assert_eq!(process.end().await.0.code(), Some(0));
    assert_eq!(cluster.kubernetes.holder(LEASE).as_deref(), Some("pod-0"));
}

/// Packaging §12: without API server it keeps retrying, unready and alive.
async fn without_an_api_server_it_waits_unready() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    // Bound but not listening: connections are refused, and nobody else gets the port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = socket.local_addr().unwrap();
    write_kubeconfig(&path, nobody);
    let kubeconfig = format!("--kubeconfig={}", path.display());
    let mut args = PLAIN.to_vec();
    args.extend([&*kubeconfig, "--leader-elect"]);
    let mut process = Running::start(&args, &POD);
    let probes = process.address("probes").await;
    let body = eventually(|| async {
        let (status, body) = get(probes, "/readyz?verbose").await;
        assert_eq!(status, 503);
        body.contains("[-] kubernetes-api: cannot reach").then_some(body)
    });
    let body = body.await.expect("the check names the server");
    assert!(body.contains(&nobody.to_string()) && body.contains("refused"), "{body}");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(get(probes, "/healthz").await.0, 200);
    assert!(process.is_running());

    // It comes up: ready without a restart.
    Kubernetes::default().serve(socket.listen(64).unwrap());
    until(probes, "/readyz", 200).await;
    process.line(|line| line["message"] == "leading").await;
    process.signal("TERM").await;
    assert_eq!(process.end().await.0.code(), Some(0));
}

/// Packaging §12: while the old operator's lease is renewed nothing is written and /readyz names it.
async fn an_old_operator_holds_everything_back() {
    let cluster = Cluster::start().await;
    let legacy = json!({"metadata": {"name": "b7c4ae34.kagenti.dev"},
        "spec": {"holderIdentity": "old", "leaseDurationSeconds": 8, "renewTime": format!("{:.6}", Timestamp::now())}});
    cluster.kubernetes.set_lease("b7c4ae34.kagenti.dev", legacy);
    let process = cluster.run(&[]);
    let probes = process.address("probes").await;
    let body = eventually(|| async {
        let (status, body) = get(probes, "/readyz?verbose").await;
        (status == 503 && body.contains("renewed by old")).then_some(body)
    });
    assert!(body.await.expect("named").contains("kagenti-system/b7c4ae34.kagenti.dev"));
    assert!(!process.log().iter().any(|line| line.contains("leading")));
    // It is never renewed again, so its duration later the work begins.
    until(probes, "/readyz", 200).await;
    process.line(|line| line["message"] == "leading").await;
}

/// Packaging §11, scenario 15: HTTPS with a token and a right; certificates from files.
async fn metrics_are_served_over_tls_to_reviewed_callers() {
    let cluster = Cluster::start().await;
    let (cert, key) = self_signed(vec!["127.0.0.1".to_owned()], SignedDuration::from_hours(1)).unwrap();
    let path: PathBuf = cluster.directory.path().into();
    std::fs::write(path.join("tls.crt"), &cert).unwrap();
    std::fs::write(path.join("tls.key"), key).unwrap();
    let files = format!("--metrics-cert-path={}", path.display());
    let process = cluster.run(&["--metrics-secure=true", &files]);
    let address = process.address("metrics").await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let scrape = async |headers: &[(&str, &str)]| {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = connector.connect(name, stream).await.expect("the certificate of the files");
        call(stream, "GET", "/metrics", headers, "").await
    };
    assert_eq!(scrape(&[]).await.0, 401);
    assert_eq!(scrape(&[("authorization", "Bearer stranger")]).await.0, 401);
    let accept = ("accept", "application/openmetrics-text");
    let (status, headers, body) = scrape(&[("authorization", "Bearer scraper"), accept]).await;
    assert_eq!(status, 200);
    assert!(headers["content-type"].starts_with("application/openmetrics-text"));
    assert!(body.contains("# EOF"), "{body}");
    // Plain HTTP on that port gets nothing.
    let (status, _, body) =
        call(TcpStream::connect(address).await.unwrap(), "GET", "/metrics", &[], "").await;
    assert!(status == 0 && !body.contains("kagenti"), "{status} {body}");
}

/// Packaging §12: exit code 2 for bad flags, settings and files, with a remedy.
async fn bad_flags_and_files_exit_with_2() {
    let somebody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("--health-probe-bind-address={}", somebody.local_addr().unwrap());
    let cluster = Cluster::start().await;
    let cases: &[(&[&str], &str)] = &[
        (&["--nonsense"], "--nonsense"),
        (&["--enable-agent-webhook"], "is a flag of agent-ctl, which is not part of this release"),
        (&["--rollout-qps=3"], "is a flag of runtime-ctl; remove it from test-ctl and set it there"),
        (&["--enable-kuadrant"], "a feature that this suite does not have"),
        (&["--watch-namespaces=Team1"], "is not a namespace name"),
        (&["--concurrency=0"], "--concurrency"),
        (&["--kube-qps=0"], "above 0"),
        (&["--metrics-bind-address=8443"], "is not a listen address"),
        (&["--log-level=louder"], "is not a log level"),
        (&["--leader-elect-renew-deadline=20s"], "leader election"),
        (&["--kubeconfig=/does/not/exist"], "/does/not/exist"),
        (&[&cluster.kubeconfig, &taken], "cannot listen on"),
        (
            &[
                &cluster.kubeconfig,
                "--metrics-bind-address=127.0.0.1:0",
                "--metrics-secure=true",
                "--health-probe-bind-address=0",
                "--metrics-cert-path=/does/not/exist",
            ],
            "metrics certificate: cannot read /does/not/exist/tls.crt",
        ),
    ];
    for (args, message) in cases {
        let output = command(args, &POD).output().await.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        // Error texts are wrapped at the width of a terminal.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(message), "{args:?}: {text}");
    }
    let version = command(&["version"], &[]).output().await.unwrap();
    assert!(version.status.success());
    assert!(String::from_utf8(version.stdout).unwrap().starts_with("test-ctl 0."));
}

/// README decision 7, packaging §3.2 (`extraArgs` come last and win): every flag as `<COMPONENT>_<FLAG>`; NAMESPACES2WATCH too; the flag wins; an empty
/// variable is none.
async fn flags_come_from_the_environment() {
    let show = async |args: &[&str], env: &[(&str, &str)]| {
        let mut args = args.to_vec();
        args.push("show");
        let output = command(&args, env).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = show(
        &[],
        &[("TEST_CTL_CONCURRENCY", "3"), ("TEST_CTL_LEADER_ELECT", "true"), ("TEST_CTL_MODE", "slow")],
    )
    .await;
    assert!(
        text.contains("concurrency: 3") && text.contains("leader_elect: true") && text.contains("Slow"),
        "{text}"
    );
    let text = show(&["--concurrency=5"], &[("TEST_CTL_CONCURRENCY", "3")]).await;
    assert!(text.contains("concurrency: 5"), "{text}");
    let text =
        show(&["--concurrency=5", "--leader-elect", "--concurrency=6", "--leader-elect=false"], &[]).await;
    assert!(text.contains("concurrency: 6") && text.contains("leader_elect: false"), "{text}");
    let text = show(&[], &[("TEST_CTL_CONCURRENCY", ""), ("POD_NAMESPACE", "ns")]).await;
    assert!(text.contains("concurrency: 8") && text.contains("pod_namespace: Some(\"ns\")"), "{text}");
    let text = show(&[], &[("NAMESPACES2WATCH", "team2, team1")]).await;
    assert!(text.contains("Namespaces([\"team1\", \"team2\"])"), "{text}");
    let text = show(&[], &[("NAMESPACES2WATCH", "team2"), ("TEST_CTL_WATCH_NAMESPACES", "team9")]).await;
    assert!(text.contains("Namespaces([\"team9\"])"), "{text}");
    let text = show(
        &["--metrics-secure=false", "--leader-elect", "--zap-log-level=debug", "--zap-encoder=console"],
        &[],
    )
    .await;
    assert!(text.contains("metrics_secure: false") && text.contains("leader_elect: true"), "{text}");
    assert!(text.contains("log_level: Some(\"debug\")") && text.contains("log_format: Text"), "{text}");
}

/// Packaging §11: `PUT /log-level` on the probe port.
async fn the_log_level_changes_while_it_runs() {
    let cluster = Cluster::start().await;
    let process = cluster.run(&["--log-level=warn"]);
    let started = Instant::now();
    // At this level not even the address is logged; the log has nothing to say for a while.
    while started.elapsed() < Duration::from_secs(1) {
        assert!(!process.log().iter().any(|line| line.contains("\"INFO\"")), "{:?}", process.log());
        sleep(Duration::from_millis(50)).await;
    }
    let process = cluster.run(&[]);
    let probes = process.address("probes").await;
    let put = async |level: &str| {
        call(TcpStream::connect(probes).await.unwrap(), "PUT", "/log-level", &[], level).await.0
    };
    assert_eq!(put("nonsense").await, 400);
    assert_eq!(put("trace").await, 200);
    process.line(|line| line["level"] == "TRACE").await;
    assert_eq!(put("off").await, 200);
    process.signal("TERM").await;
    sleep(Duration::from_millis(300)).await;
    assert!(!process.log().iter().any(|line| line.contains("\"stopping\"")));
}

/// Colours are for people at a terminal; a log that is kept is plain text.
async fn text_logs_have_no_colours_in_a_pipe() {
    let cluster = Cluster::start().await;
    let process = cluster.run(&["--log-format=text"]);
    let listening = || async { process.log().into_iter().find(|line| line.contains("listening")) };
    let line = eventually(listening).await.expect("a line about the listeners");
    assert!(line.contains(" INFO ") && !line.contains('\u{1b}'), "{line:?}");
}

/// Packaging §12: traces are flushed before the exit; a span's lines carry its trace id.
async fn traces_are_flushed_at_the_end() {
    let cluster = Cluster::start().await;
    let path = cluster.directory.path().join("kubeconfig");
    let collector = cluster.kubernetes.clone().start(&path).await;
    let endpoint = format!("http://{collector}");
    let mut args = PLAIN.to_vec();
    args.push(&cluster.kubeconfig);
    let mut env = POD.to_vec();
    env.push(("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint));
    let mut process = Running::start(&args, &env);
    let line = process.line(|line| line["message"] == "leading").await;
    assert_eq!(line["trace_id"].as_str().map(str::len), Some(32), "{line}");
    process.signal("TERM").await;
    let (status, took) = process.end().await;
    assert_eq!(status.code(), Some(0));
    assert!(took < SOON, "{took:?}");
    assert!(cluster.kubernetes.traces() > 0, "{:?}", cluster.kubernetes.requests());

    // What cannot be exported is said, and ends nothing.
    env.push(("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"));
    let process = Running::start(&args, &env);
    let line = process.line(|line| line["message"] == "traces are not exported").await;
    assert!(line["error"].as_str().is_some_and(|error| error.contains("http/protobuf")), "{line}");
    process.line(|line| line["message"] == "leading").await;
}
