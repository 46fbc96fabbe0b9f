//! What a namespace wants: `authbridge-config`, read and checked (client-registration §2.3, §2.4).

use std::collections::BTreeMap;

use api_types::namespace_config::{AuthbridgeConfig, has_identity_provider};

use crate::{
    settings::{Attach, ClientAuth, Settings},
    trust::{Refusal, Server, TrustRules, is_builtin_client},
};

/// Client that users log in with, when the namespace names none.
const PLATFORM_CLIENT: &str = "kagenti";
/// More platform clients than anybody has.
const PLATFORM_CLIENTS: usize = 20;
/// Longest client id of Keycloak, in characters.
const CLIENT_ID: usize = 255;

/// How a namespace's agents are registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where.
    pub server: Server,
    /// How its clients authenticate.
    pub auth: ClientAuth,
    /// Alias of the identity provider for JWT-SVIDs.
    pub idp_alias: String,
    /// Clients may exchange tokens.
    pub token_exchange: bool,
    /// Clients whose tokens carry every agent's audience.
    pub platform_clients: Vec<String>,
    /// Agents have an audience scope.
    pub audience: bool,
    /// Who gets it.
    pub attach: Attach,
    /// Values that were not understood; a default is used.
    pub warnings: Vec<String>,
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The ConfigMap, `KEYCLOAK_URL` or `KEYCLOAK_REALM` is missing.
    Waiting {
        /// What is missing.
        message: String,
        /// The namespace has another identity provider, so somebody should look.
        unexpected: bool,
    },
    /// It names something it may not.
    Refused(Refusal),
    /// A value that cannot be used.
    Invalid(String),
}

impl Config {
    /// Reads the data of `authbridge-config`; `None` = there is no such ConfigMap.
    ///
    /// # Errors
    /// What stops the registration of the namespace's agents.
    pub fn read(
        data: Option<&BTreeMap<String, String>>,
        settings: &Settings,
        trust: &TrustRules,
    ) -> Result<Self, Problem> {
        let config = AuthbridgeConfig(data);
        let waiting = |message: &str| Problem::Waiting {
            message: message.to_owned(),
            unexpected: has_identity_provider(config, None),
        };
        let Some(data) = data else {
            return Err(waiting(
                "the namespace has no ConfigMap authbridge-config: create it with KEYCLOAK_URL and KEYCLOAK_REALM",
            ));
        };
        let url = config
            .keycloak_url()
            .ok_or_else(|| waiting("ConfigMap authbridge-config has no KEYCLOAK_URL: set it"))?;
        let realm = config
            .keycloak_realm()
            .ok_or_else(|| waiting("ConfigMap authbridge-config has no KEYCLOAK_REALM: set it"))?;
        let server = trust.check(url, realm).map_err(Problem::Refused)?;
        let mut warnings = Vec::new();
        let auth = match config.client_auth_type() {
            None => settings.client_auth_type,
            Some(text) => ClientAuth::read(text).ok_or_else(|| {
                Problem::Invalid(format!(
                    "CLIENT_AUTH_TYPE {:?} in ConfigMap authbridge-config is neither client-secret nor federated-jwt",
                    rest_client::quote::bounded(text, 64)
                ))
            })?,
        };
        let attach = match config.get("KEYCLOAK_AUDIENCE_SCOPE_ATTACH") {
            None => settings.audience_scope_attach,
            Some(text) => Attach::read(text).unwrap_or_else(|| {
                warnings.push(format!(
                    "KEYCLOAK_AUDIENCE_SCOPE_ATTACH {:?} is neither clients nor realm-default: {} is used",
                    rest_client::quote::bounded(text, 64),
                    settings.audience_scope_attach.as_str()
                ));
                settings.audience_scope_attach
            }),
        };
        let mut switch = |key: &str| is_on(data, key, &mut warnings);
        let (token_exchange, audience) =
            (switch("KEYCLOAK_TOKEN_EXCHANGE_ENABLED"), switch("KEYCLOAK_AUDIENCE_SCOPE_ENABLED"));
        let idp_alias = config.get("SPIFFE_IDP_ALIAS").unwrap_or(&settings.spiffe_idp_alias).to_owned();
        let platform_clients = platform_clients(config.get("PLATFORM_CLIENT_IDS"))?;
        Ok(Self { server, auth, idp_alias, token_exchange, platform_clients, audience, attach, warnings })
    }
}

/// Everything but a clear no is a yes; what is no clear yes either is told.
fn is_on(data: &BTreeMap<String, String>, key: &str, warnings: &mut Vec<String>) -> bool {
    let text = data.get(key).map_or("", |text| text.trim()).to_ascii_lowercase();
    match text.as_str() {
        "false" | "0" | "no" | "off" => false,
        "" | "true" | "1" | "yes" | "on" => true,
        other => {
            let other = rest_client::quote::bounded(other, 64);
            warnings.push(format!("{key} {other:?} is no boolean: true is used"));
            true
        }
    }
}

fn platform_clients(list: Option<&str>) -> Result<Vec<String>, Problem> {
    let mut ids: Vec<String> = Vec::new();
    for id in list.unwrap_or_default().split(',').map(str::trim).filter(|id| !id.is_empty()) {
        if id.chars().count() > CLIENT_ID || id.contains(char::is_control) {
            return Err(Problem::Invalid(format!(
                "PLATFORM_CLIENT_IDS in ConfigMap authbridge-config has an entry that can be no client id, since it is \
                 longer than {CLIENT_ID} characters or has control characters: remove {:?}",
                rest_client::quote::bounded(id, 64)
            )));
        }
        if is_builtin_client(id) {
            return Err(Problem::Invalid(format!(
                "PLATFORM_CLIENT_IDS in ConfigMap authbridge-config names {}, a client of Keycloak itself: remove it",
                rest_client::quote::bounded(id, 128)
            )));
        }
        if !ids.iter().any(|known| known == id) {
            ids.push(id.to_owned());
        }
    }
    if ids.len() > PLATFORM_CLIENTS {
        return Err(Problem::Invalid(format!(
            "PLATFORM_CLIENT_IDS in ConfigMap authbridge-config has {} entries, at most {PLATFORM_CLIENTS} are taken",
            ids.len()
        )));
    }
    if ids.is_empty() {
        ids.push(PLATFORM_CLIENT.to_owned());
    }
    Ok(ids)
}

#[cfg(test)]
pub(crate) mod tests {
    use rstest::rstest;

    use super::*;
    use crate::settings::tests::settings;

    const URL: (&str, &str) = ("KEYCLOAK_URL", "http://keycloak-service.keycloak.svc:8080/");
    const REALM: (&str, &str) = ("KEYCLOAK_REALM", " kagenti ");

    fn rules(settings: &Settings) -> TrustRules {
        settings.trust(None).expect("rules")
    }

    fn read(pairs: &[(&str, &str)]) -> Result<Config, Problem> {
        let data: BTreeMap<String, String> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let settings = settings(&[]);
        Config::read(Some(&data), &settings, &rules(&settings))
    }

    #[test]
    fn defaults() {
        let config = read(&[URL, REALM]).expect("config");
        assert_eq!(config.server.base().as_str(), "http://keycloak-service.keycloak.svc:8080");
        assert_eq!(config.server.realm(), "kagenti");
        assert_eq!((config.auth, config.attach), (ClientAuth::ClientSecret, Attach::Clients));
        assert_eq!(
            (config.idp_alias.as_str(), config.platform_clients),
            ("spire-spiffe", vec!["kagenti".into()])
        );
        assert!(config.token_exchange && config.audience && config.warnings.is_empty());
    }

    #[rstest]
    #[case(&[], false)]
    #[case(&[URL], true)]
    #[case(&[REALM], false)]
    #[case(&[("KEYCLOAK_URL", " "), REALM], false)]
    #[case(&[("ISSUER", "https://x"), REALM], true)]
    fn waiting(#[case] pairs: &[(&str, &str)], #[case] strange: bool) {
        let problem = read(pairs).expect_err("waiting");
        assert!(
            matches!(&problem, Problem::Waiting { unexpected, .. } if *unexpected == strange),
            "{problem:?}"
        );
    }

    /// Client-registration §2.3: only a clear no is a no.
    #[rstest]
    #[case("false", false, 0)]
    #[case(" OFF ", false, 0)]
    #[case("0", false, 0)]
    #[case("No", false, 0)]
    #[case("", true, 0)]
    #[case("TRUE", true, 0)]
    #[case("1", true, 0)]
    #[case("maybe", true, 1)]
    fn switches(#[case] text: &str, #[case] on: bool, #[case] warnings: usize) {
        let config = read(&[URL, REALM, ("KEYCLOAK_AUDIENCE_SCOPE_ENABLED", text)]).expect("config");
        assert_eq!((config.audience, config.warnings.len()), (on, warnings));
        let config = read(&[URL, REALM, ("KEYCLOAK_TOKEN_EXCHANGE_ENABLED", text)]).expect("config");
        assert_eq!((config.token_exchange, config.warnings.len()), (on, warnings));
    }

    #[rstest]
    #[case("a, b,,a ", Some("a b"))]
    #[case(" , ", Some("kagenti"))]
    #[case("a,admin-cli", None)]
    #[case("kagenti-realm", None)]
    fn platform_client_lists(#[case] text: &str, #[case] expected: Option<&str>) {
        let ids = read(&[URL, REALM, ("PLATFORM_CLIENT_IDS", text)]).map(|config| config.platform_clients);
        match expected {
            Some(expected) => assert_eq!(ids.expect("config").join(" "), expected),
            None => assert!(matches!(ids, Err(Problem::Invalid(_))), "{ids:?}"),
        }
    }

    /// What a tenant writes is kept in memory and sent to Keycloak, which knows no longer ids.
    #[rstest]
    #[case("x".repeat(255), true)]
    #[case("ä".repeat(255), true)]
    #[case("x".repeat(256), false)]
    #[case("a\u{1}b".to_owned(), false)]
    #[case("a\nb".to_owned(), false)]
    fn platform_client_ids(#[case] id: String, #[case] usable: bool) {
        match read(&[URL, REALM, ("PLATFORM_CLIENT_IDS", &format!("kagenti,{id}"))]) {
            Ok(config) => assert!(usable && config.platform_clients == ["kagenti".to_owned(), id]),
            Err(Problem::Invalid(message)) => {
                assert!(
                    !usable && message.contains("PLATFORM_CLIENT_IDS") && message.len() < 400,
                    "{message}"
                );
                assert!(!message.contains(char::is_control), "{message}");
            }
            Err(problem) => panic!("{problem:?}"),
        }
    }

    #[test]
    fn values_that_cannot_be_used() {
        assert!(matches!(read(&[URL, REALM, ("CLIENT_AUTH_TYPE", "jwt")]), Err(Problem::Invalid(_))));
        let federated = read(&[URL, REALM, ("CLIENT_AUTH_TYPE", " federated-jwt ")]).expect("config");
        assert_eq!(federated.auth, ClientAuth::FederatedJwt);
        let config = read(&[URL, REALM, ("KEYCLOAK_AUDIENCE_SCOPE_ATTACH", "all")]).expect("config");
        assert_eq!((config.attach, config.warnings.len()), (Attach::Clients, 1));
        let untrusted = read(&[("KEYCLOAK_URL", "http://evil"), REALM]);
        assert!(matches!(untrusted, Err(Problem::Refused(Refusal::Url { .. }))));
    }
}
