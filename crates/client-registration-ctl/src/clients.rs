//! Finding, making, adopting and repairing the client (client-registration §6).

use std::time::Duration;

use crate::{
    context::Context,
    keycloak::{
        KeycloakError,
        api::Created,
        client::{Client, Desired, Ownership, ownership},
    },
    trust::Server,
};

/// How often a create and the find after it are tried while they contradict each other, and the pause between (§6.3).
const PAIRS: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);

/// A client that is as it should be.
#[derive(Debug)]
pub struct Registered {
    /// The client as it was found; only its ids when it was made just now.
    pub client: Client,
    /// It was made in this pass.
    pub created: bool,
    /// Whose it was.
    pub ownership: Ownership,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Keycloak.
    #[error(transparent)]
    Keycloak(#[from] KeycloakError),
    /// It is somebody else's.
    #[error("{0}")]
    Conflict(String),
}

/// Brings the client about. `found` is what a look has just shown, and whether the client comes from the operator this
/// product replaces; `desired` says what it should be, given what was found.
///
/// # Errors
/// What a later try or a person may fix.
pub async fn ensure(
    ctx: &Context,
    server: &Server,
    client_id: &str,
    cluster_id: &str,
    (found, inherited): (Option<Client>, bool),
    desired: impl Fn(Option<&Client>) -> Desired,
) -> Result<Registered, ClientError> {
    let keycloak = &ctx.keycloak;
    let policy = ctx.settings.client_conflict_policy;
    let mut created = false;
    let mut first = Some(found);
    for pair in 0..=PAIRS {
        let found = match first.take() {
            Some(found) => found,
            None => keycloak.find_client(server, client_id).await?,
        };
        if let Some(found) = found {
            let owner = ownership(&found, cluster_id, inherited, policy);
            if let Ownership::Conflict(why) = owner {
                return Err(ClientError::Conflict(why));
            }
            let repair = desired(Some(&found)).repair_body(&found, &owner);
            if let Some(body) = repair
                && !keycloak.update_client(server, &found.id, &body).await?
            {
                // Deleted meanwhile.
                continue;
            }
            return Ok(Registered { client: found, created, ownership: owner });
        }
        if created {
            return Err(ClientError::Keycloak(KeycloakError::Transient {
                operation: "find the client",
                detail: format!("Keycloak created {client_id} and does not show it"),
            }));
        }
        if pair == PAIRS {
            break;
        }
        if pair > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        match keycloak.create_client(server, &desired(None).create_body()).await? {
            Created::Made(Some(id)) => {
                let client = Client { id, client_id: client_id.to_owned(), ..Client::default() };
                return Ok(Registered { client, created: true, ownership: Ownership::Ours });
            }
            Created::Made(None) => created = true,
            Created::Exists => {}
        }
    }
    Err(ClientError::Keycloak(KeycloakError::Transient {
        operation: "create the client",
        detail: format!(
            "Keycloak says that {client_id} exists, and does not find it: is there a client whose id differs only in \
             upper and lower case?"
        ),
    }))
}
