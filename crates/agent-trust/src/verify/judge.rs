//! The steps that one signature goes through (card §8.3).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

use super::header::{self, Fault, Header};
use super::policy::InTime;
use super::{LeafExpiry, Policy, ReasonCode, SignatureOutcome};
use crate::bundle::{Root, TrustBundle};
use crate::card::Card;
use crate::certificate::{Certificate, instant};
use crate::crypto::PublicKey;
use crate::json::Value;
use crate::path;
use crate::profile::{Profile, payload};
use crate::spiffe::SpiffeId;

/// A signature that passed.
pub(super) struct Pass {
    pub(super) profile: Profile,
    pub(super) payload: Card,
    pub(super) spiffe_id: SpiffeId,
    pub(super) key_id: Option<String>,
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    pub(super) expired: bool,
}

/// A signature that was judged.
pub(super) struct Judged {
    pub(super) result: Result<Pass, Fault>,
    key_id: Option<String>,
}

impl Judged {
    pub(super) fn outcome(&self) -> SignatureOutcome {
        let (reason, message) = match &self.result {
            Err(fault) => (fault.reason, fault.message.clone()),
            Ok(pass) if pass.expired => (
                ReasonCode::OkExpired,
                format!(
                    "signed by {}; the certificate is expired since {}, accepted within the grace period",
                    pass.spiffe_id,
                    instant(pass.not_after)
                ),
            ),
            Ok(pass) => (ReasonCode::Ok, format!("signed by {}", pass.spiffe_id)),
        };
        SignatureOutcome { reason, message, key_id: self.key_id.clone() }
    }
}

/// Judges the signatures of one card.
pub(super) struct Judge<'a> {
    bundle: &'a TrustBundle,
    policy: &'a Policy,
    now: i64,
    payloads: Payloads<'a>,
    /// Instants, Unix seconds, at which time may change an outcome.
    boundaries: Vec<i64>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(card: &'a Card, bundle: &'a TrustBundle, policy: &'a Policy, now: Timestamp) -> Self {
        let payloads = Payloads { card, next: 0, made: Vec::new() };
        Self { bundle, policy, now: now.as_second(), payloads, boundaries: Vec::new() }
    }

    pub(super) fn judge(&mut self, signature: &Value) -> Judged {
        let protected = signature.get("protected").and_then(Value::as_str);
        match header::object(protected) {
            Err(fault) => Judged { result: Err(fault), key_id: None },
            Ok(object) => {
                let key_id = header::key_id(&object);
                let text = signature.get("signature").and_then(Value::as_str);
                let result = self.steps(&object, protected.unwrap_or_default(), text, key_id.clone());
                Judged { result, key_id }
            }
        }
    }

    fn steps(
        &mut self,
        header: &Value,
        protected: &str,
        signature: Option<&str>,
        key_id: Option<String>,
    ) -> Result<Pass, Fault> {
        let Header { algorithm, leaf, others } = header::read(header)?;
        self.remember(&leaf, &others);
        let InTime { evaluate_at, expired } = self.policy.judge(&leaf, self.now).map_err(|reason| {
            let message = if reason == ReasonCode::Expired {
                format!("the certificate is expired since {}", leaf.not_after())
            } else {
                format!("the certificate is not valid before {}", leaf.not_before())
            };
            Fault::new(reason, message)
        })?;
        if !path::is_leaf(&leaf) {
            return Err(Fault::new(
                ReasonCode::LeafInvalid,
                "the certificate is one of an authority, or its key usage does not allow signing documents",
            ));
        }
        let spiffe_id = self.trust(&leaf, &others, evaluate_at)?;
        let key = PublicKey::load(&leaf.key)
            .map_err(|refused| Fault::new(ReasonCode::KeyPolicy, refused.to_string()))?;
        if !algorithm.fits(&key) {
            return Err(Fault::new(
                ReasonCode::AlgRejected,
                format!("alg {} does not fit the certificate's key", algorithm.name),
            ));
        }
        let invalid = |message: &str| Fault::new(ReasonCode::JwsInvalid, message);
        let signature = signature
            .and_then(header::base64url)
            .ok_or_else(|| invalid("the signature is missing or not strict base64url"))?;
        let (profile, covered) = self
            .payloads
            .find(protected, |input| algorithm.verifies(&key, input, &signature))
            .ok_or_else(|| invalid("the signature is not one over this card"))?;
        // What is shown later is read from the bytes that verified, never from the document around them.
        let payload = Card::read_within(covered, usize::MAX)
            .map_err(|_| invalid("the signed payload cannot be read back as a card"))?;
        Ok(Pass {
            profile,
            payload,
            spiffe_id,
            key_id,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            expired,
        })
    }

    /// Steps 7 to 9: a path to an authority, one SPIFFE ID, and the authority speaks for its trust domain.
    fn trust(&self, leaf: &Certificate, others: &[Certificate], at: i64) -> Result<SpiffeId, Fault> {
        let id = leaf.spiffe_id();
        let speaks_for =
            |root: &&Root| id.as_ref().is_ok_and(|id| root.domain.as_ref() == Some(id.trust_domain()));
        let (own, foreign): (Vec<&Root>, Vec<&Root>) = self.bundle.authorities().iter().partition(speaks_for);
        let own_fault = path::find(leaf, others, &own, at).err();
        if let Some(own_fault) = own_fault
            && let Err(foreign_fault) = path::find(leaf, others, &foreign, at)
        {
            let fault = if own_fault == path::PathFault::NoIssuer { foreign_fault } else { own_fault };
            return Err(Fault::new(ReasonCode::ChainInvalid, fault.to_string()));
        }
        let id = id.map_err(|error| Fault::new(ReasonCode::SanInvalid, error.to_string()))?;
        if own_fault.is_some() {
            return Err(Fault::new(
                ReasonCode::TrustDomain,
                format!("an authority of another trust domain issued {id}"),
            ));
        }
        Ok(id)
    }

    fn remember(&mut self, leaf: &Certificate, others: &[Certificate]) {
        if self.policy.leaf_expiry == LeafExpiry::Ignore {
            return;
        }
        self.boundaries.extend(self.policy.boundaries(leaf));
        let authorities = self.bundle.authorities().iter().map(|root| &root.certificate);
        for authority in others.iter().chain(authorities) {
            self.boundaries.extend([authority.not_before, authority.not_after.saturating_add(1)]);
        }
    }

    /// The first remembered instant that lies ahead.
    pub(super) fn next_boundary(&self) -> Option<Timestamp> {
        self.boundaries.iter().copied().filter(|at| *at > self.now).min().map(instant)
    }
}

/// The distinct payloads of a card, each made once and only when it is needed.
struct Payloads<'a> {
    card: &'a Card,
    next: usize,
    made: Vec<(Profile, Vec<u8>, String)>,
}

impl Payloads<'_> {
    /// The first payload, in the order of [`Profile::ORDER`], over which `verifies` says yes. It gets the whole JWS
    /// signing input.
    fn find(&mut self, protected: &str, verifies: impl Fn(&[u8]) -> bool) -> Option<(Profile, &[u8])> {
        let mut at = 0;
        while at < self.made.len() || self.make_next() {
            if let Some((_, _, encoded)) = self.made.get(at)
                && verifies(format!("{protected}.{encoded}").as_bytes())
            {
                break;
            }
            at += 1;
        }
        self.made.get(at).map(|(profile, bytes, _)| (*profile, bytes.as_slice()))
    }

    /// Makes the next payload that differs from all before it.
    fn make_next(&mut self) -> bool {
        while let Some(profile) = Profile::ORDER.get(self.next).copied() {
            self.next += 1;
            let bytes = payload(self.card.value(), profile);
            if self.made.iter().all(|(_, other, _)| *other != bytes) {
                let encoded = URL_SAFE_NO_PAD.encode(&bytes);
                self.made.push((profile, bytes, encoded));
                return true;
            }
        }
        false
    }
}
