//! A verdict, printed.

use std::fmt::Write as _;

use agent_trust::TrustDomain;
use agent_trust::verify::Verification;
use jiff::Timestamp;
use serde::Serialize;

use super::Output;

/// The verdict as `card-ctl verify` prints it. Member names are those of `AgentCard.status` where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// The verdict.
    pub(super) verified: bool,
    reason: &'static str,
    details: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature_profile: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature_spiffe_id: Option<String>,
    /// Whether that ID is one of the platform's trust domain: binding is judged apart from the signature (card §9).
    #[serde(skip_serializing_if = "Option::is_none")]
    member_of_trust_domain: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature_key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature_not_before: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature_not_after: Option<Timestamp>,
    unsigned_members: Vec<String>,
    signatures: Vec<Signature>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recheck_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Signature {
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
}

impl Report {
    /// The verdict, seen from a platform of trust domain `domain`.
    pub(super) fn new(verdict: &Verification, domain: &TrustDomain) -> Self {
        Self {
            verified: verdict.verified,
            reason: verdict.reason.as_str(),
            details: verdict.details(),
            signature_profile: verdict.profile.map(agent_trust::Profile::as_str),
            signature_spiffe_id: verdict.spiffe_id.as_ref().map(ToString::to_string),
            member_of_trust_domain: verdict.spiffe_id.as_ref().map(|id| id.trust_domain() == domain),
            signature_key_id: verdict.key_id.clone(),
            signature_not_before: verdict.not_before,
            signature_not_after: verdict.not_after,
            unsigned_members: verdict.unsigned_members.clone(),
            signatures: verdict
                .signatures
                .iter()
                .map(|one| Signature {
                    reason: one.reason.as_str(),
                    message: one.message.clone(),
                    key_id: one.key_id.clone(),
                })
                .collect(),
            recheck_at: verdict.recheck_at,
        }
    }

    /// The bytes to print, with a newline at the end.
    pub(super) fn print(&self, output: Output) -> Vec<u8> {
        match output {
            Output::Text => self.text().into_bytes(),
            Output::Json => {
                let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
                bytes.push(b'\n');
                bytes
            }
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{name:<18}{value}");
        };
        let yes = |flag: bool| if flag { "yes" } else { "no" };
        line("verified:", yes(self.verified));
        line("reason:", self.reason);
        if let Some(profile) = self.signature_profile {
            line("profile:", profile);
        }
        if let Some(id) = &self.signature_spiffe_id {
            line("SPIFFE ID:", id);
        }
        if let Some(member) = self.member_of_trust_domain {
            line("own trust domain:", yes(member));
        }
        if let Some(key_id) = &self.signature_key_id {
            line("key id:", key_id);
        }
        if let (Some(start), Some(end)) = (self.signature_not_before, self.signature_not_after) {
            line("certificate:", &format!("{start} to {end}"));
        }
        if self.signatures.is_empty() {
            line("details:", &self.details);
        }
        for (n, one) in (1..).zip(&self.signatures) {
            line(&format!("signature {n}:"), &format!("{}: {}", one.reason, one.message));
        }
        for (n, pointer) in self.unsigned_members.iter().enumerate() {
            line(if n == 0 { "not signed:" } else { "" }, pointer);
        }
        if let Some(at) = self.recheck_at {
            line("judge again at:", &at.to_string());
        }
        out
    }
}
