//! The audience scope: its name, its content and its repair (client-registration §7). Pure.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::attributes::{Attributes, CLUSTER_ID, MANAGED_BY, MANAGER, WORKLOAD, WorkloadMark};
use crate::identity::is_of_namespace;

/// Longest name Keycloak stores.
const NAME_LIMIT: usize = 255;
/// What is left of a longer one.
const CUT: usize = 240;
const MAPPER_TYPE: &str = "oidc-audience-mapper";
const AUDIENCE: &str = "included.custom.audience";

/// A client scope as Keycloak shows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scope {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Attributes.
    pub attributes: Attributes,
    /// Mappers.
    pub protocol_mappers: Vec<Mapper>,
}

/// A protocol mapper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mapper {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Type.
    pub protocol_mapper: String,
    /// Configuration.
    pub config: Attributes,
}

/// The scope that a workload should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Namespace of the workload.
    pub namespace: String,
    /// Its name.
    pub workload: String,
    /// Its mark.
    pub mark: WorkloadMark,
    /// Our cluster.
    pub cluster_id: String,
    /// What goes into `aud`.
    pub client_id: String,
}

/// One step of a repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// POST this mapper.
    Create(Value),
    /// PUT this body to the mapper of this id.
    Update(String, Value),
    /// DELETE the mapper of this id.
    Delete(String),
}

fn short_hash(namespace: &str, workload: &str) -> String {
    let digest = Sha256::new()
        .chain_update(namespace)
        .chain_update([0])
        .chain_update(workload)
        .chain_update([0])
        .chain_update("kagenti-audience-scope")
        .finalize();
    hex::encode(digest.get(..4).unwrap_or_default())
}

/// The compatible name of a workload's scope, and the one for when that is taken. Equal when the compatible one would be
/// too long.
pub fn names(namespace: &str, workload: &str) -> (String, String) {
    let plain = format!("agent-{namespace}-{workload}-aud");
    let suffixed = |stem: &str| format!("{stem}-{}", short_hash(namespace, workload));
    if plain.len() > NAME_LIMIT {
        let long = suffixed(plain.get(..CUT).unwrap_or(&plain));
        return (long.clone(), long);
    }
    let other = suffixed(plain.get(..CUT.min(plain.len())).unwrap_or(&plain));
    (plain, other)
}

impl Desired {
    /// Both names, the preferred one first.
    pub fn names(&self) -> (String, String) {
        names(&self.namespace, &self.workload)
    }

    /// Whether a scope with one of our names is ours (§7.1).
    pub fn is_ours(&self, scope: &Scope) -> bool {
        if scope.attributes.get(CLUSTER_ID).is_some_and(|id| id != self.cluster_id) {
            return false;
        }
        if let Some(text) = scope.attributes.get(WORKLOAD) {
            return WorkloadMark::read(text)
                .is_some_and(|mark| mark.namespace == self.namespace && mark.name == self.workload);
        }
        let mut audiences = scope
            .protocol_mappers
            .iter()
            .filter(|mapper| mapper.name == scope.name && mapper.protocol_mapper == MAPPER_TYPE)
            .filter_map(|mapper| mapper.config.get(AUDIENCE));
        let plain = format!("{}/{}", self.namespace, self.workload);
        audiences.any(|audience| {
            audience == self.client_id
                || audience == plain
                || (audience.starts_with("spiffe://") && is_of_namespace(audience, &self.namespace))
        })
    }

    /// The body of a create: scope and mapper at once.
    pub fn create_body(&self, name: &str) -> Value {
        json!({
            "name": name,
            "protocol": "openid-connect",
            "attributes": {
                "include.in.token.scope": "true",
                "display.on.consent.screen": "true",
                MANAGED_BY: MANAGER,
                CLUSTER_ID: self.cluster_id,
                WORKLOAD: self.mark.to_string(),
            },
            "protocolMappers": [self.mapper(name, None)],
        })
    }

    fn config(&self) -> [(&'static str, &str); 4] {
        [
            (AUDIENCE, self.client_id.as_str()),
            ("id.token.claim", "false"),
            ("access.token.claim", "true"),
            ("userinfo.token.claim", "false"),
        ]
    }

    fn mapper(&self, name: &str, id: Option<&str>) -> Value {
        let config: Map<String, Value> =
            self.config().into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
        let mut mapper = json!({
            "name": name,
            "protocol": "openid-connect",
            "protocolMapper": MAPPER_TYPE,
            "consentRequired": false,
            "config": config,
        });
        if let (Some(id), Some(fields)) = (id, mapper.as_object_mut()) {
            fields.insert("id".to_owned(), json!(id));
        }
        mapper
    }

    fn is_right(&self, mapper: &Mapper) -> bool {
        mapper.protocol_mapper == MAPPER_TYPE
            && self.config().into_iter().all(|(key, value)| mapper.config.get(key) == Some(value))
    }

    /// What makes the mappers of a scope right; empty = they are.
    pub fn repair(&self, scope: &Scope) -> Vec<Step> {
        let named: Vec<&Mapper> =
            scope.protocol_mappers.iter().filter(|mapper| mapper.name == scope.name).collect();
        let typed = |mapper: &&&Mapper| mapper.protocol_mapper == MAPPER_TYPE;
        // The first that is right, else the first that can be made so.
        let keep = named
            .iter()
            .find(|mapper| self.is_right(mapper))
            .or_else(|| named.iter().find(typed))
            .map(|mapper| mapper.id.clone());
        let mut steps: Vec<Step> = named
            .iter()
            .filter(|mapper| Some(&mapper.id) != keep.as_ref())
            .map(|mapper| Step::Delete(mapper.id.clone()))
            .collect();
        match named.iter().find(|mapper| Some(&mapper.id) == keep.as_ref()) {
            None => steps.push(Step::Create(self.mapper(&scope.name, None))),
            Some(kept) if !self.is_right(kept) => {
                steps.push(Step::Update(kept.id.clone(), self.mapper(&scope.name, Some(&kept.id))));
            }
            Some(_) => {}
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn desired() -> Desired {
        Desired {
            namespace: "team1".into(),
            workload: "w".into(),
            mark: WorkloadMark::read("team1/Deployment/w").expect("mark"),
            cluster_id: "c1".into(),
            client_id: "team1/w".into(),
        }
    }

    fn scope(value: Value) -> Scope {
        serde_json::from_value(value).expect("scope")
    }

    /// The vectors of §7.1.
    #[test]
    fn colliding_names_have_a_way_out() {
        let (one, other) = (names("a-b", "c"), names("a", "b-c"));
        assert_eq!(one.0, other.0);
        assert_eq!(
            (one.1.as_str(), other.1.as_str()),
            ("agent-a-b-c-aud-e5a15f6d", "agent-a-b-c-aud-5855464f")
        );
    }

    #[test]
    fn long_names_are_cut() {
        let (name, other) = names(&"n".repeat(63), &"w".repeat(253));
        assert_eq!(name, other);
        assert_eq!(name.len(), CUT + 9);
        let (name, other) = names("team1", &"w".repeat(239));
        assert_eq!(name.len(), 255);
        assert!(other.len() <= 255 && other != name, "{other}");
    }

    #[test]
    fn a_created_scope_is_ours_and_right() {
        let name = desired().names().0;
        let created = scope(desired().create_body(&name));
        assert!(desired().is_ours(&created));
        assert_eq!(desired().repair(&created), []);
    }

    /// §7.1.
    #[rstest]
    #[case(json!({"attributes": {"kagenti.workload": "team1/StatefulSet/w"}}), true)]
    #[case(json!({"attributes": {"kagenti.workload": "team1/Deployment/other"}}), false)]
    #[case(json!({"attributes": {"kagenti.workload": "team1/Deployment/w", "kagenti.cluster-id": "c2"}}), false)]
    #[case(json!({"protocolMappers": [["n", "team1/w"]]}), true)]
    #[case(json!({"protocolMappers": [["n", "spiffe://x/ns/team1/sa/any"]]}), true)]
    #[case(json!({"protocolMappers": [["n", "spiffe://x/ns/team2/sa/w"]]}), false)]
    #[case(json!({"protocolMappers": [["n", "team1/other"]]}), false)]
    #[case(json!({"protocolMappers": [["m", "team1/w"]]}), false)]
    #[case(json!({}), false)]
    fn whose(#[case] mut value: Value, #[case] ours: bool) {
        value["name"] = json!("n");
        if let Some(mappers) = value.get_mut("protocolMappers").and_then(Value::as_array_mut) {
            for mapper in mappers {
                *mapper = json!({"id": "1", "name": mapper[0], "protocolMapper": "oidc-audience-mapper",
                    "config": {"included.custom.audience": mapper[1]}});
            }
        }
        assert_eq!(desired().is_ours(&scope(value)), ours);
    }

    fn mapper(id: &str, kind: &str, audience: &str) -> Mapper {
        let config = Attributes::from([
            ("included.custom.audience", audience),
            ("id.token.claim", "false"),
            ("access.token.claim", "true"),
            ("userinfo.token.claim", "false"),
            ("introspection.token.claim", "true"),
        ]);
        Mapper { id: id.into(), name: "n".into(), protocol_mapper: kind.into(), config }
    }

    fn repaired(mappers: Vec<Mapper>) -> Vec<String> {
        let steps =
            desired().repair(&Scope { name: "n".into(), protocol_mappers: mappers, ..Scope::default() });
        steps
            .into_iter()
            .map(|step| match step {
                Step::Create(body) => {
                    assert_eq!(body["config"]["included.custom.audience"], "team1/w");
                    assert_eq!(body.get("id"), None);
                    "create".to_owned()
                }
                Step::Update(id, body) => {
                    assert_eq!(body["id"], *id);
                    assert_eq!(body["config"].as_object().map(Map::len), Some(4));
                    format!("update {id}")
                }
                Step::Delete(id) => format!("delete {id}"),
            })
            .collect()
    }

    /// §7.2 and scenario 11.
    #[test]
    fn repairs() {
        let right = || mapper("1", MAPPER_TYPE, "team1/w");
        let wrong = |id: &str| mapper(id, MAPPER_TYPE, "team2/w");
        let other = |id: &str| mapper(id, "oidc-hardcoded-claim-mapper", "team1/w");
        assert_eq!(repaired(vec![right()]), Vec::<String>::new());
        assert_eq!(repaired(vec![]), ["create"]);
        assert_eq!(repaired(vec![wrong("1")]), ["update 1"]);
        assert_eq!(repaired(vec![other("1")]), ["delete 1", "create"]);
        assert_eq!(repaired(vec![wrong("0"), right()]), ["delete 0"]);
        assert_eq!(repaired(vec![wrong("0"), wrong("2")]), ["delete 2", "update 0"]);
        assert_eq!(repaired(vec![other("0"), wrong("2")]), ["delete 0", "update 2"]);
        let foreign = Mapper { name: "m".into(), ..other("9") };
        assert_eq!(repaired(vec![foreign, right()]), Vec::<String>::new());
    }
}
