//! Whom the controller's credentials may be shown to (client-registration §2.4).
//!
//! `KEYCLOAK_URL` and `KEYCLOAK_REALM` are written by whoever may edit ConfigMaps in a tenant's namespace, and a login
//! there would hand the administrator's password to them. So a call to Keycloak needs a [`Server`], and only
//! [`TrustRules::check`] makes one.

use std::{collections::BTreeSet, convert::Infallible, fmt, str::FromStr};

use rest_client::BaseUrl;

use crate::settings::MASTER;

/// Longest realm name.
const REALM_LIMIT: usize = 255;

/// A Keycloak and a realm that may see the controller's credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    base: BaseUrl,
    realm: String,
}

impl Server {
    /// The Keycloak.
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// The realm of the agents.
    pub fn realm(&self) -> &str {
        &self.realm
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "realm {} at {}", self.realm, self.base)
    }
}

/// Why a namespace's Keycloak is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not one of the trusted base URLs, or no URL at all.
    #[error(
        "KEYCLOAK_URL {url} is not trusted, nothing was sent to it: use the platform's Keycloak, or ask an \
         administrator to add the URL to --keycloak-allowed-urls"
    )]
    Url {
        /// What the namespace says, cut.
        url: String,
    },
    /// Trusted, but a secret would travel in the clear.
    #[error(
        "KEYCLOAK_URL {url} is plain http and no host of the cluster, so no secret is sent to it: use https, or set \
         --keycloak-allow-http"
    )]
    PlainHttp {
        /// The URL.
        url: BaseUrl,
    },
    /// A realm name that namespaces may not use.
    #[error(
        "KEYCLOAK_REALM {realm} is not allowed: use the platform's realm, or ask an administrator to add it to \
         --keycloak-allowed-realms"
    )]
    Realm {
        /// What the namespace says, cut.
        realm: String,
    },
    /// Not a name at all.
    #[error(
        "KEYCLOAK_REALM {realm} is no realm name: only letters, digits, '.', '_' and '-', at most {REALM_LIMIT}"
    )]
    RealmName {
        /// What the namespace says, cut.
        realm: String,
    },
}

/// `--keycloak-allowed-realms`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedRealms {
    any: bool,
    named: BTreeSet<String>,
}

impl FromStr for AllowedRealms {
    type Err = Infallible;

    fn from_str(list: &str) -> Result<Self, Infallible> {
        let (any, named) = list
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .partition::<BTreeSet<_>, _>(|name| *name == "*");
        Ok(Self { any: !any.is_empty(), named: named.into_iter().map(str::to_owned).collect() })
    }
}

impl AllowedRealms {
    /// `*` never means the realm of Keycloak's administrators; that one has to be named.
    fn allows(&self, realm: &str) -> bool {
        self.named.contains(realm) || (self.any && !realm.eq_ignore_ascii_case(MASTER))
    }
}

/// The trusted base URLs and realms.
#[derive(Clone, Debug)]
pub struct TrustRules {
    urls: BTreeSet<BaseUrl>,
    realms: AllowedRealms,
    allow_http: bool,
}

impl TrustRules {
    /// Only the platform's Keycloak.
    pub fn new(platform: BaseUrl, realms: AllowedRealms) -> Self {
        Self { urls: BTreeSet::from([platform]), realms, allow_http: false }
    }

    /// Further base URLs.
    #[must_use]
    pub fn also(mut self, urls: impl IntoIterator<Item = BaseUrl>) -> Self {
        self.urls.extend(urls);
        self
    }

    /// The platform's own realm may always be used, unless it is the administrators'.
    #[must_use]
    pub fn platform_realm(mut self, realm: &str) -> Self {
        if !realm.eq_ignore_ascii_case(MASTER) {
            self.realms.named.insert(realm.to_owned());
        }
        self
    }

    /// Secrets may travel over plain http.
    #[must_use]
    pub fn allow_http(mut self) -> Self {
        self.allow_http = true;
        self
    }

    /// Whether the controller may talk to `realm` at `url`, as a namespace (or an annotation) names them. Nothing is
    /// looked up or sent.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, url: &str, realm: &str) -> Result<Server, Refusal> {
        let cut = |text: &str| rest_client::quote::bounded(text, 128);
        let base = BaseUrl::parse(url)
            .ok()
            .filter(|base| self.urls.contains(base))
            .ok_or_else(|| Refusal::Url { url: cut(url) })?;
        let realm = realm.trim();
        if !is_realm_name(realm) {
            return Err(Refusal::RealmName { realm: cut(realm) });
        }
        if !self.realms.allows(realm) {
            return Err(Refusal::Realm { realm: cut(realm) });
        }
        if !base.is_https() && !base.is_local() && !self.allow_http {
            return Err(Refusal::PlainHttp { url: base });
        }
        Ok(Server { base, realm: realm.to_owned() })
    }
}

/// Keycloak drops matrix parameters, so `master;x=1` would be realm `master`; URL libraries resolve dot segments.
pub fn is_realm_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= REALM_LIMIT
        && !matches!(name, "." | "..")
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Clients that Keycloak itself lives on; no namespace may have scopes attached to them.
pub fn is_builtin_client(id: &str) -> bool {
    const BUILTIN: [&str; 6] =
        ["account", "account-console", "admin-cli", "broker", "realm-management", "security-admin-console"];
    BUILTIN.contains(&id) || id.ends_with("-realm")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn rules(allowed: &str) -> TrustRules {
        let platform = BaseUrl::parse("http://keycloak-service.keycloak.svc:8080").expect("URL");
        TrustRules::new(platform, allowed.parse().expect("realms"))
            .also([
                BaseUrl::parse("https://sso.example.com/auth").expect("URL"),
                BaseUrl::parse("http://plain.example.com").expect("URL"),
            ])
            .platform_realm("kagenti")
    }

    #[rstest]
    #[case("http://keycloak-service.keycloak.svc:8080")]
    #[case(" HTTP://Keycloak-Service.keycloak.svc:8080/ ")]
    #[case("https://sso.example.com:443/auth/")]
    fn trusted_urls(#[case] url: &str) {
        let server = rules("*").check(url, "kagenti").expect("trusted");
        assert_eq!(server.realm(), "kagenti");
    }

    /// One ConfigMap edit must not send the administrator's password anywhere else.
    #[rstest]
    #[case("http://listener.team1.svc:8080")]
    #[case("http://keycloak-service.keycloak.svc")]
    #[case("http://keycloak-service.keycloak.svc:8080.evil.com")]
    #[case("http://keycloak-service.keycloak.svc:8080@evil.com")]
    #[case("http://keycloak-service.keycloak.svc:8080/evil")]
    #[case("http://keycloak-service.keycloak.svc:8080?x=")]
    #[case("http://keycloak-service.keycloak.svc:8080#")]
    #[case("http://keycloak-service.keycloak.svc.:8080")]
    #[case("https://keycloak-service.keycloak.svc:8080")]
    #[case("https://sso.example.com")]
    #[case("https://sso.example.com/auth/../auth2")]
    #[case("https://sso.example.com/AUTH")]
    #[case("file:///etc/passwd")]
    #[case("not a url")]
    #[case("")]
    fn untrusted_urls(#[case] url: &str) {
        let refusal = rules("*").check(url, "kagenti").expect_err("refused");
        assert!(matches!(&refusal, Refusal::Url { .. }), "{refusal}");
        assert!(refusal.to_string().contains("nothing was sent"), "{refusal}");
    }

    #[test]
    fn no_secret_over_plain_http_outside_the_cluster() {
        let refused = rules("*").check("http://plain.example.com", "kagenti");
        assert!(matches!(refused, Err(Refusal::PlainHttp { .. })));
        assert!(rules("*").allow_http().check("http://plain.example.com", "kagenti").is_ok());
    }

    #[rstest]
    #[case("*", "tenant", true)]
    #[case("*", "master", false)]
    #[case("*", "Master", false)]
    #[case("*,master", "master", true)]
    #[case("*,master", "tenant", true)]
    #[case("tenant, other", "other", true)]
    #[case("tenant", "other", false)]
    #[case("tenant", "kagenti", true)]
    #[case("", "tenant", false)]
    fn allowed_realms(#[case] allowed: &str, #[case] realm: &str, #[case] expected: bool) {
        let checked = rules(allowed).check("http://keycloak-service.keycloak.svc:8080", realm);
        assert_eq!(checked.is_ok(), expected, "{checked:?}");
    }

    /// Even an administrator who allows everything by name does not allow these.
    #[rstest]
    #[case("master;x=1")]
    #[case("..")]
    #[case(".")]
    #[case("")]
    #[case("a/b")]
    #[case("%6daster")]
    #[case("mäster")]
    #[case("a b")]
    fn no_realm_names(#[case] realm: &str) {
        let rules = rules(&format!("*,master,{realm}"));
        let refusal = rules.check("http://keycloak-service.keycloak.svc:8080", realm).expect_err("refused");
        assert!(matches!(refusal, Refusal::RealmName { .. }), "{refusal}");
    }

    #[test]
    fn realm_names_have_a_limit() {
        assert!(is_realm_name(&"r".repeat(255)) && !is_realm_name(&"r".repeat(256)));
    }

    #[test]
    fn a_platform_in_the_administrators_realm_is_not_let_in_by_the_way() {
        let rules = rules("*").platform_realm("master");
        assert!(rules.check("http://keycloak-service.keycloak.svc:8080", "master").is_err());
    }

    #[rstest]
    #[case("kagenti", false)]
    #[case("account", true)]
    #[case("realm-management", true)]
    #[case("kagenti-realm", true)]
    #[case("accounts", false)]
    fn builtin_clients(#[case] id: &str, #[case] builtin: bool) {
        assert_eq!(is_builtin_client(id), builtin);
    }
}
