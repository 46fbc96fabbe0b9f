//! What cargo links into the programs of the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::output;
use crate::part::Part;
use crate::texts::{Text, of_crate};

/// The graph of what is linked, and the sources of every crate. Crates go by name and version: `tokio 1.47.0`.
pub(crate) struct Linked {
    workspace: PathBuf,
    target: String,
    graph: BTreeMap<String, BTreeSet<String>>,
    packages: BTreeMap<String, Package>,
}

/// A package of `cargo metadata`.
#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    license_file: Option<String>,
    repository: Option<String>,
    authors: Vec<String>,
    manifest_path: PathBuf,
    /// None for the workspace's own.
    source: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

impl Linked {
    /// Asks cargo. `cargo tree` knows the features that a build chooses, which `cargo metadata` only bounds from above: the
    /// whole workspace chooses them, as when the images are built. Nothing is downloaded that a build did not need; what
    /// only tests need is, once.
    pub(crate) fn read(workspace: &Path, target: &str) -> Result<Self> {
        let arguments = ["metadata", "--locked", "--format-version=1", "--filter-platform", target];
        let metadata: Metadata = serde_json::from_str(&output("cargo", "CARGO", &arguments, workspace)?)
            .context("cargo metadata")?;
        let mut graph = tree(workspace, target, &["--workspace"])?;
        add_native(&mut graph, &metadata);
        let packages = metadata.packages.into_iter().map(|package| (package.key(), package)).collect();
        Ok(Self { workspace: workspace.to_owned(), target: target.to_owned(), graph, packages })
    }

    /// The crates of a program, sorted, without the workspace's own.
    ///
    /// What one of our crates needs for a feature that this program did not ask for is compiled, never called, and left
    /// out by the linker: OpenSSL, where nothing verifies. So our crates count with the features of this program alone.
    pub(crate) fn crates(&self, program: &str) -> Result<Vec<String>> {
        let named = |package: &&Package| package.name == program && package.source.is_none();
        let root = self.packages.values().find(named);
        let root = root.with_context(|| format!("the workspace has no package {program}"))?.key();
        let own = tree(&self.workspace, &self.target, &["--package", program])?;
        let foreign = |name: &str| self.packages.get(name).is_none_or(|package| package.source.is_some());
        let mut found = BTreeSet::from([root.as_str()]);
        let mut open = vec![root.as_str()];
        while let Some(next) = open.pop() {
            let graph = if foreign(next) { &self.graph } else { &own };
            for name in graph.get(next).into_iter().flatten() {
                if found.insert(name) {
                    open.push(name);
                }
            }
        }
        Ok(found.into_iter().filter(|name| foreign(name)).map(str::to_owned).collect())
    }

    /// A crate with the texts it ships.
    pub(crate) fn part(&self, name: &str) -> Result<Part> {
        let package = self.package(name)?;
        Ok(Part {
            title: name.to_owned(),
            source: package
                .repository
                .clone()
                .unwrap_or_else(|| format!("https://crates.io/crates/{}", package.name)),
            expression: package.license.clone(),
            authors: package.authors.clone(),
            texts: of_crate(package.directory(), package.license_file.as_deref())?,
        })
    }

    /// The text of a licence in another crate of the same repository, the first by name.
    pub(crate) fn sibling_text(&self, name: &str, licence: &str) -> Result<Option<Text>> {
        let Some(repository) = self.package(name)?.repository_root() else { return Ok(None) };
        for (sibling, package) in &self.packages {
            if sibling != name && package.source.is_some() && package.repository_root() == Some(repository) {
                let texts = of_crate(package.directory(), package.license_file.as_deref())?;
                let own = |text: &Text| !text.nested && text.licences == [licence];
                if let Some(text) = texts.into_iter().find(own) {
                    return Ok(Some(text));
                }
            }
        }
        Ok(None)
    }

    fn package(&self, name: &str) -> Result<&Package> {
        self.packages.get(name).with_context(|| format!("cargo links {name} and does not know it"))
    }
}

impl Package {
    fn key(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    fn directory(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(&self.manifest_path)
    }

    /// The repository without what some crates append: their folder in it.
    fn repository_root(&self) -> Option<&str> {
        let repository = self.repository.as_deref()?;
        let root = repository.split("/tree/").next().unwrap_or(repository);
        Some(root.trim_end_matches('/').trim_end_matches(".git"))
    }
}

/// What is linked when the chosen packages choose the features.
fn tree(workspace: &Path, target: &str, chosen: &[&str]) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let arguments = ["tree", "--locked", "--edges=normal,no-proc-macro", "--prefix=depth", "--format= {p}"];
    graph(&output("cargo", "CARGO", &[&arguments, chosen, &["--target", target]].concat(), workspace)?)
}

/// Reads lines such as `2 bytes v1.10.1 (*)`: depth, crate, and what does not matter here. Below a crate that was shown
/// before nothing is repeated, so one crate has its dependencies at its first place.
fn graph(tree: &str) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut above: Vec<String> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let mut fields = line.split_whitespace();
        let depth = fields.next().and_then(|depth| depth.parse::<usize>().ok());
        let name = fields.next();
        let version = fields.next().and_then(|version| version.strip_prefix('v'));
        let (Some(depth), Some(name), Some(version)) = (depth, name, version) else {
            anyhow::bail!("cargo tree says `{line}`")
        };
        let key = format!("{name} {version}");
        above.truncate(depth);
        if let Some(parent) = above.last() {
            graph.entry(parent.clone()).or_default().insert(key.clone());
        }
        graph.entry(key.clone()).or_default();
        above.push(key);
    }
    Ok(graph)
}

/// Crates named `...-src` carry sources in C, which the build script of the crate that needs them compiles: OpenSSL ends in
/// the program, though cargo only knows it as a build dependency.
fn add_native(graph: &mut BTreeMap<String, BTreeSet<String>>, metadata: &Metadata) {
    let packages: BTreeMap<&str, &Package> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    for node in &metadata.resolve.nodes {
        let Some(package) = packages.get(node.id.as_str()) else { continue };
        let Some(linked) = graph.get_mut(&package.key()) else { continue };
        let native = node.deps.iter().filter_map(|edge| {
            let builds = edge.dep_kinds.iter().any(|kind| kind.kind.as_deref() == Some("build"));
            packages.get(edge.pkg.as_str()).filter(|package| builds && package.name.ends_with("-src"))
        });
        linked.extend(native.map(|package| package.key()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_is_read_from_a_tree() {
        let tree = "0 a v0.1.0 (/somewhere)\n1 b v1.0.0\n2 c v2.0.0+x\n1 c v2.0.0+x (*)\n\n0 d v0.1.0 (/else)\n\
                    1 b v1.0.0 (*)\n";
        let graph = graph(tree).expect("a graph");
        let below = |name: &str| graph[name].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(below("a 0.1.0"), ["b 1.0.0", "c 2.0.0+x"]);
        assert_eq!(below("b 1.0.0"), ["c 2.0.0+x"]);
        assert_eq!(below("c 2.0.0+x"), [""; 0]);
        assert_eq!(below("d 0.1.0"), ["b 1.0.0"]);
        assert!(super::graph("no tree").is_err());
    }
}
