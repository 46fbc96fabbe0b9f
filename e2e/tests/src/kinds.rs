//! The kinds that tests read and write, with what their URLs need.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A kind of object of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Name of the kind.
    pub kind: &'static str,
    /// Name in URLs.
    pub plural: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $scope:ident $group:literal $version:literal $kind:literal $plural:literal;)*) => {
        $(
            $(#[$doc])*
            pub const $name: Kind = Kind {
                group: $group,
                version: $version,
                kind: $kind,
                plural: $plural,
                namespaced: kinds!(@ $scope),
            };
        )*
        /// Every kind above.
        pub const ALL: &[Kind] = &[$($name),*];
    };
    (@ namespaced) => { true };
    (@ cluster) => { false };
}

kinds! {
    /// Namespace.
    NAMESPACE = cluster "" "v1" "Namespace" "namespaces";
    /// Node.
    NODE = cluster "" "v1" "Node" "nodes";
    /// Pod.
    POD = namespaced "" "v1" "Pod" "pods";
    /// ConfigMap.
    CONFIG_MAP = namespaced "" "v1" "ConfigMap" "configmaps";
    /// Secret.
    SECRET = namespaced "" "v1" "Secret" "secrets";
    /// Service.
    SERVICE = namespaced "" "v1" "Service" "services";
    /// ServiceAccount.
    SERVICE_ACCOUNT = namespaced "" "v1" "ServiceAccount" "serviceaccounts";
    /// Deployment.
    DEPLOYMENT = namespaced "apps" "v1" "Deployment" "deployments";
    /// StatefulSet.
    STATEFUL_SET = namespaced "apps" "v1" "StatefulSet" "statefulsets";
    /// DaemonSet.
    DAEMON_SET = namespaced "apps" "v1" "DaemonSet" "daemonsets";
    /// ReplicaSet.
    REPLICA_SET = namespaced "apps" "v1" "ReplicaSet" "replicasets";
    /// Job.
    JOB = namespaced "batch" "v1" "Job" "jobs";
    /// CronJob.
    CRON_JOB = namespaced "batch" "v1" "CronJob" "cronjobs";
    /// Event of the newer group.
    EVENT = namespaced "events.k8s.io" "v1" "Event" "events";
    /// NetworkPolicy.
    NETWORK_POLICY = namespaced "networking.k8s.io" "v1" "NetworkPolicy" "networkpolicies";
    /// PodDisruptionBudget.
    POD_DISRUPTION_BUDGET = namespaced "policy" "v1" "PodDisruptionBudget" "poddisruptionbudgets";
    /// Lease.
    LEASE = namespaced "coordination.k8s.io" "v1" "Lease" "leases";
    /// EndpointSlice.
    ENDPOINT_SLICE = namespaced "discovery.k8s.io" "v1" "EndpointSlice" "endpointslices";
    /// Role.
    ROLE = namespaced "rbac.authorization.k8s.io" "v1" "Role" "roles";
    /// RoleBinding.
    ROLE_BINDING = namespaced "rbac.authorization.k8s.io" "v1" "RoleBinding" "rolebindings";
    /// ClusterRole.
    CLUSTER_ROLE = cluster "rbac.authorization.k8s.io" "v1" "ClusterRole" "clusterroles";
    /// ClusterRoleBinding.
    CLUSTER_ROLE_BINDING = cluster "rbac.authorization.k8s.io" "v1" "ClusterRoleBinding" "clusterrolebindings";
    /// CSIDriver.
    CSI_DRIVER = cluster "storage.k8s.io" "v1" "CSIDriver" "csidrivers";
    /// MutatingWebhookConfiguration.
    MUTATING_WEBHOOK = cluster "admissionregistration.k8s.io" "v1" "MutatingWebhookConfiguration" "mutatingwebhookconfigurations";
    /// ValidatingWebhookConfiguration.
    VALIDATING_WEBHOOK = cluster "admissionregistration.k8s.io" "v1" "ValidatingWebhookConfiguration" "validatingwebhookconfigurations";
    /// CustomResourceDefinition.
    CRD = cluster "apiextensions.k8s.io" "v1" "CustomResourceDefinition" "customresourcedefinitions";
    /// AgentRuntime.
    AGENT_RUNTIME = namespaced "agent.kagenti.dev" "v1alpha1" "AgentRuntime" "agentruntimes";
    /// AgentCard.
    AGENT_CARD = namespaced "agent.kagenti.dev" "v1alpha1" "AgentCard" "agentcards";
    /// AuthorizationPolicy.
    AUTHORIZATION_POLICY = namespaced "agent.kagenti.dev" "v1alpha1" "AuthorizationPolicy" "authorizationpolicies";
    /// Agent: only its CRD's shape matters, to the rule about Agent-owned Deployments (README decision 5).
    AGENT = namespaced "agent.kagenti.dev" "v1alpha1" "Agent" "agents";
    /// Issuer of cert-manager.
    ISSUER = namespaced "cert-manager.io" "v1" "Issuer" "issuers";
    /// Certificate of cert-manager.
    CERTIFICATE = namespaced "cert-manager.io" "v1" "Certificate" "certificates";
    /// Network of OpenShift's operator.
    NETWORK = cluster "operator.openshift.io" "v1" "Network" "networks";
    /// ZeroTrustWorkloadIdentityManager of OpenShift, which knows the trust domain.
    TRUST_MANAGER = cluster "operator.openshift.io" "v1alpha1" "ZeroTrustWorkloadIdentityManager" "zerotrustworkloadidentitymanagers";
    /// Route of OpenShift, which may know Keycloak's public address.
    ROUTE = namespaced "route.openshift.io" "v1" "Route" "routes";
    /// MLflow of the MLflow operator.
    MLFLOW = cluster "mlflow.opendatahub.io" "v1" "MLflow" "mlflows";
    /// ModelConfig of kagent.
    MODEL_CONFIG = namespaced "kagent.dev" "v1alpha2" "ModelConfig" "modelconfigs";
    /// Sandbox of agent-sandbox, older version.
    SANDBOX_ALPHA = namespaced "agents.x-k8s.io" "v1alpha1" "Sandbox" "sandboxes";
    /// Sandbox of agent-sandbox.
    SANDBOX = namespaced "agents.x-k8s.io" "v1beta1" "Sandbox" "sandboxes";
}

impl Kind {
    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The kind of an object, which must be one of [`ALL`].
    pub fn of(object: &Value) -> Result<Self> {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        ALL.iter()
            .copied()
            .find(|known| known.kind == kind && known.api_version() == api_version)
            .with_context(|| format!("add {api_version} {kind} to e2e::kinds"))
    }

    /// URL path of the collection. `namespace` is ignored for kinds without.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/{}/namespaces/{namespace}/{}", self.version, self.plural),
            None => format!("{root}/{}/{}", self.version, self.plural),
        }
    }
}
