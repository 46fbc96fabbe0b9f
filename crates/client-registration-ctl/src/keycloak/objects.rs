//! Smaller answers.

use rest_client::Secret;
use serde::Deserialize;

/// Answer of the token endpoint.
#[derive(Debug, Deserialize)]
pub struct TokenAnswer {
    /// The token.
    pub access_token: Secret,
    /// Seconds it lives; 0 or absent counts as 60.
    #[serde(default)]
    pub expires_in: u64,
    /// Ends the session that the login began.
    #[serde(default)]
    pub refresh_token: Option<Secret>,
}

/// A client's secret.
#[derive(Debug, Default, Deserialize)]
pub struct ClientSecret {
    /// Absent for clients without credentials.
    #[serde(default)]
    pub value: Option<Secret>,
}

/// `GET /admin/serverinfo`, as far as it matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServerInfo {
    /// Optional features.
    pub features: Vec<Feature>,
}

/// A feature of the server.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Feature {
    /// E.g. `SPIFFE`.
    pub name: String,
    /// On.
    pub enabled: bool,
}

impl ServerInfo {
    /// The features that federated JWT needs and the server has not on; `None` when it does not list features.
    pub fn missing_for_federation(&self) -> Option<Vec<&'static str>> {
        if self.features.is_empty() {
            return None;
        }
        let on = |name: &&str| self.features.iter().any(|feature| feature.name == *name && feature.enabled);
        Some(["CLIENT_AUTH_FEDERATED", "SPIFFE"].into_iter().filter(|name| !on(name)).collect())
    }
}

/// An entry of a list of scopes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ScopeRef {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn features() {
        let info: ServerInfo = serde_json::from_value(json!({"features": [
            {"name": "SPIFFE", "enabled": false}, {"name": "CLIENT_AUTH_FEDERATED", "enabled": true, "type": "PREVIEW"},
        ], "other": 1}))
        .unwrap();
        assert_eq!(info.missing_for_federation(), Some(vec!["SPIFFE"]));
        assert_eq!(ServerInfo::default().missing_for_federation(), None);
    }
}
