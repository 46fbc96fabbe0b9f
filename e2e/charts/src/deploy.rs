//! `deploy/base`, `deploy/default` and `deploy/overlays`: what the charts render, for people who use kustomize and not
//! Helm (packaging §16). A chart says everything once; these files follow it.

mod patches;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::{COMPONENTS, Helm, Objects, UMBRELLA, charts, text};

/// The namespace of `deploy/default`, that of the previous operator's kustomization.
pub const NAMESPACE: &str = "kagenti-operator-system";
/// The release whose objects these are; it is in their labels and selectors.
const RELEASE: &str = "kagenti-operator";
/// The overlay that needs no right on the cluster. It has hardly an object in common with the default.
const NAMESPACED: &str = "namespaced";
/// Those that change the default.
const OVERLAYS: [&str; 3] = ["cert-manager", "dev", "openshift"];
/// What an administrator applies for [`NAMESPACED`].
const WEBHOOKS: &str = "webhooks.yaml";

/// Every generated file: path below `deploy/` -> content. Errors: a chart that does not render, or a value set of an
/// overlay that cannot be read.
pub fn files() -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    let mut put = |path: String, content: String| files.insert(PathBuf::from(path), content);

    let suite = render(UMBRELLA, NAMESPACE, &[])?;
    let mut resources = vec!["namespace.yaml".to_owned()];
    for component in COMPONENTS {
        let objects = render(component, NAMESPACE, &[])?;
        let name = format!("{component}.yaml");
        put(format!("base/{component}/{name}"), manifest(component, &objects)?);
        put(format!("base/{component}/kustomization.yaml"), kustomization(&[name], &[])?);
        let on = suite.of("Deployment").any(|deployment| component_of(deployment) == component);
        resources.extend(on.then(|| format!("../base/{component}")));
    }
    resources.push("suite.yaml".to_owned());
    let mut own = suite.clone();
    own.0.retain(|object| component_of(object) == "suite" || !COMPONENTS.contains(&component_of(object)));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    put("default/namespace.yaml".into(), manifest(UMBRELLA, &Objects(vec![namespace]))?);
    put("default/suite.yaml".into(), manifest(UMBRELLA, &own)?);
    put("default/kustomization.yaml".into(), kustomization(&resources, &[])?);

    for overlay in OVERLAYS {
        let changed = render(UMBRELLA, NAMESPACE, &[&values_of(overlay)])?;
        let mut resources = vec!["../../default".to_owned()];
        let added = patches::added(&suite, &changed);
        if !added.0.is_empty() {
            put(format!("overlays/{overlay}/added.yaml"), manifest(UMBRELLA, &added)?);
            resources.push("added.yaml".to_owned());
        }
        let patches = patches::between(&suite, &changed)?;
        put(format!("overlays/{overlay}/kustomization.yaml"), kustomization(&resources, &patches)?);
    }

    let namespace = first_watched(NAMESPACED)?;
    let name = "kagenti.yaml".to_owned();
    let objects = render(UMBRELLA, &namespace, &[&values_of(NAMESPACED)])?;
    put(format!("overlays/{NAMESPACED}/{name}"), manifest(UMBRELLA, &objects)?);
    put(format!("overlays/{NAMESPACED}/kustomization.yaml"), kustomization(&[name], &[])?);
    // A newline in base64: the API server takes it for no bundle, and the place to put one is visible.
    let register = "--set=authbridge-webhook.createConfigurations=true,authbridge-webhook.tls.caBundle=Cg==";
    let mut webhooks = render(UMBRELLA, &namespace, &[&values_of(NAMESPACED), register])?;
    webhooks.0.retain(|object| text(object, "/kind").ends_with("WebhookConfiguration"));
    put(format!("overlays/{NAMESPACED}/{WEBHOOKS}"), manifest(UMBRELLA, &webhooks)?);
    Ok(files)
}

/// The folder `deploy/` of the repository.
pub fn folder() -> PathBuf {
    charts().join("../deploy")
}

/// What a chart renders to, as objects of kustomize: without hooks, which only Helm runs, without Helm's labels, and with
/// names of the cluster that carry no release, because kustomize has none.
fn render(chart: &str, namespace: &str, args: &[&str]) -> Result<Objects> {
    let fixed = format!("--set=global.fullnameOverride={RELEASE}");
    let all: Vec<&str> = ["--no-hooks", &fixed].into_iter().chain(args.iter().copied()).collect();
    let mut objects = Helm::get()?
        .template(chart, RELEASE, namespace, &all)
        .with_context(|| format!("rendering {chart}"))?;
    for object in &mut objects.0 {
        let plain = object.to_string().replace(&format!("-{RELEASE}.{namespace}"), "");
        *object = serde_json::from_str(&plain)?;
        relabel(object);
    }
    Ok(objects)
}

/// Says wherever labels stand that kustomize manages the object.
fn relabel(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.remove("helm.sh/chart").is_some() {
                map.insert("app.kubernetes.io/managed-by".into(), "kustomize".into());
            }
            map.values_mut().for_each(relabel);
        }
        Value::Array(list) => list.iter_mut().for_each(relabel),
        _ => {}
    }
}

fn component_of(object: &Value) -> &str {
    text(object, "/metadata/labels/app.kubernetes.io~1component")
}

/// `-f <values.yaml of the overlay>` in one word.
fn values_of(overlay: &str) -> String {
    format!("--values={}", folder().join("overlays").join(overlay).join("values.yaml").display())
}

/// The namespace an overlay lives in: the first that it watches.
fn first_watched(overlay: &str) -> Result<String> {
    let path = folder().join("overlays").join(overlay).join("values.yaml");
    let text_of = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let values: Value =
        serde_saphyr::from_str(&text_of).with_context(|| format!("reading {}", path.display()))?;
    match text(&values, "/global/watchNamespaces/0") {
        "" => bail!("{}: global.watchNamespaces must name a namespace", path.display()),
        name => Ok(name.to_owned()),
    }
}

fn header(chart: &str) -> String {
    format!("# Generated by `cargo render-deploy` from charts/{chart}; change the chart instead.\n")
}

fn manifest(chart: &str, objects: &Objects) -> Result<String> {
    let mut out = header(chart);
    for (at, object) in objects.0.iter().enumerate() {
        out.push_str(if at == 0 { "" } else { "---\n" });
        out.push_str(serde_saphyr::to_string(object)?.trim_end());
        out.push('\n');
    }
    Ok(out)
}

fn kustomization(resources: &[String], patches: &[Value]) -> Result<String> {
    let (version, kind) = ("kustomize.config.k8s.io/v1beta1", "Kustomization");
    let all = match patches {
        [] => json!({"apiVersion": version, "kind": kind, "resources": resources}),
        _ => json!({"apiVersion": version, "kind": kind, "resources": resources, "patches": patches}),
    };
    Ok(format!("# Generated by `cargo render-deploy`.\n{}\n", serde_saphyr::to_string(&all)?.trim_end()))
}

/// Generated files whose content differs from what lies in `folder`, and files there that nothing generates.
pub fn differing(folder: &Path) -> Result<(BTreeMap<PathBuf, String>, Vec<PathBuf>)> {
    let mut files = files()?;
    let mut strangers = Vec::new();
    for part in ["base", "default", "overlays"] {
        strangers.extend(found(&folder.join(part))?.into_iter().filter(|path| {
            let below = path.strip_prefix(folder).unwrap_or(path);
            !files.contains_key(below) && !path.ends_with("values.yaml")
        }));
    }
    files.retain(|path, content| fs::read_to_string(folder.join(path)).ok().as_ref() != Some(content));
    Ok((files, strangers))
}

/// Every file below a folder; none when there is no such folder.
fn found(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() { all.extend(found(&path)?) } else { all.push(path) }
        }
    }
    Ok(all)
}
