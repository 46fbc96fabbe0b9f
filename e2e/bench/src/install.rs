//! The suite as a platform team meets it: real Helm, a real node, images that are there already (level B, needs root). From
//! `helm install` to the first injected Pod, then what all six components cost while nothing happens.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{Json as _, Ns, api, kinds, wait_for};
use jiff::Timestamp;
use local_cluster::images::{Profile, stand_ins, suite};
use local_cluster::node::{self, preflight};
use local_cluster::programs::{Program, Programs};
use local_cluster::terminal::Terminal;
use local_cluster::{Cluster, ClusterOptions, Helm};
use serde_json::Value;

use crate::report::{Report, Unit};

const RELEASE: &str = "kagenti-operator";
const NAMESPACE: &str = "kagenti-system";
/// What the README lets its reader apply.
const QUICK_START: &str = include_str!("../../../deploy/samples/quickstart.yaml");
/// All six components; policies are off, or the umbrella would ask for a way to trust agents.
const VALUES: &str =
    "--set=netpol-ctl.enabled=true,netpol-ctl.enforceNetworkPolicies=false,mlflow-ctl.enabled=true";
const COMPONENTS: usize = 6;
/// How often the chart is rendered.
const RENDERED: usize = 5;
/// Between the last event and the first look.
const SETTLED: Duration = Duration::from_secs(60);
/// The kubelet looks at its containers every ten to twenty seconds.
const LOOKS_APART: Duration = Duration::from_secs(5);

/// What the containers of a component have used.
#[derive(Clone, Debug, Default)]
struct Used {
    /// Seconds of processor time of each of its Pods, and when that was looked at.
    cpu: BTreeMap<String, (Timestamp, f64)>,
    /// Working set of all its Pods together, in bytes.
    memory: f64,
}

/// Installs, then watches the idle suite for `seconds`; true when every figure that must hold did.
pub async fn run(seconds: u64) -> Result<bool> {
    ensure!(seconds >= 60, "an idle minute at least: --seconds 60");
    let (images, program) = tokio::task::spawn_blocking(prepare).await.context("preparing")??;
    eprintln!("starting a node and putting {} images on it", images.len());
    let cluster = Cluster::start(ClusterOptions::on_a_real_node()).await?;
    cluster.import_images(&images).await?;
    let helm = Helm::new(&program, &cluster).await?;
    let chart = helm.chart();
    let chart = chart.to_str().context("the chart's directory")?;
    let namespace = format!("--namespace={NAMESPACE}");

    let mut rendered = Vec::new();
    for _ in 0..RENDERED {
        let start = Instant::now();
        helm.run(["template", RELEASE, chart, &namespace, VALUES]).await?;
        rendered.push(start.elapsed());
    }
    rendered.sort_unstable();
    let rendered = rendered.get(RENDERED / 2).copied().unwrap_or_default();

    eprintln!("installing");
    let start = Instant::now();
    let args =
        ["install", RELEASE, chart, &namespace, "--create-namespace", "--wait", "--timeout=5m", VALUES];
    helm.run(args).await?;
    let installed = start.elapsed();
    cluster.apply_yaml(QUICK_START).await?;
    let client = cluster.client().await?;
    let agents = Ns::new(client.clone(), "default");
    let running =
        |pod: &Value| pod.container("authbridge-proxy").is_some() && pod.condition("Ready").status == "True";
    wait_for(Duration::from_secs(120), "an injected Pod to run", async || {
        let pods = agents.list(kinds::POD, "app.kubernetes.io/name=weather-agent").await?;
        Ok(pods.iter().any(running).then_some(()))
    })
    .await?;
    let injected = start.elapsed();

    eprintln!("idle for {seconds} s");
    tokio::time::sleep(SETTLED).await;
    let operator = Ns::new(client, NAMESPACE);
    let audit = cluster.audit()?;
    let before = used(&operator, Timestamp::UNIX_EPOCH).await?;
    let mark = audit.mark()?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let user = format!("system:serviceaccount:{NAMESPACE}:");
    let writes = audit.since(mark, |request| {
        request.user.starts_with(&user) && request.is_write() && request.resource != "leases"
    })?;
    let after = used(&operator, Timestamp::now()).await?;
    cluster.stop().await?;

    let mut report = Report::new("A real node: install, and six idle components, all Pods of each together");
    report.bound("helm template", rendered.as_secs_f64(), &Unit::HUNDREDTHS_OF_SECONDS, 1.0, 1.0, "-");
    report.note("helm install --wait", format!("{:.1} s", installed.as_secs_f64()));
    report.bound(
        "helm install to the first injected Pod running",
        injected.as_secs_f64(),
        &Unit::SECONDS,
        30.0,
        30.0,
        "-",
    );
    for (component, now) in &after {
        let cpu = millicores(before.get(component).context("a component that came late")?, now)?;
        report.bound(&format!("{component}, CPU"), cpu, &Unit::MILLICORES, 10.0, 10.0, "-");
        let memory = now.memory / 1e6;
        report.bound(&format!("{component}, memory"), memory, &Unit::TENTHS_OF_MEGABYTES, 25.0, 25.0, "-");
    }
    report.bound("writes but those of Leases", writes.len() as f64, &Unit::WHOLE, 0.0, 0.0, "-");
    Ok(report.print())
}

/// Images of the suite as they are released, or those of `KAGENTI_IMAGES`; what stands for others; Helm.
fn prepare() -> Result<(Vec<PathBuf>, PathBuf)> {
    // Before minutes are spent.
    preflight::ensure(Terminal::stderr())?;
    let packed = if std::env::var_os("KAGENTI_IMAGES").is_some() {
        suite::pack_or_take(&suite::PROGRAMS)?
    } else {
        suite::pack(&suite::PROGRAMS, Profile::Release, &suite::default_dir())?
    };
    let mut images: Vec<PathBuf> = packed.into_iter().map(|image| image.file).collect();
    images.extend(stand_ins::pack(&suite::default_dir())?);
    let helm = Programs::ensure(&[Program::Helm], Terminal::stderr())?.path(Program::Helm)?.to_owned();
    Ok((images, helm))
}

/// What the kubelet says of every component, looked at after `since`.
async fn used(operator: &Ns, since: Timestamp) -> Result<BTreeMap<String, Used>> {
    let path = format!("/api/v1/nodes/{}/proxy/metrics/resource", node::NAME);
    wait_for(Duration::from_secs(90), "figures of every container", async || {
        let pods = operator.list(kinds::POD, "control-plane=controller-manager").await?;
        let metrics = api::call(operator.client(), "GET", &path, "text/plain", None).await?.ok()?;
        let found = by_component(&pods, metrics.as_str().context("no text")?, since)?;
        if found.is_none() {
            tokio::time::sleep(LOOKS_APART).await;
        }
        Ok(found)
    })
    .await
}

/// None while a container was not looked at since then.
fn by_component(pods: &[Value], metrics: &str, since: Timestamp) -> Result<Option<BTreeMap<String, Used>>> {
    let mut used = BTreeMap::<String, Used>::new();
    for pod in pods {
        let component = pod.label("app.kubernetes.io/component").context("a Pod without component")?;
        let cpu = sample(metrics, "container_cpu_usage_seconds_total", pod.name());
        let memory = sample(metrics, "container_memory_working_set_bytes", pod.name());
        let (Some((cpu, time)), Some((memory, _))) = (cpu, memory) else { return Ok(None) };
        if time < since {
            return Ok(None);
        }
        let of = used.entry(component.to_owned()).or_default();
        of.cpu.insert(pod.name().to_owned(), (time, cpu));
        of.memory += memory;
    }
    ensure!(used.len() == COMPONENTS, "Pods of {:?} only", used.keys());
    Ok(Some(used))
}

/// The kubelet's figure of the one container of a Pod, and when it looked: `name{labels} value milliseconds`.
fn sample(metrics: &str, name: &str, pod: &str) -> Option<(f64, Timestamp)> {
    let label = format!("pod=\"{pod}\"");
    let line = metrics.lines().find(|line| line.starts_with(name) && line.contains(&label))?;
    let mut words = line.rsplit_once('}')?.1.split_whitespace();
    let value = words.next()?.parse().ok()?;
    Some((value, Timestamp::from_millisecond(words.next()?.parse().ok()?).ok()?))
}

/// Thousandths of a processor that the Pods of a component used between two looks.
fn millicores(before: &Used, after: &Used) -> Result<f64> {
    let mut sum = 0.0;
    for (pod, (then, used_then)) in &before.cpu {
        let (now, used) = after.cpu.get(pod).with_context(|| format!("Pod {pod} is gone"))?;
        let passed = now.duration_since(*then).as_secs_f64();
        ensure!(passed > 0.0, "Pod {pod} was looked at once only");
        sum += (used - used_then) / passed * 1_000.0;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_kubelets_figures_become_millicores() {
        let pods: Vec<Value> = (0..COMPONENTS)
            .map(|index| {
                let labels = json!({"app.kubernetes.io/component": format!("component-{index}")});
                json!({"metadata": {"name": format!("pod-{index}"), "labels": labels}})
            })
            .collect();
        let read = |time: Timestamp, cpu: f64, since| {
            let line = |name: &str, index: usize, value: f64| {
                let labels = format!("container=\"c\",namespace=\"n\",pod=\"pod-{index}\"");
                format!("{name}{{{labels}}} {value:e} {}\n", time.as_millisecond())
            };
            let cpu = |index| line("container_cpu_usage_seconds_total", index, cpu);
            let memory = |index| line("container_memory_working_set_bytes", index, 2e7);
            let metrics: String = (0..COMPONENTS).flat_map(|index| [cpu(index), memory(index)]).collect();
            by_component(&pods, &metrics, since).expect("figures")
        };
        let at = |second| Timestamp::from_second(second).expect("a time");
        assert!(read(at(0), 1.0, at(1)).is_none(), "looked at before");
        let before = read(at(0), 1.0, at(0)).expect("all of them");
        let after = read(at(100), 1.5, at(100)).expect("all of them");
        let (before, after) = (&before["component-3"], &after["component-3"]);
        assert!((millicores(before, after).expect("a figure") - 5.0).abs() < 1e-9);
        assert!((after.memory - 2e7).abs() < 1.0);
    }
}
