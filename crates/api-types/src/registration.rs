//! Names of client registration (client-registration §8-§12).

/// Annotations.
pub mod annotation {
    /// On a credentials Secret: base URL of the Keycloak.
    pub const URL: &str = "kagenti.io/keycloak-url";
    /// On a credentials Secret: realm.
    pub const REALM: &str = "kagenti.io/keycloak-realm";
    /// On a credentials Secret: UUID of the client.
    pub const CLIENT_UUID: &str = "kagenti.io/keycloak-client-uuid";
    /// On a credentials Secret: id of the audience scope.
    pub const SCOPE_ID: &str = "kagenti.io/keycloak-scope-id";
    /// On a credentials Secret: the workload, `<namespace>/<kind>/<name>`.
    pub const WORKLOAD: &str = "kagenti.io/workload";
    /// On a credentials Secret: hash of all inputs of the registration.
    pub const REGISTRATION_HASH: &str = "kagenti.io/registration-hash";
    /// On a credentials Secret: when the workload was registered first.
    pub const REGISTERED_AT: &str = "kagenti.io/registered-at";
    /// On a credentials Secret: number that rises when its data change.
    pub const REVISION: &str = "kagenti.io/credentials-revision";
    /// On a credentials Secret: value of [`ROTATE`] that was obeyed last.
    pub const ROTATED_FOR: &str = "kagenti.io/credentials-rotated-for";
    /// On a credentials Secret: clients that the workload had before and that go after the rollout (JSON).
    pub const PREVIOUS: &str = "kagenti.io/keycloak-previous-clients";
    /// On a Secret: `"false"` keeps the controller away.
    pub const MANAGED: &str = "kagenti.io/credentials-managed";
    /// On a workload: a new value asks for a new client secret.
    pub const ROTATE: &str = "kagenti.io/rotate-credentials";
    /// On a pod template, from the second revision on.
    pub const TEMPLATE_REVISION: &str = "kagenti.io/keycloak-client-credentials-revision";
}

/// On a credentials Secret whose client is deleted with it.
pub const FINALIZER: &str = "kagenti.io/keycloak-client";
/// Field manager of every write of client-registration-ctl.
pub const MANAGER: &str = "client-registration-ctl";
/// Key of the Secret with the client id.
pub const CLIENT_ID_KEY: &str = "client-id.txt";
/// Key of the Secret with the client's secret.
pub const CLIENT_SECRET_KEY: &str = "client-secret.txt";

/// Condition types on an AgentRuntime.
pub mod condition {
    /// The workload has its client and its Secret.
    pub const CLIENT_REGISTERED: &str = "ClientRegistered";
    /// The audience scope is in place.
    pub const AUDIENCE_SCOPE_READY: &str = "AudienceScopeReady";
}
