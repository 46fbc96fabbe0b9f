//! The pod template's annotations (client-registration §9): when the template is written, and with what. Pure.

use api_types::{names::annotation, registration::annotation as own};
use controller_kit::workload::template_field;
use serde_json::{Map, Value, json};

use crate::{settings::TemplateAnnotation, workload::Workload};

/// The live Pods of a workload that carry the type label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodsSeen {
    /// How many there are.
    pub count: usize,
    /// How many of them name the right Secret.
    pub right: usize,
}

/// What to do about a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Nothing,
    /// The webhook may have annotated the Pods: look at them.
    LookAtPods,
    /// Write these annotations.
    Write(Marks),
}

/// The annotations to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Name of the Secret.
    pub secret: Option<String>,
    /// Revision of its data.
    pub revision: Option<u64>,
}

/// What to do, before the Pods were looked at.
///
/// `--template-annotation` is about a name that is missing: the webhook adds it to the Pods. A wrong name is corrected
/// (§3) and a new revision written (§9) in every mode, because nobody else does.
pub fn wish(mode: TemplateAnnotation, workload: &Workload, secret: &str, revision: u64) -> Wish {
    let named = workload.template_secret();
    // The first registration must not cost a rollout of its own.
    let stale = (revision > 1 && workload.template_revision() != Some(revision.to_string().as_str()))
        .then_some(revision);
    let name = (named != Some(secret)).then(|| secret.to_owned());
    match (name, stale) {
        (None, None) => Wish::Nothing,
        // A new revision rolls the Pods anyway, and a wrong name has to go.
        (secret, revision @ Some(_)) => {
            let with_name = named.is_some() || mode == TemplateAnnotation::Always;
            Wish::Write(Marks { secret: secret.filter(|_| with_name), revision })
        }
        (secret @ Some(_), None) if mode == TemplateAnnotation::Always || named.is_some() => {
            Wish::Write(Marks { secret, revision: None })
        }
        (Some(_), None) if mode == TemplateAnnotation::Never => Wish::Nothing,
        (secret @ Some(_), None) if workload.desired == 0 => Wish::Write(Marks { secret, revision: None }),
        (Some(_), None) => Wish::LookAtPods,
    }
}

/// What to do after the Pods were looked at; `None` = wait for the first one.
pub fn after_look(secret: &str, pods: PodsSeen, waited: bool) -> Option<Wish> {
    match pods {
        PodsSeen { count: 0, .. } if !waited => None,
        PodsSeen { count, right } if count > 0 && count == right => Some(Wish::Nothing),
        _ => Some(Wish::Write(Marks { secret: Some(secret.to_owned()), revision: None })),
    }
}

/// The merge patch that writes `marks` to the version of the workload that was looked at.
pub fn patch(workload: &Workload, marks: &Marks) -> Value {
    let mut annotations = Map::new();
    if let Some(secret) = &marks.secret {
        annotations.insert(annotation::CREDENTIALS_SECRET.to_owned(), json!(secret));
    }
    if let Some(revision) = marks.revision {
        annotations.insert(own::TEMPLATE_REVISION.to_owned(), json!(revision.to_string()));
    }
    body(workload, &annotations)
}

/// The merge patch that takes our annotations off; `None` = there are none of ours.
pub fn removal(workload: &Workload, secret: &str) -> Option<Value> {
    let mut annotations = Map::new();
    if workload.template_secret() == Some(secret) {
        annotations.insert(annotation::CREDENTIALS_SECRET.to_owned(), Value::Null);
    }
    if workload.template_revision().is_some() {
        annotations.insert(own::TEMPLATE_REVISION.to_owned(), Value::Null);
    }
    (!annotations.is_empty()).then(|| body(workload, &annotations))
}

fn body(workload: &Workload, annotations: &Map<String, Value>) -> Value {
    json!({
        "metadata": { "uid": workload.uid, "resourceVersion": workload.resource_version },
        "spec": { template_field(workload.key.kind): { "metadata": { "annotations": annotations } } },
    })
}

#[cfg(test)]
mod tests {
    use api_types::enrolment::TargetKind;
    use rstest::rstest;

    use super::*;
    use crate::{settings::TemplateAnnotation as Mode, workload::tests::workload};

    const SECRET: &str = "kagenti-keycloak-client-credentials-0";

    #[allow(clippy::needless_pass_by_value, reason = "tests hand over what `json!` made")]
    fn with(annotations: Value, replicas: i32) -> Workload {
        let object = json!({"metadata": {"resourceVersion": "7"},
            "spec": {"replicas": replicas, "template": {"metadata": {"annotations": annotations}}}});
        workload(TargetKind::Deployment, object)
    }

    fn name(value: &str) -> Value {
        json!({"kagenti.io/keycloak-client-credentials-secret-name": value})
    }

    fn write(secret: Option<&str>, revision: Option<u64>) -> Wish {
        Wish::Write(Marks { secret: secret.map(str::to_owned), revision })
    }

    #[rstest]
    #[case(Mode::Auto, json!({}), 1, 1, Wish::LookAtPods)]
    #[case(Mode::Auto, json!({}), 0, 1, write(Some(SECRET), None))]
    #[case(Mode::Always, json!({}), 1, 1, write(Some(SECRET), None))]
    #[case(Mode::Never, json!({}), 1, 1, Wish::Nothing)]
    #[case(Mode::Never, json!({}), 0, 1, Wish::Nothing)]
    #[case::copied_never(
        Mode::Never,
        name("kagenti-keycloak-client-credentials-1"),
        1,
        1,
        write(Some(SECRET), None)
    )]
    #[case::rotated_never(Mode::Never, json!({}), 1, 2, write(None, Some(2)))]
    #[case(Mode::Auto, name(SECRET), 1, 1, Wish::Nothing)]
    #[case(Mode::Always, name(SECRET), 1, 1, Wish::Nothing)]
    #[case::copied(
        Mode::Auto,
        name("kagenti-keycloak-client-credentials-1"),
        1,
        1,
        write(Some(SECRET), None)
    )]
    #[case::rotated(Mode::Auto, name(SECRET), 1, 2, write(None, Some(2)))]
    #[case::rotated_unnamed(Mode::Auto, json!({}), 1, 2, write(None, Some(2)))]
    #[case::rotated_always(Mode::Always, json!({}), 1, 2, write(Some(SECRET), Some(2)))]
    fn wishes(
        #[case] mode: Mode,
        #[case] annotations: Value,
        #[case] replicas: i32,
        #[case] revision: u64,
        #[case] expected: Wish,
    ) {
        let workload = with(annotations, replicas);
        assert_eq!(wish(mode, &workload, SECRET, revision), expected);
    }

    #[test]
    fn a_written_revision_is_enough() {
        let mut annotations = name(SECRET);
        annotations["kagenti.io/keycloak-client-credentials-revision"] = json!("2");
        assert_eq!(wish(Mode::Auto, &with(annotations.clone(), 1), SECRET, 2), Wish::Nothing);
        assert_eq!(wish(Mode::Auto, &with(annotations, 1), SECRET, 3), write(None, Some(3)));
    }

    #[rstest]
    #[case(0, 0, false, None)]
    #[case(0, 0, true, Some(write(Some(SECRET), None)))]
    #[case(2, 2, false, Some(Wish::Nothing))]
    #[case(2, 1, false, Some(write(Some(SECRET), None)))]
    fn looks(
        #[case] count: usize,
        #[case] right: usize,
        #[case] waited: bool,
        #[case] expected: Option<Wish>,
    ) {
        assert_eq!(after_look(SECRET, PodsSeen { count, right }, waited), expected);
    }

    #[test]
    fn patches_are_minimal_and_conditional() {
        let marks = Marks { secret: Some("s".into()), revision: Some(2) };
        let body = patch(&with(json!({}), 1), &marks);
        assert_eq!(body["metadata"], json!({"uid": "uid-1", "resourceVersion": "7"}));
        assert_eq!(
            body["spec"],
            json!({"template": {"metadata": {"annotations": {
                "kagenti.io/keycloak-client-credentials-secret-name": "s",
                "kagenti.io/keycloak-client-credentials-revision": "2"}}}})
        );
        assert_eq!(removal(&with(json!({}), 1), SECRET), None);
        assert_eq!(removal(&with(name("other"), 1), SECRET), None);
        let removed = removal(&with(name(SECRET), 1), SECRET).unwrap();
        assert!(
            removed.pointer("/spec/template/metadata/annotations").unwrap().as_object().unwrap().len() == 1
        );
    }
}
