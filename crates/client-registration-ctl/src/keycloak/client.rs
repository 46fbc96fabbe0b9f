//! The client: what it should look like, whether it does, and whose it is (client-registration §6). Pure.

use rest_client::Secret;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::attributes::{
    ADOPTED, Attributes, CLUSTER_ID, GRANT_PROFILE, MANAGED_BY, MANAGER, WORKLOAD, WorkloadMark,
};
use crate::settings::{ClientAuth, ConflictPolicy, GrantProfile};

const TOKEN_EXCHANGE: &str = "standard.token.exchange.enabled";
const FEDERATED_ISSUER: &str = "jwt.credential.issuer";
const FEDERATED_SUBJECT: &str = "jwt.credential.sub";
const OPENID: &str = "openid-connect";
const HARDENED: &str = "hardened";

/// A client as Keycloak shows it, as far as it matters. A missing boolean is false.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Client {
    /// UUID.
    pub id: String,
    /// Client id.
    pub client_id: String,
    /// Display name.
    pub name: String,
    /// `openid-connect` or `saml`; absent means the former.
    pub protocol: Option<String>,
    /// Authorization code flow.
    pub standard_flow_enabled: bool,
    /// Password flow.
    pub direct_access_grants_enabled: bool,
    /// Client credentials flow.
    pub service_accounts_enabled: bool,
    /// Every role of the realm in every token.
    pub full_scope_allowed: bool,
    /// No credentials.
    pub public_client: bool,
    /// No login.
    pub bearer_only: bool,
    /// How it authenticates.
    pub client_authenticator_type: String,
    /// Attributes.
    pub attributes: Attributes,
    /// Its secret, when it is shown.
    pub secret: Option<Secret>,
    /// Names of its default scopes.
    pub default_client_scopes: Vec<String>,
    /// Names of its optional scopes.
    pub optional_client_scopes: Vec<String>,
}

/// What §6.1 manages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Client id.
    pub client_id: String,
    /// Display name.
    pub name: String,
    /// How it authenticates.
    pub auth: ClientAuth,
    /// Alias of the identity provider for JWT-SVIDs.
    pub idp_alias: String,
    /// It may exchange tokens.
    pub token_exchange: bool,
    /// Flows of a client that is made now.
    pub profile: GrantProfile,
    /// Our mark.
    pub cluster_id: String,
    /// The workload it belongs to.
    pub workload: WorkloadMark,
}

/// Whose a found client is (§6.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Ours.
    Ours,
    /// Made by the operator this product replaces: ours from now on.
    Inherited,
    /// Somebody else's without a mark: used, never deleted.
    Adopted,
    /// Another cluster's, and sharing is allowed: used as it is, never deleted.
    Shared(String),
    /// It must not be touched.
    Conflict(String),
}

/// Whose `client` is. `inherited` = a Secret of the operator this product replaces holds the same client id.
pub fn ownership(client: &Client, cluster_id: &str, inherited: bool, policy: ConflictPolicy) -> Ownership {
    let marks = &client.attributes;
    match marks.get(CLUSTER_ID) {
        Some(id) if id == cluster_id => return Ownership::Ours,
        Some(other) if policy == ConflictPolicy::Share => return Ownership::Shared(other.to_owned()),
        Some(other) => {
            return Ownership::Conflict(format!(
                "client {} was registered by cluster {}: nothing was read or changed; give the clusters different \
                 trust domains or realms, or set --client-conflict-policy=Share",
                client.client_id,
                rest_client::quote::bounded(other, 64)
            ));
        }
        None => {}
    }
    let wrong = if client.public_client {
        Some("is public")
    } else if client.bearer_only {
        Some("is bearer-only")
    } else if client.protocol.as_deref().is_some_and(|protocol| protocol != OPENID) {
        Some("has another protocol than openid-connect")
    } else {
        None
    };
    if let Some(wrong) = wrong.filter(|_| !marks.has_ours()) {
        return Ownership::Conflict(format!(
            "client {} exists and {wrong}, so it cannot get tokens for itself: rename or delete it in Keycloak",
            client.client_id
        ));
    }
    if inherited { Ownership::Inherited } else { Ownership::Adopted }
}

/// Whether we may delete it: our mark, and it was made for an agent.
pub fn is_deletable(client: &Client, cluster_id: &str) -> bool {
    client.attributes.get(CLUSTER_ID) == Some(cluster_id) && client.attributes.get(ADOPTED) != Some("true")
}

/// The body that takes our marks off (§10, release).
pub fn release_body(client: &Client) -> Value {
    let blank: Map<String, Value> = [MANAGED_BY, CLUSTER_ID, WORKLOAD, ADOPTED, GRANT_PROFILE]
        .into_iter()
        .map(|key| (key.to_owned(), json!("")))
        .collect();
    json!({ "clientId": client.client_id, "attributes": blank })
}

impl Desired {
    /// The body of a create.
    pub fn create_body(&self) -> Value {
        let hardened = self.profile == GrantProfile::Hardened;
        let mut body = self.body(hardened, false, None);
        if let Some(fields) = body.as_object_mut() {
            fields.insert("protocol".to_owned(), json!(OPENID));
            fields.insert("enabled".to_owned(), json!(true));
        }
        body
    }

    /// The body of an update; `None` = nothing that is managed differs.
    pub fn repair_body(&self, found: &Client, ownership: &Ownership) -> Option<Value> {
        if matches!(ownership, Ownership::Shared(_) | Ownership::Conflict(_)) {
            return None;
        }
        let hardened = found.attributes.get(GRANT_PROFILE) == Some(HARDENED);
        let adopted = *ownership == Ownership::Adopted || found.attributes.get(ADOPTED) == Some("true");
        let body = self.body(hardened, adopted, Some(found));
        differs(found, &body).then_some(body)
    }

    fn body(&self, hardened: bool, adopted: bool, found: Option<&Client>) -> Value {
        let mut attributes = Map::new();
        let mut set = |key: &str, value: &str| drop(attributes.insert(key.to_owned(), json!(value)));
        set(TOKEN_EXCHANGE, if self.token_exchange { "true" } else { "false" });
        set(MANAGED_BY, MANAGER);
        set(CLUSTER_ID, &self.cluster_id);
        set(WORKLOAD, &self.workload.to_string());
        if adopted {
            set(ADOPTED, "true");
        }
        if hardened {
            set(GRANT_PROFILE, HARDENED);
        }
        match self.auth {
            ClientAuth::FederatedJwt => {
                set(FEDERATED_ISSUER, &self.idp_alias);
                set(FEDERATED_SUBJECT, &self.client_id);
            }
            ClientAuth::ClientSecret => {
                // Blank text removes an attribute; an absent one would stay.
                for key in [FEDERATED_ISSUER, FEDERATED_SUBJECT] {
                    if found.is_some_and(|found| found.attributes.get(key).is_some()) {
                        set(key, "");
                    }
                }
            }
        }
        json!({
            "clientId": self.client_id,
            "name": self.name,
            "standardFlowEnabled": !hardened,
            "directAccessGrantsEnabled": !hardened,
            "serviceAccountsEnabled": true,
            "fullScopeAllowed": false,
            "publicClient": false,
            "clientAuthenticatorType": self.auth.as_str(),
            "attributes": attributes,
        })
    }
}

/// Whether an update would change anything.
fn differs(found: &Client, body: &Value) -> bool {
    let now = json!({
        "clientId": found.client_id,
        "name": found.name,
        "standardFlowEnabled": found.standard_flow_enabled,
        "directAccessGrantsEnabled": found.direct_access_grants_enabled,
        "serviceAccountsEnabled": found.service_accounts_enabled,
        "fullScopeAllowed": found.full_scope_allowed,
        "publicClient": found.public_client,
        "clientAuthenticatorType": found.client_authenticator_type,
    });
    let fields = body.as_object().into_iter().flatten();
    fields.clone().any(|(key, value)| key != "attributes" && now.get(key) != Some(value))
        || body.get("attributes").and_then(Value::as_object).into_iter().flatten().any(|(key, value)| {
            found.attributes.get(key).unwrap_or_default() != value.as_str().unwrap_or_default()
        })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn desired() -> Desired {
        Desired {
            client_id: "team1/w".into(),
            name: "team1/w".into(),
            auth: ClientAuth::ClientSecret,
            idp_alias: "spire-spiffe".into(),
            token_exchange: true,
            profile: GrantProfile::Compat,
            cluster_id: "c1".into(),
            workload: WorkloadMark::read("team1/Deployment/w").expect("mark"),
        }
    }

    /// What Keycloak shows after `body` was sent.
    fn shown(body: &Value) -> Client {
        serde_json::from_value(body.clone()).expect("client")
    }

    #[test]
    fn the_created_client_is_in_sync() {
        for auth in [ClientAuth::ClientSecret, ClientAuth::FederatedJwt] {
            for profile in [GrantProfile::Compat, GrantProfile::Hardened] {
                let desired = Desired { auth, profile, ..desired() };
                let body = desired.create_body();
                assert_eq!(body.get("defaultClientScopes"), None);
                let found = shown(&body);
                assert_eq!(ownership(&found, "c1", false, ConflictPolicy::Fail), Ownership::Ours);
                assert_eq!(desired.repair_body(&found, &Ownership::Ours), None);
                let later = Desired { profile: GrantProfile::Compat, ..desired };
                assert_eq!(later.repair_body(&found, &Ownership::Ours), None, "flows stay as they were made");
                assert!(is_deletable(&found, "c1") && !is_deletable(&found, "c2"));
            }
        }
    }

    #[test]
    fn the_compatible_fields() {
        let body = desired().create_body();
        assert_eq!(body["attributes"]["standard.token.exchange.enabled"], "true");
        assert_eq!(body["attributes"]["kagenti.workload"], "team1/Deployment/w");
        for (field, value) in [
            ("standardFlowEnabled", true),
            ("directAccessGrantsEnabled", true),
            ("serviceAccountsEnabled", true),
            ("fullScopeAllowed", false),
            ("publicClient", false),
        ] {
            assert_eq!(body[field], value, "{field}");
        }
    }

    /// §6.2: exactly the fields of §6.1 count.
    #[rstest]
    #[case(json!({"name": "x"}), true)]
    #[case(json!({"serviceAccountsEnabled": false}), true)]
    #[case(json!({"serviceAccountsEnabled": null}), true)]
    #[case(json!({"standardFlowEnabled": false}), true)]
    #[case(json!({"fullScopeAllowed": true}), true)]
    #[case(json!({"publicClient": true}), true)]
    #[case(json!({"clientAuthenticatorType": "client-jwt"}), true)]
    #[case(json!({"redirectUris": ["x"]}), false)]
    #[case(json!({"enabled": false}), false)]
    fn drift(#[case] change: Value, #[case] expected: bool) {
        let mut body = desired().create_body();
        for (key, value) in change.as_object().expect("map") {
            if value.is_null() {
                body.as_object_mut().expect("map").remove(key);
            } else {
                body[key] = value.clone();
            }
        }
        let repair = desired().repair_body(&shown(&body), &Ownership::Ours);
        assert_eq!(repair.is_some(), expected, "{repair:?}");
        if let Some(repair) = repair {
            assert_eq!(desired().repair_body(&shown(&repair), &Ownership::Ours), None, "one PUT is enough");
            assert_eq!(repair.get("redirectUris"), None);
            assert_eq!(repair.get("secret"), None);
        }
    }

    #[rstest]
    #[case("standard.token.exchange.enabled", json!("false"), true)]
    #[case("standard.token.exchange.enabled", json!(["true"]), false)]
    #[case("kagenti.workload", json!("team1/Deployment/other"), true)]
    #[case("other", json!("x"), false)]
    fn attribute_drift(#[case] key: &str, #[case] value: Value, #[case] expected: bool) {
        let mut body = desired().create_body();
        body["attributes"][key] = value;
        assert_eq!(desired().repair_body(&shown(&body), &Ownership::Ours).is_some(), expected);
    }

    /// §6.2 and scenario 21.
    #[test]
    fn leaving_federation_blanks_its_attributes() {
        let federated = Desired { auth: ClientAuth::FederatedJwt, ..desired() };
        let body = federated.create_body();
        assert_eq!(body["clientAuthenticatorType"], "federated-jwt");
        assert_eq!(body["attributes"]["jwt.credential.issuer"], "spire-spiffe");
        assert_eq!(body["attributes"]["jwt.credential.sub"], "team1/w");
        let repair = desired().repair_body(&shown(&body), &Ownership::Ours).expect("a repair");
        assert_eq!(repair["clientAuthenticatorType"], "client-secret");
        assert_eq!(repair["attributes"]["jwt.credential.issuer"], "");
        assert_eq!(repair["attributes"]["jwt.credential.sub"], "");
        assert_eq!(desired().repair_body(&shown(&repair), &Ownership::Ours), None);
    }

    /// The table of §6.4.
    #[rstest]
    #[case(json!({"attributes": {"kagenti.cluster-id": "c1"}}), true, ConflictPolicy::Fail, "ours")]
    #[case(json!({"attributes": {"kagenti.cluster-id": "c1"}, "publicClient": true}), false, ConflictPolicy::Fail, "ours")]
    #[case(json!({"attributes": {}}), true, ConflictPolicy::Fail, "inherited")]
    #[case(json!({"attributes": {"x": "y"}}), false, ConflictPolicy::Fail, "adopted")]
    #[case(json!({"attributes": {"kagenti.cluster-id": " "}}), false, ConflictPolicy::Fail, "adopted")]
    #[case(json!({"attributes": {"kagenti.cluster-id": "c2"}}), true, ConflictPolicy::Fail, "conflict")]
    #[case(json!({"attributes": {"kagenti.cluster-id": "c2"}}), false, ConflictPolicy::Share, "shared")]
    #[case(json!({"publicClient": true}), true, ConflictPolicy::Share, "conflict")]
    #[case(json!({"bearerOnly": true}), false, ConflictPolicy::Fail, "conflict")]
    #[case(json!({"protocol": "saml"}), false, ConflictPolicy::Fail, "conflict")]
    #[case(json!({"protocol": "openid-connect"}), false, ConflictPolicy::Fail, "adopted")]
    fn owners(
        #[case] client: Value,
        #[case] inherited: bool,
        #[case] policy: ConflictPolicy,
        #[case] expected: &str,
    ) {
        let client: Client = serde_json::from_value(client).expect("client");
        let owner = ownership(&client, "c1", inherited, policy);
        let word = match &owner {
            Ownership::Ours => "ours",
            Ownership::Inherited => "inherited",
            Ownership::Adopted => "adopted",
            Ownership::Shared(_) => "shared",
            Ownership::Conflict(_) => "conflict",
        };
        assert_eq!(word, expected);
        if matches!(owner, Ownership::Shared(_) | Ownership::Conflict(_)) {
            assert_eq!(desired().repair_body(&client, &owner), None, "nothing is changed");
        }
    }

    #[test]
    fn an_adopted_client_is_never_deleted() {
        let found = Client { client_id: "team1/w".into(), ..Client::default() };
        let repair = desired().repair_body(&found, &Ownership::Adopted).expect("marks");
        assert_eq!(repair["attributes"]["kagenti.adopted"], "true");
        let marked = shown(&repair);
        assert!(!is_deletable(&marked, "c1"));
        assert_eq!(desired().repair_body(&marked, &Ownership::Ours), None, "the mark stays");
        let inherited = desired().repair_body(&found, &Ownership::Inherited).expect("marks");
        assert!(is_deletable(&shown(&inherited), "c1"));
    }

    #[test]
    fn a_released_client_has_no_marks() {
        let client = shown(&desired().create_body());
        let released = shown(&release_body(&client));
        assert!(client.attributes.has_ours() && !released.attributes.has_ours());
    }
}
