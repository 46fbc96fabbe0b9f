//! Who would still clean up: Deployments that run, and Leases that are renewed.

use std::time::Duration;

use api_types::names::LEGACY_LEASE;
use k8s_openapi::api::coordination::v1::Lease;
use tokio::time::{Instant, sleep};

use crate::cluster::{Answer, Cluster, NoCluster, Right, list};
use crate::installation::Component;

use super::stuck::{Kind, Stuck};

/// Of a Lease that does not say how long it lasts.
const DEFAULT_DURATION: Duration = Duration::from_secs(15);
/// No Lease is watched for longer.
const LONGEST: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The running components that take a finalizer off one of the objects.
pub(super) fn running(wanted: &[Stuck], components: &[Component]) -> Vec<String> {
    let cleans = |component: &&Component| {
        let there = component.ready > 0 || component.replicas > 0;
        let covers = |object: &Stuck| {
            object.kind.cleaners().contains(&component.name.as_str()) && component.covers(&object.namespace)
        };
        there && wanted.iter().any(covers)
    };
    let say = |component: &Component| {
        format!(
            "Deployment {} in namespace {} ({} ready)",
            component.deployment,
            component.namespace,
            component.readiness()
        )
    };
    components.iter().filter(cleans).map(say).collect()
}

/// A Lease of a component, or of the previous operator, that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// Name and namespace of the Lease.
    lease: String,
    namespace: String,
    /// Who holds it.
    identity: String,
    lasts: Duration,
    /// Changes with every renewal.
    version: String,
}

impl Holder {
    fn of(lease: Lease) -> Option<Self> {
        let spec = lease.spec?;
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Some(Self {
            lease: lease.metadata.name?,
            namespace: lease.metadata.namespace?,
            identity: spec.holder_identity.filter(|holder| !holder.is_empty())?,
            lasts: seconds.map_or(DEFAULT_DURATION, Duration::from_secs).min(LONGEST),
            version: lease.metadata.resource_version?,
        })
    }

    /// The component that has such a Lease; it may have a suffix (packaging §12).
    fn component(&self) -> Option<&str> {
        let (component, suffix) = self.lease.split_once(".kagenti.dev")?;
        (suffix.is_empty() || suffix.starts_with('-')).then_some(component)
    }

    /// Whether its holder would take a finalizer off one of the objects. A Deployment of the same component beside it says
    /// which namespaces it looks after; without one it may be all.
    pub(super) fn concerns(&self, wanted: &[Stuck], components: &[Component]) -> bool {
        if self.lease == LEGACY_LEASE {
            // The previous operator knows nothing of the finalizer of Secrets.
            return wanted.iter().any(|object| object.kind != Kind::Secret);
        }
        let Some(component) = self.component() else { return false };
        let beside: Vec<&Component> =
            components.iter().filter(|c| c.name == component && c.namespace == self.namespace).collect();
        wanted.iter().any(|object| {
            object.kind.cleaners().contains(&component)
                && (beside.is_empty() || beside.iter().any(|c| c.covers(&object.namespace)))
        })
    }
}

/// The Leases that somebody holds, or why they cannot be seen.
pub(super) async fn leases(cluster: &Cluster) -> Result<Result<Vec<Holder>, String>, NoCluster> {
    let needs = Right::new("list", "leases.coordination.k8s.io", None);
    Ok(match cluster.answer(&needs, list(&cluster.api::<Lease>(None), "").await)? {
        Answer::Known(leases) => Ok(leases.into_iter().filter_map(Holder::of).collect()),
        Answer::Unknown(why) => Err(format!("whether a component holds its Lease: {why}")),
    })
}

/// What was seen of the Leases that were watched.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    /// Those that are renewed, and by whom.
    pub(super) renewed: Vec<String>,
    /// Those that could not be read at last, and why: their holders may live.
    pub(super) unknown: Vec<String>,
}

impl Watched {
    fn add(&mut self, holder: &Holder, now: Answer<Option<Lease>>) {
        let Holder { namespace, lease, identity, .. } = holder;
        match now {
            Answer::Known(now) => {
                if now.and_then(Holder::of).is_some_and(|now| now.version != holder.version) {
                    self.renewed
                        .push(format!("Lease {lease} in namespace {namespace} is renewed by {identity}"));
                }
            }
            Answer::Unknown(why) => self.unknown.push(format!(
                "whether Lease {lease} in namespace {namespace} is renewed by {identity}: {why}"
            )),
        }
    }
}

/// Which are renewed. A holder that died leaves its name in the Lease, and clocks of two machines differ, so each is watched for
/// as long as it lasts, by the clock of this machine alone.
pub(super) async fn watch(cluster: &Cluster, held: Vec<Holder>) -> Result<Watched, NoCluster> {
    let Some(longest) = held.iter().map(|holder| holder.lasts).max() else { return Ok(Watched::default()) };
    let names: Vec<String> = held.iter().map(|h| format!("{}/{}", h.namespace, h.lease)).collect();
    eprintln!("watching for up to {}s whether Lease {} is renewed", longest.as_secs(), names.join(", "));
    let started = Instant::now();
    loop {
        sleep(LOOK_AGAIN).await;
        // A look compares with the first one, so the last look is about the whole time.
        let mut seen = Watched::default();
        for holder in &held {
            let now = cluster.api::<Lease>(Some(&holder.namespace)).get_opt(&holder.lease).await;
            let needs = Right::new("get", "leases.coordination.k8s.io", Some(&holder.namespace));
            seen.add(holder, cluster.answer(&needs, now)?);
        }
        if !seen.renewed.is_empty() || started.elapsed() > longest {
            return Ok(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::super::stuck::tests::stuck;
    use super::*;
    use crate::installation::tests::deployment;

    fn component(name: &str, watches: &str, replicas: i32, ready: i32) -> Component {
        let args = json!([format!("--watch-namespaces={watches}")]);
        let mut component = Component::of(&deployment(name, "x:0.1.0", &args)).expect("a component");
        (component.replicas, component.ready) = (replicas, ready);
        component
    }

    fn lease(name: &str, holder: &str) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "kagenti-system", "resourceVersion": "7"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 4},
        }))
        .expect("a Lease")
    }

    fn runtime() -> Stuck {
        stuck(Kind::AgentRuntime, &["kagenti.io/cleanup"], &json!({})).expect("stuck")
    }

    fn secret() -> Stuck {
        stuck(Kind::Secret, &["kagenti.io/keycloak-client"], &json!({})).expect("stuck")
    }

    /// Only the component of that kind and that namespace holds things up, also one that is merely not ready now.
    #[rstest]
    #[case::runs(component("runtime-ctl", "", 1, 1), true)]
    #[case::crashes(component("runtime-ctl", "", 1, 0), true)]
    #[case::ends(component("runtime-ctl", "", 0, 1), true)]
    #[case::scaled_to_0(component("runtime-ctl", "", 0, 0), false)]
    #[case::its_namespace(component("runtime-ctl", "team1", 1, 1), true)]
    #[case::other_namespaces(component("runtime-ctl", "team2", 1, 1), false)]
    #[case::other_component(component("card-ctl", "", 1, 1), false)]
    fn deployments_that_hold_it_up(#[case] component: Component, #[case] holds: bool) {
        let said = running(&[runtime()], &[component]);
        assert_eq!(said.len(), usize::from(holds), "{said:?}");
    }

    #[test]
    fn a_refusal_names_the_deployment() {
        let said = running(&[secret()], &[component("client-registration-ctl", "", 1, 0)]);
        assert_eq!(
            said,
            ["Deployment kagenti-client-registration-ctl in namespace kagenti-system (0/1 ready)"]
        );
    }

    /// A Lease of the component counts, with and without suffix; another one's, or a released one, does not.
    #[rstest]
    #[case::own("runtime-ctl.kagenti.dev", "a", &[], true)]
    #[case::suffix("runtime-ctl.kagenti.dev-0123abcd", "a", &[], true)]
    #[case::suffix_elsewhere("runtime-ctl.kagenti.dev-0123abcd", "a", &["team2"], false)]
    #[case::suffix_here("runtime-ctl.kagenti.dev-0123abcd", "a", &["team2,team1"], true)]
    #[case::legacy(LEGACY_LEASE, "a", &[], true)]
    #[case::other("card-ctl.kagenti.dev", "a", &[], false)]
    #[case::similar("runtime-ctl.kagenti.develop", "a", &[], false)]
    #[case::foreign("kube-scheduler", "a", &[], false)]
    #[case::released("runtime-ctl.kagenti.dev", "", &[], false)]
    fn leases_that_concern(
        #[case] name: &str,
        #[case] holder: &str,
        #[case] scopes: &[&str],
        #[case] holds: bool,
    ) {
        let components: Vec<Component> = scopes.iter().map(|s| component("runtime-ctl", s, 0, 0)).collect();
        let held = Holder::of(lease(name, holder));
        assert_eq!(held.is_some_and(|held| held.concerns(&[runtime()], &components)), holds);
    }

    /// A Lease that cannot be read is not one whose holder died.
    #[test]
    fn what_watching_shows() {
        let look = |now| {
            let holder = Holder::of(lease("runtime-ctl.kagenti.dev", "a")).expect("held");
            let mut seen = Watched::default();
            seen.add(&holder, now);
            (seen.renewed, seen.unknown)
        };
        let unchanged = lease("runtime-ctl.kagenti.dev", "a");
        let mut renewed = unchanged.clone();
        renewed.metadata.resource_version = Some("8".to_owned());
        let name = "Lease runtime-ctl.kagenti.dev in namespace kagenti-system is renewed by a";
        assert_eq!(look(Answer::Known(Some(unchanged))), (vec![], vec![]));
        assert_eq!(look(Answer::Known(None)), (vec![], vec![]));
        assert_eq!(look(Answer::Known(Some(renewed))), (vec![name.to_owned()], vec![]));
        assert_eq!(look(Answer::Unknown("no".to_owned())), (vec![], vec![format!("whether {name}: no")]));
    }

    #[test]
    fn the_previous_operator_has_no_secrets() {
        let held = Holder::of(lease(LEGACY_LEASE, "a")).expect("held");
        assert!(!held.concerns(&[secret()], &[]));
        assert_eq!(held.lasts, Duration::from_secs(4));
    }
}
