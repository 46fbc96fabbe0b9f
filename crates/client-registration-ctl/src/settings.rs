//! Flags of client-registration-ctl beside the common ones (client-registration §2.1).

use std::{fmt, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, ValueEnum};
use controller_kit::cli::{Component, Requests, duration, duration_or_zero, rate_or_zero};
use rest_client::BaseUrl;

use crate::trust::{AllowedRealms, TrustRules};

/// This component.
pub const COMPONENT: Component = Component {
    name: "client-registration-ctl",
    about: "Registers agents as OAuth clients in Keycloak and delivers their credentials",
    requests: Requests::COMMON,
};

/// Realm of Keycloak's own administrators.
pub const MASTER: &str = "master";

/// How the controller itself logs in to Keycloak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum)]
pub enum AdminAuth {
    /// User name and password of an administrator.
    #[default]
    Password,
    /// A client with a service account.
    ClientCredentials,
    /// Not built.
    SpiffeJwt,
}

/// How an agent's client authenticates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum)]
pub enum ClientAuth {
    /// By its secret.
    #[default]
    ClientSecret,
    /// By a JWT-SVID.
    FederatedJwt,
}

impl ClientAuth {
    /// The value on the wire, in Keycloak and in `CLIENT_AUTH_TYPE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecret => "client-secret",
            Self::FederatedJwt => "federated-jwt",
        }
    }

    /// Reads `CLIENT_AUTH_TYPE`.
    pub fn read(text: &str) -> Option<Self> {
        [Self::ClientSecret, Self::FederatedJwt].into_iter().find(|auth| auth.as_str() == text)
    }
}

impl fmt::Display for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who gets an agent's audience scope (§7.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum)]
pub enum Attach {
    /// The agent's own client and the platform's clients.
    #[default]
    Clients,
    /// These, and every client made later in the realm.
    RealmDefault,
}

impl Attach {
    /// The value of the flag and of `KEYCLOAK_AUDIENCE_SCOPE_ATTACH`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::RealmDefault => "realm-default",
        }
    }

    /// Reads `KEYCLOAK_AUDIENCE_SCOPE_ATTACH`.
    pub fn read(text: &str) -> Option<Self> {
        [Self::Clients, Self::RealmDefault].into_iter().find(|attach| attach.as_str() == text)
    }
}

/// What happens to a client when its workload goes (§10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum DeletionPolicy {
    /// It is deleted.
    #[default]
    Delete,
    /// It stays.
    Retain,
}

/// What happens when another cluster has the client (§6.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum ConflictPolicy {
    /// Nothing is touched, and a condition says so.
    #[default]
    Fail,
    /// It is used by both and never deleted.
    Share,
}

/// Flows of the clients that are made here (§6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GrantProfile {
    /// Browser and password flow are on.
    #[default]
    Compat,
    /// Both are off.
    Hardened,
}

/// When the pod template is annotated (§9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TemplateAnnotation {
    /// Always.
    Always,
    /// When the webhook does not annotate the Pods.
    #[default]
    Auto,
    /// Never.
    Never,
}

/// The flags.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Register agents in Keycloak
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub enable_client_registration: bool,

    /// Write authbridge-config into enabled namespaces
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub enable_authbridge_config: bool,

    /// Namespace of the Secret with the Keycloak administrator
    #[arg(long, default_value = "keycloak")]
    pub keycloak_admin_secret_namespace: String,

    /// Name of that Secret
    #[arg(long, default_value = "keycloak-initial-admin")]
    pub keycloak_admin_secret_name: String,

    /// What is in it: user name and password, or client-id and client-secret of a service account
    #[arg(long, value_enum, default_value_t)]
    pub keycloak_admin_auth: AdminAuth,

    /// Realm of that account; empty = master for a password, else the realm of the agents
    #[arg(long, default_value = "")]
    pub keycloak_admin_realm: String,

    /// Realm of the platform
    #[arg(long, default_value = "kagenti")]
    pub keycloak_realm: String,

    /// Base URL of the platform's Keycloak; empty = http://keycloak-service.<admin Secret's namespace>.svc:8080
    #[arg(long, default_value = "")]
    pub keycloak_url: String,

    /// Public URL of the platform's Keycloak; empty = look for it
    #[arg(long, env = "KAGENTI_KEYCLOAK_PUBLIC_URL", default_value = "")]
    pub keycloak_public_url: String,

    /// Further base URLs that namespaces may name; comma separated
    #[arg(long, value_delimiter = ',', value_parser = BaseUrl::parse)]
    pub keycloak_allowed_urls: Vec<BaseUrl>,

    /// Realms that namespaces may name; comma separated, * = all but master
    #[arg(long, default_value = "*")]
    pub keycloak_allowed_realms: AllowedRealms,

    /// Send secrets over plain http to hosts outside the cluster
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub keycloak_allow_http: bool,

    /// PEM file with certificates that Keycloak may be signed by, beside the system's
    #[arg(long)]
    pub keycloak_ca_file: Option<PathBuf>,

    /// Longest time of one call to Keycloak
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub keycloak_timeout: Duration,

    /// Calls per second and Keycloak; 0 = no limit
    #[arg(long, default_value_t = 20.0, value_parser = rate_or_zero)]
    pub keycloak_qps: f64,

    /// Calls at once
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    pub keycloak_burst: u32,

    /// How clients authenticate unless their namespace says otherwise
    #[arg(long, value_enum, default_value_t)]
    pub client_auth_type: ClientAuth,

    /// Alias of the identity provider that vouches for JWT-SVIDs
    #[arg(long, default_value = "spire-spiffe")]
    pub spiffe_idp_alias: String,

    /// How long sidecars wait for their credentials
    #[arg(long, default_value = "120s", value_parser = go_seconds)]
    pub credential_wait_timeout: String,

    /// SPIFFE trust domain of the platform; empty = look for it
    #[arg(long, env = "KAGENTI_SPIRE_TRUST_DOMAIN", default_value = "")]
    pub spire_trust_domain: String,

    /// Namespace of the ConfigMap spire-bundle
    #[arg(long, env = "KAGENTI_SPIRE_NAMESPACE", default_value = "zero-trust-workload-identity-manager")]
    pub spire_namespace: String,

    /// Who gets an agent's audience scope
    #[arg(long, value_enum, default_value_t)]
    pub audience_scope_attach: Attach,

    /// Take audience scopes off the realm's defaults and off other agents' clients
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub audience_scope_prune_realm_defaults: bool,

    /// What happens to a client when its workload goes
    #[arg(long, value_enum, default_value_t)]
    pub client_deletion_policy: DeletionPolicy,

    /// What happens when another cluster has registered the client
    #[arg(long, value_enum, default_value_t)]
    pub client_conflict_policy: ConflictPolicy,

    /// Flows of the clients that are made: compat = browser and password on, hardened = both off
    #[arg(long, value_enum, default_value_t)]
    pub client_grant_profile: GrantProfile,

    /// Mark of this cluster's clients; empty = UID of namespace kube-system
    #[arg(long, default_value = "")]
    pub cluster_id: String,

    /// How long a workload that is no agent any more keeps its client
    #[arg(long, default_value = "5m", value_parser = duration_or_zero)]
    pub unregister_grace: Duration,

    /// When the pod template is annotated with the Secret's name
    #[arg(long, value_enum, default_value_t)]
    pub template_annotation: TemplateAnnotation,

    /// Longest time a Secret waits in deletion for Keycloak
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub cleanup_timeout: Duration,

    /// How often each registration is compared with Keycloak
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub resync_period: Duration,

    /// How many running workloads restart per second for changed credentials; 0 = no limit
    #[arg(long, default_value_t = 10.0, value_parser = rate_or_zero)]
    pub rollout_qps: f64,

    /// How many at once
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub rollout_burst: u32,

    /// List and watch the credentials Secrets; off = read them by name only
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub watch_secrets: bool,

    /// Take the finalizer off the credentials Secrets of the watched namespaces, then exit; Secrets and clients stay
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub cleanup_and_exit: bool,
}

/// A duration that is handed on as it was written.
fn go_seconds(text: &str) -> Result<String, String> {
    duration(text).map(|_| text.to_owned())
}

impl Settings {
    /// Settings that contradict each other or cannot work, in words with the flag's name.
    ///
    /// # Errors
    /// The first of them.
    pub fn check(&self) -> Result<(), String> {
        if self.keycloak_admin_auth == AdminAuth::SpiffeJwt {
            return Err(
                "--keycloak-admin-auth=spiffe-jwt is not part of this version: use client-credentials with a \
                 service account"
                    .to_owned(),
            );
        }
        if !self.keycloak_url.is_empty() {
            BaseUrl::parse(&self.keycloak_url).map_err(|error| format!("--keycloak-url: {error}"))?;
        }
        if !self.keycloak_public_url.is_empty() {
            BaseUrl::parse(&self.keycloak_public_url)
                .map_err(|error| format!("--keycloak-public-url: {error}"))?;
        }
        self.platform_url()?;
        for (flag, realm) in
            [("keycloak-realm", &self.keycloak_realm), ("keycloak-admin-realm", &self.keycloak_admin_realm)]
        {
            if !realm.is_empty() && !crate::trust::is_realm_name(realm) {
                return Err(format!("--{flag}: {realm:?} is no realm name"));
            }
        }
        if self.keycloak_realm.is_empty() {
            return Err("--keycloak-realm must not be empty".to_owned());
        }
        if !self.spire_trust_domain.is_empty() {
            agent_trust::TrustDomain::configured(&self.spire_trust_domain)
                .map_err(|error| format!("--spire-trust-domain: {error}"))?;
        }
        Ok(())
    }

    /// Base URL of the platform's Keycloak.
    ///
    /// # Errors
    /// When the flags make no URL.
    pub fn platform_url(&self) -> Result<BaseUrl, String> {
        let text = self.platform_url_text();
        BaseUrl::parse(&text).map_err(|error| format!("the platform's Keycloak URL {text:?}: {error}"))
    }

    /// The same as it goes into `KEYCLOAK_URL`.
    pub fn platform_url_text(&self) -> String {
        let given = self.keycloak_url.trim().trim_end_matches('/');
        if given.is_empty() {
            format!("http://keycloak-service.{}.svc:8080", self.keycloak_admin_secret_namespace)
        } else {
            given.to_owned()
        }
    }

    /// What namespaces may name; `public` is the discovered public URL.
    ///
    /// # Errors
    /// When the flags make no URL.
    pub fn trust(&self, public: Option<&BaseUrl>) -> Result<TrustRules, String> {
        let mut rules = TrustRules::new(self.platform_url()?, self.keycloak_allowed_realms.clone())
            .also(self.keycloak_allowed_urls.iter().chain(public).cloned())
            .platform_realm(&self.keycloak_realm);
        if self.keycloak_allow_http {
            rules = rules.allow_http();
        }
        Ok(rules)
    }

    /// Whether Secrets get the finalizer that has their client deleted first (§8): not where they are only read by name.
    pub fn holds_secrets(&self) -> bool {
        self.client_deletion_policy == DeletionPolicy::Delete && self.watch_secrets
    }

    /// The realm whose token endpoint is used for agents of `realm`.
    pub fn admin_realm<'a>(&'a self, realm: &'a str) -> &'a str {
        match (self.keycloak_admin_realm.as_str(), self.keycloak_admin_auth) {
            ("", AdminAuth::Password) => MASTER,
            ("", AdminAuth::ClientCredentials | AdminAuth::SpiffeJwt) => realm,
            (given, _) => given,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;
    use rstest::rstest;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        settings: Settings,
    }

    /// The settings of a command line.
    pub(crate) fn settings(args: &[&str]) -> Settings {
        Only::parse_from(["x"].iter().chain(args)).settings
    }

    #[test]
    fn defaults_of_the_specification() {
        let settings = settings(&[]);
        assert!(settings.check().is_ok() && settings.enable_client_registration);
        assert_eq!(settings.platform_url_text(), "http://keycloak-service.keycloak.svc:8080");
        assert_eq!(settings.keycloak_timeout, Duration::from_secs(15));
        assert_eq!((settings.keycloak_qps, settings.keycloak_burst), (20.0, 40));
        assert_eq!(settings.resync_period, Duration::from_secs(3600));
        assert_eq!(settings.template_annotation, TemplateAnnotation::Auto);
        assert_eq!(settings.admin_realm("kagenti"), "master");
    }

    #[rstest]
    #[case(&["--keycloak-admin-auth=spiffe-jwt"], "not part of this version")]
    #[case(&["--keycloak-url=keycloak"], "--keycloak-url")]
    #[case(&["--keycloak-realm=a/b"], "--keycloak-realm")]
    #[case(&["--keycloak-admin-realm=.."], "--keycloak-admin-realm")]
    #[case(&["--spire-trust-domain=a/b"], "--spire-trust-domain")]
    fn unusable_settings(#[case] args: &[&str], #[case] text: &str) {
        let error = settings(args).check().expect_err("refused");
        assert!(error.contains(text), "{error}");
    }

    #[test]
    fn a_service_account_lives_in_the_realm_of_the_agents() {
        let of = |args: &[&str]| settings(args).admin_realm("tenant").to_owned();
        assert_eq!(of(&["--keycloak-admin-auth=client-credentials"]), "tenant");
        assert_eq!(of(&["--keycloak-admin-auth=client-credentials", "--keycloak-admin-realm=ops"]), "ops");
        assert_eq!(of(&["--keycloak-admin-realm=ops"]), "ops");
    }
}
