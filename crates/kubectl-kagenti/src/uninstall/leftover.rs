//! What a finalizer stood for, and stays behind when it is merely taken off. Pure.

use std::fmt::Write as _;

use api_types::enrolment::TargetKind;
use api_types::names::{finalizer, label};
use api_types::registration::annotation;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::stuck::{Kind, Stuck};

/// What is known of the workload that an AgentRuntime or AgentCard names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Workload {
    /// There is none.
    Gone,
    /// It is there, with these labels on the pod template.
    There {
        /// It has labels that enrolment puts there.
        enrolled: bool,
        /// It has the label of verified signatures.
        verified: bool,
    },
    /// It could not be looked at.
    Unknown(String),
}

impl Workload {
    /// What its pod template says.
    pub(super) fn of(object: &Value) -> Self {
        let has = |pointer: &str, key: &str| {
            object.pointer(pointer).and_then(Value::as_object).is_some_and(|labels| labels.contains_key(key))
        };
        let template = |key: &str| {
            has("/spec/template/metadata/labels", key) || has("/spec/podTemplate/metadata/labels", key)
        };
        Self::There {
            enrolled: has("/metadata/labels", label::TYPE)
                || template(label::TYPE)
                || template(label::ENROLLED),
            verified: template(label::SIGNATURE_VERIFIED),
        }
    }
}

/// Something that nobody cleans up any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Leftover {
    /// What.
    what: String,
    /// The command that takes it away, or looks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Leftover {
    fn new(what: impl Into<String>, remedy: Option<String>) -> Self {
        Self { what: what.into(), remedy }
    }

    /// One line, and the command below it.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n", self.what);
        if let Some(remedy) = &self.remedy {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "  {remedy}");
        }
        text
    }
}

/// What stays when the finalizers of an object are taken off.
pub(super) fn left_behind(object: &Stuck, workload: &Workload) -> Vec<Leftover> {
    match object.kind {
        Kind::AgentRuntime => of_runtime(object, workload),
        Kind::AgentCard => of_card(object, workload),
        Kind::Secret => of_secret(object),
    }
}

/// The workload of an object, for a text and for a command; names that no object can have get no command.
fn target(object: &Stuck) -> Option<(String, Option<String>)> {
    let target = object.target.as_ref()?;
    let kind = TargetKind::of(target.group()?, &target.kind)?;
    let text = format!("{} {} in namespace {}", kind.as_str(), shown(&target.name), object.namespace);
    let command = is_plain(&target.name).then(|| {
        format!("kubectl -n {} patch {} {} --type=merge -p", object.namespace, resource(kind), target.name)
    });
    Some((text, command))
}

/// As kubectl names it, whichever version is served.
fn resource(kind: TargetKind) -> &'static str {
    match kind {
        TargetKind::Deployment => "deployment",
        TargetKind::StatefulSet => "statefulset",
        TargetKind::Sandbox => "sandbox.agents.x-k8s.io",
    }
}

/// Where a kind has its pod template.
fn template(object: &Stuck) -> &'static str {
    match object.target.as_ref().map(|target| target.kind.as_str()) {
        Some("Sandbox") => "podTemplate",
        _ => "template",
    }
}

fn of_runtime(object: &Stuck, workload: &Workload) -> Vec<Leftover> {
    let Some((text, command)) = target(object) else { return Vec::new() };
    let (kind, enrolled) = (label::TYPE, label::ENROLLED);
    let remedy = command.map(|command| {
        let template = template(object);
        format!(
            r#"{command} '{{"metadata":{{"labels":{{"{kind}":null}}}},"spec":{{"{template}":{{"metadata":{{"labels":{{"{kind}":null,"{enrolled}":null}}}}}}}}}}'"#
        )
    });
    match workload {
        Workload::Gone | Workload::There { enrolled: false, .. } => Vec::new(),
        Workload::There { enrolled: true, .. } => {
            vec![Leftover::new(
                format!("{text} stays labelled as an agent, its Pods keep their sidecars"),
                remedy,
            )]
        }
        Workload::Unknown(why) => {
            vec![Leftover::new(format!("unknown whether {text} stays labelled as an agent: {why}"), remedy)]
        }
    }
}

fn of_card(object: &Stuck, workload: &Workload) -> Vec<Leftover> {
    let mut left = Vec::new();
    if object.ours.contains(&finalizer::LEGACY_NETWORK_POLICY) {
        left.push(Leftover::new(
            format!(
                "NetworkPolicies that the previous operator made in namespace {} may be left",
                object.namespace
            ),
            Some(format!(
                "kubectl -n {} get networkpolicies -l kagenti.dev/policy-type=identity-verification",
                object.namespace
            )),
        ));
    }
    let verified = match workload {
        Workload::There { verified: true, .. } => "keeps",
        Workload::Unknown(_) => "may keep",
        Workload::Gone | Workload::There { .. } => return left,
    };
    if object.ours.contains(&finalizer::LEGACY_CARD)
        && let Some((text, command)) = target(object)
    {
        let (label, template) = (label::SIGNATURE_VERIFIED, template(object));
        let remedy = command.map(|command| {
            format!(
                r#"{command} '{{"spec":{{"{template}":{{"metadata":{{"labels":{{"{label}":null}}}}}}}}}}'"#
            )
        });
        left.push(Leftover::new(format!("{text} {verified} the label {label}"), remedy));
    }
    left
}

/// A client of Keycloak, as annotations of its Secret say. Tenants can write them: shown, never acted on.
#[derive(Debug, Deserialize)]
struct Place {
    url: String,
    realm: String,
    uuid: String,
}

fn of_secret(object: &Stuck) -> Vec<Leftover> {
    let annotation = |key: &str| object.annotations.get(key).cloned().filter(|value| !value.is_empty());
    let (url, realm) = (annotation(annotation::URL), annotation(annotation::REALM));
    let place = |uuid| Some(Place { url: url.clone()?, realm: realm.clone()?, uuid });
    let of = |what: &str, path: &str, place: &Place| {
        let Place { url, realm, uuid } = place;
        let remedy =
            (is_plain(realm) && is_plain(uuid)).then(|| format!("kcadm.sh delete {path}/{uuid} -r {realm}"));
        Leftover::new(
            format!("{what} {} stays in realm {} of Keycloak {}", shown(uuid), shown(realm), shown(url)),
            remedy,
        )
    };
    let mut left = Vec::new();
    left.extend(
        annotation(annotation::CLIENT_UUID).and_then(place).map(|place| of("client", "clients", &place)),
    );
    let scope = annotation(annotation::SCOPE_ID).and_then(place);
    left.extend(scope.map(|place| of("client scope", "client-scopes", &place)));
    let earlier = annotation(annotation::PREVIOUS).and_then(|text| serde_json::from_str(&text).ok());
    let earlier: Vec<Place> = earlier.unwrap_or_default();
    left.extend(earlier.iter().map(|place| of("earlier client", "clients", place)));
    left
}

/// Nothing that a shell or a terminal takes for something else.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn shown(text: &str) -> String {
    text.chars().flat_map(char::escape_default).take(300).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::super::stuck::tests::stuck;
    use super::*;

    fn texts(left: &[Leftover]) -> String {
        left.iter().map(Leftover::text).collect()
    }

    #[rstest]
    #[case::labels(json!({"metadata": {"labels": {"kagenti.io/type": "agent"}}}), true)]
    #[case::template(json!({"spec": {"template": {"metadata": {"labels": {"agent.kagenti.dev/enrolled": "true"}}}}}), true)]
    #[case::sandbox(json!({"spec": {"podTemplate": {"metadata": {"labels": {"kagenti.io/type": "agent"}}}}}), true)]
    #[case::clean(json!({"metadata": {"labels": {"app": "x"}}, "spec": {"template": {}}}), false)]
    fn enrolment_is_read_off_the_workload(#[case] object: Value, #[case] enrolled: bool) {
        assert_eq!(Workload::of(&object), Workload::There { enrolled, verified: false });
    }

    /// Only what is really left is said, and with the command that docs/uninstall.md has.
    #[test]
    fn the_workload_of_an_agent_stays_enrolled() {
        let object = stuck(Kind::AgentRuntime, &["kagenti.io/cleanup"], &json!({})).expect("stuck");
        let there = |enrolled| Workload::There { enrolled, verified: false };
        assert_eq!(left_behind(&object, &Workload::Gone), []);
        assert_eq!(left_behind(&object, &there(false)), []);
        assert_eq!(
            texts(&left_behind(&object, &there(true))),
            "Deployment weather in namespace team1 stays labelled as an agent, its Pods keep their sidecars\n  \
             kubectl -n team1 patch deployment weather --type=merge -p '{\"metadata\":{\"labels\":{\"kagenti.io/type\":null}},\
             \"spec\":{\"template\":{\"metadata\":{\"labels\":{\"kagenti.io/type\":null,\"agent.kagenti.dev/enrolled\":null}}}}}'\n"
        );
        let unknown = texts(&left_behind(&object, &Workload::Unknown("needs the right to get x".into())));
        assert!(unknown.starts_with("unknown whether Deployment weather"), "{unknown}");
        assert!(unknown.contains("needs the right to get x"), "{unknown}");
    }

    #[test]
    fn clients_of_keycloak_stay() {
        let annotations = json!({
            "kagenti.io/keycloak-url": "https://kc", "kagenti.io/keycloak-realm": "agents",
            "kagenti.io/keycloak-client-uuid": "u-1", "kagenti.io/keycloak-scope-id": "s-1",
            "kagenti.io/keycloak-previous-clients": r#"[{"url": "https://old", "realm": "r", "uuid": "u-0"}]"#,
        });
        let object = stuck(Kind::Secret, &["kagenti.io/keycloak-client"], &annotations).expect("stuck");
        assert_eq!(
            texts(&left_behind(&object, &Workload::Gone)),
            "client u-1 stays in realm agents of Keycloak https://kc\n  kcadm.sh delete clients/u-1 -r agents\n\
             client scope s-1 stays in realm agents of Keycloak https://kc\n  kcadm.sh delete client-scopes/s-1 -r agents\n\
             earlier client u-0 stays in realm r of Keycloak https://old\n  kcadm.sh delete clients/u-0 -r r\n"
        );
        let nothing = stuck(Kind::Secret, &["kagenti.io/keycloak-client"], &json!({})).expect("stuck");
        assert_eq!(left_behind(&nothing, &Workload::Gone), []);
    }

    /// Annotations are written by tenants: nothing of them gets into a command or a terminal as it is.
    #[test]
    fn hostile_annotations_make_no_command() {
        let annotations = json!({
            "kagenti.io/keycloak-url": "https://kc\u{1b}[2J", "kagenti.io/keycloak-realm": "agents",
            "kagenti.io/keycloak-client-uuid": "x; rm -rf ~",
        });
        let object = stuck(Kind::Secret, &["kagenti.io/keycloak-client"], &annotations).expect("stuck");
        let text = texts(&left_behind(&object, &Workload::Gone));
        assert!(!text.contains('\u{1b}') && !text.contains("kcadm.sh"), "{text}");
    }

    #[test]
    fn cards_of_the_previous_operator() {
        let both = ["agentcard.kagenti.dev/finalizer", "agentcard.kagenti.dev/network-policy"];
        let object = stuck(Kind::AgentCard, &both, &json!({})).expect("stuck");
        let left = texts(&left_behind(&object, &Workload::There { enrolled: true, verified: true }));
        assert!(
            left.contains("get networkpolicies -l kagenti.dev/policy-type=identity-verification"),
            "{left}"
        );
        assert!(left.contains(
            "Deployment weather in namespace team1 keeps the label agent.kagenti.dev/signature-verified"
        ));
        let left = left_behind(&object, &Workload::Gone);
        assert_eq!(left.len(), 1);
    }
}
