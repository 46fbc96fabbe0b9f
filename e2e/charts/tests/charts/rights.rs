//! Rights: exactly those of files/rbac.yaml, and Roles only with a list of namespaces (packaging §6, §7).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use chart_tests::{COMPONENTS, Helm, Objects, charts, text};
use serde_json::Value;

use crate::{all_value_sets, rendered};

/// The rules of a component by list.
fn shipped(component: &str) -> Result<Value> {
    let file = std::fs::read_to_string(charts().join(component).join("files/rbac.yaml"))?;
    serde_saphyr::from_str(&file).context("rbac.yaml")
}

/// Rules in comparable form: names that carry the release, or a list of namespaces, as in the file.
fn comparable(rules: &Value) -> BTreeSet<String> {
    let plain = |rule: &Value| {
        // Helm sorts keys, the file does not.
        let sorted: BTreeMap<&String, &Value> = rule.as_object().into_iter().flatten().collect();
        serde_json::json!(sorted)
            .to_string()
            .replace("\"kagenti-operator-kagenti-operator-chart-", "\"kagenti-operator-")
            .replace(&format!(".kagenti.dev{}\"", lease_suffix("team1")), ".kagenti.dev\"")
    };
    rules.as_array().into_iter().flatten().map(plain).collect()
}

/// What packaging §12 puts behind the name of a Lease.
fn lease_suffix(namespaces: &str) -> String {
    use sha2::Digest as _;
    format!("-{}", hex::encode(&sha2::Sha256::digest(namespaces)[..4]))
}

fn rules_of(objects: &Objects, kind: &str, namespace: &str, prefix: &str) -> BTreeSet<String> {
    let found = objects.0.iter().filter(|object| {
        text(object, "/kind") == kind
            && text(object, "/metadata/namespace") == namespace
            && text(object, "/metadata/name").starts_with(prefix)
    });
    found.flat_map(|object| comparable(&object["rules"])).collect()
}

/// With everything on that has rights of its own, the roles hold the file's rules, no more and no less.
#[test]
fn packaging_06_roles_hold_the_rules_of_the_file() -> Result<()> {
    for component in COMPONENTS {
        let mut args = vec!["--set=openshift.enabled=true"];
        if component == "client-registration-ctl" {
            args.push("--set=keycloak.adminSecretNamespace=keycloak");
            args.push("--set=spireNamespace=zero-trust-workload-identity-manager");
        }
        let objects = Helm::get()?.template(component, "kagenti-operator", "ops", &args)?;
        let rules = shipped(component)?;
        let prefix = format!("kagenti-{component}");
        let mut wide = comparable(&rules["scoped"]);
        wide.extend(comparable(&rules["cluster"]));
        assert_eq!(rules_of(&objects, "ClusterRole", "", &prefix), wide, "{component}");
        assert_eq!(rules_of(&objects, "Role", "ops", &prefix), comparable(&rules["release"]), "{component}");
        for (namespace, list) in rules["named"].as_object().into_iter().flatten() {
            assert_eq!(rules_of(&objects, "Role", namespace, &prefix), comparable(list), "{component}");
        }
    }
    Ok(())
}

#[test]
fn packaging_07_namespaced_mode_has_roles_only() -> Result<()> {
    for component in COMPONENTS {
        let objects = Helm::get()?.template(
            component,
            "kagenti-operator",
            "ops",
            &["--set=watchNamespaces={team1},openshift.enabled=true"],
        )?;
        for object in &objects.0 {
            let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
            assert!(!text(object, "/metadata/namespace").is_empty(), "{kind} {name} is of the cluster");
        }
        let rules = shipped(component)?;
        let prefix = format!("kagenti-{component}");
        assert_eq!(rules_of(&objects, "Role", "team1", &prefix), comparable(&rules["scoped"]), "{component}");
        assert_eq!(rules_of(&objects, "Role", "ops", &prefix), comparable(&rules["release"]), "{component}");
        let lease = format!("{component}.kagenti.dev{}", lease_suffix("team1"));
        let own = objects.named("Role", &format!("{prefix}-release"))?;
        assert!(own["rules"].to_string().contains(&lease), "{component}: {lease}");
    }
    // The whole suite too.
    let file = charts().join("kagenti-operator/ci/namespaced-values.yaml");
    let objects = rendered("kagenti-operator", &file)?;
    for object in &objects.0 {
        let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
        assert!(!text(object, "/metadata/namespace").is_empty(), "{kind} {name} is of the cluster");
    }
    Ok(())
}

/// No wildcard, and no Secret of the whole cluster but for the one component whose work they are.
#[test]
fn packaging_06_no_rule_is_wide() -> Result<()> {
    for (chart, file) in all_value_sets()? {
        let objects = rendered(chart, &file)?;
        for object in objects.0.iter().filter(|object| object.get("rules").is_some()) {
            let name = text(object, "/metadata/name");
            for rule in object["rules"].as_array().into_iter().flatten() {
                assert!(!rule.to_string().contains("\"*\""), "{chart}: {name}: {rule}");
                let secrets = rule["resources"].as_array().is_some_and(|all| all.contains(&"secrets".into()));
                if secrets && text(object, "/kind") == "ClusterRole" {
                    assert!(name.starts_with("kagenti-client-registration-ctl"), "{chart}: {name}: {rule}");
                }
            }
        }
    }
    Ok(())
}

/// Every binding binds a role that is rendered beside it (but the MLflow operator's) to the Pod's own account.
#[test]
fn packaging_06_bindings_bind_what_is_there() -> Result<()> {
    for (chart, file) in all_value_sets()? {
        let objects = rendered(chart, &file)?;
        for kind in ["RoleBinding", "ClusterRoleBinding"] {
            for binding in objects.of(kind) {
                let role = text(binding, "/roleRef/name");
                if !role.starts_with("mlflow-operator-") {
                    objects.named(text(binding, "/roleRef/kind"), role)?;
                }
                let account = text(binding, "/subjects/0/name");
                assert_eq!(text(binding, "/subjects/0/namespace"), "kagenti-system");
                objects.named("ServiceAccount", account)?;
                let used =
                    objects.pod_specs().iter().any(|(_, spec)| text(spec, "/serviceAccountName") == account);
                assert!(used, "{chart}: nobody runs as {account}");
            }
        }
    }
    Ok(())
}

#[test]
fn without_rbac_there_is_none() -> Result<()> {
    let objects = Helm::get()?.suite(&["--set=global.rbac.create=false,mlflow-ctl.enabled=true"])?;
    assert!(objects.0.iter().all(|object| !text(object, "/apiVersion").starts_with("rbac.")));
    Ok(())
}

/// (group, resource, verb) of rules without names.
fn grants(rules: &Value) -> BTreeSet<(String, String, String)> {
    let texts = |rule: &Value, key: &str| -> Vec<String> {
        rule[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut all = BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten().filter(|rule| rule.get("resourceNames").is_none()) {
        for group in texts(rule, "apiGroups") {
            for resource in texts(rule, "resources") {
                let verbs = texts(rule, "verbs").into_iter();
                all.extend(verbs.map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
    }
    all
}

/// Admins of a namespace get beyond editors what a component's Role there holds, so that they can install it, and no more.
/// That it is enough is shown by tenants' installs (`packaging_07`, the overlay `namespaced`).
#[test]
fn packaging_06_the_aggregated_admin_role_is_the_minimum() -> Result<()> {
    let objects = Helm::get()?.suite(&[])?;
    let role = |name: &str| -> Result<_> {
        Ok(grants(&objects.named("ClusterRole", &format!("agent.kagenti.dev-{name}"))?["rules"]))
    };
    let (admin, edit, view) = (role("admin")?, role("edit")?, role("view")?);
    let mut needed = BTreeSet::new();
    for component in COMPONENTS {
        needed.extend(grants(&shipped(component)?["scoped"]));
    }
    let extra: Vec<_> = admin.difference(&edit).filter(|grant| !needed.contains(grant)).collect();
    assert!(extra.is_empty(), "nobody needs {extra:?}");
    assert!(edit.is_subset(&admin) && view.is_subset(&edit));
    // Neither edit nor view writes status.
    let writes = |grant: &&(String, String, String)| grant.1.ends_with("/status") && grant.2 != "get";
    assert_eq!(edit.iter().find(writes), None);
    Ok(())
}

/// Fewer rights for those who can do without listing Secrets.
#[test]
fn secrets_by_name_need_no_list() -> Result<()> {
    let component = "client-registration-ctl";
    let objects = Helm::get()?.template(component, "x", "ops", &["--set=watchSecrets=false"])?;
    let role = objects.named("ClusterRole", "kagenti-client-registration-ctl-x.ops")?;
    let secrets =
        role["rules"].as_array().into_iter().flatten().find(|rule| rule["resources"][0] == "secrets");
    assert_eq!(secrets.context("a rule")?["verbs"], serde_json::json!(["get", "create", "patch", "delete"]));
    assert_eq!(objects.flag("kagenti-client-registration-ctl", "watch-secrets")?, "false");
    Ok(())
}
