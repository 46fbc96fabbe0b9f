//! What experiment tracking looks like on a workload (MLflow §2): mlflow-ctl writes it, the webhook reads it.

/// Value of [`Field::TrackingAuth`] where MLflow asks Kubernetes who may do what.
pub const KUBERNETES_AUTH: &str = "kubernetes-namespaced";
/// API group of experiments in Roles.
pub const RBAC_GROUP: &str = "mlflow.kubeflow.org";
/// Resource of experiments in Roles.
pub const RBAC_RESOURCE: &str = "experiments";

/// One value that an agent needs to reach its experiment: a variable of its containers, and an annotation of the pod
/// template that records what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// Where the server is.
    TrackingUri,
    /// How to authenticate.
    TrackingAuth,
    /// Id of the experiment.
    ExperimentId,
    /// Name of the experiment.
    ExperimentName,
}

impl Field {
    /// All of them, in the order in which they are added to a container (MLflow §7.1).
    pub const ALL: [Self; 4] =
        [Self::TrackingUri, Self::TrackingAuth, Self::ExperimentId, Self::ExperimentName];

    /// The environment variable.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::TrackingUri => "MLFLOW_TRACKING_URI",
            Self::TrackingAuth => "MLFLOW_TRACKING_AUTH",
            Self::ExperimentId => "MLFLOW_EXPERIMENT_ID",
            Self::ExperimentName => "MLFLOW_EXPERIMENT_NAME",
        }
    }

    /// The annotation of the pod template.
    pub const fn annotation(self) -> &'static str {
        match self {
            Self::TrackingUri => "mlflow.kagenti.io/tracking-uri",
            Self::TrackingAuth => "mlflow.kagenti.io/tracking-auth",
            Self::ExperimentId => "mlflow.kagenti.io/experiment-id",
            Self::ExperimentName => "mlflow.kagenti.io/experiment-name",
        }
    }

    /// Server and experiment must be one user's or all ours: a user's server with our id breaks the SDK (MLflow §7.2).
    pub const fn must_agree(self) -> bool {
        !matches!(self, Self::TrackingAuth)
    }

    /// The field of an environment variable.
    pub fn of_variable(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.variable() == name)
    }
}

/// Annotations of a workload by which its user steers mlflow-ctl.
pub mod annotation {
    /// `disabled` = not at all, `annotations` = write no environment variables (MLflow §6.1, §7.3).
    pub const INJECT: &str = "mlflow.kagenti.io/inject";
    /// Name of the experiment, instead of the template of the flag.
    pub const EXPERIMENT: &str = "mlflow.kagenti.io/experiment";
    /// Names of the containers that get the variables, comma separated.
    pub const CONTAINERS: &str = "mlflow.kagenti.io/containers";
    /// `"true"` on an MLflow object: the one to take when there are several.
    pub const DEFAULT: &str = "mlflow.kagenti.io/default";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_fixed_and_names_lead_back() {
        let names = Field::ALL.map(Field::variable);
        assert_eq!(
            names,
            ["MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_AUTH", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"]
        );
        assert_eq!(names.map(|name| Field::of_variable(name).unwrap()), Field::ALL);
        assert_eq!(Field::of_variable("MLFLOW_RUN_ID"), None);
    }
}
