//! Resolved values and where they come from.

use std::fmt;

/// Declares a closed enum with its wire forms.
macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// All values, in the order of the specification.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The wire form.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The value of a wire form; `None` when there is none.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

wire_enum! {
    /// Shape of the sidecar.
    Mode {
        /// HTTP reverse and forward proxy, all plugins.
        #[default]
        ProxySidecar = "proxy-sidecar",
        /// Envoy with external processing.
        EnvoySidecar = "envoy-sidecar",
        /// The proxy with two plugins.
        Lite = "lite",
        /// Nothing is injected.
        Waypoint = "waypoint",
    }
}

impl Mode {
    /// proxy-sidecar or lite: the AuthBridge proxy rather than Envoy.
    pub fn is_proxy(self) -> bool {
        matches!(self, Self::ProxySidecar | Self::Lite)
    }
}

wire_enum! {
    /// mTLS between sidecars.
    Mtls {
        /// Plain text.
        Disabled = "disabled",
        /// mTLS where the peer offers it.
        #[default]
        Permissive = "permissive",
        /// mTLS only.
        Strict = "strict",
    }
}

wire_enum! {
    /// Capture of egress.
    Egress {
        /// iptables redirects all egress to the sidecar.
        #[default]
        EnforceRedirect = "enforce-redirect",
        /// Proxy variables only.
        None = "none",
    }
}

wire_enum! {
    /// How inbound traffic reaches the sidecar.
    Inbound {
        /// The sidecar takes the agent's port.
        #[default]
        ReverseProxy = "reverse-proxy",
        /// iptables redirects to the sidecar.
        Transparent = "transparent",
    }
}

wire_enum! {
    /// How many containers a Pod gets (split §1).
    Layout {
        /// One sidecar.
        #[default]
        Combined = "combined",
        /// One container per job.
        Split = "split",
    }
}

wire_enum! {
    /// Where the credentials of a Pod come from: exactly one source (split §4).
    Registration {
        /// No credentials.
        #[default]
        None = "none",
        /// The Secret client-registration-ctl writes.
        Operator = "operator",
        /// The container `kagenti-client-registration` in the Pod.
        Sidecar = "sidecar",
        /// A Secret the user named.
        User = "user",
    }
}

wire_enum! {
    /// Where a value comes from; the texts go to `kagenti.io/authbridge-status`.
    Source {
        /// The default of the sidecar layout or of the product.
        #[default]
        ClusterDefault = "cluster-default",
        /// The AgentRuntime.
        AgentRuntime = "agentruntime-cr",
        /// ConfigMap `authbridge-runtime-config`.
        Namespace = "namespace-configmap",
        /// Annotation `kagenti.io/authbridge-mode`.
        Annotation = "annotation-deprecated",
        /// The platform file (layout only).
        Platform = "platform-config",
        /// An invalid value was replaced by the default (mode).
        ClusterDefaultInvalid = "cluster-default-invalid-fallback",
        /// An invalid namespace value was replaced by the platform's (layout).
        PlatformInvalid = "platform-config-invalid-fallback",
        /// The built-in default (mTLS).
        BuiltIn = "default",
        /// An invalid value was replaced by the built-in default.
        BuiltInInvalid = "default-invalid-fallback",
        /// Not in the platform's list of allowed values (egress).
        PlatformPolicy = "platform-policy-override",
        /// mTLS is off because the Pod opted out of SPIRE and nobody asked for mTLS.
        SpireOptOut = "spire-opt-out",
        /// mTLS is off because SPIRE is not to be had.
        SpireUnavailable = "spire-unavailable",
        /// mTLS is off because the Pod gets no proxy (layout split).
        NoProxy = "no-proxy",
        /// The setting does not fit the resolved mode, or nobody serves it.
        NotApplicable = "not-applicable",
    }
}

/// A value with its source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resolved<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub source: Source,
}

impl Source {
    /// AgentRuntime, namespace or annotation asked for the value, validly or not.
    pub fn is_explicit(self) -> bool {
        matches!(
            self,
            Self::AgentRuntime
                | Self::Namespace
                | Self::Annotation
                | Self::ClusterDefaultInvalid
                | Self::BuiltInInvalid
                | Self::PlatformInvalid
        )
    }
}
