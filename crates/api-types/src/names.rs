//! The catalogue of names (runtime §3, card §3, webhook §7.5): every label, annotation, finalizer,
//! ConfigMap, condition, reason and field manager of the suite, once.

/// The API group of AgentRuntime, AgentCard and AuthorizationPolicy.
pub const GROUP: &str = "agent.kagenti.dev";
/// The served and stored version of [`GROUP`].
pub const VERSION: &str = "v1alpha1";
/// Namespace of the suite when `POD_NAMESPACE` is unset (runtime §4).
pub const DEFAULT_OPERATOR_NAMESPACE: &str = "kagenti-system";
/// Value of `app.kubernetes.io/managed-by` on what the controllers own.
pub const MANAGED_BY_OPERATOR: &str = "kagenti-operator";
/// Value of [`label::WEBHOOK_MANAGED_BY`] on what the webhook creates.
pub const MANAGED_BY_WEBHOOK: &str = "webhook";
/// The CSI driver whose presence means that SPIRE is installed (webhook §7.1).
pub const SPIFFE_CSI_DRIVER: &str = "csi.spiffe.io";
/// Lease of the operator this product replaces; while it is renewed nothing is written (packaging §12).
pub const LEGACY_LEASE: &str = "b7c4ae34.kagenti.dev";

/// Whether a label or annotation is of the suite: indexes keep no others.
pub fn is_suite_key(key: &str) -> bool {
    key.contains("kagenti")
}
/// `reportingController` of the events on an AgentRuntime (runtime §7.3).
pub const RUNTIME_REPORTING_CONTROLLER: &str = "agentruntime-controller";

/// Labels.
pub mod label {
    /// `agent` or `tool`, on the workload and on its pod template.
    pub const TYPE: &str = "kagenti.io/type";
    /// `"true"` on the pod template of an enrolled workload; selects the second webhook entry.
    pub const ENROLLED: &str = "agent.kagenti.dev/enrolled";
    /// Standard label: the application.
    pub const APP_NAME: &str = "app.kubernetes.io/name";
    /// Standard label; see [`super::MANAGED_BY_OPERATOR`].
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// On ServiceAccounts and ConfigMaps the webhook creates.
    pub const WEBHOOK_MANAGED_BY: &str = "kagenti.io/managed-by";
    /// `disabled` on a pod template: the webhook skips it.
    pub const INJECT: &str = "kagenti.io/inject";
    /// `"false"` switches the Envoy sidecar off for one Pod.
    pub const ENVOY_PROXY_INJECT: &str = "kagenti.io/envoy-proxy-inject";
    /// `"false"` opts one Pod out of SPIFFE.
    pub const SPIFFE_HELPER_INJECT: &str = "kagenti.io/spiffe-helper-inject";
    /// `"true"` asks for the in-Pod registrar (layout `split`), so no operator-made credentials.
    pub const CLIENT_REGISTRATION_INJECT: &str = "kagenti.io/client-registration-inject";
    /// `disabled` is an older spelling of the SPIFFE opt-out.
    pub const SPIRE: &str = "kagenti.io/spire";
    /// On every injected Pod.
    pub const AUTHBRIDGE: &str = "kagenti.dev/authbridge";
    /// Prefix of protocol labels such as `protocol.kagenti.io/a2a`.
    pub const PROTOCOL_PREFIX: &str = "protocol.kagenti.io/";
    /// Legacy protocol label, read before [`AGENT_PROTOCOL`].
    pub const PROTOCOL: &str = "kagenti.io/protocol";
    /// Legacy protocol label.
    pub const AGENT_PROTOCOL: &str = "kagenti.io/agent-protocol";
    /// `"true"` marks a ConfigMap as namespace defaults.
    pub const DEFAULTS: &str = "kagenti.io/defaults";
    /// `"true"` on a Namespace: hand-labelled Pods are injected too.
    pub const NAMESPACE_ENABLED: &str = "kagenti-enabled";
    /// Istio: the namespace is discovered by the mesh.
    pub const ISTIO_DISCOVERY: &str = "istio-discovery";
    /// Istio: data plane of the namespace; `ambient` enrols it.
    pub const ISTIO_DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
    /// Istio: classic sidecar injection, an admin's decision against ambient.
    pub const ISTIO_INJECTION: &str = "istio-injection";
    /// Set by the ReplicaSet controller on its Pods.
    pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
    /// Set by the API server on every Namespace.
    pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
    /// Pod Security admission level of a Namespace.
    pub const POD_SECURITY_ENFORCE: &str = "pod-security.kubernetes.io/enforce";
    /// `"true"` on a pod template whose card signature was verified.
    pub const SIGNATURE_VERIFIED: &str = "agent.kagenti.dev/signature-verified";
}

/// Annotations.
pub mod annotation {
    /// Configuration hash on the pod template, 64 lowercase hex.
    pub const CONFIG_HASH: &str = "kagenti.io/config-hash";
    /// Resolved mTLS mode on the pod template.
    pub const MTLS_MODE: &str = "kagenti.io/mtls-mode";
    /// User's JSON array of skill names on the workload; never written by the suite.
    pub const SKILLS: &str = "kagenti.io/skills";
    /// On a Sandbox between the two phases of a restart.
    pub const RESTART_PENDING: &str = "kagenti.io/restart-pending";
    /// Written by the sandbox controller; deleted by us in restart phase 2.
    pub const SANDBOX_POD_NAME: &str = "agents.x-k8s.io/pod-name";
    /// Change key of card discovery on an AgentRuntime.
    pub const LAST_CARD_FETCH_HASH: &str = "agent.kagenti.dev/last-card-fetch-hash";
    /// Name of the AgentRuntime that owns the enrolment of a workload.
    pub const ENROLLED_BY: &str = "agent.kagenti.dev/enrolled-by";
    /// Hash a workload was adopted with, without a restart (runtime §5.4).
    pub const CONFIG_HASH_ADOPTED: &str = "agent.kagenti.dev/config-hash-adopted";
    /// `unenroll` when the template's `kagenti.io/inject: disabled` is ours (runtime §8.1 case S).
    pub const INJECT_DISABLED_BY: &str = "agent.kagenti.dev/inject-disabled-by";
    /// Prefix of a hash of the spec fields that reach Pods (flag `--rollout-on-spec-change`).
    pub const RUNTIME_GENERATION: &str = "agent.kagenti.dev/runtime-generation";
    /// Hash of the TLS-bridge certificate revision on the pod template (runtime §15).
    pub const TLS_BRIDGE_CA_HASH: &str = "kagenti.io/tls-bridge-ca-hash";
    /// `disabled` on a Namespace: never enrol it into the mesh.
    pub const ISTIO_MESH: &str = "kagenti.io/istio-mesh";
    /// Port override on a Service.
    pub const PORT: &str = "kagenti.io/port";
    /// Deprecated mode selector on a Pod.
    pub const AUTHBRIDGE_MODE: &str = "kagenti.io/authbridge-mode";
    /// Ports left out of outbound capture.
    pub const OUTBOUND_PORTS_EXCLUDE: &str = "kagenti.io/outbound-ports-exclude";
    /// Ports left out of inbound capture.
    pub const INBOUND_PORTS_EXCLUDE: &str = "kagenti.io/inbound-ports-exclude";
    /// Name of the Secret with the Keycloak client credentials.
    pub const CREDENTIALS_SECRET: &str = "kagenti.io/keycloak-client-credentials-secret-name";
    /// Resolved values and port plan of an injected Pod (JSON).
    pub const AUTHBRIDGE_STATUS: &str = "kagenti.io/authbridge-status";
    /// SHA-256 of the data of a ConfigMap the webhook wrote.
    pub const CONTENT_HASH: &str = "kagenti.io/content-hash";
    /// `"true"` keeps the `pipeline` of a per-workload ConfigMap.
    pub const CONFIG_PINNED: &str = "kagenti.io/config-pinned";
    /// Set by the kubelet on mirror Pods.
    pub const MIRROR_POD: &str = "kubernetes.io/config.mirror";
}

/// Finalizers.
pub mod finalizer {
    /// On every AgentRuntime; removed after the workload was cleaned.
    pub const CLEANUP: &str = "kagenti.io/cleanup";
    /// Left by the previous operator on AgentCards; never added, always removed.
    pub const LEGACY_CARD: &str = "agentcard.kagenti.dev/finalizer";
    /// Left by the previous operator on AgentCards; never added, always removed.
    pub const LEGACY_NETWORK_POLICY: &str = "agentcard.kagenti.dev/network-policy";
}

/// ConfigMaps and their keys (runtime §4).
pub mod configmap {
    /// Cluster defaults, operator namespace.
    pub const PLATFORM: &str = "kagenti-platform-config";
    /// Cluster policy, operator namespace.
    pub const FEATURE_GATES: &str = "kagenti-feature-gates";
    /// Identity and Keycloak settings of a namespace.
    pub const AUTHBRIDGE: &str = "authbridge-config";
    /// Sidecar base configuration of a namespace.
    pub const AUTHBRIDGE_RUNTIME: &str = "authbridge-runtime-config";
    /// SPIFFE helper configuration of a namespace.
    pub const SPIFFE_HELPER: &str = "spiffe-helper-config";
    /// Token-exchange routes of a namespace.
    pub const AUTHPROXY_ROUTES: &str = "authproxy-routes";
    /// Envoy base configuration of a namespace; a hash input only (webhook §12.2).
    pub const ENVOY: &str = "envoy-config";
    /// Key of [`PLATFORM`] and of [`AUTHBRIDGE_RUNTIME`].
    pub const CONFIG_KEY: &str = "config.yaml";
    /// Key of [`FEATURE_GATES`].
    pub const GATES_KEY: &str = "feature-gates.yaml";
    /// Key of [`SPIFFE_HELPER`].
    pub const HELPER_KEY: &str = "helper.conf";
    /// Key of [`AUTHPROXY_ROUTES`].
    pub const ROUTES_KEY: &str = "routes.yaml";
    /// Key of [`ENVOY`].
    pub const ENVOY_KEY: &str = "envoy.yaml";
}

/// Condition types of an AgentRuntime (runtime §7.1).
pub mod condition {
    /// The workload named by `targetRef` exists and is supported.
    pub const TARGET_RESOLVED: &str = "TargetResolved";
    /// The configuration of the namespace could be read.
    pub const CONFIG_RESOLVED: &str = "ConfigResolved";
    /// The namespace is part of the Istio ambient mesh.
    pub const ISTIO_MESH_ENROLLED: &str = "IstioMeshEnrolled";
    /// The resolved mTLS mode can work on this cluster.
    pub const MTLS_READY: &str = "MTLSReady";
    /// The namespace has an identity provider.
    pub const IDENTITY_READY: &str = "IdentityReady";
    /// The TLS-bridge certificate is issued.
    pub const TLS_BRIDGE_READY: &str = "TLSBridgeReady";
    /// All Pods run the current configuration.
    pub const PODS_CONFIGURED: &str = "PodsConfigured";
    /// The enrolment is applied.
    pub const READY: &str = "Ready";
}

/// Reasons of conditions and events (runtime §7.1, §7.3).
pub mod reason {
    /// TargetResolved=True.
    pub const TARGET_FOUND: &str = "TargetFound";
    /// The workload does not exist.
    pub const TARGET_NOT_FOUND: &str = "TargetNotFound";
    /// The kind cannot be enrolled.
    pub const UNSUPPORTED_TARGET_KIND: &str = "UnsupportedTargetKind";
    /// `targetRef.apiVersion` cannot be parsed.
    pub const INVALID_API_VERSION: &str = "InvalidAPIVersion";
    /// The API server did not answer the look-up.
    pub const TARGET_LOOKUP_ERROR: &str = "TargetLookupError";
    /// ConfigResolved=True.
    pub const CONFIG_RESOLVED: &str = "ConfigResolved";
    /// Configuration is used, with the warnings of the message.
    pub const CONFIG_WARNING: &str = "ConfigWarning";
    /// Configuration could not be read.
    pub const CONFIG_READ_ERROR: &str = "ConfigReadError";
    /// IstioMeshEnrolled=True.
    pub const NAMESPACE_LABELED: &str = "NamespaceLabeled";
    /// The namespace opted out of the mesh.
    pub const OPTED_OUT: &str = "OptedOut";
    /// The namespace could not be patched.
    pub const PATCH_FAILED: &str = "PatchFailed";
    /// An admin's label contradicts the mesh labels.
    pub const CONFLICTING_LABEL: &str = "ConflictingLabel";
    /// A permission is missing.
    pub const FORBIDDEN: &str = "Forbidden";
    /// mTLS is off by choice or by default.
    pub const MTLS_DISABLED: &str = "MTLSDisabled";
    /// mTLS is on and SPIRE is installed.
    pub const SPIRE_AVAILABLE: &str = "SPIREAvailable";
    /// mTLS is asked for and SPIRE is not installed.
    pub const SPIRE_UNAVAILABLE: &str = "SPIREUnavailable";
    /// The namespace has an identity provider.
    pub const IDENTITY_CONFIGURED: &str = "IdentityConfigured";
    /// The namespace has no identity provider.
    pub const NO_IDENTITY_PROVIDER: &str = "NoIdentityProvider";
    /// The certificate is issued.
    pub const ISSUED: &str = "Issued";
    /// The certificate is requested.
    pub const WAITING_FOR_CERTIFICATE: &str = "WaitingForCertificate";
    /// cert-manager is not installed.
    pub const CERT_MANAGER_MISSING: &str = "CertManagerMissing";
    /// cert-manager could not issue.
    pub const ISSUE_FAILED: &str = "IssueFailed";
    /// An object of that name belongs to somebody else.
    pub const CONFLICT: &str = "Conflict";
    /// All Pods run the current configuration.
    pub const ROLLOUT_COMPLETE: &str = "RolloutComplete";
    /// The workload wants no Pods.
    pub const NO_PODS: &str = "NoPods";
    /// Pods are being replaced.
    pub const ROLLOUT_IN_PROGRESS: &str = "RolloutInProgress";
    /// The Deployment is paused.
    pub const ROLLOUT_PAUSED: &str = "RolloutPaused";
    /// The rollout waits for the limiter.
    pub const ROLLOUT_QUEUED: &str = "RolloutQueued";
    /// Ready=True.
    pub const CONFIGURED: &str = "Configured";
    /// The workload could not be patched.
    pub const CONFIG_APPLY_ERROR: &str = "ConfigApplyError";
    /// Reserved, a legacy name.
    pub const CONFIG_HASH_ERROR: &str = "ConfigHashError";
    /// A Sandbox is being restarted.
    pub const SANDBOX_RESTARTING: &str = "SandboxRestarting";
    /// Event: a Sandbox was restarted.
    pub const SANDBOX_RESTARTED: &str = "SandboxRestarted";
    /// The stored object does not parse.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// Another AgentRuntime owns the workload.
    pub const DUPLICATE_TARGET: &str = "DuplicateTarget";
    /// Clean-up of the workload failed.
    pub const CLEANUP_FAILED: &str = "CleanupFailed";
    /// The OpenShift SCC could not be bound.
    pub const SCC_BINDING_ERROR: &str = "SCCBindingError";
    /// Event: a namespace template could not be copied.
    pub const CONFIG_MAP_ENSURE_ERROR: &str = "ConfigMapEnsureError";
    /// Event: the namespace was labelled for the mesh.
    pub const ISTIO_MESH_ENROLLED: &str = "IstioMeshEnrolled";
    /// Event: the namespace could not be labelled for the mesh.
    pub const ISTIO_MESH_LABEL_ERROR: &str = "IstioMeshLabelError";
    /// Event: the skills annotation does not parse.
    pub const SKILL_ANNOTATION_PARSE_ERROR: &str = "SkillAnnotationParseError";
    /// Event: the enrolment was removed.
    pub const UNENROLLED: &str = "Unenrolled";
    /// Event: the selector pins the type label.
    pub const SELECTOR_REQUIRES_TYPE_LABEL: &str = "SelectorRequiresTypeLabel";
}

/// Field managers: one writer per purpose.
pub mod manager {
    /// runtime-ctl, every write (runtime §6.1).
    pub const RUNTIME_CTL: &str = "kagenti-runtime-ctl";
    /// Per-workload ConfigMaps of the webhook (webhook §12.3).
    pub const WEBHOOK: &str = "kagenti-webhook";
    /// The key `helper.conf` of Pods without proxy (split §6).
    pub const WEBHOOK_HELPER: &str = "kagenti-webhook-helper";
    /// card-ctl, every write (card §14.1).
    pub const CARD_CTL: &str = "kagenti-card-ctl";
    /// `caBundle` of the webhook configurations (packaging §8).
    pub const WEBHOOK_CA: &str = "authbridge-webhook/ca";
}
