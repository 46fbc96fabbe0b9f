//! What a check found. Pure.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cluster::Answer;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not as somebody may expect.
    Warning,
    /// It does not work.
    Failed,
    /// It could not be looked at.
    Unknown,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
            Self::Unknown => "unknown",
        }
    }
}

/// One line of the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Which check.
    pub(super) check: &'static str,
    pub(super) result: Verdict,
    /// Which object, and what is the matter with it.
    pub(super) message: String,
    /// What to do, as a command where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, result: Verdict::Ok, message: message.into(), remedy: None }
    }

    pub(super) fn warning(
        check: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { check, result: Verdict::Warning, message: message.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn failed(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, result: Verdict::Failed, message: message.into(), remedy: Some(remedy.into()) }
    }

    /// What is not known about something; `why` says which right is missing.
    pub(super) fn unknown(check: &'static str, about: &str, why: &str) -> Self {
        Self { check, result: Verdict::Unknown, message: format!("{about}: {why}"), remedy: None }
    }
}

/// What is known, or the finding that it is not.
pub(super) fn known<T>(check: &'static str, about: &str, answer: Answer<T>) -> Result<T, Finding> {
    match answer {
        Answer::Known(known) => Ok(known),
        Answer::Unknown(why) => Err(Finding::unknown(check, about, &why)),
    }
}

/// One line per finding, the remedy below it, and how many of each there are.
pub(super) fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    let mut text = String::new();
    for finding in findings {
        // Writing to a text cannot fail.
        let _ = writeln!(
            text,
            "{:8} {:width$}  {}",
            finding.result.word(),
            finding.check,
            shown(&finding.message)
        );
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "{:8} {:width$}  -> {}", "", "", shown(remedy));
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.result == verdict).count();
    let _ = writeln!(
        text,
        "\n{} ok, {} warnings, {} failed, {} unknown",
        count(Verdict::Ok),
        count(Verdict::Warning),
        count(Verdict::Failed),
        count(Verdict::Unknown)
    );
    text
}

/// Messages of the cluster carry what tenants wrote: one line, and nothing that a terminal obeys.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_aligned_and_remedies_stand_below() {
        let findings = [
            Finding::ok("definitions", "all"),
            Finding::failed("leases", "nobody\nleads\u{1b}[2J", "kubectl get leases"),
        ];
        assert_eq!(
            text(&findings),
            "ok       definitions  all\nFAILED   leases       nobody leads [2J\n                      -> kubectl get leases\n\n\
             1 ok, 0 warnings, 1 failed, 0 unknown\n"
        );
    }
}
