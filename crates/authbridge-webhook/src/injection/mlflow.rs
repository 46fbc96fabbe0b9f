//! MLflow variables at admission (webhook §10.1; MLflow chapter §7.2).

use super::{
    env::{EnvEdit, literal},
    pod::{Container, Pod},
};

/// Annotation whose presence asks for the variables.
const EXPERIMENT_ID: &str = "mlflow.kagenti.io/experiment-id";

/// Variables and the annotations that carry their values, in the order they are added.
const VARIABLES: [(&str, &str); 4] = [
    ("MLFLOW_TRACKING_URI", "mlflow.kagenti.io/tracking-uri"),
    ("MLFLOW_TRACKING_AUTH", "mlflow.kagenti.io/tracking-auth"),
    ("MLFLOW_EXPERIMENT_ID", EXPERIMENT_ID),
    ("MLFLOW_EXPERIMENT_NAME", "mlflow.kagenti.io/experiment-name"),
];

/// A user's authentication does not contradict our tracking server, the other three do.
const USER_MAY_OWN: &str = "MLFLOW_TRACKING_AUTH";

/// True when the Pod asks for the variables.
pub(crate) fn wanted(pod: &Pod<'_>) -> bool {
    !pod.annotation(EXPERIMENT_ID).is_empty()
}

/// Adds the missing variables to one container: all or nothing, because a user's URI with our experiment would
/// break the SDK.
pub(crate) fn add(pod: &Pod<'_>, container: &Container<'_>, env: &mut EnvEdit<'_>) {
    let desired = || {
        VARIABLES
            .iter()
            .map(|(name, annotation)| (*name, pod.annotation(annotation)))
            .filter(|(_, value)| !value.is_empty())
    };
    let users =
        |name: &str, value: &str| container.env(name).is_some_and(|entry| literal(entry) != Some(value));
    let owned = |(name, _): &(&str, &str)| *name != USER_MAY_OWN && users(name, pod.annotation(of(name)));
    if VARIABLES.iter().any(owned) {
        return;
    }
    for (name, value) in desired() {
        if container.env(name).is_none() {
            env.append(name, value);
        }
    }
}

fn of(variable: &str) -> &'static str {
    VARIABLES.iter().find(|(name, _)| *name == variable).map_or("", |(_, annotation)| annotation)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::injection::Patch;

    #[rstest]
    #[case::all(json!([]), &["MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"])]
    #[case::rest(
        json!([{"name": "MLFLOW_EXPERIMENT_ID", "value": "7"}]),
        &["MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"]
    )]
    #[case::user_uri(json!([{"name": "MLFLOW_TRACKING_URI", "value": "http://mine"}]), &[])]
    #[case::user_reference(json!([{"name": "MLFLOW_EXPERIMENT_ID", "valueFrom": {"fieldRef": {}}}]), &[])]
    #[case::user_auth(
        json!([{"name": "MLFLOW_TRACKING_AUTH", "value": "mine"}]),
        &["MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"]
    )]
    fn all_or_nothing(#[case] env: Value, #[case] want: &[&str]) {
        let raw = json!({
            "metadata": {"annotations": {
                "mlflow.kagenti.io/experiment-id": "7",
                "mlflow.kagenti.io/experiment-name": "e",
                "mlflow.kagenti.io/tracking-uri": "http://mlflow",
            }},
            "spec": {"containers": [{"name": "a", "env": env}]},
        });
        let pod = Pod::parse(&raw).expect("a Pod");
        assert!(wanted(&pod));
        let mut edit = EnvEdit::new(&pod.containers()[0]);
        add(&pod, &pod.containers()[0], &mut edit);
        let mut patch = Patch::default();
        edit.finish(&mut patch);
        let text = String::from_utf8(patch.to_json()).expect("UTF-8");
        let added: Vec<&str> = VARIABLES
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| text.contains(&format!("\"{name}\"")))
            .collect();
        assert_eq!(added, want);
    }
}
