//! One namespace with Roles only (packaging §7, README decision 23).

use anyhow::Result;
use e2e::{kinds, objects, secs};
use local_cluster::ApiRequest;
use serde_json::json;

use super::fixture::{
    NETPOL_CTL, agent, card, cluster, enforcing, policies, refused, start, until_restrictive, verified,
};

#[tokio::test]
async fn card_15_one_namespace() -> Result<()> {
    let suite = cluster().await?;
    let (ns, other) = (
        suite.namespace("card-15-one", json!({})).await?,
        suite.namespace("card-15-other", json!({})).await?,
    );
    for space in [&ns, &other] {
        space.create(agent("a")).await?;
        space.create(card("a-card", "Deployment", "a")).await?;
    }
    let mark = suite.cluster().audit()?.mark()?;
    let options = || enforcing().namespace("card-15-one").namespaced(["card-15-one"]);
    let netpol = start(&suite, options()).await?;
    // Without the flag nothing tells the API server's address: everything is denied, and said.
    let policy = until_restrictive(&ns, "a-signature-policy").await?;
    assert_eq!(policy.pointer("/spec/egress"), None, "{policy}");
    let (status, text) = local_cluster::http::get(&format!("{}/readyz?verbose", netpol.probe_url())).await?;
    assert!(status.is_success() && text.contains("--apiserver-cidrs"), "{text}");
    assert!(netpol.log().contains("--apiserver-cidrs"));
    netpol.terminate().await?;

    let options = options().instance("netpol-told").args(["--apiserver-cidrs=192.0.2.9"]);
    let _netpol = start(&suite, options).await?;
    let policy = ns
        .until(secs(5), kinds::NETWORK_POLICY, "a-signature-policy", "the address", |object| {
            object.to_string().contains("192.0.2.9/32")
        })
        .await?;
    assert_eq!(policy["spec"]["egress"][0]["ports"], json!([{"protocol": "TCP", "port": 6443}]));
    verified(&other, "a-card").await?;
    refused(&ns, "a-card").await?;
    let foreign = objects::named(kinds::NETWORK_POLICY, "surplus")
        .label("managed-by", "kagenti-operator")
        .label("kagenti.dev/policy-type", "identity-verification")
        .spec(json!({"podSelector": {}}));
    other.create(foreign).await?;
    tokio::time::sleep(secs(3)).await;
    assert_eq!(policies(&other).await?, ["surplus"], "another namespace is not ours");
    let outside = suite.cluster().audit()?.since(mark, |request| {
        request.short_user() == NETPOL_CTL
            && !request.resource.is_empty()
            && request.namespace != "card-15-one"
    })?;
    assert!(outside.is_empty(), "{outside:?}");
    // The API server may know the rights a moment after it stored them: who was let in later was not refused.
    let all = suite.cluster().audit()?.since(mark, |request| request.short_user() == NETPOL_CTL)?;
    let refused: Vec<_> = all
        .iter()
        .enumerate()
        .filter(|(at, request)| {
            let same = |other: &ApiRequest| {
                (&other.verb, &other.resource, &other.namespace)
                    == (&request.verb, &request.resource, &request.namespace)
            };
            request.code == 403 && !all.iter().skip(*at).any(|other| other.code < 300 && same(other))
        })
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    Ok(())
}
