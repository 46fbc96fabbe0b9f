//! The own rights against those that the chart's roles hold: nothing missing, nothing more (packaging §15).
//!
//! The expected rights come as `--expected-rights` from the template of the chart that also writes the roles, so there is one
//! source, `charts/<component>/files/rbac.yaml`. Compiled in, the program would have to repeat what that template decides:
//! OpenShift's rules, names that carry the release, which named namespaces were there, whether anybody reviews callers of
//! `/metrics`. Two such lists drift apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::str::FromStr;

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize;

use super::grant::{Grant, list, not_covered};

/// The place that stands for the whole cluster.
pub(super) const EVERYWHERE: &str = "";
/// So many things of each place are listed.
const LISTED: usize = 10;

/// What `--expected-rights` says, as JSON: `{"places": [{"namespaces": ["team1"], "rules": [...]}], "foreignGroups": []}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExpectedRights {
    places: Vec<Place>,
    /// API groups in which a role of somebody else is bound too, with rules that the chart cannot know.
    #[serde(default)]
    foreign_groups: Vec<String>,
}

/// Rules and the namespaces where they hold; the empty name is the whole cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    namespaces: Vec<String>,
    rules: Vec<PolicyRule>,
}

impl FromStr for ExpectedRights {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

impl ExpectedRights {
    /// The namespaces that it names.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &str> {
        let names = self.places.iter().flat_map(|place| &place.namespaces).map(String::as_str);
        names.filter(|name| *name != EVERYWHERE)
    }

    /// The grants of a place's own roles.
    fn at(&self, place: &str) -> BTreeSet<Grant> {
        let here = self.places.iter().filter(|at| at.namespaces.iter().any(|name| name == place));
        here.flat_map(|at| &at.rules).flat_map(Grant::of_rule).collect()
    }
}

/// What the API server says of one place.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Rights that hold there, those of the whole cluster among them.
    pub(super) grants: BTreeSet<Grant>,
    /// Why there may be more; an authorizer that cannot list what it allows.
    pub(super) incomplete: Option<String>,
}

/// Grants by place.
type Places = BTreeMap<String, BTreeSet<Grant>>;

/// What is not as expected.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) missing: Places,
    pub(super) surplus: Places,
    /// How many grants were expected.
    expected: usize,
    /// Why more rights than those found may exist.
    pub(super) incomplete: Option<String>,
    /// Nobody could be asked whether every account has what is too much.
    pub(super) unattributed: bool,
}

/// Compares place by place. What holds in the whole cluster is in `found` under its own name, and counted there only.
pub(super) fn compare(expected: &ExpectedRights, found: &BTreeMap<String, Found>) -> Difference {
    let wide_expected = expected.at(EVERYWHERE);
    let wide_found = found.get(EVERYWHERE).map(|wide| wide.grants.clone()).unwrap_or_default();
    let everybody = of_everybody();
    let mut difference = Difference::default();
    for (place, found) in found {
        let own = expected.at(place);
        difference.expected += own.len();
        let missing = not_covered(&own, &found.grants);
        if !missing.is_empty() {
            difference.missing.insert(place.clone(), missing);
        }
        let mut surplus = found.grants.clone();
        for known in [&own, &wide_expected, &everybody] {
            surplus = not_covered(&surplus, known);
        }
        if place != EVERYWHERE {
            surplus = not_covered(&surplus, &wide_found);
        }
        surplus.retain(|grant| {
            !grant.group().is_some_and(|group| expected.foreign_groups.iter().any(|foreign| foreign == group))
        });
        if !surplus.is_empty() {
            difference.surplus.insert(place.clone(), surplus);
        }
        difference.incomplete = difference.incomplete.or_else(|| found.incomplete.clone());
    }
    difference
}

impl Difference {
    /// One line of the table. Platforms give every account more than Kubernetes does: where nobody can be asked about that, a
    /// surplus alone is named, and no failure.
    pub(super) fn verdict(&self) -> Result<String, String> {
        let missing = described("missing", &self.missing);
        let surplus = described("more than the chart gives", &self.surplus);
        if missing.is_empty() && (surplus.is_empty() || self.unattributed) {
            let aside: Vec<_> = surplus.iter().map(|at| format!("; {at} ({MAY_BE_EVERYBODYS})")).collect();
            let unknown =
                self.incomplete.as_ref().map(|why| format!("; whether there are more is not known: {why}"));
            return Ok(format!(
                "{} rights as expected{}{}",
                self.expected,
                aside.concat(),
                unknown.unwrap_or_default()
            ));
        }
        let mut text = missing.iter().chain(&surplus).map(String::as_str).collect::<Vec<_>>().join(". ");
        if !surplus.is_empty() {
            text.push_str(". Who gives more: kubectl get clusterrolebindings,rolebindings -A -o wide");
            if self.unattributed {
                // Writing to a String cannot fail.
                let _ = write!(text, " ({MAY_BE_EVERYBODYS})");
            }
        }
        if let Some(why) = &self.incomplete {
            let _ = write!(text, ". There may be more: {why}");
        }
        Err(text)
    }
}

/// Said of rights beyond the chart's where the account may not ask who else has them.
const MAY_BE_EVERYBODYS: &str = "it may be what every account has: this one may not ask";

/// One sentence for each place.
fn described(what: &str, places: &Places) -> Vec<String> {
    let place = |name: &str| match name {
        EVERYWHERE => "in the whole cluster".to_owned(),
        name => format!("in namespace {name}"),
    };
    places.iter().map(|(name, grants)| format!("{what} {}: {}", place(name), list(grants, LISTED))).collect()
}

/// What every ServiceAccount has: `system:basic-user`, `system:discovery`, `system:public-info-viewer`,
/// `system:service-account-issuer-discovery`, `system:cluster-trust-bundle-discovery`, and on OpenShift `system:image-puller`
/// for all accounts of a namespace.
fn of_everybody() -> BTreeSet<Grant> {
    let urls = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
        "/.well-known/openid-configuration",
        "/.well-known/openid-configuration/",
        "/openid/v1/jwks",
        "/openid/v1/jwks/",
    ];
    let resources: [(&[&str], &[&str], &[&str]); 4] = [
        (&["authorization.k8s.io"], &["selfsubjectaccessreviews", "selfsubjectrulesreviews"], &["create"]),
        (&["authentication.k8s.io"], &["selfsubjectreviews"], &["create"]),
        (&["certificates.k8s.io"], &["clustertrustbundles"], &["get", "list", "watch"]),
        (&["", "image.openshift.io"], &["imagestreams/layers"], &["get"]),
    ];
    let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let mut grants = Grant::of_urls(&owned(&urls), &owned(&["get"]));
    for (groups, resources, verbs) in resources {
        grants.extend(Grant::of_resources(&owned(groups), &owned(resources), &[], &owned(verbs)));
    }
    grants
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn rule(groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str]) -> Value {
        let mut rule = json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
        if !names.is_empty() {
            rule["resourceNames"] = json!(names);
        }
        rule
    }

    fn deployments() -> Value {
        rule(&["apps"], &["deployments"], &[], &["get", "list"])
    }

    fn lease() -> Value {
        rule(&["coordination.k8s.io"], &["leases"], &["mine"], &["get", "patch"])
    }

    /// Deployments in the cluster, or in the given namespaces; the Lease in `ops`.
    fn expected(namespaces: &[&str]) -> ExpectedRights {
        let text = json!({"places": [
            {"namespaces": namespaces, "rules": [deployments()]},
            {"namespaces": ["ops"], "rules": [lease()]},
        ], "foreignGroups": ["mlflow.kubeflow.org"]});
        text.to_string().parse().unwrap()
    }

    /// What the API server says: rules by place.
    fn found(places: &[(&str, &[Value])]) -> BTreeMap<String, Found> {
        let grants = |rules: &[Value]| {
            let rules = rules.iter().map(|rule| serde_json::from_value::<PolicyRule>(rule.clone()).unwrap());
            Found { grants: rules.flat_map(|rule| Grant::of_rule(&rule)).collect(), incomplete: None }
        };
        places.iter().map(|(place, rules)| ((*place).to_owned(), grants(rules))).collect()
    }

    fn basic() -> Value {
        rule(&["authorization.k8s.io"], &["selfsubjectrulesreviews"], &[], &["create"])
    }

    #[test]
    fn equal_rights_pass_with_what_every_account_has() {
        let info = json!({"nonResourceURLs": ["/healthz", "/api/*"], "verbs": ["get"]});
        let wide = [deployments(), basic(), info];
        let home = [&wide[..], &[lease()]].concat();
        let said = compare(&expected(&[""]), &found(&[("", &wide), ("ops", &home)])).verdict();
        assert_eq!(said.unwrap(), "4 rights as expected");
        let team = [deployments(), basic()];
        let said = compare(
            &expected(&["team1"]),
            &found(&[("", &[basic()]), ("ops", &[lease(), basic()]), ("team1", &team)]),
        );
        assert_eq!(said.verdict().unwrap(), "4 rights as expected");
    }

    #[test]
    fn what_is_missing_is_named_with_its_place() {
        let less = rule(&["apps"], &["deployments"], &[], &["get"]);
        let said =
            compare(&expected(&["team1"]), &found(&[("", &[]), ("ops", &[lease()]), ("team1", &[less])]));
        assert_eq!(said.verdict().unwrap_err(), "missing in namespace team1: list deployments.apps");
        // A Lease of another name is not this one.
        let other = rule(&["coordination.k8s.io"], &["leases"], &["other"], &["get", "patch"]);
        let found = found(&[("", &[deployments()]), ("ops", &[deployments(), other])]);
        let said = compare(&expected(&[""]), &found).verdict().unwrap_err();
        assert!(
            said.contains("missing in namespace ops: get, patch leases.coordination.k8s.io mine."),
            "{said}"
        );
        assert!(said.contains(
            "more than the chart gives in namespace ops: get, patch leases.coordination.k8s.io other"
        ));
    }

    /// A right for one namespace does not do for all of them.
    #[test]
    fn a_binding_in_one_namespace_is_not_one_of_the_cluster() {
        let found = found(&[("", &[]), ("ops", &[deployments(), lease()])]);
        let said = compare(&expected(&[""]), &found).verdict().unwrap_err();
        assert_eq!(said, "missing in the whole cluster: get, list deployments.apps");
    }

    /// Once, where it was given, and not again in every namespace.
    #[test]
    fn a_foreign_binding_is_surplus() {
        let all = rule(&["*"], &["*"], &[], &["*"]);
        let found = found(&[("", &[deployments(), all.clone()]), ("ops", &[deployments(), all, lease()])]);
        let said = compare(&expected(&[""]), &found).verdict().unwrap_err();
        assert!(
            said.starts_with("more than the chart gives in the whole cluster: * *.*. Who gives more: "),
            "{said}"
        );
        assert!(!said.contains("ops") && !said.contains("missing"), "{said}");
    }

    /// OpenShift gives all accounts more than Kubernetes does; in namespaced mode nobody may ask about it.
    #[test]
    fn a_surplus_that_may_be_everybodys_is_named_and_passes() {
        let more = rule(&["project.openshift.io"], &["projects"], &[], &["list"]);
        let seen = found(&[("", &[deployments(), more.clone()]), ("ops", &[deployments(), more, lease()])]);
        let mut difference = compare(&expected(&[""]), &seen);
        difference.unattributed = true;
        let want = "4 rights as expected; more than the chart gives in the whole cluster: list \
                    projects.project.openshift.io (it may be what every account has: this one may not ask)";
        assert_eq!(difference.verdict().unwrap(), want);
        // What is missing is a failure nevertheless.
        let mut difference = compare(&expected(&[""]), &found(&[("", &[deployments()]), ("ops", &[])]));
        difference.unattributed = true;
        assert!(difference.verdict().unwrap_err().starts_with("missing in namespace ops: "));
    }

    /// A wider grant does what the narrow one asks for, and is too much.
    #[test]
    fn a_wildcard_covers_and_is_surplus() {
        let wide = rule(&["apps"], &["deployments"], &[], &["*"]);
        let found = found(&[("", &[wide]), ("ops", &[lease()])]);
        let said = compare(&expected(&[""]), &found).verdict().unwrap_err();
        assert!(
            said.contains("in the whole cluster: * deployments.apps") && !said.contains("missing"),
            "{said}"
        );
    }

    /// The name of an object that may be read without naming it says nothing new.
    #[test]
    fn a_narrower_grant_is_no_surplus() {
        let one = rule(&["apps"], &["deployments"], &["web"], &["get"]);
        let found = found(&[("", &[deployments(), one]), ("ops", &[lease()])]);
        assert!(compare(&expected(&[""]), &found).verdict().is_ok());
    }

    #[test]
    fn rights_of_a_foreign_role_are_not_judged() {
        let mlflow = rule(&["mlflow.kubeflow.org"], &["datasets"], &[], &["create"]);
        let found = found(&[("", &[deployments(), mlflow]), ("ops", &[lease()])]);
        assert!(compare(&expected(&[""]), &found).verdict().is_ok());
    }

    #[test]
    fn an_incomplete_answer_is_said() {
        let mut found = found(&[("", &[deployments()]), ("ops", &[lease()])]);
        found.get_mut("ops").unwrap().incomplete = Some("webhook authorizer".to_owned());
        let said = compare(&expected(&[""]), &found).verdict().unwrap();
        assert_eq!(said, "4 rights as expected; whether there are more is not known: webhook authorizer");
    }

    #[test]
    fn a_key_that_nobody_knows_is_refused() {
        assert!(r#"{"places": [], "foreign": []}"#.parse::<ExpectedRights>().is_err());
        assert!(r#"{"places": [{"namespace": "a", "rules": []}]}"#.parse::<ExpectedRights>().is_err());
    }
}
