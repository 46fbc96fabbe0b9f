//! Scenarios 1, 4, 5, 9, 20, 21, 23: from a workload to credentials that work. What of them needs the webhook is in
//! `injected`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{
    self, SECRET_ANNOTATION, TYPE, WORKLOAD_ANNOTATION, account, agent, credentials_secret, until_credentials,
};
use e2e::services::registration::{Login, NEXT_CHECK, Registration, Setup};
use e2e::services::{Account, Fault, without_pods};
use e2e::{Ns, kinds, objects, secs, wait_for};
use serde_json::{Value, json};

/// Name of the Secret of `team1/weather-agent` (client-registration §8).
const SECRET: &str = "kagenti-keycloak-client-credentials-a325925866a45ebf";

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_01_register() -> Result<()> {
    let registration = Registration::shared().await?;
    let realm = registration.realm();
    let ns = registration.place("team1").await?;
    let mark = registration.cluster().audit()?.mark()?;
    ns.create(agent("weather-agent")).await?;
    let secret = ns.until(secs(10), kinds::SECRET, SECRET, "the credentials", |_| true).await?;
    let credentials = account(&secret)?;
    ensure!(credentials.id == "team1/weather-agent", "{credentials:?}");
    ensure!(
        secret.label("app.kubernetes.io/managed-by") == Some("kagenti-operator"),
        "{}",
        secret.readable()
    );
    ensure!(secret.annotation("kagenti.io/credentials-revision") == Some("1"), "{}", secret.readable());
    for name in ["keycloak-client-uuid", "keycloak-scope-id", "registration-hash", "registered-at"] {
        let value = secret.annotation(&format!("kagenti.io/{name}"));
        ensure!(value.is_some_and(|value| !value.is_empty()), "{name}: {}", secret.readable());
    }
    for (name, value) in [
        ("keycloak-url", registration.url()),
        ("keycloak-realm", realm.name()),
        ("workload", "team1/Deployment/weather-agent"),
    ] {
        ensure!(secret.annotation(&format!("kagenti.io/{name}")) == Some(value), "{}", secret.readable());
    }
    ensure!(
        secret.text("/type") == "Opaque" && secret["data"].as_object().is_some_and(|data| data.len() == 2)
    );
    ensure!(is_plainly_owned(&secret, "weather-agent"), "{}", secret.readable());

    let client = realm.existing("team1/weather-agent").await?;
    for (field, wanted) in [
        ("name", json!("team1/weather-agent")),
        ("standardFlowEnabled", json!(true)),
        ("directAccessGrantsEnabled", json!(true)),
        ("serviceAccountsEnabled", json!(true)),
        ("fullScopeAllowed", json!(false)),
        ("publicClient", json!(false)),
        ("clientAuthenticatorType", json!("client-secret")),
    ] {
        ensure!(client.get(field) == Some(&wanted), "{field}: {client}");
    }
    let attributes = &client["attributes"];
    ensure!(attributes["standard.token.exchange.enabled"] == "true", "{attributes}");
    ensure!(attributes["kagenti.managed-by"] == "client-registration-ctl", "{attributes}");
    ensure!(attributes["kagenti.workload"] == "team1/Deployment/weather-agent", "{attributes}");
    let cluster = registration.global().await?.get(kinds::NAMESPACE, "kube-system").await?;
    ensure!(attributes["kagenti.cluster-id"] == cluster.uid(), "{attributes}");

    let token = realm.token(&credentials).await?;
    realm.accepts(&token, "team1/weather-agent").await?;
    let annotated = |object: &Value| object.template_annotation(SECRET_ANNOTATION) == Some(SECRET);
    ns.until(secs(20), kinds::DEPLOYMENT, "weather-agent", "the annotation", annotated).await?;
    // The log shows a request when it is answered, which is after its effect; and others share this process.
    let writes = wait_for(secs(10), "the patch in the audit log", async || {
        let mut writes = registration.object_writes(mark, "client-registration-ctl")?;
        writes.retain(|request| request.namespace == ns.name());
        Ok(writes.iter().any(|request| request.resource == "deployments").then_some(writes))
    });
    let writes = writes.await?;
    let first = |resource: &str| writes.iter().position(|request| request.resource == resource);
    ensure!(first("secrets") < first("deployments") && first("secrets").is_some(), "{writes:?}");
    let template = ns.get(kinds::DEPLOYMENT, "weather-agent").await?;
    let revision = template.template_annotation(agents::REVISION_ANNOTATION);
    ensure!(revision.is_none(), "the first revision is not written: {revision:?}");
    registration.keeps_secrets(&[]).await
}

/// Our finalizer, and one owner that neither controls nor blocks.
fn is_plainly_owned(secret: &Value, owner: &str) -> bool {
    let owners = secret.items("/metadata/ownerReferences");
    let off = |flag: &str| owners.iter().all(|owner| owner.get(flag).is_none_or(|value| value == false));
    secret.texts("/metadata/finalizers").contains(&"kagenti.io/keycloak-client")
        && owners.len() == 1
        && owners[0].text("/name") == owner
        && off("controller")
        && off("blockOwnerDeletion")
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_01_tokens_are_for_one_agent_only() -> Result<()> {
    let registration = Registration::shared().await?;
    let realm = registration.realm();
    let ns = registration.place("client-01-two").await?;
    let one = registration.registered(&ns, "one").await?;
    let two = registration.registered(&ns, "two").await?;
    let token = realm.token(&one).await?;
    realm.accepts(&token, &one.id).await?;
    let error = realm.accepts(&token, &two.id).await.expect_err("one's token at two").to_string();
    ensure!(error.contains("not for client-01-two/two"), "{error}");
    let stolen = Account { id: two.id.clone(), secret: one.secret.clone() };
    let refused = realm.log_in(&stolen).await?;
    ensure!(refused.status == 401, "{refused:?}");
    realm.token(&two).await?;
    registration.keeps_secrets(&[]).await
}

/// Workloads of the eligibility table: those that register at once, and those that do not.
async fn table(ns: &Ns) -> Result<([&'static str; 4], [&'static str; 6])> {
    let legacy = "kagenti.io/client-registration-inject";
    ns.create(objects::deployment("plain")).await?;
    ns.create(agent("legacy").template_label(legacy, "true")).await?;
    ns.create(agent("agent")).await?;
    ns.create(objects::deployment("tool").template_label(TYPE, "tool")).await?;
    ns.create(objects::deployment("legacy-tool").template_label(TYPE, "tool").template_label(legacy, "true"))
        .await?;
    ns.create(objects::deployment("other").template_label(TYPE, "gateway")).await?;
    ns.create(objects::deployment("label-only").label(TYPE, "agent")).await?;
    ns.create(agent("no-legacy").template_label(legacy, "false")).await?;
    ns.create(objects::stateful_set("stateful").template_label(TYPE, "agent")).await?;
    let template = json!({
        "metadata": {"labels": {"app": "sandbox", TYPE: "agent"}},
        "spec": {"containers": [objects::container(8080)]},
    });
    let sandbox = objects::named(kinds::SANDBOX_ALPHA, "sandbox").spec(json!({"podTemplate": template}));
    ns.create(sandbox).await?;
    Ok((
        ["agent", "no-legacy", "sandbox", "stateful"],
        ["plain", "legacy", "tool", "legacy-tool", "other", "label-only"],
    ))
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_04_eligibility_table() -> Result<()> {
    let suite = without_pods().object("", e2e::suite::sandbox_crd("v1alpha1")?);
    let registration = Registration::own(Setup::new("client-04").suite(suite)).await?;
    let ns = registration.place("team1").await?;
    let (yes, no) = table(&ns).await?;
    let ids = |names: &[&str]| names.iter().map(|name| format!("team1/{name}")).collect::<Vec<_>>();
    for name in yes {
        until_credentials(&ns, secs(20), name).await?;
    }
    ensure!(registration.realm().agents().await? == ids(&yes));
    for name in no {
        ensure!(credentials_secret(&ns, name).await?.is_none(), "{name} has a Secret");
    }
    registration.set_gates("injectTools: true\n").await?;
    until_credentials(&ns, secs(10), "tool").await?;
    let mut wanted = ids(&yes);
    wanted.push("team1/tool".to_owned());
    wanted.sort_unstable();
    ensure!(registration.realm().agents().await? == wanted);
    // A gate that is closed again removes nothing, and nothing is registered.
    ns.create(objects::agent_runtime("agent", "agent")).await?;
    registration.set_gates("clientRegistration: false\n").await?;
    // Gates and workloads come by different watches: the newcomer must not overtake the gate.
    registration.until_registered(&ns, secs(20), "agent", "False/GateDisabled").await?;
    ns.create(objects::agent_runtime("late", "late")).await?;
    ns.create(agent("late")).await?;
    registration.until_registered(&ns, secs(20), "late", "False/GateDisabled").await?;
    tokio::time::sleep(secs(3)).await;
    ensure!(registration.realm().agents().await? == wanted);
    ensure!(credentials_secret(&ns, "agent").await?.is_some());
    // What is no YAML counts as absent (§2.2).
    registration.set_gates("clientRegistration: [").await?;
    until_credentials(&ns, secs(20), "late").await?;
    registration.keeps_secrets(&[]).await
}

/// The rest of §3: credentials of the user's own, a name from another manifest, several workloads of one name.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_04_names_that_were_given() -> Result<()> {
    let registration = Registration::shared().await?;
    let ns = registration.place("client-04-names").await?;
    ns.create(agent("own").template_annotation(SECRET_ANNOTATION, "my-client")).await?;
    ns.create(objects::agent_runtime("own", "own")).await?;
    registration.until_registered(&ns, secs(20), "own", "False/UserProvided").await?;

    // That of team1/weather-agent.
    ns.create(agent("copied").template_annotation(SECRET_ANNOTATION, SECRET).replicas(0)).await?;
    let secret = until_credentials(&ns, secs(20), "copied").await?;
    let right = |object: &Value| object.template_annotation(SECRET_ANNOTATION) == Some(secret.name());
    ns.until(secs(20), kinds::DEPLOYMENT, "copied", "the right name", right).await?;

    ns.create(agent("twice").replicas(0)).await?;
    ns.create(objects::stateful_set("twice").template_label(TYPE, "agent").replicas(0)).await?;
    let both = |secret: &Value| secret.items("/metadata/ownerReferences").len() == 2;
    let name = until_credentials(&ns, secs(20), "twice").await?.name().to_owned();
    ns.until(secs(20), kinds::SECRET, &name, "two owners", both).await?;
    for kind in [kinds::DEPLOYMENT, kinds::STATEFUL_SET] {
        let named = |object: &Value| object.template_annotation(SECRET_ANNOTATION) == Some(name.as_str());
        ns.until(secs(20), kind, "twice", "the annotation", named).await?;
    }
    // The client stays as long as one of them is there.
    ns.delete(kinds::DEPLOYMENT, "twice").await?;
    ns.gone(secs(20), kinds::DEPLOYMENT, "twice").await?;
    // The garbage collector may drop the reference first; the Secret then names the StatefulSet a moment later.
    let one = |secret: &Value| {
        secret.items("/metadata/ownerReferences").len() == 1
            && secret.annotation(WORKLOAD_ANNOTATION) == Some("client-04-names/StatefulSet/twice")
    };
    let left = ns.until(secs(20), kinds::SECRET, &name, "one owner, the StatefulSet", one).await?;
    ns.stays(secs(3), kinds::SECRET, &name).await?;
    let account = account(&left)?;
    registration.realm().token(&account).await?;

    ensure!(credentials_secret(&ns, "own").await?.is_none(), "the user's own credentials are enough");
    ensure!(registration.realm().client("client-04-names/own").await?.is_none());
    registration.keeps_secrets(&[]).await
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_05_waiting() -> Result<()> {
    let registration = Registration::own(Setup::new("client-05").without_pods().login(Login::Later)).await?;
    let ns = registration.namespace("team1", Value::Null).await?;
    ns.create(agent("weather")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    registration.until_registered(&ns, secs(10), "weather", "False/WaitingForConfig").await?;
    ensure!(ns.events("weather", "WaitingForConfig").await?.is_empty(), "waiting is no failure");
    ns.create(agents::authbridge_config(registration.url(), registration.realm().name())).await?;
    registration.until_registered(&ns, secs(5), "weather", "False/WaitingForAdminCredentials").await?;
    ensure!(credentials_secret(&ns, "weather").await?.is_none());
    registration.give_login().await?;
    until_credentials(&ns, secs(5), "weather").await?;

    let late = registration.namespace("team2", Value::Null).await?;
    late.create(agent("weather")).await?;
    late.create(objects::agent_runtime("weather", "weather")).await?;
    registration.until_registered(&late, secs(10), "weather", "False/WaitingForConfig").await?;
    late.create(agents::authbridge_config(registration.url(), registration.realm().name())).await?;
    until_credentials(&late, secs(5), "weather").await?;
    registration.keeps_secrets(&[]).await
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_09_token_economy() -> Result<()> {
    // Tokens of realm `master` are valid for 60 s.
    let setup = Setup::new("client-09").without_pods().resync(60).login(Login::Password).proxied();
    let registration = Registration::own(setup).await?;
    let proxy = registration.proxy()?;
    let ns = registration.place("team1").await?;
    let mark = proxy.mark();
    let started = std::time::Instant::now();
    for number in 0..100 {
        ns.create(agent(&format!("agent-{number}")).replicas(0)).await?;
    }
    let all = wait_for(secs(150), "100 clients", async || {
        Ok((registration.realm().agents().await?.len() == 100).then_some(()))
    });
    all.await?;
    let tokens = proxy.since(mark).iter().filter(|seen| seen.is_token()).count();
    // One per 45 s of a token's use, and one for a start in the middle.
    let allowed = 3.max(1 + started.elapsed().as_secs().div_ceil(45) as usize);
    ensure!(tokens <= allowed, "{tokens} token requests in {:?}", started.elapsed());

    let used = proxy.seen().iter().rev().find_map(|seen| seen.header("authorization").map(str::to_owned));
    let used = used.context("a request with a token")?;
    let refused = used.clone();
    proxy.fault(move |seen| {
        let same = seen.header("authorization") == Some(&refused);
        same.then(|| Fault::json(401, &json!({"error": "HTTP 401 Unauthorized"})))
    });
    let mark = proxy.mark();
    ns.create(agent("after").replicas(0)).await?;
    until_credentials(&ns, secs(20), "after").await?;
    let since = proxy.since(mark);
    let tokens = since.iter().filter(|seen| seen.is_token()).count();
    ensure!(tokens == 1, "{tokens} token requests after the cached one was refused");
    let bearer = |text: &String| text.trim_start_matches("Bearer ").to_owned();
    registration.keeps_secrets(&[bearer(&used)]).await
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_20_migration() -> Result<()> {
    let registration = Registration::own(Setup::new("client-20")).await?;
    registration.component().terminate().await?;
    let (realm, ns) = (registration.realm(), registration.place("team1").await?);
    let uuid = realm
        .create_client(&json!({
            "clientId": "team1/weather-agent",
            "name": "team1/weather-agent",
            "publicClient": false,
            "serviceAccountsEnabled": true,
            "standardFlowEnabled": true,
            "directAccessGrantsEnabled": true,
            "fullScopeAllowed": false,
            "attributes": {"standard.token.exchange.enabled": "true"},
        }))
        .await?;
    let old = realm.read(&format!("/clients/{uuid}/client-secret")).await?.text("/value").to_owned();
    let deployment = ns.create(agent("weather-agent").template_annotation(SECRET_ANNOTATION, SECRET)).await?;
    ns.create(
        objects::named(kinds::SECRET, SECRET).label("app.kubernetes.io/managed-by", "kagenti-operator").with(
            json!({
                "metadata": {"ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "Deployment", "name": "weather-agent",
                    "uid": deployment.uid(), "controller": true, "blockOwnerDeletion": true,
                }]},
                "stringData": {"client-id.txt": "team1/weather-agent", "client-secret.txt": old},
            }),
        ),
    )
    .await?;
    let before = ns.rolled_out(secs(40), kinds::DEPLOYMENT, "weather-agent").await?;
    let pods = uids(&ns.pods("weather-agent").await?);
    registration.component().restart().await?;
    let taken = |secret: &Value| {
        secret.annotation("kagenti.io/keycloak-client-uuid") == Some(uuid.as_str())
            && secret.annotation("kagenti.io/credentials-revision") == Some("1")
            && secret.annotation("kagenti.io/registration-hash").is_some()
            && is_plainly_owned(secret, "weather-agent")
    };
    let secret = ns.until(secs(30), kinds::SECRET, SECRET, "the Secret to be taken over", taken).await?;
    ensure!(account(&secret)?.secret == old, "the secret's value changed");
    let client = realm.existing("team1/weather-agent").await?;
    let attributes = &client["attributes"];
    ensure!(attributes["kagenti.managed-by"] == "client-registration-ctl", "{attributes}");
    ensure!(attributes["kagenti.workload"] == "team1/Deployment/weather-agent", "{attributes}");
    ensure!(!attributes["kagenti.cluster-id"].is_null(), "{attributes}");
    // It was made for this workload, so it goes with it.
    ensure!(attributes["kagenti.adopted"].is_null(), "{attributes}");
    // Over a full check nothing else happens.
    ns.stays(secs(15), kinds::SECRET, SECRET).await?;
    let after = ns.get(kinds::DEPLOYMENT, "weather-agent").await?;
    ensure!(after.template() == before.template(), "the template changed: a restart");
    ensure!(ns.replica_sets("weather-agent").await?.len() == 1);
    ensure!(uids(&ns.pods("weather-agent").await?) == pods, "Pods were replaced");
    registration.keeps_secrets(&[old]).await
}

fn uids(objects: &[Value]) -> Vec<String> {
    objects.iter().map(|object| object.uid().to_owned()).collect()
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_21_federated_jwt() -> Result<()> {
    let registration = Registration::shared().await?;
    let ns = registration.namespace("client-21", Value::Null).await?;
    let config = |kind: &str| {
        agents::authbridge_config(registration.url(), registration.realm().name())
            .with(json!({"data": {"CLIENT_AUTH_TYPE": kind}}))
    };
    ns.create(config("federated-jwt")).await?;
    let credentials = registration.registered(&ns, "weather").await?;
    ensure!(!credentials.id.is_empty() && !credentials.secret.is_empty());
    let client = registration.realm().existing("client-21/weather").await?;
    ensure!(client["clientAuthenticatorType"] == "federated-jwt", "{client}");
    ensure!(client["attributes"]["jwt.credential.issuer"] == "spire-spiffe", "{client}");
    ensure!(client["attributes"]["jwt.credential.sub"] == "client-21/weather", "{client}");
    ns.patch(kinds::CONFIG_MAP, "authbridge-config", json!({"data": {"CLIENT_AUTH_TYPE": "client-secret"}}))
        .await?;
    wait_for(NEXT_CHECK, "the client to be switched back", async || {
        let client = registration.realm().existing("client-21/weather").await?;
        let blank = |name: &str| client["attributes"].get(name).is_none_or(|value| value == "");
        let done = client["clientAuthenticatorType"] == "client-secret"
            && blank("jwt.credential.issuer")
            && blank("jwt.credential.sub");
        Ok(done.then_some(()))
    })
    .await?;
    registration.keeps_secrets(&[]).await
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_23_leak_check() -> Result<()> {
    let registration = Registration::own(Setup::new("client-23").without_pods().resync(3).proxied()).await?;
    let (proxy, ns) = (registration.proxy()?, registration.place("team1").await?);
    let first = registration.registered(&ns, "weather").await?;
    let second = registration.realm().rotate(&first.id).await?;
    let rotated = |secret: &Value| account(secret).is_ok_and(|account| account.secret == second);
    let name = until_credentials(&ns, secs(5), "weather").await?.name().to_owned();
    ns.until(NEXT_CHECK, kinds::SECRET, &name, "the new secret", rotated).await?;
    // Answers that quote what was sent, and refusals of every kind.
    for status in [400_u16, 401, 403, 409, 500] {
        let echo = move |seen: &e2e::services::Seen| {
            let sent = format!("{} {:?}", String::from_utf8_lossy(&seen.body), seen.header("authorization"));
            seen.path
                .contains("/clients")
                .then(|| Fault::json(status, &json!({"error": "x", "error_description": sent})))
        };
        // Before the agent is created: some refusals are not tried again for minutes.
        let mark = proxy.mark();
        proxy.fault(echo);
        ns.create(agent(&format!("refused-{status}")).replicas(0)).await?;
        wait_for(secs(20), "a refused request", async || {
            Ok(proxy.since(mark).iter().any(|seen| seen.status == status).then_some(()))
        })
        .await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let sent = proxy.seen();
    let tokens = sent.iter().filter_map(|seen| seen.header("authorization"));
    let mut further: Vec<String> = tokens
        .map(|text| text.trim_start_matches("Bearer ").to_owned())
        .filter(|text| text.len() > 20)
        .collect();
    further.sort_unstable();
    further.dedup();
    ensure!(!further.is_empty(), "no token was ever sent");
    further.extend([first.secret, second]);
    registration.keeps_secrets(&further).await
}
