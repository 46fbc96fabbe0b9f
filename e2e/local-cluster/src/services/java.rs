//! The Java that runs Keycloak.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::run::run_within;

/// The oldest release that Keycloak 26 runs on.
pub(super) const OLDEST: u32 = 17;
/// Longest time for `java -version`.
const LIMIT: Duration = Duration::from_secs(30);
const REMEDY: &str = "Debian 12: apt-get install openjdk-17-jre-headless; elsewhere: https://adoptium.net";

/// A Java that is new enough.
#[derive(Clone, Debug)]
pub(super) struct Java {
    pub(super) program: PathBuf,
    version: String,
}

impl Java {
    /// `$JAVA_HOME/bin/java`, else `java` on the path. The error is one line with the remedy.
    pub(super) async fn find() -> Result<Self> {
        let home = std::env::var_os("JAVA_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        Self::at(home.map_or_else(|| "java".into(), |home| home.join("bin/java"))).await
    }

    async fn at(program: PathBuf) -> Result<Self> {
        let shown = program.display().to_string();
        let mut command = Command::new(&program);
        command.arg("-version");
        let output = match run_within(command, LIMIT).await {
            Ok(output) => output,
            Err(error) if error.kind() == ErrorKind::NotFound => bail!("there is no {shown} ({REMEDY})"),
            Err(error) => return Err(error).with_context(|| format!("running `{shown} -version`")),
        };
        let said = String::from_utf8_lossy(&output.stderr);
        let Some((version, release)) = version(&said) else {
            bail!("`{shown} -version` does not say its version ({REMEDY})");
        };
        if release < OLDEST {
            bail!("{shown} is {version}, and at least {OLDEST} is needed ({REMEDY})");
        }
        Ok(Self { program, version: version.to_owned() })
    }

    /// `Java 17.0.15`.
    pub(super) fn describe(&self) -> String {
        format!("Java {}", self.version)
    }
}

/// Version and feature release in what `java -version` says: `17.0.15` and 17, `1.8.0_402` and 8.
fn version(said: &str) -> Option<(&str, u32)> {
    let quoted = said.split('"').nth(1)?;
    let number = quoted.strip_prefix("1.").unwrap_or(quoted);
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    Some((quoted, number.get(..end)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime", Some(("17.0.15", 17)))]
    #[case("java version \"1.8.0_402\"", Some(("1.8.0_402", 8)))]
    #[case("openjdk version \"25-ea\"", Some(("25-ea", 25)))]
    #[case("bash: no", None)]
    fn versions(#[case] said: &str, #[case] found: Option<(&str, u32)>) {
        assert_eq!(version(said), found);
    }

    #[tokio::test]
    async fn a_missing_java_names_its_remedy() {
        let error = Java::at("/nowhere/java".into()).await.expect_err("missing").to_string();
        assert!(error.contains("/nowhere/java") && error.contains("openjdk-17-jre-headless"), "{error}");
    }
}
