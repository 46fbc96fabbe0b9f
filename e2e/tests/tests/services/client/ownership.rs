//! Whose the fields of a credentials Secret are (client-registration §8): it is created, and applied from then on.

use anyhow::{Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{account, agent, until_credentials};
use e2e::services::registration::{COMPONENT, NEXT_CHECK, Registration, Setup};
use e2e::{kinds, secs};
use serde_json::{Value, json};

const ROTATE: &str = "kagenti.io/rotate-credentials";
const ROTATED_FOR: &str = "kagenti.io/credentials-rotated-for";

/// What is given up is taken away, also when the Secret was created with it; and then nothing is written any more.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_08_what_a_secret_was_created_with_can_be_taken_away() -> Result<()> {
    let registration = Registration::own(Setup::new("client-ownership").resync(3)).await?;
    let ns = registration.place("team1").await?;
    ns.create(agent("weather").annotation(ROTATE, "monday")).await?;
    let secret = until_credentials(&ns, secs(30), "weather").await?;
    let first = account(&secret)?;
    ensure!(secret.annotation(ROTATED_FOR) == Some("monday"), "{}", secret.readable());

    ns.annotate(kinds::DEPLOYMENT, "weather", json!({ROTATE: null})).await?;
    let gone = |secret: &Value| secret.annotation(ROTATED_FOR).is_none();
    let secret = ns.until(NEXT_CHECK, kinds::SECRET, secret.name(), "it to be taken away", gone).await?;
    ensure!(account(&secret)? == first, "the credentials changed");
    let entries = secret.items("/metadata/managedFields").iter();
    let ours: Vec<&str> = entries
        .filter(|entry| entry.text("/manager") == COMPONENT)
        .map(|entry| entry.text("/operation"))
        .collect();
    ensure!(ours == ["Apply"], "{ours:?}");
    ns.stays(secs(12), kinds::SECRET, secret.name()).await.map(drop)
}
