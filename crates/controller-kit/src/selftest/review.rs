//! Asks the API server which rights the own account has.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
    SelfSubjectRulesReview, SelfSubjectRulesReviewSpec, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};

use super::grant::{Grant, Target};
use super::rights::{Difference, EVERYWHERE, ExpectedRights, Found, compare};
use crate::scope::Scope;

/// Nobody binds a role in a namespace of this name, so what holds there holds everywhere. It need not exist.
const NOWHERE: &str = "kagenti-selftest-nowhere";
/// A name that no account has.
const NOBODY: &str = "kagenti-selftest-nobody";
/// So many surplus rights are asked about; who has more of them has them for himself.
const ASKED: usize = 100;

/// The rights are the expected ones, in the whole cluster, the own namespace and every namespace that is watched or named.
pub(super) async fn rights(
    client: &Client,
    expected: &ExpectedRights,
    home: &str,
    scope: &Scope,
) -> Result<String, String> {
    let watched = scope.namespaces().iter().map(String::as_str);
    let places: BTreeSet<&str> = expected.namespaces().chain(watched).chain([home, EVERYWHERE]).collect();
    let mut found = BTreeMap::new();
    for place in places {
        let namespace = if place == EVERYWHERE { NOWHERE } else { place };
        found.insert(place.to_owned(), rules(client, namespace).await?);
    }
    let mut difference = compare(expected, &found);
    if difference.incomplete.is_some() {
        drop_granted(client, &mut difference).await?;
    }
    let may_ask = found.values().any(|at| at.grants.iter().any(|grant| grant.covers(&asking())));
    if may_ask {
        drop_common(client, &mut difference).await?;
    } else {
        difference.unattributed = true;
    }
    difference.verdict()
}

/// What asking for others takes; components have it that review callers of `/metrics`.
fn asking() -> Grant {
    let of = Target::Resource {
        group: "authorization.k8s.io".to_owned(),
        resource: "subjectaccessreviews".to_owned(),
        name: None,
    };
    Grant { of, verb: "create".to_owned() }
}

async fn rules(client: &Client, namespace: &str) -> Result<Found, String> {
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) },
        ..SelfSubjectRulesReview::default()
    };
    let api = Api::<SelfSubjectRulesReview>::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await.map_err(|error| failed(&error))?;
    let status = answer.status.ok_or_else(|| "the API server lists no rights".to_owned())?;
    let mut grants = BTreeSet::new();
    for rule in status.resource_rules {
        let list = |part: Option<Vec<String>>| part.unwrap_or_default();
        let (groups, resources, names) =
            (list(rule.api_groups), list(rule.resources), list(rule.resource_names));
        grants.extend(Grant::of_resources(&groups, &resources, &names, &rule.verbs));
    }
    for rule in status.non_resource_rules {
        grants.extend(Grant::of_urls(&rule.non_resource_urls.unwrap_or_default(), &rule.verbs));
    }
    let why =
        || status.evaluation_error.unwrap_or_else(|| "an authorizer cannot list what it allows".to_owned());
    Ok(Found { grants, incomplete: status.incomplete.then(why) })
}

fn failed(error: &kube::Error) -> String {
    format!("cannot review rights: {error}")
}

/// An authorizer that cannot list may still allow: each right that is not listed is asked for.
async fn drop_granted(client: &Client, difference: &mut Difference) -> Result<(), String> {
    let api = Api::<SelfSubjectAccessReview>::all(client.clone());
    for (place, grants) in &mut difference.missing {
        for grant in grants.clone() {
            let (resource_attributes, non_resource_attributes) = attributes(&grant, place);
            let review = SelfSubjectAccessReview {
                spec: SelfSubjectAccessReviewSpec { resource_attributes, non_resource_attributes },
                ..SelfSubjectAccessReview::default()
            };
            let answer = api.create(&PostParams::default(), &review).await.map_err(|error| failed(&error))?;
            if answer.status.is_some_and(|status| status.allowed) {
                grants.remove(&grant);
            }
        }
    }
    difference.missing.retain(|_, grants| !grants.is_empty());
    Ok(())
}

/// Platforms give every account more than Kubernetes does. Such a right is no surplus of this account.
async fn drop_common(client: &Client, difference: &mut Difference) -> Result<(), String> {
    let api = Api::<SubjectAccessReview>::all(client.clone());
    let mut left = ASKED;
    for (place, grants) in &mut difference.surplus {
        for grant in grants.clone() {
            if left == 0 {
                break;
            }
            left -= 1;
            let (resource_attributes, non_resource_attributes) = attributes(&grant, place);
            let review = SubjectAccessReview {
                spec: SubjectAccessReviewSpec {
                    user: Some(NOBODY.to_owned()),
                    groups: Some(vec![
                        "system:authenticated".to_owned(),
                        "system:serviceaccounts".to_owned(),
                    ]),
                    resource_attributes,
                    non_resource_attributes,
                    ..SubjectAccessReviewSpec::default()
                },
                ..SubjectAccessReview::default()
            };
            let answer = api.create(&PostParams::default(), &review).await.map_err(|error| failed(&error))?;
            if answer.status.is_some_and(|status| status.allowed) {
                grants.remove(&grant);
            }
        }
    }
    difference.surplus.retain(|_, grants| !grants.is_empty());
    Ok(())
}

fn attributes(grant: &Grant, place: &str) -> (Option<ResourceAttributes>, Option<NonResourceAttributes>) {
    let verb = Some(grant.verb.clone());
    match &grant.of {
        Target::Url(path) => (None, Some(NonResourceAttributes { path: Some(path.clone()), verb })),
        Target::Resource { group, resource, name } => {
            let (plural, subresource) = match resource.split_once('/') {
                Some((plural, sub)) => (plural, Some(sub.to_owned())),
                None => (resource.as_str(), None),
            };
            let attributes = ResourceAttributes {
                group: Some(group.clone()),
                resource: Some(plural.to_owned()),
                subresource,
                name: name.clone(),
                namespace: (place != EVERYWHERE).then(|| place.to_owned()),
                verb,
                ..ResourceAttributes::default()
            };
            (Some(attributes), None)
        }
    }
}
