//! Making, repairing and attaching the audience scope (client-registration §7).

use crate::{
    config::Config,
    context::Context,
    keycloak::{
        KeycloakError,
        api::Created,
        client::Client,
        scope::{Desired, Scope},
    },
    settings::Attach,
};

/// How often mappers are looked at again when somebody else changes them at the same time.
const ROUNDS: u32 = 3;

/// A scope that is in place.
#[derive(Debug)]
pub struct Ready {
    /// Its id.
    pub id: String,
    /// It was made just now.
    pub created: bool,
    /// Platform clients that do not exist.
    pub missing: Vec<String>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum AudienceError {
    /// Keycloak.
    #[error(transparent)]
    Keycloak(#[from] KeycloakError),
    /// It says one thing and then another, or others hold both names.
    #[error("{0}")]
    Unusable(String),
}

/// Brings the scope of an agent about. `recorded` is the id that its Secret names; it counts only when the scope is ours.
///
/// # Errors
/// What a later try may fix.
pub async fn ensure(
    ctx: &Context,
    config: &Config,
    desired: &Desired,
    recorded: Option<&str>,
    client: &Client,
) -> Result<Ready, AudienceError> {
    let (scope, created) = match recorded_scope(ctx, config, desired, recorded).await? {
        Some(scope) => (scope, false),
        None => find_or_create(ctx, config, desired).await?,
    };
    let scope = if created { scope } else { repair(ctx, config, desired, scope).await? };
    let keycloak = &ctx.keycloak;
    let server = &config.server;
    if !client.default_client_scopes.contains(&scope.name) {
        if client.optional_client_scopes.contains(&scope.name) {
            keycloak.detach_optional(server, &client.id, &scope.id).await?;
        }
        if !keycloak.attach_to_client(server, &client.id, &scope.id).await? {
            return Err(AudienceError::Unusable(format!(
                "client {} or scope {} was deleted meanwhile",
                client.client_id, scope.name
            )));
        }
    }
    let mut missing = Vec::new();
    for id in &config.platform_clients {
        if !ctx.platform_clients.attach(keycloak, server, id, (&scope.id, &scope.name)).await? {
            missing.push(id.clone());
        }
    }
    match config.attach {
        Attach::RealmDefault => {
            let listed = keycloak.realm_defaults(server).await?.iter().any(|entry| entry.id == scope.id);
            if !listed {
                keycloak.attach_to_realm(server, &scope.id).await?;
            }
        }
        Attach::Clients if ctx.settings.audience_scope_prune_realm_defaults => {
            prune(ctx, config, desired, &scope, client).await?;
        }
        Attach::Clients => {}
    }
    Ok(Ready { id: scope.id, created, missing })
}

async fn recorded_scope(
    ctx: &Context,
    config: &Config,
    desired: &Desired,
    recorded: Option<&str>,
) -> Result<Option<Scope>, KeycloakError> {
    let Some(id) = recorded else { return Ok(None) };
    let (name, other) = desired.names();
    // The annotation can be written by others: only a scope that bears our name and mark is ours.
    Ok(ctx
        .keycloak
        .read_scope(&config.server, id)
        .await?
        .filter(|scope| (scope.name == name || scope.name == other) && desired.is_ours(scope)))
}

async fn find_or_create(
    ctx: &Context,
    config: &Config,
    desired: &Desired,
) -> Result<(Scope, bool), AudienceError> {
    let (name, other) = desired.names();
    for name in [&name, &other] {
        let created = ctx.keycloak.create_scope(&config.server, &desired.create_body(name)).await?;
        if let Created::Made(Some(id)) = created {
            return Ok((Scope { id, name: name.clone(), ..Scope::default() }, true));
        }
        let Some(listed) = ctx.keycloak.find_scope(&config.server, name).await? else {
            return Err(AudienceError::Unusable(format!(
                "Keycloak says that client scope {name} exists, and does not list it"
            )));
        };
        // The list may be half a minute old.
        let found = ctx.keycloak.read_scope(&config.server, &listed.id).await?;
        if let Some(found) = found.filter(|found| found.name == *name && desired.is_ours(found)) {
            return Ok((found, false));
        }
    }
    Err(AudienceError::Unusable(format!(
        "client scopes {name} and {other} belong to others: delete or rename one of them in Keycloak"
    )))
}

async fn repair(
    ctx: &Context,
    config: &Config,
    desired: &Desired,
    mut scope: Scope,
) -> Result<Scope, AudienceError> {
    for _ in 0..ROUNDS {
        let steps = desired.repair(&scope);
        if steps.is_empty() {
            return Ok(scope);
        }
        let mut done = true;
        for step in &steps {
            done &= ctx.keycloak.repair_scope(&config.server, &scope.id, step).await?;
        }
        if done {
            tracing::info!(scope = scope.name, steps = steps.len(), "audience scope repaired");
            return Ok(scope);
        }
        let id = scope.id.clone();
        scope = ctx.keycloak.read_scope(&config.server, &id).await?.ok_or_else(|| {
            AudienceError::Unusable(format!("client scope {} was deleted meanwhile", scope.name))
        })?;
    }
    Err(AudienceError::Unusable(format!(
        "the mapper of client scope {} is changed by others at the same time",
        scope.name
    )))
}

/// `--audience-scope-prune-realm-defaults`: our scope leaves the realm's defaults, and other agents' scopes leave the
/// client that got them from there.
async fn prune(
    ctx: &Context,
    config: &Config,
    desired: &Desired,
    own: &Scope,
    client: &Client,
) -> Result<(), AudienceError> {
    let (keycloak, server) = (&ctx.keycloak, &config.server);
    if keycloak.realm_defaults(server).await?.iter().any(|entry| entry.id == own.id) {
        keycloak.detach_from_realm(server, &own.id).await?;
    }
    let foreign =
        client.default_client_scopes.iter().filter(|name| **name != own.name && is_audience_name(name));
    for name in foreign {
        let Some(scope) = keycloak.find_scope(server, name).await? else { continue };
        // Two workloads with one ServiceAccount share a client, and each has its scope on it.
        let carries_own = scope
            .protocol_mappers
            .iter()
            .any(|mapper| mapper.config.get("included.custom.audience") == Some(desired.client_id.as_str()));
        if !carries_own {
            keycloak.detach_default(server, &client.id, &scope.id).await?;
        }
    }
    Ok(())
}

/// `agent-…-aud`, with or without the suffix of §7.1.
fn is_audience_name(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("agent-") else { return false };
    let stem = rest
        .rsplit_once('-')
        .filter(|(_, hash)| hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .map_or(rest, |(stem, _)| stem);
    stem.ends_with("-aud")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("agent-team1-w-aud", true)]
    #[case("agent-a-b-c-aud-e5a15f6d", true)]
    #[case("agent-team1-w", false)]
    #[case("basic", false)]
    #[case("team-aud", false)]
    #[case("agent-a-aud-zzzzzzzz", false)]
    fn audience_names(#[case] name: &str, #[case] expected: bool) {
        assert_eq!(is_audience_name(name), expected);
    }
}
