//! The servers themselves: what the scenarios take for granted about them.

use anyhow::{Context as _, Result, ensure};
use e2e::json::Json as _;
use e2e::services::runs::{Experiments, log_run};
use e2e::services::{Account, Call, Fault, Proxy, Realm, Servers, keycloak, mlflow, mlflow_with_workspaces};
use local_cluster::services::{Keycloak, KeycloakOptions, Mlflow, MlflowOptions};
use serde_json::json;

/// A confidential client with a service account.
async fn service_account(realm: &Realm, id: &str, secret: &str) -> Result<Account> {
    let body =
        json!({"clientId": id, "secret": secret, "publicClient": false, "serviceAccountsEnabled": true});
    realm.create_client(&body).await?;
    Ok(Account { id: id.to_owned(), secret: secret.to_owned() })
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn servers_keycloak_gives_tokens_that_can_be_checked() -> Result<()> {
    let realm = Realm::create(&*keycloak().await?, "servers-tokens").await?;
    let other = Realm::create(&*keycloak().await?, "servers-other").await?;
    let token = realm.token(realm.platform()).await?;
    realm.accepts(&token, "account").await?;
    let error = realm.accepts(&token, "team1/weather").await.expect_err("for somebody else").to_string();
    ensure!(error.contains("not for team1/weather"), "{error}");
    let error = other.accepts(&token, "account").await.expect_err("of another realm").to_string();
    ensure!(error.contains("no key"), "{error}");
    let user = realm.user_token(realm.platform()).await?;
    realm.accepts(&user, "account").await?;
    ensure!(user.claims().text("/preferred_username") == "ann", "{user:?}");

    let agent = service_account(&realm, "spiffe://a.test/ns/t/sa/one", "the-secret-of-one").await?;
    realm.token(&agent).await?;
    let wrong = Account { secret: "the-secret-of-two".to_owned(), ..agent };
    let refused = realm.log_in(&wrong).await?;
    ensure!(refused.status == 401 && refused.body.text("/error") == "unauthorized_client", "{refused:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn servers_one_role_is_enough_to_register_and_for_nothing_else() -> Result<()> {
    let keycloak = keycloak().await?;
    let realm = Realm::create(&keycloak, "servers-rights").await?;
    let account = realm.least_rights().await?;
    let token = realm.token(&account).await?;
    let admin = format!("{}/admin/realms/{}", keycloak.url(), realm.name());
    let status = async |call: Call| anyhow::Ok(call.bearer(token.text()).send().await?.status);
    let client = json!({"clientId": "team1/x", "publicClient": false});
    ensure!(status(Call::post(format!("{admin}/clients")).json(&client)).await? == 201);
    ensure!(status(Call::get(format!("{admin}/client-scopes"))).await? == 200);
    ensure!(status(Call::get(format!("{admin}/users"))).await? == 403);
    let other = format!("{}/admin/realms/master/clients", keycloak.url());
    ensure!(matches!(status(Call::get(other)).await?, 401 | 403));
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn servers_keycloak_comes_back_as_it_was() -> Result<()> {
    let suite = Servers::suite().await?;
    let options =
        KeycloakOptions { name: "keycloak-plain".to_owned(), features: Vec::new(), keep_data: true };
    let own = Keycloak::start(suite.cluster(), options).await?;
    let realm = Realm::create(&own, "kept").await?;
    let before = realm.keys().await?;
    own.server().stop().await?;
    ensure!(Call::get(realm.issuer()).send().await.is_err(), "it answers after its end");
    own.server().start_again().await?;
    ensure!(realm.keys().await? == before, "other keys than before");
    ensure!(realm.existing("kagenti").await?.text("/secret") == realm.platform().secret);
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn servers_a_client_logs_a_run_by_its_environment() -> Result<()> {
    let mlflow = mlflow().await?;
    let experiments = Experiments::at(mlflow.url());
    let id = experiments.create("servers/weather").await?;
    let env = [
        ("MLFLOW_TRACKING_URI", mlflow.url()),
        ("MLFLOW_EXPERIMENT_ID", &id),
        ("MLFLOW_EXPERIMENT_NAME", "servers/weather"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (experiment, run) = log_run(mlflow.python(), &env).await?;
    ensure!(experiment == id, "the run is in experiment {experiment}, not {id}");
    let runs = experiments.runs(&id).await?;
    ensure!(runs.len() == 1 && runs[0].text("/info/run_id") == run, "{runs:?}");
    ensure!(runs[0].text("/data/params/0/value") == "Rome", "{runs:?}");
    ensure!(experiments.names().await?.contains(&"servers/weather".to_owned()));
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn servers_workspaces_are_apart() -> Result<()> {
    let mlflow = mlflow_with_workspaces().await?;
    let experiments = Experiments::at(mlflow.url());
    experiments.create_workspace("servers-one").await?;
    let one = experiments.clone().workspace("servers-one");
    one.create("weather").await?;
    ensure!(one.by_name("weather").await?.is_some());
    ensure!(experiments.workspace("default").by_name("weather").await?.is_none());
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn servers_mlflow_asks_for_a_password_and_checks_the_host() -> Result<()> {
    let suite = Servers::suite().await?;
    let options = MlflowOptions {
        name: "mlflow-guarded".to_owned(),
        basic_auth: true,
        prefix: "/mlflow".to_owned(),
        ..MlflowOptions::default()
    };
    let mlflow = Mlflow::start(suite.cluster(), options).await?;
    let search = || {
        let url = format!("{}/api/2.0/mlflow/experiments/search", mlflow.url());
        Call::post(url).json(&json!({"max_results": 10}))
    };
    ensure!(search().send().await?.status == 401);
    let password = mlflow.admin_password().context("a password")?;
    ensure!(search().basic("admin", password).send().await?.status == 200);
    let foreign = search().basic("admin", password).header("host", "mlflow.mlflow.svc:5000").send().await?;
    ensure!(foreign.status == 403, "{foreign:?}");
    mlflow.server().stop().await?;
    mlflow.forget_everything()?;
    mlflow.server().start_again().await?;
    ensure!(search().basic("admin", password).send().await?.status == 200);
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn servers_a_proxy_counts_and_breaks() -> Result<()> {
    let keycloak = keycloak().await?;
    let proxy = Proxy::before(keycloak.url()).await?;
    let url = format!("{}/realms/master", proxy.url());
    let through = Call::get(&url).ok().await?;
    ensure!(through == Call::get(format!("{}/realms/master", keycloak.url())).ok().await?, "{through}");
    proxy.fault(|seen| seen.path.ends_with("/master").then(|| Fault::html(500, "<p>broken</p>")));
    let broken = Call::get(&url).send().await?;
    ensure!(broken.status == 500 && broken.body == json!("<p>broken</p>"), "{broken:?}");
    proxy.down();
    ensure!(Call::get(&url).send().await.is_err());
    proxy.heal();
    ensure!(Call::get(&url).send().await?.status == 200);
    let statuses: Vec<u16> = proxy.seen().iter().map(|seen| seen.status).collect();
    ensure!(statuses == [200, 500, 0, 200], "{statuses:?}");
    Ok(())
}
