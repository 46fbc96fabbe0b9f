//! What Helm rendered, as objects.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Rendered objects, hooks and tests among them.
#[derive(Clone, Debug)]
pub struct Objects(pub Vec<Value>);

/// The string at a JSON pointer; empty when there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl Objects {
    /// Parses a stream of YAML documents.
    pub fn parse(yaml: &str) -> Result<Self> {
        let all: Vec<Value> = serde_saphyr::from_multiple(yaml).context("what Helm rendered is no YAML")?;
        Ok(Self(all.into_iter().filter(|value| !value.is_null()).collect()))
    }

    /// Those of a kind.
    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |object| text(object, "/kind") == kind)
    }

    /// Names of those of a kind, sorted.
    pub fn names(&self, kind: &str) -> Vec<&str> {
        let of_kind = self.0.iter().filter(|object| text(object, "/kind") == kind);
        let mut names: Vec<&str> = of_kind.map(|object| text(object, "/metadata/name")).collect();
        names.sort_unstable();
        names
    }

    /// The one of a kind with this name.
    pub fn named(&self, kind: &str, name: &str) -> Result<&Value> {
        self.0
            .iter()
            .find(|object| text(object, "/kind") == kind && text(object, "/metadata/name") == name)
            .with_context(|| format!("no {kind} {name}, only {:?}", self.names(kind)))
    }

    /// Without Pods of `helm test`.
    #[must_use]
    pub fn without_tests(mut self) -> Self {
        self.0.retain(|object| text(object, "/metadata/annotations/helm.sh~1hook") != "test");
        self
    }

    /// API groups that appear.
    pub fn groups(&self) -> BTreeSet<&str> {
        self.0
            .iter()
            .filter_map(|object| text(object, "/apiVersion").split_once('/'))
            .map(|(group, _)| group)
            .collect()
    }

    /// `<kind> <namespace>/<name>` -> object; the order of rendering says nothing.
    pub fn by_identity(&self) -> BTreeMap<String, Value> {
        self.0.iter().map(|object| (Self::identity(object), object.clone())).collect()
    }

    /// `<kind> <namespace>/<name>`.
    pub fn identity(object: &Value) -> String {
        let namespace = text(object, "/metadata/namespace");
        format!("{} {namespace}/{}", text(object, "/kind"), text(object, "/metadata/name"))
    }

    /// Every pod specification with the name of its object: Deployments, Jobs and Pods.
    pub fn pod_specs(&self) -> Vec<(String, &Value)> {
        let place = |object: &Value| match text(object, "/kind") {
            "Deployment" | "Job" => Some("/spec/template/spec"),
            "Pod" => Some("/spec"),
            _ => None,
        };
        let named = |object: &Value| format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"));
        self.0.iter().filter_map(|object| Some((named(object), object.pointer(place(object)?)?))).collect()
    }

    /// Arguments of the first container of a Deployment.
    pub fn args(&self, deployment: &str) -> Result<Vec<&str>> {
        let object = self.named("Deployment", deployment)?;
        let args = object.pointer("/spec/template/spec/containers/0/args").and_then(Value::as_array);
        Ok(args.into_iter().flatten().filter_map(Value::as_str).collect())
    }

    /// The value of a flag of a Deployment.
    pub fn flag(&self, deployment: &str, flag: &str) -> Result<&str> {
        let prefix = format!("--{flag}=");
        let args = self.args(deployment)?;
        args.iter()
            .find_map(|arg| arg.strip_prefix(&prefix))
            .with_context(|| format!("no --{flag} in {args:?}"))
    }
}
