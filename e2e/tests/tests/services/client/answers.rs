//! Faults: everything a Keycloak, or what stands before it, may answer instead of the right thing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{agent, credentials_secret, until_credentials};
use e2e::services::registration::{Registration, Setup};
use e2e::services::{Fault, Seen, without_pods};
use e2e::{Ns, kinds, objects, secs};
use futures::future::try_join_all;
use serde_json::{Value, json};

/// An agent, what it meets instead of an answer, and what its AgentRuntime says then.
struct Case {
    agent: &'static str,
    method: &'static str,
    fault: Fault,
    reason: &'static str,
    says: &'static str,
}

impl Case {
    /// The agent's client cannot be looked up.
    fn find(agent: &'static str, fault: Fault, reason: &'static str, says: &'static str) -> Self {
        Self { agent, method: "GET", fault, reason, says }
    }

    /// Whether a request is about the agent's client.
    fn is_hit(&self, seen: &Seen) -> bool {
        let id = format!("team1/{}", self.agent);
        seen.method == self.method
            && match self.method {
                "GET" => seen.path.ends_with(&format!("/clients?clientId={}", id.replace('/', "%2F"))),
                _ => seen.path.ends_with("/clients") && seen.json().text("/clientId") == id,
            }
    }
}

/// Creates the agents, each with its fault, and waits until every AgentRuntime says what is wrong.
async fn all_are_told(
    registration: &Registration,
    ns: &Ns,
    limit: Duration,
    cases: &Arc<[Case]>,
) -> Result<()> {
    let rules = cases.clone();
    let fault = move |seen: &Seen| rules.iter().find(|case| case.is_hit(seen)).map(|case| case.fault.clone());
    registration.proxy()?.fault(fault);
    for case in cases.iter() {
        ns.create(objects::agent_runtime(case.agent, case.agent)).await?;
    }
    // All at once: what is said of a server that fails changes when it is left alone.
    try_join_all(cases.iter().map(|case| ns.create(agent(case.agent).replicas(0)))).await?;
    try_join_all(cases.iter().map(async |case| {
        let told = |object: &Value| {
            let said = object.condition("ClientRegistered");
            said.short() == format!("False/{}", case.reason) && said.message.contains(case.says)
        };
        ns.until(limit, kinds::AGENT_RUNTIME, case.agent, case.says, told).await
    }))
    .await?;
    for case in cases.iter() {
        ns.until_event(secs(10), case.agent, case.reason).await?;
        ensure!(credentials_secret(ns, case.agent).await?.is_none(), "{}: a Secret was written", case.agent);
    }
    ensure!(registration.component().is_running());
    Ok(())
}

/// Everything answers as it should again, and the agents are looked at at once instead of after minutes.
async fn all_recover(registration: &Registration, ns: &Ns, cases: &[Case]) -> Result<()> {
    registration.proxy()?.heal();
    for case in cases {
        let label = json!({"template": {"metadata": {"labels": {"kagenti.io/looked-at": "again"}}}});
        ns.set_spec(kinds::DEPLOYMENT, case.agent, label).await?;
    }
    for case in cases {
        until_credentials(ns, secs(60), case.agent).await?;
        registration.until_registered(ns, secs(20), case.agent, "True/Registered").await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_fault_strange_answers() -> Result<()> {
    let cases: Arc<[Case]> = Arc::new([
        Case::find(
            "unauthorized",
            Fault::json(401, &json!({"error": "HTTP 401 Unauthorized"})),
            "KeycloakUnauthorized",
            "HTTP 401 for a fresh token",
        ),
        Case::find(
            "forbidden",
            Fault::json(403, &json!({"error": "HTTP 403 Forbidden"})),
            "KeycloakForbidden",
            "manage-clients",
        ),
        Case {
            method: "POST",
            ..Case::find(
                "conflict",
                Fault::json(409, &json!({"errorMessage": "Client team1/conflict already exists"})),
                "KeycloakUnavailable",
                "says that team1/conflict exists",
            )
        },
        Case::find(
            "busy",
            Fault::json(429, &json!({"error": "slow down"})),
            "KeycloakUnavailable",
            "HTTP 429",
        ),
        Case::find(
            "broken",
            Fault::json(500, &json!({"error": "unknown_error"})),
            "KeycloakUnavailable",
            "HTTP 500: unknown_error",
        ),
        Case::find(
            "page",
            Fault::html(200, "<html>please log in</html>"),
            "KeycloakError",
            "not what Keycloak sends",
        ),
        Case::find(
            "half",
            Fault::Answer {
                status: 200,
                content: "application/json",
                body: "[{\"id\": \"x\", \"clientId\": \"team1/ha".to_owned(),
                headers: Vec::new(),
            },
            "KeycloakError",
            "not what Keycloak sends",
        ),
        Case::find(
            "moved",
            Fault::Answer {
                status: 302,
                content: "text/html",
                body: String::new(),
                headers: vec![("location", "http://127.0.0.1:9/".to_owned())],
            },
            "KeycloakError",
            "redirect",
        ),
    ]);
    let setup = Setup::new("client-answers").suite(without_pods()).proxied().args(["--concurrency=16"]);
    let registration = Registration::own(setup).await?;
    let ns = registration.place("team1").await?;
    all_are_told(&registration, &ns, secs(60), &cases).await?;

    let proxy = registration.proxy()?;
    // Only the first ten seconds of each: a machine that is slow has time for more tries after longer pauses.
    let of = |name: &str| {
        let case = cases.iter().find(|case| case.agent == name);
        let mut hits: Vec<_> =
            proxy.seen().into_iter().filter(|seen| case.is_some_and(|case| case.is_hit(seen))).collect();
        let first = hits.first().map(|seen| seen.at);
        hits.retain(|seen| first.is_some_and(|first| seen.at.duration_since(first) < secs(10)));
        hits
    };
    // A refused token is replaced once; a missing right is not asked about again for minutes. News of the Deployment may
    // be a reason for one more look at it.
    let tokens: Vec<_> =
        of("unauthorized").iter().map(|seen| seen.header("authorization").map(str::to_owned)).collect();
    ensure!(tokens.len() % 2 == 0 && tokens.len() <= 4, "{} requests with refused tokens", tokens.len());
    ensure!(tokens.chunks(2).all(|pair| pair[0] != pair[1]), "the refused token was sent again");
    ensure!(of("forbidden").len() <= 2, "{} requests without the right", of("forbidden").len());
    ensure!((4..=8).contains(&of("conflict").len()), "{} conflicts", of("conflict").len());

    all_recover(&registration, &ns, &cases).await?;
    let ids = registration.realm().agents().await?;
    ensure!(ids.len() == cases.len(), "{ids:?}");
    registration.keeps_secrets(&[]).await
}

/// Answers that take 30 s, with the limit of 15 s, both by a factor of 7.5, so that a real Keycloak can keep to it on a
/// busy machine; and connections that break.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_fault_slow_and_broken_connections() -> Result<()> {
    no_answers("client-slow", secs(4), "--keycloak-timeout=2s").await
}

#[tokio::test]
#[ignore = "long: just e2e-services-long"]
async fn long_client_fault_slow_and_broken_connections() -> Result<()> {
    no_answers("client-slow-long", secs(30), "--keycloak-timeout=15s").await
}

async fn no_answers(realm: &'static str, late: Duration, timeout: &str) -> Result<()> {
    let cases: Arc<[Case]> = Arc::new([
        Case::find("slow", Fault::Late(late), "KeycloakUnavailable", "no answer within the time limit"),
        Case::find("cut", Fault::Cut, "KeycloakUnavailable", "cannot find the client"),
        Case::find("torn", Fault::Torn, "KeycloakUnavailable", "the connection broke"),
    ]);
    let registration =
        Registration::own(Setup::new(realm).suite(without_pods()).proxied().args([timeout])).await?;
    let ns = registration.place("team1").await?;
    // Slow is no fault as long as it is in time.
    registration.proxy()?.slow(late / 8);
    registration.registered(&ns, "patient").await?;
    registration.proxy()?.slow(Duration::ZERO);
    all_are_told(&registration, &ns, late * 4 + secs(30), &cases).await?;
    all_recover(&registration, &ns, &cases).await
}
