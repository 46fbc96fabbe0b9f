//! Named checks behind `/readyz`.
//!
//! Whatever the process needs before it can do its job registers a check with the reason why it is
//! not met yet, and reports when that changes. The probe only reads the list, so a failing probe
//! always says what is missing (packaging §12). Not being leader is no check: followers are ready.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// State of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// Met.
    Ok,
    /// Something is wrong that does not stop the process from serving: named, but still ready.
    Degraded,
    /// Not met: `/readyz` answers 503.
    Failing,
}

/// One line of the `/readyz` body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Name of the check, e.g. `agentruntimes`.
    pub name: String,
    /// Its state.
    pub state: CheckState,
    /// Why it is not ok: object, what is wrong, remedy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Body of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// True when no check fails.
    pub ready: bool,
    /// All checks by name.
    pub checks: Vec<CheckReport>,
}

impl Report {
    /// The form of `?verbose`: one line per check.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let mark = match check.state {
                CheckState::Ok => "[+]",
                CheckState::Degraded => "[~]",
                CheckState::Failing => "[-]",
            };
            // Writing to a String cannot fail.
            let _ = write!(text, "{mark} {}", check.name);
            if !check.reason.is_empty() {
                let _ = write!(text, ": {}", check.reason);
            }
            text.push('\n');
        }
        text.push_str(if self.ready { "ready\n" } else { "not ready\n" });
        text
    }
}

struct Check {
    state: State,
    reason: String,
    latched: bool,
    group: Option<Arc<str>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Degraded,
    Failing,
    /// Failing, unless another check of the group is ok: then degraded.
    Partial,
}

impl Check {
    fn new(state: State, reason: String, group: Option<Arc<str>>) -> Self {
        Self { state, reason, latched: false, group }
    }

    fn effective(&self, working: &HashSet<&str>) -> CheckState {
        match self.state {
            State::Ok => CheckState::Ok,
            State::Degraded => CheckState::Degraded,
            State::Partial if self.group.as_deref().is_some_and(|group| working.contains(group)) => {
                CheckState::Degraded
            }
            State::Failing | State::Partial => CheckState::Failing,
        }
    }
}

type Checks = BTreeMap<Cow<'static, str>, Check>;

/// Groups in which at least one check is ok.
fn working(checks: &Checks) -> HashSet<&str> {
    checks
        .values()
        .filter(|check| check.state == State::Ok)
        .filter_map(|check| check.group.as_deref())
        .collect()
}

fn ready(checks: &Checks) -> bool {
    let working = working(checks);
    checks.values().all(|check| check.effective(&working) != CheckState::Failing)
}

/// The list of checks; clones share it.
#[derive(Clone, Default)]
pub struct Readiness {
    checks: Arc<Mutex<Checks>>,
}

impl Readiness {
    /// An empty list, which is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check that fails with `reason` until someone says otherwise. A check of that name that
    /// exists already is left as it is.
    pub fn register(&self, name: impl Into<Cow<'static, str>>, reason: impl Into<String>) {
        self.lock().entry(name.into()).or_insert_with(|| Check::new(State::Failing, reason.into(), None));
    }

    /// As [`Readiness::register`], as one of several of which some may be out of order; see
    /// [`Readiness::set_partial`].
    pub fn register_in(&self, group: &str, name: impl Into<Cow<'static, str>>, reason: impl Into<String>) {
        self.lock()
            .entry(name.into())
            .or_insert_with(|| Check::new(State::Failing, reason.into(), Some(group.into())));
    }

    /// The check is met.
    pub fn set_ok(&self, name: &str) {
        self.set(name, State::Ok, String::new());
    }

    /// The check is not met; the process is not ready.
    pub fn set_failing(&self, name: &str, reason: impl Into<String>) {
        self.set(name, State::Failing, reason.into());
    }

    /// Something is wrong, but the process can serve: named in the body, still ready.
    pub fn set_degraded(&self, name: &str, reason: impl Into<String>) {
        self.set(name, State::Degraded, reason.into());
    }

    /// The check is not met. That makes the process unready only while no other check of its group is
    /// ok: one namespace of several that may not be read must not stop the work in the others, but a
    /// process that can work nowhere is not ready (packaging §7).
    pub fn set_partial(&self, name: &str, reason: impl Into<String>) {
        self.set(name, State::Partial, reason.into());
    }

    /// Once this check has been ok, later failures only degrade it. For servers that must keep their
    /// endpoints while, say, the API server restarts.
    pub fn latch(&self, name: impl Into<Cow<'static, str>>) {
        let name = name.into();
        self.register(name.clone(), "not checked yet");
        if let Some(check) = self.lock().get_mut(&name) {
            check.latched = true;
        }
    }

    /// Takes a check off the list (a kind that is no longer watched).
    pub fn remove(&self, name: &str) {
        self.lock().remove(name);
    }

    /// True when no check fails.
    pub fn is_ready(&self) -> bool {
        ready(&self.lock())
    }

    /// All checks as they are now.
    pub fn report(&self) -> Report {
        let checks = self.lock();
        let working = working(&checks);
        let checks: Vec<_> = checks
            .iter()
            .map(|(name, check)| CheckReport {
                name: name.to_string(),
                state: check.effective(&working),
                reason: check.reason.clone(),
            })
            .collect();
        Report { ready: checks.iter().all(|check| check.state != CheckState::Failing), checks }
    }

    fn set(&self, name: &str, state: State, reason: String) {
        let mut checks = self.lock();
        let before = ready(&checks);
        match checks.get_mut(name) {
            None => {
                checks.insert(Cow::Owned(name.to_owned()), Check::new(state, reason, None));
            }
            Some(check) => {
                // A latched check that has been ok once can only get degraded.
                let was_ok = matches!(check.state, State::Ok | State::Degraded);
                let softened = check.latched && was_ok && state != State::Ok;
                check.state = if softened { State::Degraded } else { state };
                check.reason = reason;
            }
        }
        let after = ready(&checks);
        drop(checks);
        match (before, after) {
            (false, true) => tracing::info!("ready"),
            (true, false) => tracing::info!(check = name, "not ready"),
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Checks> {
        // No code panics while it holds the lock; a poisoned list would still be consistent.
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packaging §12: ready when every check is met; the body names the rest with reasons.
    #[test]
    fn one_failing_check_makes_the_process_unready_and_is_named() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready(), "no checks, nothing missing");
        readiness.register("stores", "first list pending");
        readiness.register("tls", "no certificate yet");
        readiness.set_ok("tls");
        let report = readiness.report();
        assert!(!report.ready);
        assert!(report.to_text().contains("[-] stores: first list pending\n[+] tls\nnot ready"));
        readiness.set_ok("stores");
        assert!(readiness.is_ready());
    }

    #[test]
    fn registering_again_keeps_the_state() {
        let readiness = Readiness::new();
        readiness.register("api", "pending");
        readiness.set_ok("api");
        readiness.register("api", "pending");
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_degraded_check_is_named_but_ready() {
        let readiness = Readiness::new();
        readiness.set_degraded("team2", "role missing");
        let report = readiness.report();
        assert!(report.ready);
        assert_eq!(report.checks[0].reason, "role missing");
    }

    /// Packaging §7: a namespace without its Role is named while the others work; none left = not ready.
    #[test]
    fn a_partial_failure_counts_only_when_the_whole_group_is_out() {
        let readiness = Readiness::new();
        for namespace in ["team1", "team2"] {
            readiness.register_in("pods", format!("pods in {namespace}"), "first list not complete");
        }
        readiness.set_partial("pods in team1", "role missing");
        assert!(!readiness.is_ready());
        readiness.set_ok("pods in team2");
        let report = readiness.report();
        assert!(report.ready);
        assert_eq!(
            (report.checks[0].state, &*report.checks[0].reason),
            (CheckState::Degraded, "role missing")
        );
        readiness.set_partial("pods in team2", "role missing");
        assert!(!readiness.is_ready());
        assert!(readiness.report().checks.iter().all(|check| check.state == CheckState::Failing));
    }

    #[test]
    fn a_latched_check_never_fails_again() {
        let readiness = Readiness::new();
        readiness.latch("api");
        readiness.set_failing("api", "connection refused");
        assert!(!readiness.is_ready(), "before the first success it counts");
        readiness.set_ok("api");
        readiness.set_failing("api", "connection refused");
        readiness.set_failing("api", "connection refused again");
        assert!(readiness.is_ready());
        assert_eq!(readiness.report().checks[0].state, CheckState::Degraded);
    }

    #[test]
    fn the_json_body_leaves_out_empty_reasons() {
        let readiness = Readiness::new();
        readiness.set_ok("tls");
        let body = serde_json::to_value(readiness.report()).unwrap();
        assert_eq!(body, serde_json::json!({"ready": true, "checks": [{"name": "tls", "state": "ok"}]}));
    }
}
