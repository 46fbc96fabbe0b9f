//! `kubectl kagenti version`.

use anyhow::{Context as _, Result};
use e2e::{Json as _, secs};
use serde_json::{Value, json};

use super::{BARE, OWN, Tenant, admin, component, run};

/// The components of a namespace, and a warning when two of them are too far apart.
#[tokio::test]
async fn packaging_16_version_names_components_and_warns_of_skew() -> Result<()> {
    let suite = BARE.share().await?;
    let ns = suite.namespace("plugin-version", Value::Null).await?;
    ns.create(component("runtime-ctl", OWN)).await?;
    let args = ["version", "-n", ns.name()];
    let said = admin(&suite, &args).await?;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.starts_with(&format!("kubectl-kagenti {OWN} (")), "{}", said.out);
    assert!(said.out.contains(&format!("runtime-ctl   plugin-version   {OWN}")), "{}", said.out);
    assert_eq!(said.err, "");

    let (major, _) = OWN.split_once('.').context("a version")?;
    let far = format!("{}.0.0", major.parse::<u64>()? + 1);
    ns.create(component("card-ctl", &far)).await?;
    let said = admin(&suite, &args).await?;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("warning: runtime-ctl in namespace plugin-version is"), "{}", said.err);
    assert!(said.err.contains(&format!("use the plugin of release {far}")), "{}", said.err);

    let said = admin(&suite, &["version", "-n", ns.name(), "-o", "json"]).await?;
    let report = said.json()?;
    assert_eq!((said.code, report.text("/plugin/version")), (Some(1), OWN));
    assert_eq!((report.items("/components").len(), report.items("/warnings").len()), (2, 2));
    Ok(())
}

/// What an account may not ask is unknown, and how to get to know it is said.
#[tokio::test]
async fn packaging_16_version_says_what_it_may_not_ask() -> Result<()> {
    let suite = BARE.share().await?;
    let ns = suite.namespace("plugin-version-tenant", Value::Null).await?;
    let tenant = Tenant::new(&suite, ns.name(), json!([])).await?;
    let said = tenant.run(&["version", "-n", ns.name()]).await?;
    assert_eq!(said.code, Some(1), "{said:?}");
    let needs = "needs the right to list deployments.apps in namespace plugin-version-tenant";
    assert!(said.err.contains(needs), "{}", said.err);
    let said = tenant.run(&["version"]).await?;
    assert!(said.err.contains("needs the right to list deployments.apps in every namespace"), "{}", said.err);
    Ok(())
}

/// Without a cluster the plugin's own version is said all the same.
#[tokio::test]
async fn packaging_16_version_without_a_cluster() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("kubeconfig");
    std::fs::write(
        &file,
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "x", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        })
        .to_string(),
    )?;
    let started = tokio::time::Instant::now();
    let said = run(file.clone(), &["version"]).await?;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.out.starts_with("kubectl-kagenti "), "{said:?}");
    assert!(said.err.contains("the API server at https://127.0.0.1:1/ does not answer"), "{said:?}");
    assert!(started.elapsed() < secs(40));
    let said = run(file, &["version", "--context", "y"]).await?;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("context y: ") && said.err.contains("get-contexts"), "{said:?}");
    Ok(())
}
