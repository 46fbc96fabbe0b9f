//! Who leads; and whether the operator that the suite replaces still runs (packaging §12).

use std::collections::BTreeSet;

use api_types::names::LEGACY_LEASE;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;

use crate::cluster::{Answer, Cluster, NoCluster, Right, list};
use crate::installation::{Component, Found};

use super::finding::{Finding, known};

const CHECK: &str = "leases";
/// Clocks of machines differ: a Lease counts as forgotten only after this much more than it lasts.
const SKEW: SignedDuration = SignedDuration::from_secs(60);
/// Seconds of a Lease that does not say how long it lasts.
const DEFAULT_SECONDS: i32 = 15;

pub(super) async fn check(
    cluster: &Cluster,
    found: &Found,
    now: Timestamp,
) -> Result<Vec<Finding>, NoCluster> {
    let everywhere = ask(cluster, None).await?;
    if let Answer::Known(leases) = everywhere {
        return Ok(judge(&found.components, &leases, now));
    }
    let namespaces: BTreeSet<&str> = found.components.iter().map(|c| c.namespace.as_str()).collect();
    let mut findings = Vec::new();
    let mut leases = Vec::new();
    let mut seen = BTreeSet::new();
    for namespace in namespaces {
        match known(
            CHECK,
            &format!("who leads in namespace {namespace}"),
            ask(cluster, Some(namespace)).await?,
        ) {
            Ok(more) => {
                leases.extend(more);
                seen.insert(namespace);
            }
            Err(unknown) => findings.push(unknown),
        }
    }
    let looked_at: Vec<Component> =
        found.components.iter().filter(|c| seen.contains(c.namespace.as_str())).cloned().collect();
    findings.extend(judge(&looked_at, &leases, now));
    Ok(findings)
}

async fn ask(cluster: &Cluster, namespace: Option<&str>) -> Result<Answer<Vec<Lease>>, NoCluster> {
    let needs = Right::new("list", "leases.coordination.k8s.io", namespace);
    cluster.answer(&needs, list(&cluster.api::<Lease>(namespace), "").await)
}

/// How a Lease is.
#[derive(Debug, PartialEq, Eq)]
enum Hold {
    /// Renewed by somebody.
    By(String),
    /// Nobody holds it.
    Free,
    /// Its holder has not renewed it for so many seconds.
    Forgotten(String, i64),
}

fn hold(lease: &Lease, now: Timestamp) -> Hold {
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty());
    let (Some(holder), Some(spec)) = (holder, spec) else { return Hold::Free };
    let Some(renewed) = spec.renew_time.as_ref().map(|time| time.0) else { return Hold::Free };
    let age = now.duration_since(renewed);
    let lasts = SignedDuration::from_secs(spec.lease_duration_seconds.unwrap_or(DEFAULT_SECONDS).into());
    if age > lasts + SKEW { Hold::Forgotten(holder, age.as_secs()) } else { Hold::By(holder) }
}

fn judge(components: &[Component], leases: &[Lease], now: Timestamp) -> Vec<Finding> {
    // Without a ready Pod nobody can lead; that is said elsewhere.
    let elected = components.iter().filter(|component| component.leader_elect && component.ready > 0);
    let mut findings: Vec<Finding> = elected.map(|component| leader(component, leases, now)).collect();
    for lease in leases.iter().filter(|lease| lease.metadata.name.as_deref() == Some(LEGACY_LEASE)) {
        if let Hold::By(holder) = hold(lease, now) {
            let namespace = lease.metadata.namespace.as_deref().unwrap_or_default();
            findings.push(Finding::failed(
                CHECK,
                format!(
                    "the previous operator still runs: Lease {LEGACY_LEASE} in namespace {namespace} is renewed by \
                     {holder}; components of the suite write nothing beside it"
                ),
                format!("kubectl -n {namespace} scale deployment kagenti-controller-manager --replicas=0"),
            ));
        }
    }
    findings
}

fn leader(component: &Component, leases: &[Lease], now: Timestamp) -> Finding {
    let Component { namespace, deployment, .. } = component;
    // In namespaced mode the name has a suffix (packaging §12).
    let plain = format!("{}.kagenti.dev", component.name);
    let is_own = |name: &str| {
        let rest = name.strip_prefix(&plain);
        if component.watches.is_empty() {
            rest == Some("")
        } else {
            rest.is_some_and(|rest| rest.starts_with('-'))
        }
    };
    let own = |lease: &&Lease| {
        lease.metadata.namespace.as_ref() == Some(namespace)
            && lease.metadata.name.as_deref().is_some_and(is_own)
    };
    let holds: Vec<(&str, Hold)> = leases
        .iter()
        .filter(own)
        .map(|lease| (lease.metadata.name.as_deref().unwrap_or_default(), hold(lease, now)))
        .collect();
    if let Some((name, Hold::By(holder))) = holds.iter().find(|(_, hold)| matches!(hold, Hold::By(_))) {
        return Finding::ok(CHECK, format!("{name} in namespace {namespace} is held by {holder}"));
    }
    let why = match holds.first() {
        None => format!("there is no Lease {plain}"),
        Some((name, Hold::Forgotten(holder, age))) => {
            format!("{holder} holds Lease {name} and has not renewed it for {age}s")
        }
        Some((name, _)) => format!("nobody holds Lease {name}"),
    };
    Finding::failed(
        CHECK,
        format!("{deployment} in namespace {namespace} is ready, but nobody leads: {why}"),
        format!("kubectl -n {namespace} logs deployment/{deployment} --all-pods | grep -i lease"),
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::super::finding::Verdict;
    use super::*;
    use crate::installation::tests::deployment;

    const NOW: &str = "2026-01-01T00:10:00Z";

    fn lease(name: &str, holder: &str, renewed: &str) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "kagenti-system"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed},
        }))
        .expect("a Lease")
    }

    fn component(watches: &str, elect: bool) -> Component {
        let args = json!([format!("--watch-namespaces={watches}"), format!("--leader-elect={elect}")]);
        Component::of(&deployment("runtime-ctl", "x:0.1.0", &args)).expect("a component")
    }

    fn judged(component: Component, leases: &[Lease]) -> Vec<Finding> {
        judge(&[component], leases, NOW.parse().expect("a time"))
    }

    #[rstest]
    #[case::held(
        "",
        "runtime-ctl.kagenti.dev",
        "pod-a",
        "2026-01-01T00:09:55.000000Z",
        Verdict::Ok,
        "is held by pod-a"
    )]
    #[case::clock_ahead(
        "",
        "runtime-ctl.kagenti.dev",
        "pod-a",
        "2026-01-01T00:12:00.000000Z",
        Verdict::Ok,
        "is held by"
    )]
    #[case::clock_behind(
        "",
        "runtime-ctl.kagenti.dev",
        "pod-a",
        "2026-01-01T00:08:50.000000Z",
        Verdict::Ok,
        "is held by"
    )]
    #[case::forgotten(
        "",
        "runtime-ctl.kagenti.dev",
        "pod-a",
        "2026-01-01T00:00:00.000000Z",
        Verdict::Failed,
        "pod-a holds Lease runtime-ctl.kagenti.dev and has not renewed it for 600s"
    )]
    #[case::released(
        "",
        "runtime-ctl.kagenti.dev",
        "",
        "2026-01-01T00:09:55.000000Z",
        Verdict::Failed,
        "nobody holds Lease"
    )]
    #[case::suffix(
        "team1",
        "runtime-ctl.kagenti.dev-0123abcd",
        "pod-a",
        "2026-01-01T00:09:55.000000Z",
        Verdict::Ok,
        "is held by pod-a"
    )]
    #[case::other_scope(
        "team1",
        "runtime-ctl.kagenti.dev",
        "pod-a",
        "2026-01-01T00:09:55.000000Z",
        Verdict::Failed,
        "there is no Lease runtime-ctl.kagenti.dev"
    )]
    #[case::other_component(
        "",
        "card-ctl.kagenti.dev",
        "pod-a",
        "2026-01-01T00:09:55.000000Z",
        Verdict::Failed,
        "there is no Lease"
    )]
    fn leaders(
        #[case] watches: &str,
        #[case] name: &str,
        #[case] holder: &str,
        #[case] renewed: &str,
        #[case] verdict: Verdict,
        #[case] says: &str,
    ) {
        let findings = judged(component(watches, true), &[lease(name, holder, renewed)]);
        assert_eq!(findings.iter().map(|finding| finding.result).collect::<Vec<_>>(), [verdict]);
        assert!(findings[0].message.contains(says), "{findings:?}");
    }

    /// Where nobody is elected, or nobody is ready, there is nothing to say.
    #[test]
    fn who_needs_no_leader() {
        assert_eq!(judged(component("", false), &[]), []);
        let mut unready = component("", true);
        unready.ready = 0;
        assert_eq!(judged(unready, &[]), []);
    }

    #[test]
    fn the_previous_operator_is_named_while_it_runs() {
        let findings =
            judged(component("", false), &[lease(LEGACY_LEASE, "old-0", "2026-01-01T00:09:55.000000Z")]);
        assert_eq!(findings[0].result, Verdict::Failed);
        assert!(findings[0].message.contains("is renewed by old-0"), "{findings:?}");
        let dead = [lease(LEGACY_LEASE, "old-0", "2026-01-01T00:00:00.000000Z")];
        assert_eq!(judged(component("", false), &dead), []);
    }
}
