//! `version`: what is installed, and whether it fits together.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::cli::Failure;
use crate::cluster::{Cluster, Connection, namespace_name};
use crate::installation::{self, Component, Found};
use crate::print::{Form, document, print, table};

/// Of this plugin.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Source revision, given to the build as `KAGENTI_REVISION`.
const REVISION: &str = match option_env!("KAGENTI_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// What to say, and where to look.
#[derive(Args, Debug)]
pub(crate) struct Version {
    #[command(flatten)]
    connection: Connection,
    /// Namespace of the components, instead of all namespaces
    #[arg(short, long, value_name = "NAME", value_parser = namespace_name)]
    namespace: Option<String>,
    /// Only the plugin; asks no cluster
    #[arg(long)]
    client: bool,
    /// What to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// The result.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    plugin: Plugin,
    components: Vec<Component>,
    warnings: Vec<String>,
    unknown: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Plugin {
    version: &'static str,
    revision: &'static str,
}

impl Version {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        // The plugin's own is said whatever becomes of the cluster.
        if self.client || self.output == Form::Table {
            let own =
                Report { plugin: own(), components: Vec::new(), warnings: Vec::new(), unknown: Vec::new() };
            print(&match self.output {
                Form::Table => format!("kubectl-kagenti {VERSION} ({REVISION})\n"),
                form => document(form, &own)?,
            })?;
        }
        if self.client {
            return Ok(ExitCode::SUCCESS);
        }
        let cluster = Cluster::new(&self.connection).await?;
        let found = installation::find(&cluster, self.namespace.as_deref()).await?;
        let report = judge(VERSION, found);
        match self.output {
            Form::Table => {
                print(&rows(&report))?;
                report.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
                report.unknown.iter().for_each(|unknown| eprintln!("unknown: {unknown}"));
            }
            form => print(&document(form, &report)?)?,
        }
        let fine = report.warnings.is_empty() && report.unknown.is_empty();
        Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn own() -> Plugin {
    Plugin { version: VERSION, revision: REVISION }
}

fn rows(report: &Report) -> String {
    if report.components.is_empty() {
        return "No component of the suite was found.\n".to_owned();
    }
    let row = |c: &Component| {
        [c.name.clone(), c.namespace.clone(), c.version.clone(), c.readiness(), c.image.clone()]
    };
    let rows = report.components.iter().map(row);
    format!("\n{}", table(["COMPONENT", "NAMESPACE", "VERSION", "READY", "IMAGE"], rows))
}

/// What is more than one minor version apart: the oldest and the newest component, and each component from this plugin.
pub(crate) fn skew(components: &[Component]) -> Vec<String> {
    skew_with(VERSION, components)
}

fn skew_with(plugin: &str, components: &[Component]) -> Vec<String> {
    let mut warnings = Vec::new();
    let known = || components.iter().filter_map(|c| Some((c.parsed()?, c)));
    if let (Some((oldest, a)), Some((newest, b))) =
        (known().min_by_key(|(version, _)| *version), known().max_by_key(|(version, _)| *version))
        && oldest.is_far_from(newest)
    {
        warnings.push(format!(
            "{} in namespace {} is {oldest}, {} in namespace {} is {newest}: components work together with at most one \
             minor version between them; upgrade the older release with `helm upgrade`, one minor version at a time",
            a.name, a.namespace, b.name, b.namespace
        ));
    }
    if let Some(own) = installation::Version::parse(plugin) {
        for (version, component) in known().filter(|(version, _)| own.is_far_from(*version)) {
            warnings.push(format!(
                "this plugin is {own}, {} in namespace {} is {version}: use the plugin of release {version}",
                component.name, component.namespace
            ));
        }
    }
    warnings
}

/// A component without a version is not known to fit; while one is rolled out not all of it has its version.
fn judge(plugin: &str, found: Found) -> Report {
    let mut warnings = skew_with(plugin, &found.components);
    warnings.extend(found.components.iter().filter_map(|component| {
        let Component { name, namespace, rollout, .. } = component;
        let rollout = rollout.as_ref()?;
        Some(format!(
            "{name} in namespace {namespace}: {rollout}; `kubectl kagenti check` says what holds it up"
        ))
    }));
    let mut unknown: Vec<String> = found.unknown.into_iter().collect();
    for component in found.components.iter().filter(|component| component.version.is_empty()) {
        unknown.push(format!(
            "the version of {} in namespace {}: neither the tag of {} nor label app.kubernetes.io/version is one",
            component.name, component.namespace, component.image
        ));
    }
    Report { plugin: own(), components: found.components, warnings, unknown }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::installation::tests::deployment;

    fn installed(versions: &[(&str, &str)]) -> Found {
        let component = |(name, tag): &(&str, &str)| {
            Component::of(&deployment(name, &format!("x/{name}:{tag}"), &json!([]))).expect("a component")
        };
        Found { components: versions.iter().map(component).collect(), unknown: None }
    }

    /// Packaging §16: more than one minor of skew is warned of.
    #[rstest]
    #[case::same(&[("card-ctl", "0.3.0"), ("runtime-ctl", "0.3.4")], &[])]
    #[case::one_apart(&[("card-ctl", "0.2.0"), ("runtime-ctl", "0.3.0")], &[])]
    #[case::two_apart(&[("card-ctl", "0.2.0"), ("runtime-ctl", "0.4.0")], &["card-ctl in namespace kagenti-system is 0.2.0, runtime-ctl"])]
    #[case::plugin(&[("card-ctl", "0.5.0")], &["this plugin is 0.3.0, card-ctl in namespace kagenti-system is 0.5.0: use the plugin of release 0.5.0"])]
    #[case::major(&[("card-ctl", "1.3.0")], &["this plugin is 0.3.0, card-ctl"])]
    #[case::nothing(&[], &[])]
    fn skew_is_warned_of(#[case] versions: &[(&str, &str)], #[case] expected: &[&str]) {
        let report = judge("0.3.0", installed(versions));
        assert_eq!(report.warnings.len(), expected.len(), "{:?}", report.warnings);
        assert!(report.warnings.iter().zip(expected).all(|(warning, begins)| warning.starts_with(begins)));
        assert_eq!(report.unknown, Vec::<String>::new());
    }

    /// What could not be asked, or compared, is not said to be fine.
    #[test]
    fn what_is_not_known_is_said() {
        let mut found = installed(&[("card-ctl", "0.3.0")]);
        found.unknown = Some("which components are installed: needs the right to list".to_owned());
        found.components[0].version = String::new();
        let report = judge("0.3.0", found);
        assert_eq!(report.warnings, Vec::<String>::new());
        assert_eq!(report.unknown.len(), 2);
        assert!(report.unknown[1].contains("the version of card-ctl"), "{:?}", report.unknown);
    }

    #[test]
    fn a_rollout_that_has_not_ended_is_warned_of() {
        let mut found = installed(&[("card-ctl", "0.3.0")]);
        found.components[0].rollout = Some("rollout to 0.3.0 not begun".to_owned());
        let report = judge("0.3.0", found);
        assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
        assert!(
            report.warnings[0]
                .starts_with("card-ctl in namespace kagenti-system: rollout to 0.3.0 not begun; "),
            "{:?}",
            report.warnings
        );
    }

    #[test]
    fn rows_of_a_table() {
        let report = judge("0.3.0", installed(&[("card-ctl", "0.3.0")]));
        let text = rows(&report);
        assert!(text.contains("COMPONENT   NAMESPACE        VERSION   READY   IMAGE\n"), "{text}");
        assert!(text.contains("card-ctl    kagenti-system   0.3.0     1/1     x/card-ctl:0.3.0\n"), "{text}");
        assert_eq!(rows(&judge("0.3.0", Found::default())), "No component of the suite was found.\n");
    }
}
