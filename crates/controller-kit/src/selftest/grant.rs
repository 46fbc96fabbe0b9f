//! Rights as single grants, and what two sets of them have that the other has not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use k8s_openapi::api::rbac::v1::PolicyRule;

/// One verb on one thing. The order is that of the table: by what it is about, then by verb.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Grant {
    pub(super) of: Target,
    pub(super) verb: String,
}

/// What a grant is about. `*` means what it means in a role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// A resource of the API; `resource` may be `<plural>/<subresource>`, no name means every object.
    Resource { group: String, resource: String, name: Option<String> },
    /// A path of the API server that is no resource.
    Url(String),
}

/// Verbs by what they are about: one line of a list.
type Lines<'a> = BTreeMap<&'a Target, BTreeSet<&'a str>>;

impl Grant {
    /// Every verb on every thing that the lists of a rule name.
    pub(super) fn of_resources(
        groups: &[String],
        resources: &[String],
        names: &[String],
        verbs: &[String],
    ) -> BTreeSet<Self> {
        let names: Vec<Option<&String>> =
            if names.is_empty() { vec![None] } else { names.iter().map(Some).collect() };
        let mut grants = BTreeSet::new();
        for group in groups {
            for resource in resources {
                for name in &names {
                    let of = Target::Resource {
                        group: group.clone(),
                        resource: resource.clone(),
                        name: name.cloned(),
                    };
                    grants.extend(verbs.iter().map(|verb| Self { of: of.clone(), verb: verb.clone() }));
                }
            }
        }
        grants
    }

    /// The same for paths.
    pub(super) fn of_urls(urls: &[String], verbs: &[String]) -> BTreeSet<Self> {
        let on = |url: &String| {
            let of = Target::Url(url.clone());
            verbs.iter().map(move |verb| Self { of: of.clone(), verb: verb.clone() }).collect::<Vec<_>>()
        };
        urls.iter().flat_map(on).collect()
    }

    /// Those of a rule of a role.
    pub(super) fn of_rule(rule: &PolicyRule) -> BTreeSet<Self> {
        let list = |part: &Option<Vec<String>>| part.clone().unwrap_or_default();
        let mut grants = Self::of_resources(
            &list(&rule.api_groups),
            &list(&rule.resources),
            &list(&rule.resource_names),
            &rule.verbs,
        );
        grants.extend(Self::of_urls(&list(&rule.non_resource_urls), &rule.verbs));
        grants
    }

    /// Whether who has this one has the other one, too, by the rules of RBAC.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let any = |have: &str, want: &str| have == "*" || have == want;
        let of = match (&self.of, &other.of) {
            (
                Target::Resource { group, resource, name },
                Target::Resource { group: group2, resource: resource2, name: name2 },
            ) => {
                let every_sub = || {
                    let sub = resource2.split_once('/').map(|(_, sub)| sub);
                    sub.is_some() && resource.strip_prefix("*/") == sub
                };
                any(group, group2)
                    && (any(resource, resource2) || every_sub())
                    && (name.is_none() || name == name2)
            }
            (Target::Url(url), Target::Url(url2)) => match url.strip_suffix('*') {
                Some(start) => url2.starts_with(start),
                None => url == url2,
            },
            _ => false,
        };
        of && any(&self.verb, &other.verb)
    }

    /// The API group, when it is about a resource.
    pub(super) fn group(&self) -> Option<&str> {
        match &self.of {
            Target::Resource { group, .. } => Some(group),
            Target::Url(_) => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::Resource { group, resource, name } => {
                // As kubectl writes it: deployments.apps, agentruntimes.agent.kagenti.dev/status.
                let (plural, sub) = match resource.split_once('/') {
                    Some((plural, sub)) => (plural, Some(sub)),
                    None => (resource.as_str(), None),
                };
                f.write_str(plural)?;
                if !group.is_empty() {
                    write!(f, ".{group}")?;
                }
                if let Some(sub) = sub {
                    write!(f, "/{sub}")?;
                }
                name.as_ref().map_or(Ok(()), |name| write!(f, " {name}"))
            }
        }
    }
}

/// Those of `wanted` that nothing in `have` covers.
pub(super) fn not_covered(wanted: &BTreeSet<Grant>, have: &BTreeSet<Grant>) -> BTreeSet<Grant> {
    wanted.iter().filter(|grant| !have.iter().any(|own| own.covers(grant))).cloned().collect()
}

/// `get, patch deployments.apps; create pods`, at most `most` things long.
pub(super) fn list(grants: &BTreeSet<Grant>, most: usize) -> String {
    let mut lines = Lines::new();
    for grant in grants {
        lines.entry(&grant.of).or_default().insert(&grant.verb);
    }
    let total = lines.len();
    let words = |(of, verbs): (&Target, BTreeSet<&str>)| {
        format!("{} {of}", verbs.into_iter().collect::<Vec<_>>().join(", "))
    };
    let mut text = lines.into_iter().take(most).map(words).collect::<Vec<_>>().join("; ");
    if total > most {
        // Writing to a String cannot fail.
        let _ = write!(text, "; and {} more", total - most);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// `<verb> <group> <resource> [<name>]`, or `<verb> <path>`.
    fn grant(text: &str) -> Grant {
        let words: Vec<&str> = text.split(' ').collect();
        let of = match words[..] {
            [_, url] => Target::Url(url.to_owned()),
            [_, group, resource, ref rest @ ..] => Target::Resource {
                group: group.trim_matches('-').to_owned(),
                resource: resource.to_owned(),
                name: rest.first().map(|&name| name.to_owned()),
            },
            _ => panic!("{text}"),
        };
        Grant { of, verb: words[0].to_owned() }
    }

    #[rstest]
    #[case("get apps deployments", "get apps deployments", true)]
    #[case("get apps deployments", "list apps deployments", false)]
    #[case("get apps deployments", "get - deployments", false)]
    #[case("get apps deployments", "get apps deployments web", true)]
    #[case("get apps deployments web", "get apps deployments", false)]
    #[case("get apps deployments web", "get apps deployments db", false)]
    #[case("get apps deployments", "get apps deployments/status", false)]
    #[case("get apps */status", "get apps deployments/status", true)]
    #[case("get apps */status", "get apps deployments", false)]
    #[case("get apps *", "get apps deployments/status", true)]
    #[case("* * *", "delete - secrets", true)]
    #[case("* - *", "delete apps deployments", false)]
    #[case("get /metrics", "get /metrics", true)]
    #[case("get /metrics", "get /metrics/cadvisor", false)]
    #[case("get /metrics*", "get /metrics/cadvisor", true)]
    #[case("* *", "get /metrics", true)]
    #[case("* *", "get - pods", false)]
    fn a_grant_covers_what_rbac_lets_it(#[case] have: &str, #[case] want: &str, #[case] covers: bool) {
        assert_eq!(grant(have).covers(&grant(want)), covers);
    }

    #[test]
    fn a_rule_is_every_combination_of_its_lists() {
        let rule: PolicyRule = serde_json::from_value(serde_json::json!({
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["a", "b"],
            "verbs": ["get", "patch"],
        }))
        .unwrap();
        let grants = Grant::of_rule(&rule);
        assert_eq!(grants.len(), 4);
        assert_eq!(
            list(&grants, 9),
            "get, patch leases.coordination.k8s.io a; get, patch leases.coordination.k8s.io b"
        );
        let urls: PolicyRule =
            serde_json::from_value(serde_json::json!({"nonResourceURLs": ["/metrics"], "verbs": ["get"]}))
                .unwrap();
        assert_eq!(list(&Grant::of_rule(&urls), 9), "get /metrics");
    }

    #[test]
    fn a_list_is_written_as_kubectl_names_things_and_does_not_grow_without_end() {
        let grants: BTreeSet<Grant> =
            ["patch agent.kagenti.dev agentruntimes/status", "get - pods", "list - pods", "* * *"]
                .map(grant)
                .into();
        assert_eq!(list(&grants, 3), "get, list pods; * *.*; patch agentruntimes.agent.kagenti.dev/status");
        assert_eq!(list(&grants, 1), "get, list pods; and 2 more");
    }
}
