//! Scenario 5: the eleven vectors, each as one Pod.

use anyhow::Result;
use e2e::{Json as _, Ns, Suite};

use super::fixture::{ENVOY, REGISTRATION, SPIFFE, SPLIT, team, until_vector, vector};
use crate::webhook::fixture::{agent_pod, create_pod};

/// Labels of a pod template.
type Labels = &'static [(&'static str, &'static str)];

#[tokio::test]
async fn split_05_vectors() -> Result<()> {
    let suite = SPLIT.alone().await?;
    let ns = team(&suite, "split-05").await?;
    let labels: [(&str, Labels, &str); 6] = [
        ("default", &[], "1110"),
        ("registration", &[(REGISTRATION, "true")], "1111"),
        ("registration-false", &[(REGISTRATION, "false")], "1110"),
        ("envoy-false", &[(ENVOY, "false")], "0010"),
        ("spiffe-false", &[(SPIFFE, "false")], "1100"),
        ("all-false", &[(ENVOY, "false"), (SPIFFE, "false"), (REGISTRATION, "false")], "0000"),
    ];
    for (name, labels, wanted) in labels {
        check(&ns, name, labels, wanted).await?;
    }
    let outcome = gates(&suite, &ns).await;
    suite.set_gates("{}\n").await?;
    outcome?;
    until_vector(&ns, agent_pod("probe"), "all gates back", "1110").await?;
    Ok(())
}

/// A gate that is off beats every label.
async fn gates(suite: &Suite, ns: &Ns) -> Result<()> {
    suite.set_gates("envoyProxy: false\n").await?;
    until_vector(ns, agent_pod("probe"), "gate envoyProxy to be off", "0010").await?;
    check(ns, "gate-envoy", &[], "0010").await?;
    check(ns, "gate-envoy-label", &[(ENVOY, "true")], "0010").await?;

    suite.set_gates("spiffeHelper: false\n").await?;
    until_vector(ns, agent_pod("probe"), "gate spiffeHelper to be off", "1100").await?;
    check(ns, "gate-spiffe", &[], "1100").await?;
    check(ns, "gate-spiffe-label", &[(SPIFFE, "true")], "1100").await?;

    suite.set_gates("clientRegistration: false\n").await?;
    let probe = agent_pod("probe").label(REGISTRATION, "true");
    until_vector(ns, probe, "gate clientRegistration to be off", "1110").await?;
    check(ns, "gate-registration", &[], "1110").await?;
    check(ns, "gate-registration-label", &[(REGISTRATION, "true")], "1110").await
}

async fn check(ns: &Ns, name: &str, labels: &[(&str, &str)], wanted: &str) -> Result<()> {
    let pod = labels.iter().fold(agent_pod(name), |pod, (key, value)| pod.label(key, value));
    let (pod, _) = create_pod(ns, pod).await?;
    assert_eq!(vector(pod.json()), wanted, "{name}: {}", pod.json().readable());
    assert_eq!(pod.is_injected(), wanted != "0000", "{name}");
    Ok(())
}
