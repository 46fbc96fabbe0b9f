//! MLflow variables at admission (webhook §10.1; MLflow chapter §7.2).

use api_types::mlflow::Field;

use super::{
    env::{EnvEdit, literal},
    pod::{Container, Pod},
};

/// True when the Pod asks for the variables.
pub(crate) fn wanted(pod: &Pod<'_>) -> bool {
    !pod.annotation(Field::ExperimentId.annotation()).is_empty()
}

/// Adds the missing variables to one container: all or nothing, because a user's URI with our experiment would
/// break the SDK.
pub(crate) fn add(pod: &Pod<'_>, container: &Container<'_>, env: &mut EnvEdit<'_>) {
    let value = |field: Field| pod.annotation(field.annotation());
    let users = |field: Field| {
        container.env(field.variable()).is_some_and(|entry| literal(entry) != Some(value(field)))
    };
    if Field::ALL.into_iter().any(|field| field.must_agree() && users(field)) {
        return;
    }
    for field in Field::ALL {
        if !value(field).is_empty() && container.env(field.variable()).is_none() {
            env.append(field.variable(), value(field));
        }
    }
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
        let added: Vec<&str> = Field::ALL
            .into_iter()
            .map(Field::variable)
            .filter(|name| text.contains(&format!("\"{name}\"")))
            .collect();
        assert_eq!(added, want);
    }
}
