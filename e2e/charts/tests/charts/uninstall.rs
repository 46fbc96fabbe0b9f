//! What an uninstall takes along (packaging §5, §15).

use anyhow::{Context as _, Result};
use chart_tests::{Helm, Objects, charts, text};
use serde_json::{Value, json};

const UNENROLL: &str = "--set=uninstall.cleanup=unenroll";
const JOB: &str = "kagenti-runtime-ctl-unenroll";
/// It takes the finalizers off the credentials Secrets.
const SECRETS: &str = "kagenti-client-registration-ctl-cleanup";

/// Objects of a hook.
fn of_hook<'a>(objects: &'a Objects, hook: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.0.iter().filter(move |object| text(object, "/metadata/annotations/helm.sh~1hook") == hook)
}

fn args(job: &Value) -> Vec<&str> {
    let args = job.pointer("/spec/template/spec/containers/0/args").and_then(Value::as_array);
    args.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// A Job with an account of its own that may delete AgentRuntimes and nothing else, before the release goes.
#[test]
fn packaging_21_unenroll_is_a_job_with_few_rights() -> Result<()> {
    let objects = Helm::get()?.suite(&[UNENROLL])?;
    let job = objects.named("Job", JOB)?;
    assert_eq!(text(job, "/metadata/annotations/helm.sh~1hook"), "pre-delete");
    // A Job that failed stays with its list; Helm prints it too.
    let policy = text(job, "/metadata/annotations/helm.sh~1hook-delete-policy");
    assert_eq!(policy, "before-hook-creation,hook-succeeded");
    assert_eq!(text(job, "/metadata/annotations/helm.sh~1hook-output-log-policy"), "hook-failed");
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(text(container, "/terminationMessagePolicy"), "FallbackToLogsOnError");
    assert_eq!(job["spec"]["backoffLimit"], json!(0));
    let image =
        &objects.named("Deployment", "kagenti-runtime-ctl")?["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], image["image"]);
    let mut kinds: Vec<String> = of_hook(&objects, "pre-delete")
        .map(|object| format!("{} {}", text(object, "/kind"), text(object, "/metadata/name")))
        .collect();
    kinds.sort_unstable();
    let wide = format!("{JOB}-kagenti-operator.kagenti-system");
    let wanted = [
        format!("ClusterRole {wide}"),
        format!("ClusterRoleBinding {wide}"),
        format!("Job {SECRETS}"),
        format!("Job {JOB}"),
        format!("ServiceAccount {JOB}"),
    ];
    assert_eq!(kinds, wanted);
    for object in of_hook(&objects, "pre-delete").filter(|object| text(object, "/kind") != "Job") {
        assert_eq!(text(object, "/metadata/annotations/helm.sh~1hook-weight"), "-5", "before the Job");
    }
    let rules = json!([{"apiGroups": ["agent.kagenti.dev"], "resources": ["agentruntimes"],
        "verbs": ["list", "watch", "delete"]}]);
    assert_eq!(objects.named("ClusterRole", &wide)?["rules"], rules);
    assert_eq!(text(job, "/spec/template/spec/serviceAccountName"), JOB);
    // No NetworkPolicy of a component takes its Pod for one of its own.
    assert_eq!(text(job, "/spec/template/metadata/labels/app.kubernetes.io~1component"), "unenroll");
    let none = Helm::get()?.suite(&[])?;
    let names: Vec<&str> =
        of_hook(&none, "pre-delete").map(|object| text(object, "/metadata/name")).collect();
    assert_eq!(names, [SECRETS]);
    Ok(())
}

/// client-registration §10: no Secret waits for a controller that is gone. The Job is one of the chart, with its account, after
/// the agents were taken out; not where Secrets have no finalizer.
#[test]
fn client_registration_10_finalizers_go_with_the_release() -> Result<()> {
    let helm = Helm::get()?;
    let set = "--set=kagenti-crds-agent.enabled=false,client-registration-ctl.watchNamespaces={team2,team1}";
    for (objects, scope) in [
        (helm.suite(&[UNENROLL])?, None),
        (helm.suite(&[set])?, Some("--watch-namespaces=team1,team2")),
        (helm.template("client-registration-ctl", "alone", "kagenti-system", &[])?, None),
    ] {
        let job = objects.named("Job", SECRETS)?;
        assert_eq!(text(job, "/metadata/annotations/helm.sh~1hook"), "pre-delete");
        assert_eq!(text(job, "/metadata/annotations/helm.sh~1hook-weight"), "5");
        // netpol-ctl leads again a minute after its Job, so nothing comes after that one.
        if let Ok(last) = objects.named("Job", "kagenti-netpol-ctl-cleanup") {
            assert_eq!(text(last, "/metadata/annotations/helm.sh~1hook-weight"), "10");
        }
        let args = args(job);
        for flag in ["--cleanup-and-exit=true", "--leader-elect=true"].into_iter().chain(scope) {
            assert!(args.contains(&flag), "{flag}: {args:?}");
        }
        let pod =
            &objects.named("Deployment", "kagenti-client-registration-ctl")?["spec"]["template"]["spec"];
        assert_eq!(job["spec"]["template"]["spec"]["serviceAccountName"], pod["serviceAccountName"]);
        let image = |pod: &Value| pod["containers"][0]["image"].clone();
        assert_eq!(image(&job["spec"]["template"]["spec"]), image(pod));
    }
    for off in ["enabled=false", "cleanupOnUninstall=false", "watchSecrets=false"] {
        let objects = helm.suite(&[&format!("--set=client-registration-ctl.{off}")])?;
        assert!(objects.named("Job", SECRETS).is_err(), "{off}");
    }
    Ok(())
}

/// The scope is that of runtime-ctl; in namespaces there are Roles only.
#[test]
fn packaging_21_unenroll_in_namespaces() -> Result<()> {
    let set = "--set=kagenti-crds-agent.enabled=false,runtime-ctl.watchNamespaces={team2,team1}";
    let objects = Helm::get()?.suite(&[UNENROLL, set])?;
    let job = objects.named("Job", JOB)?;
    assert_eq!(args(job), ["--watch-namespaces=team1,team2", "unenroll", "--timeout=270s"]);
    let mut places = Vec::new();
    for object in of_hook(&objects, "pre-delete") {
        let (kind, namespace) = (text(object, "/kind"), text(object, "/metadata/namespace"));
        assert!(!namespace.is_empty(), "{object}");
        if kind == "Role" || kind == "RoleBinding" {
            places.push(format!("{kind} {namespace}"));
        }
    }
    places.sort_unstable();
    assert_eq!(places, ["Role team1", "Role team2", "RoleBinding team1", "RoleBinding team2"]);
    Ok(())
}

/// The Job ends, and tells its list, before Helm gives up waiting as long.
#[test]
fn packaging_21_unenroll_ends_in_time() -> Result<()> {
    for (timeout, wait, deadline) in [("5m", "270s", 360), ("1h30m", "4860s", 5460), ("500ms", "1s", 60)] {
        let timeout = format!("--set=uninstall.timeout={timeout}");
        let objects = Helm::get()?.suite(&[UNENROLL, &timeout])?;
        let job = objects.named("Job", JOB)?;
        assert_eq!(args(job), ["unenroll".to_owned(), format!("--timeout={wait}")]);
        assert_eq!(job["spec"]["activeDeadlineSeconds"], json!(deadline));
    }
    Ok(())
}

#[test]
fn without_rbac_the_jobs_have_no_roles() -> Result<()> {
    let set = "--set=global.rbac.create=false,kagenti-crds-agent.keep=false";
    let objects = Helm::get()?.suite(&[UNENROLL, set])?;
    objects.named("Job", JOB)?;
    assert!(objects.0.iter().all(|object| !text(object, "/apiVersion").starts_with("rbac.")));
    Ok(())
}

/// `keep=false`: exactly the definitions of the chart, after everything else is gone.
#[test]
fn packaging_05_definitions_go_only_when_asked() -> Result<()> {
    let helm = Helm::get()?;
    let umbrella = helm.suite(&[UNENROLL, "--set=kagenti-crds-agent.keep=false"])?;
    let alone =
        helm.template("kagenti-crds-agent", "kagenti-operator", "kagenti-system", &["--set=keep=false"])?;
    let files = std::fs::read_dir(charts().join("kagenti-crds-agent/crds"))?.count();
    for objects in [&umbrella, &alone] {
        let name = "kagenti-crds-agent-delete";
        let job = objects.named("Job", name)?;
        assert_eq!(text(job, "/metadata/annotations/helm.sh~1hook"), "post-delete");
        assert_eq!(args(job), ["crds", "delete", "--groups=agent", "--timeout=4m"]);
        assert!(text(job, "/spec/template/spec/containers/0/image").contains("/runtime-ctl:"), "{job}");
        let role = objects.named("ClusterRole", &format!("{name}-kagenti-operator.kagenti-system"))?;
        let rules = role["rules"].as_array().context("rules")?;
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0]["verbs"], json!(["get", "list", "watch", "delete"]));
        assert_eq!(rules[0]["resourceNames"].as_array().map(Vec::len), Some(files));
    }
    let kept = helm.template("kagenti-crds-agent", "x", "ops", &[])?;
    assert_eq!(of_hook(&kept, "post-delete").count(), 0);
    Ok(())
}
