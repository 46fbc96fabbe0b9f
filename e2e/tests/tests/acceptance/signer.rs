//! The signer beside an agent: what it writes and with which rights (card §16). The nodes are not real, so the
//! test runs the signer itself, with the container's environment and its ServiceAccount's token.

use std::fs;
use std::process::ExitCode;

use agentcard_signer::{KubeApi, Settings, run};
use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use e2e::{Json as _, Ns, Suite, api, kinds};
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A Pod's view of the cluster: its SVID, its card, and its service account.
pub(super) struct Pod {
    directory: TempDir,
    address: (String, u16),
}

impl Pod {
    /// The Pod of ServiceAccount `account` in `ns`, with `card` mounted.
    pub(super) async fn new(suite: &Suite, ns: &Ns, account: &str, card: &str) -> Result<Self> {
        let config = local_cluster::access::config(suite.cluster().kubeconfig()).await?;
        let url = &config.cluster_url;
        let address = (url.host().context("a host")?.to_owned(), url.port_u16().context("a port")?);
        let directory = tempfile::tempdir()?;
        let write = |name: &str, text: String| fs::write(directory.path().join(name), text);
        let encoded = |der: &Vec<u8>| base64::engine::general_purpose::STANDARD.encode(der);
        let block =
            |der| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", encoded(der));
        write("ca.crt", config.root_cert.iter().flatten().map(block).collect::<Vec<_>>().concat())?;
        let path = format!("{}/{account}/token", kinds::SERVICE_ACCOUNT.path(Some(ns.name())));
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let answer = api::call(ns.client(), "POST", &path, "application/json", Some(&request)).await?.ok()?;
        write("token", answer.text("/status/token").to_owned())?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let id = format!("spiffe://example.org/ns/{}/sa/{account}", ns.name());
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        write("svid.pem", params.self_signed(&key)?.pem())?;
        write("svid_key.pem", key.serialize_pem())?;
        write("agent.json", card.to_owned())?;
        Ok(Self { directory, address })
    }

    /// Signs once, with these variables on top of the files of this Pod.
    pub(super) async fn sign(&self, variables: &[(String, String)]) -> Result<ExitCode> {
        let path = |name: &str| Some(self.directory.path().join(name).display().to_string());
        let settings = Settings::from_variables(|name| match name {
            "SVID_CERT_PATH" => path("svid.pem"),
            "SVID_KEY_PATH" => path("svid_key.pem"),
            "UNSIGNED_CARD_PATH" => path("agent.json"),
            "AGENT_CARD_PATH" => path("out/agent-card.json"),
            name => variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()),
        })?;
        let (host, port) = &self.address;
        Ok(run(&settings, || KubeApi::new(host, *port, self.directory.path())).await)
    }

    /// The file that the agent would serve.
    pub(super) fn signed(&self) -> Result<String> {
        fs::read_to_string(self.directory.path().join("out/agent-card.json")).context("the signed card")
    }
}

/// Runs the signer of an applied sample: the ConfigMap appears, with the rights that the sample gives and no others.
pub(super) async fn signs_as_the_sample_says(suite: &Suite, ns: &Ns, agent: &str) -> Result<Value> {
    let deployment = ns.get(kinds::DEPLOYMENT, agent).await?;
    let containers = deployment.items("/spec/template/spec/initContainers");
    let signer = containers
        .iter()
        .find(|container| container.text("/name") == "sign-agentcard")
        .context("the signer")?;
    let mut variables: Vec<(String, String)> = signer
        .items("/env")
        .iter()
        .filter(|variable| !matches!(variable.text("/name"), "SPIFFE_ENDPOINT_SOCKET" | "SIGNER_MODE"))
        .map(|variable| (variable.text("/name").to_owned(), variable.text("/value").to_owned()))
        .collect();
    let namespace =
        variables.iter_mut().find(|(name, _)| name == "POD_NAMESPACE").context("POD_NAMESPACE")?;
    ensure!(namespace.1.is_empty(), "it comes from the Pod's own metadata");
    ns.name().clone_into(&mut namespace.1);

    let unsigned = ns.get(kinds::CONFIG_MAP, &format!("{agent}-card-unsigned")).await?;
    let account = deployment.text("/spec/template/spec/serviceAccountName");
    let pod = Pod::new(suite, ns, account, unsigned.text("/data/agent.json")).await?;
    let name = format!("{agent}-card-signed");
    // The API server may know the rights a moment after it stored them; then nothing but a warning comes of it.
    let map = e2e::wait_for(e2e::secs(10), "the rights of the sample to count", async || {
        ensure!(pod.sign(&variables).await? == ExitCode::SUCCESS);
        ns.find(kinds::CONFIG_MAP, &name).await
    })
    .await
    .context("the rights of the sample do not suffice")?;
    assert_eq!(map.label("kagenti.io/card-signed"), Some("true"));
    assert_eq!(map.pointer("/data/agent-card.json").and_then(Value::as_str), Some(pod.signed()?.as_str()));
    let card: Value = serde_json::from_str(&pod.signed()?)?;
    assert!(!card.items("/signatures").is_empty());

    // The same again costs no write.
    let version = map.text("/metadata/resourceVersion").to_owned();
    ensure!(pod.sign(&variables).await? == ExitCode::SUCCESS);
    let again = ns.get(kinds::CONFIG_MAP, &name).await?;
    assert_eq!(again.text("/metadata/resourceVersion"), version);

    // Another card replaces it: create alone would not do.
    let pod = Pod::new(suite, ns, account, r#"{"name":"another","version":"2"}"#).await?;
    ensure!(pod.sign(&variables).await? == ExitCode::SUCCESS);
    let replaced = ns.get(kinds::CONFIG_MAP, &name).await?;
    assert!(replaced.text("/data/agent-card.json").contains("another"));
    Ok(deployment)
}

/// Scenario 25 against a real API server; its other halves are in the crate's own tests.
#[tokio::test]
async fn card_25_signer() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("card-25", Value::Null).await?;
    ns.apply(e2e::objects::named(kinds::SERVICE_ACCOUNT, "agent")).await?;
    let card = r#"{"name":"agent","version":"1","x-unknown":{"a":[1.50,""]}}"#;
    let pod = Pod::new(&suite, &ns, "agent", card).await?;
    let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let both = [named("AGENT_NAME", "agent"), named("POD_NAMESPACE", ns.name())];

    ensure!(pod.sign(&both).await? == ExitCode::SUCCESS, "no rights: a warning, no failure");
    assert!(ns.find(kinds::CONFIG_MAP, "agent-card-signed").await?.is_none());
    ensure!(pod.sign(&both[..1]).await? == ExitCode::SUCCESS, "no POD_NAMESPACE: a warning, no failure");

    // The rights that users gave the previous signer: update, and no patch.
    let rules =
        json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "update", "get"]}]);
    ns.apply(e2e::objects::named(kinds::ROLE, "signer").with(json!({"rules": rules}))).await?;
    let binding = json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "signer"},
        "subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": ns.name()}],
    });
    ns.apply(e2e::objects::named(kinds::ROLE_BINDING, "signer").with(binding)).await?;
    let foreign = json!({"team": "a"});
    ns.apply(e2e::objects::config_map("agent-card-signed", foreign)).await?;
    e2e::wait_for(e2e::secs(10), "the rights to count", async || {
        ensure!(pod.sign(&both).await? == ExitCode::SUCCESS);
        let map = ns.get(kinds::CONFIG_MAP, "agent-card-signed").await?;
        Ok(map.pointer("/data/agent-card.json").is_some().then_some(()))
    })
    .await?;
    let map = ns.get(kinds::CONFIG_MAP, "agent-card-signed").await?;
    assert_eq!(map.label("kagenti.io/card-signed"), Some("true"));
    assert_eq!(map.text("/data/team"), "a", "foreign keys stay");
    let card: Value = serde_json::from_str(map.text("/data/agent-card.json"))?;
    assert!(card.pointer("/x-unknown").is_some());
    assert_eq!(card.items("/signatures").len(), 2);
    Ok(())
}
