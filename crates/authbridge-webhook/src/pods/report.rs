//! What an admission leaves behind: the answer, one log line, metrics and Events (webhook §4.9, §17).

use std::time::Instant;

use api_types::{
    injection::{DenyReason as DecisionDenial, SkipReason, WarningCode as DecisionWarning},
    names::{GROUP, VERSION},
    owner::Workload,
};
use controller_kit::events::NewEvent;
use k8s_openapi::api::core::v1::ObjectReference;

use super::PodEndpoint;
use crate::{
    caches::targets::Match,
    injection::{DenyReason, Injection, Outcome, Patch, Warning, WarningCode},
    metrics::{AdmissionLabels, ContainerLabel, FallbackLabels, ReasonLabel},
    review::{Answer, Request},
};

/// How an admission ended.
pub(super) enum Verdict {
    Skipped(SkipReason),
    Injected { mode: &'static str },
    Reinvoked,
    Denied { reason: &'static str, code: u16, message: String },
    BadPod(String),
    NotReady,
    Failed(String),
}

impl Verdict {
    fn labels(&self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Skipped(reason) => ("skipped", reason.as_str(), ""),
            Self::Injected { mode } => ("injected", "injected", mode),
            Self::Reinvoked => ("reinvoked", "already-injected", ""),
            Self::Denied { reason, .. } => ("denied", reason, ""),
            Self::BadPod(_) => ("denied", "bad-pod", ""),
            Self::NotReady => ("error", "not-ready", ""),
            Self::Failed(_) => ("error", "failed", ""),
        }
    }

    fn answer(&self) -> Answer {
        match self {
            Self::Skipped(reason) => Answer::allow(reason.message()),
            Self::Injected { .. } => Answer::allow(""),
            Self::Reinvoked => Answer::allow(SkipReason::AlreadyInjected.message()),
            Self::Denied { code, message, .. } => Answer::deny(*code, message.clone()),
            Self::BadPod(message) => Answer::deny(400, message.clone()),
            Self::NotReady => Answer::deny(
                503,
                "authbridge-webhook is starting: its caches are not filled yet; try again in a few seconds",
            ),
            Self::Failed(message) => Answer::deny(500, format!("AuthBridge injection failed: {message}")),
        }
    }
}

/// Collects what is known while the admission goes on.
pub(super) struct Report<'a> {
    endpoint: &'a PodEndpoint,
    request: &'a Request,
    started: Instant,
    workload: Option<Workload>,
    extra: Vec<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(endpoint: &'a PodEndpoint, request: &'a Request) -> Self {
        Self { endpoint, request, started: Instant::now(), workload: None, extra: Vec::new() }
    }

    pub(super) fn workload(&mut self, workload: &Workload) {
        self.workload = Some(workload.clone());
    }

    /// A warning that the write protocol found.
    pub(super) fn warn(&mut self, reason: &'static str, message: String) {
        self.endpoint.metrics.warnings.get_or_create(&ReasonLabel { reason }).inc();
        self.extra.push(message);
    }

    /// Turns the pure half's answer into ours.
    pub(super) fn outcome(&mut self, outcome: Outcome, runtime: Option<&Match>) -> Answer {
        match outcome {
            Outcome::Skip(skip) => {
                let warnings = self.warnings(&skip.warnings);
                self.end(&Verdict::Skipped(skip.reason), warnings, encoded(&skip.patch))
            }
            Outcome::Reinvoke(again) => {
                let warnings = self.warnings(&again.warnings);
                self.end(&Verdict::Reinvoked, warnings, encoded(&again.patch))
            }
            Outcome::Deny(deny) => {
                self.denied(deny.reason, &deny.message, runtime);
                let (reason, code) = (deny.reason.as_str(), deny.code);
                self.end(&Verdict::Denied { reason, code, message: deny.message }, Vec::new(), None)
            }
            Outcome::Inject(injection) => {
                let warnings = self.warnings(&injection.warnings);
                self.fallbacks(&injection, runtime);
                if injection.decision.layout.value == api_types::injection::Layout::Split {
                    for &container in &injection.sidecars {
                        let label = ContainerLabel { container };
                        self.endpoint.metrics.split_containers.get_or_create(&label).inc();
                    }
                }
                self.end(&Verdict::Injected { mode: injection.mode }, warnings, encoded(&injection.patch))
            }
        }
    }

    /// Logs, counts and answers.
    pub(super) fn end(&mut self, verdict: &Verdict, warnings: Vec<String>, patch: Option<Vec<u8>>) -> Answer {
        let (result, reason, mode) = verdict.labels();
        let labels = AdmissionLabels { result, reason, mode };
        self.endpoint.metrics.admission(&labels, self.started.elapsed().as_secs_f64());
        let (kind, name) = self.workload.as_ref().map_or(("", ""), |w| (w.kind.as_str(), w.name.as_str()));
        let answer = verdict.answer();
        if answer.allowed {
            tracing::debug!(
                k8s.namespace.name = self.request.namespace,
                workload.kind = kind,
                workload.name = name,
                result,
                reason,
                mode,
                request.uid = self.request.uid,
                "admission"
            );
        } else {
            tracing::info!(
                k8s.namespace.name = self.request.namespace,
                workload.kind = kind,
                workload.name = name,
                result,
                reason,
                request.uid = self.request.uid,
                message = answer.message,
                "admission denied"
            );
        }
        Answer { patch, ..answer }.with_warnings(warnings)
    }

    fn warnings(&mut self, warnings: &[Warning]) -> Vec<String> {
        for warning in warnings {
            let reason = warning.code.as_str();
            self.endpoint.metrics.warnings.get_or_create(&ReasonLabel { reason }).inc();
        }
        let texts = warnings.iter().map(|warning| warning.message.clone());
        texts.chain(self.extra.drain(..)).collect()
    }

    /// Counts values that fell back to another, and tells the user by an Event.
    fn fallbacks(&self, injection: &Injection, runtime: Option<&Match>) {
        let decision = &injection.decision;
        for warning in &injection.warnings {
            let WarningCode::Decision(code) = warning.code else { continue };
            let Some(field) = code.fallback_field() else { continue };
            let source = match field {
                "sidecarLayout" => decision.layout.source.as_str(),
                "mode" => decision.mode.source.as_str(),
                "mtlsMode" => decision.mtls.source.as_str(),
                "egressEnforcement" => decision.egress.source.as_str(),
                "tlsBridgeMode" => decision.tls_bridge.source.as_str(),
                _ => decision.inbound.source.as_str(),
            };
            let labels = FallbackLabels { field, source };
            self.endpoint.metrics.config_fallbacks.get_or_create(&labels).inc();
            let reason = match code {
                DecisionWarning::EgressPolicyOverride => "EgressPolicyOverridden",
                DecisionWarning::SpireUnavailable => "SpireUnavailable",
                _ => "InjectionFallback",
            };
            self.event(reason, &warning.message, runtime);
        }
    }

    fn denied(&self, reason: DenyReason, message: &str, runtime: Option<&Match>) {
        let event = match reason {
            DenyReason::Decision(DecisionDenial::MalformedNamespaceConfig) => "ConfigParseError",
            DenyReason::Decision(DecisionDenial::StrictWithoutSpire) => "SpireUnavailable",
            _ => "InjectionDenied",
        };
        self.event(event, message, runtime);
    }

    /// On the AgentRuntime if there is one, else on the workload; never for a dry run.
    fn event(&self, reason: &'static str, message: &str, runtime: Option<&Match>) {
        if self.request.is_dry_run() {
            return;
        }
        let namespace = Some(self.request.namespace.clone());
        let regarding = match (runtime, &self.workload) {
            (Some(found), _) => ObjectReference {
                api_version: Some(format!("{GROUP}/{VERSION}")),
                kind: Some("AgentRuntime".to_owned()),
                name: Some(found.runtime.name.to_string()),
                uid: Some(found.runtime.uid.to_string()),
                namespace,
                ..ObjectReference::default()
            },
            (None, Some(workload)) if !workload.kind.is_empty() => ObjectReference {
                api_version: Some(api_version(&workload.group)),
                kind: Some(workload.kind.clone()),
                name: Some(workload.name.clone()),
                namespace,
                ..ObjectReference::default()
            },
            _ => return,
        };
        self.endpoint.events.publish(&regarding, NewEvent::warning(reason, "Inject", message));
    }
}

/// `v1` is what every workload group of webhook §6 serves today; an Event does not need more.
fn api_version(group: &str) -> String {
    if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") }
}

fn encoded(patch: &Patch) -> Option<Vec<u8>> {
    (!patch.is_empty()).then(|| patch.to_json())
}
