//! The closed set of reasons: of the two conditions, of Warning Events, of metrics (client-registration §5.1, §12).

/// Declares the set once: the name of a variant is its text.
macro_rules! reasons {
    ($($(#[$meaning:meta])+ $name:ident,)+) => {
        /// Why a workload is registered or not.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$meaning])+ $name,)+
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The text that conditions, Events and metrics carry.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

reasons! {
    /// Client, audience and Secret are in place.
    Registered,
    /// The audience scope is in place.
    Attached,
    /// Waiting for something that comes by itself.
    Pending,
    /// The user provides the credentials.
    UserProvided,
    /// A sidecar registers the client from inside the Pod.
    LegacyRegistrar,
    /// A feature gate is off.
    GateDisabled,
    /// The namespace does not say which Keycloak and realm.
    WaitingForConfig,
    /// A value of the namespace cannot be used.
    InvalidConfig,
    /// The namespace names a Keycloak that is not trusted.
    UntrustedKeycloakURL,
    /// The namespace names a realm that it may not use.
    RealmNotAllowed,
    /// The workload's SPIFFE ID or ServiceAccount cannot be found out.
    IdentityUnresolved,
    /// A value of the namespace is passed over; said by an Event only.
    ConfigValueIgnored,
    /// There are no administrator's credentials.
    WaitingForAdminCredentials,
    /// Keycloak refuses the administrator's credentials.
    KeycloakUnauthorized,
    /// The administrator's client lacks a role.
    KeycloakForbidden,
    /// Keycloak cannot be reached, or is not ready.
    KeycloakUnavailable,
    /// Keycloak's certificate is not trusted.
    KeycloakTLSError,
    /// The realm does not exist, or is disabled.
    RealmNotFound,
    /// Keycloak refuses for good.
    KeycloakError,
    /// A client of the name belongs to somebody else.
    ClientConflict,
    /// The realm cannot check the workload's SVID; said by an Event only.
    FederationUnavailable,
    /// A Secret of the name belongs to somebody else.
    SecretConflict,
    /// The API server refuses what is written to the workload.
    PatchFailed,
    /// A client could not be deleted yet.
    CleanupPending,
    /// The audience scope could not be made or attached.
    ScopeFailed,
    /// A platform client that was named does not exist.
    PlatformClientMissing,
}

impl Reason {
    /// Whether only Events say it, never a condition.
    pub const fn is_said_by_events_only(self) -> bool {
        matches!(self, Self::ConfigValueIgnored | Self::FederationUnavailable)
    }
}
