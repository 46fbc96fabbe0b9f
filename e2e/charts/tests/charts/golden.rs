//! What every account of the suite may do, as a real API server says it, against lists that are checked in (packaging §6).
//!
//! `KAGENTI_GOLDEN=write cargo test -p chart-tests golden` writes the lists anew; a new right is then a difference to review.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chart_tests::{Helm, Objects, charts, text};
use local_cluster::{Cluster, ClusterOptions};
use serde_json::{Value, json};

use crate::install::{ONE, apply_crds};

const RENEW: &str = "KAGENTI_GOLDEN";
/// A namespace that no value names.
const OTHER: &str = "other";

/// One way to install the suite with everything on.
struct Mode {
    title: &'static str,
    namespace: &'static str,
    values: &'static str,
    set: &'static str,
}

const CLUSTER: Mode = Mode {
    title: "cluster mode",
    namespace: "kagenti-system",
    values: "everything-values.yaml",
    set: "uninstall.cleanup=unenroll,kagenti-crds-agent.keep=false,\
          client-registration-ctl.keycloak.adminSecretNamespace=keycloak,\
          client-registration-ctl.spireNamespace=zero-trust-workload-identity-manager",
};
const NAMESPACED: Mode = Mode {
    title: "namespaced mode",
    namespace: "tenant-system",
    values: "namespaced-values.yaml",
    set: "uninstall.cleanup=unenroll",
};

/// Verbs by resource and, where a right is for one object only, its name.
type Rights = BTreeMap<(String, String), BTreeSet<String>>;

impl Mode {
    fn objects(&self) -> Result<Objects> {
        let values = charts().join("kagenti-operator/ci").join(self.values).display().to_string();
        let set = format!("--set={}", self.set);
        let helm = Helm::get()?;
        Ok(helm.template("kagenti-operator", "kagenti-operator", self.namespace, &["-f", &values, &set])?)
    }

    fn user(&self, account: &str) -> String {
        format!("system:serviceaccount:{}:{account}", self.namespace)
    }
}

/// Where an account has a Role.
fn places<'a>(objects: &'a Objects, account: &str) -> BTreeSet<&'a str> {
    let bindings = objects.of("RoleBinding").filter(|binding| text(binding, "/subjects/0/name") == account);
    bindings.map(|binding| text(binding, "/metadata/namespace")).collect()
}

/// `kubectl auth can-i --list` as somebody, in a namespace.
async fn rights(cluster: &Cluster, user: &str, namespace: &str) -> Result<Rights> {
    let user = format!("--as={user}");
    let said = cluster.kubectl(["auth", "can-i", "--list", "--no-headers", "-n", namespace, &user]).await?;
    let mut all = Rights::new();
    for line in said.lines() {
        let mut cells = line.split('[').map(|cell| cell.trim().trim_end_matches(']'));
        let mut next = || cells.next().with_context(|| format!("a row of can-i: {line}"));
        let (resource, urls, names, verbs) = (next()?, next()?, next()?, next()?);
        let of = if resource.is_empty() { urls } else { resource };
        let names = if names.is_empty() { vec![""] } else { names.split(' ').collect() };
        for name in names {
            let known = all.entry((of.to_owned(), name.to_owned())).or_default();
            known.extend(verbs.split(' ').map(str::to_owned));
        }
    }
    Ok(all)
}

/// What is in `all` and not in `known`.
fn beyond(all: &Rights, known: &Rights) -> Rights {
    let none = BTreeSet::new();
    let left = all.iter().map(|(of, verbs)| {
        let known = known.get(of).unwrap_or(&none);
        (of.clone(), verbs.difference(known).cloned().collect::<BTreeSet<_>>())
    });
    left.filter(|(_, verbs)| !verbs.is_empty()).collect()
}

fn section(list: &mut String, title: &str, rights: &Rights) -> Result<()> {
    writeln!(list, "\n== {title} ==")?;
    if rights.is_empty() {
        writeln!(list, "nothing")?;
    }
    for ((resource, name), verbs) in rights {
        let name = if name.is_empty() { String::new() } else { format!(" {name}") };
        let verbs: Vec<&str> = verbs.iter().map(String::as_str).collect();
        writeln!(list, "{resource}{name}: {}", verbs.join(" "))?;
    }
    Ok(())
}

async fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    cluster.install_crds().await?;
    apply_crds(&cluster, "cert-manager").await?;
    let named = ["spire", "keycloak", "zero-trust-workload-identity-manager"];
    let own = [CLUSTER.namespace, NAMESPACED.namespace, "team1", "team2", OTHER];
    for name in own.into_iter().chain(named) {
        cluster.kubectl(["create", "namespace", name]).await?;
    }
    for mode in [CLUSTER, NAMESPACED] {
        let objects = mode.objects()?;
        let ours = objects.0.iter().filter(|object| {
            text(object, "/apiVersion").starts_with("rbac.") || text(object, "/kind") == "ServiceAccount"
        });
        let documents: Vec<String> = ours.map(ToString::to_string).collect();
        cluster.apply_yaml(&documents.join("\n---\n")).await.context(mode.title)?;
    }
    Ok(cluster)
}

/// The list of every account, as it reads now.
async fn lists(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let everybody = rights(cluster, "system:serviceaccount:other:default", OTHER).await?;
    let mut lists: BTreeMap<String, String> = BTreeMap::new();
    for mode in [CLUSTER, NAMESPACED] {
        let objects = mode.objects()?;
        for account in objects.names("ServiceAccount") {
            let list = lists.entry(account.to_owned()).or_insert_with(|| {
                format!("Rights of ServiceAccount {account} beyond those of every account: kubectl auth can-i --list\n")
            });
            let user = mode.user(account);
            let anywhere = beyond(&rights(cluster, &user, OTHER).await?, &everybody);
            section(list, &format!("{}, in any namespace", mode.title), &anywhere)?;
            for place in places(&objects, account) {
                let here = beyond(&rights(cluster, &user, place).await?, &everybody);
                section(list, &format!("{}, also in {place}", mode.title), &beyond(&here, &anywhere))?;
            }
        }
    }
    Ok(lists)
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn write(lists: &BTreeMap<String, String>) -> Result<()> {
    std::fs::create_dir_all(folder())?;
    for entry in std::fs::read_dir(folder())? {
        std::fs::remove_file(entry?.path())?;
    }
    for (account, list) in lists {
        std::fs::write(folder().join(format!("{account}.txt")), list)?;
    }
    Ok(())
}

/// Lines that only one side has, by account.
fn compare(lists: &BTreeMap<String, String>) -> Result<()> {
    let mut differences = String::new();
    for (account, list) in lists {
        let known = std::fs::read_to_string(folder().join(format!("{account}.txt"))).unwrap_or_default();
        let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = (known.lines().collect(), list.lines().collect());
        if known != *list {
            writeln!(differences, "{account}:")?;
            old.difference(&new).try_for_each(|line| writeln!(differences, "  - {line}"))?;
            new.difference(&old).try_for_each(|line| writeln!(differences, "  + {line}"))?;
        }
    }
    let files = std::fs::read_dir(folder())?.count();
    ensure!(
        differences.is_empty() && files == lists.len(),
        "{files} lists for {} accounts; when the change is meant, run again with {RENEW}=write and review the diff:\n{differences}",
        lists.len()
    );
    Ok(())
}

/// Scenario 6: the rights of each account, and what no account may do.
#[tokio::test(flavor = "multi_thread")]
async fn packaging_06_golden_rights_of_every_account() -> Result<()> {
    let _one = ONE.lock().await;
    let cluster = cluster().await?;
    // The API server's authorizer learns of roles and bindings a moment after they are made.
    let limit = Duration::from_secs(30);
    local_cluster::wait_for(limit, "the rights of scenario 6", async || refused(&cluster).map(Some)).await?;
    if std::env::var_os(RENEW).is_some_and(|value| value == "write") {
        write(&lists(&cluster).await?)?;
    }
    local_cluster::wait_for(limit, "the golden lists", async || compare(&lists(&cluster).await?).map(Some))
        .await
}

/// What scenario 6 names: verb, resource, group, namespace; and who may do it in cluster mode.
const REFUSED: [(&str, &str, &str, &str, &[&str]); 9] = [
    ("get", "secrets", "", "kube-system", &["controller-manager"]),
    ("list", "secrets", "", "", &["controller-manager"]),
    ("create", "clusterrolebindings", "rbac.authorization.k8s.io", "", &[]),
    (
        "patch",
        "deployments",
        "apps",
        "kube-system",
        &["controller-manager", "kagenti-card-ctl", "kagenti-mlflow-ctl", "kagenti-runtime-ctl"],
    ),
    ("delete", "pods", "", "team1", &[]),
    ("delete", "pods", "", "kube-system", &[]),
    ("impersonate", "users", "", "", &[]),
    ("create", "pods", "", "team1", &[]),
    ("escalate", "clusterroles", "rbac.authorization.k8s.io", "", &[]),
];

fn refused(cluster: &Cluster) -> Result<()> {
    let mut asked = Vec::new();
    for (mode, exceptions) in [(CLUSTER, true), (NAMESPACED, false)] {
        let objects = mode.objects()?;
        for account in objects.names("ServiceAccount") {
            for (verb, resource, group, namespace, allowed) in REFUSED {
                let attributes =
                    json!({"verb": verb, "resource": resource, "group": group, "namespace": namespace});
                let groups = [
                    "system:serviceaccounts",
                    &format!("system:serviceaccounts:{}", mode.namespace),
                    "system:authenticated",
                ];
                let review = json!({
                    "apiVersion": "authorization.k8s.io/v1",
                    "kind": "SubjectAccessReview",
                    "spec": {"user": mode.user(account), "groups": groups, "resourceAttributes": attributes},
                });
                asked.push((review, exceptions && allowed.contains(&account)));
            }
        }
    }
    let reviews: Vec<String> = asked.iter().map(|(review, _)| review.to_string()).collect();
    let mut child = Command::new(cluster.kubectl_path())
        .args(["create", "-o", "json", "-f", "-"])
        .env("KUBECONFIG", cluster.kubeconfig())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting kubectl")?;
    let mut input = child.stdin.take().context("its input")?;
    let reviews = reviews.join("\n---\n");
    let writer = std::thread::spawn(move || input.write_all(reviews.as_bytes()));
    let output = child.wait_with_output()?;
    writer.join().ok().context("kubectl's input")??;
    let answers: Vec<Value> =
        serde_json::Deserializer::from_slice(&output.stdout).into_iter().collect::<Result<_, _>>()?;
    ensure!(answers.len() == asked.len(), "{} answers to {} questions", answers.len(), asked.len());
    let wrong: Vec<String> = answers
        .iter()
        .zip(&asked)
        .filter(|(answer, (_, expected))| answer["status"]["allowed"] != json!(expected))
        .map(|(answer, (_, expected))| format!("expected {expected}: {}", answer["spec"]))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
