//! `crds print`, `crds apply` and `crds delete`: the CustomResourceDefinitions of the suite (packaging §5).

mod removal;

use std::{process::ExitCode, time::Duration};

use api_types::yaml::to_yaml;
use clap::{Args, Subcommand};
use controller_kit::cli;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use tokio::time::{Instant, sleep};

use crate::error::message_of;

pub use removal::delete;

/// Field manager of CRD writes.
const MANAGER: &str = "kagenti-crds";
/// Counts up with every change of a schema; a lower one never replaces a higher one.
const REVISION: i64 = 1;
const REVISION_KEY: &str = "kagenti.io/schema-revision";
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A group whose definitions this build brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// `agent.kagenti.dev`.
    Agent,
}

impl std::str::FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "agent" => Ok(Self::Agent),
            "gateway" | "kagent" => Err(format!(
                "group {text} is not part of this build: its component does not exist yet; use agent"
            )),
            other => Err(format!("unknown group {other:?}: use agent")),
        }
    }
}

/// What to do with the definitions.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print the definitions as YAML.
    Print(Groups),
    /// Create or update the definitions and wait until they are served.
    Apply(Apply),
    /// Delete the definitions with every object of theirs, and wait until they are gone.
    Delete(Delete),
}

/// Which definitions.
#[derive(Args, Clone, Debug)]
pub struct Groups {
    /// Groups of definitions, comma separated: agent
    #[arg(long, value_delimiter = ',', default_value = "agent")]
    pub groups: Vec<Group>,
}

/// How to apply.
#[derive(Args, Clone, Debug)]
pub struct Apply {
    /// Which definitions.
    #[command(flatten)]
    pub groups: Groups,
    /// Replace a schema of a newer release
    #[arg(long)]
    pub allow_downgrade: bool,
}

/// How to delete.
#[derive(Args, Clone, Debug)]
pub struct Delete {
    /// Which definitions.
    #[command(flatten)]
    pub groups: Groups,
    /// Longest wait for objects with finalizers
    #[arg(long, default_value = "4m", value_parser = cli::duration)]
    pub timeout: Duration,
}

/// Why a definition was not applied or deleted.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// The change would lose data or a newer schema: exit code 3.
    #[error("{0}")]
    Refused(String),
    /// The API server refused or did not answer: exit code 1.
    #[error("CustomResourceDefinition {name}: {message}")]
    Api {
        /// Its name.
        name: String,
        /// What went wrong.
        message: String,
    },
}

impl CrdError {
    /// Exit code of the process (packaging §12).
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Refused(_) => ExitCode::from(3),
            Self::Api { .. } => ExitCode::FAILURE,
        }
    }
}

/// The definitions of the groups, each with its schema revision.
pub fn definitions(groups: &[Group]) -> Vec<CustomResourceDefinition> {
    if groups.is_empty() {
        return Vec::new();
    }
    let mut all = api_types::crds::all();
    for crd in &mut all {
        crd.annotations_mut().insert(REVISION_KEY.into(), REVISION.to_string());
    }
    all
}

/// The definitions as one YAML text.
pub fn print(groups: &[Group]) -> String {
    let documents = definitions(groups).into_iter().filter_map(|crd| serde_json::to_value(crd).ok());
    documents.fold(String::new(), |text, document| text + "---\n" + &to_yaml(&document))
}

/// Applies the definitions, all checked before the first is written, and waits until they are served.
///
/// # Errors
/// A refused change, or what the API server says.
pub async fn apply(client: &Client, groups: &[Group], allow_downgrade: bool) -> Result<(), CrdError> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let wanted = definitions(groups);
    for crd in &wanted {
        let name = crd.name_any();
        let live = api.get_opt(&name).await.map_err(|error| failed(&name, &error))?;
        if let Some(live) = live {
            check(&live, crd, allow_downgrade).map_err(CrdError::Refused)?;
        }
    }
    for crd in &wanted {
        let name = crd.name_any();
        let params = PatchParams::apply(MANAGER).force();
        api.patch(&name, &params, &Patch::Apply(crd)).await.map_err(|error| failed(&name, &error))?;
        println!("{name} applied (schema revision {REVISION})");
    }
    for crd in &wanted {
        wait_until_established(&api, &crd.name_any()).await?;
    }
    Ok(())
}

fn failed(name: &str, error: &kube::Error) -> CrdError {
    CrdError::Api { name: name.to_owned(), message: message_of(error) }
}

/// Pure: may `new` replace `live`?
fn check(
    live: &CustomResourceDefinition,
    new: &CustomResourceDefinition,
    allow_downgrade: bool,
) -> Result<(), String> {
    let name = new.name_any();
    let versions: Vec<&str> = new.spec.versions.iter().map(|version| version.name.as_str()).collect();
    let stored =
        live.status.as_ref().and_then(|status| status.stored_versions.as_deref()).unwrap_or_default();
    if let Some(lost) = stored.iter().find(|version| !versions.contains(&version.as_str())) {
        return Err(format!(
            "CustomResourceDefinition {name}: objects are stored in version {lost}, which this release does not have \
             (status.storedVersions); convert them and take the version off that list first"
        ));
    }
    let revision =
        live.annotations().get(REVISION_KEY).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    if revision > REVISION && !allow_downgrade {
        return Err(format!(
            "CustomResourceDefinition {name}: the cluster has schema revision {revision}, this release {REVISION}: a \
             newer release was installed here; use that one, or pass --allow-downgrade"
        ));
    }
    Ok(())
}

async fn wait_until_established(api: &Api<CustomResourceDefinition>, name: &str) -> Result<(), CrdError> {
    let deadline = Instant::now() + ESTABLISHED_WITHIN;
    loop {
        let live = api.get(name).await.map_err(|error| failed(name, &error))?;
        let conditions = live.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|c| c.type_ == "Established" && c.status == "True") {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let why = conditions.iter().find(|c| c.type_ == "NamesAccepted" && c.status == "False");
            let why = why.and_then(|c| c.message.clone()).unwrap_or_else(|| "no reason given".into());
            return Err(CrdError::Api {
                name: name.to_owned(),
                message: format!("not served within {ESTABLISHED_WITHIN:?}: {why}"),
            });
        }
        sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn live(revision: Option<&str>, stored: &[&str]) -> CustomResourceDefinition {
        let mut crd = definitions(&[Group::Agent]).remove(0);
        crd.metadata.annotations = None;
        if let Some(revision) = revision {
            crd.annotations_mut().insert(REVISION_KEY.into(), revision.into());
        }
        let mut document = serde_json::to_value(crd).unwrap();
        document["status"] = json!({"storedVersions": stored, "conditions": [],
            "acceptedNames": {"kind": "x", "plural": "x"}});
        serde_json::from_value(document).unwrap()
    }

    /// Packaging §5: neither a stored version nor a newer schema is lost.
    #[rstest]
    #[case::fresh(None, &["v1alpha1"], false, None)]
    #[case::same(Some("1"), &["v1alpha1"], false, None)]
    #[case::newer(Some("2"), &["v1alpha1"], false, Some("--allow-downgrade"))]
    #[case::newer_allowed(Some("2"), &["v1alpha1"], true, None)]
    #[case::stored(None, &["v1alpha1", "v1beta1"], true, Some("version v1beta1"))]
    fn refusals(
        #[case] revision: Option<&str>,
        #[case] stored: &[&str],
        #[case] allow: bool,
        #[case] want: Option<&str>,
    ) {
        let new = definitions(&[Group::Agent]).remove(0);
        let got = check(&live(revision, stored), &new, allow);
        match want {
            None => assert_eq!(got, Ok(())),
            Some(text) => assert!(got.as_ref().is_err_and(|message| message.contains(text)), "{got:?}"),
        }
    }

    #[test]
    fn printing_is_deterministic_and_complete() {
        let text = print(&[Group::Agent]);
        assert_eq!(text, print(&[Group::Agent]));
        assert_eq!(text.matches("\n---\n").count() + 1, definitions(&[Group::Agent]).len());
        assert!(text.contains("name: agentruntimes.agent.kagenti.dev"));
    }

    #[test]
    fn groups_of_components_that_do_not_exist_are_refused() {
        assert!("gateway".parse::<Group>().unwrap_err().contains("not part of this build"));
        assert!("agents".parse::<Group>().unwrap_err().contains("unknown group"));
    }
}
