//! From a document to evidence: strict parsing, signatures, the card to store (card §6.6 to §6.8, §8). Pure but for
//! the cryptography.

use std::sync::Arc;

use agent_trust::{
    Card, TrustBundle,
    verify::{self, Policy, ReasonCode, Verification},
};
use api_types::{AgentCardData, SignatureProfile};
use jiff::Timestamp;
use serde_json::{Number, Value};

use crate::{
    conditions::{MESSAGE_LIMIT, clean},
    evidence::{Evidence, Signature},
    observation::Document,
};

/// Longest description in a stump of a card that is too big.
const STUMP: usize = 1024;

/// How signatures are judged.
#[derive(Clone, Debug)]
pub enum Check {
    /// Not at all.
    Off,
    /// They should be, but cannot be checked, for this reason.
    Unavailable(String),
    /// Against this bundle.
    Bundle {
        /// The roots.
        bundle: Arc<TrustBundle>,
        /// Their fingerprint.
        fingerprint: Arc<str>,
        /// Times.
        policy: Policy,
    },
}

impl Check {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Off, Self::Off) => true,
            (Self::Unavailable(a), Self::Unavailable(b)) => a == b,
            // The policy comes from flags and never changes.
            (Self::Bundle { bundle: a, .. }, Self::Bundle { bundle: b, .. }) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// What an evaluation depends on beside the document.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The address to store (card §6.3).
    pub url: String,
    /// `--card-status-max-bytes`.
    pub max_bytes: usize,
    /// How signatures are judged.
    pub check: Check,
}

/// An evaluation and what it was made from.
#[derive(Clone, Debug)]
pub struct Evaluated {
    inputs: Inputs,
    at: Timestamp,
    /// The evidence, or why the document is no card.
    pub result: Result<Evidence, String>,
    /// Codes of all signatures, for the metrics.
    pub codes: Vec<&'static str>,
}

impl Evaluated {
    /// True when an evaluation with these inputs would give the same now (card §8.7).
    pub fn holds(&self, inputs: &Inputs, now: Timestamp) -> bool {
        let in_time = match &self.result {
            Ok(evidence) => evidence.recheck_at.is_none_or(|at| now < at),
            Err(_) => true,
        };
        // A clock that was set back may be before the beginning of a certificate.
        in_time
            && self.at <= now
            && self.inputs.url == inputs.url
            && self.inputs.max_bytes == inputs.max_bytes
            && self.inputs.check.same(&inputs.check)
    }
}

/// Evaluates a document.
pub fn evaluate(document: &Document, inputs: Inputs, now: Timestamp) -> Evaluated {
    let mut codes = Vec::new();
    let result = Card::read(&document.raw)
        .map_err(|error| clean(&error.to_string(), MESSAGE_LIMIT))
        .and_then(|card| evidence(document, &card, &inputs, now, &mut codes));
    Evaluated { inputs, at: now, result, codes }
}

fn evidence(
    document: &Document,
    card: &Card,
    inputs: &Inputs,
    now: Timestamp,
    codes: &mut Vec<&'static str>,
) -> Result<Evidence, String> {
    let (signature, verified, recheck_at) = match &inputs.check {
        Check::Off => (Signature::NotEvaluated, None, None),
        Check::Unavailable(why) => (Signature::Unavailable(why.clone()), None, None),
        Check::Bundle { bundle, policy, .. } => {
            let outcome = verify::verify(card, bundle, policy, now);
            codes.extend(outcome.signatures.iter().map(|signature| signature.reason.as_str()));
            if codes.is_empty() {
                codes.push(outcome.reason.as_str());
            }
            let recheck = outcome.recheck_at;
            let (signature, payload) = judged(outcome);
            (signature, payload, recheck)
        }
    };
    // Only what the signature covers is shown (card §6.7).
    let shown = verified.as_ref().unwrap_or(card);
    let (stored, too_large) = stored(shown, &inputs.url, inputs.max_bytes)?;
    Ok(Evidence {
        source: document.source.clone(),
        attested: document.attested.clone(),
        card_id: card.content_id(),
        card: stored,
        too_large,
        advertised_url: shown.advertised_url().map(str::to_owned),
        missing: card.missing_required(),
        signature,
        under: match &inputs.check {
            Check::Bundle { fingerprint, .. } => Some(fingerprint.clone()),
            Check::Off | Check::Unavailable(_) => None,
        },
        recheck_at,
    })
}

fn judged(outcome: Verification) -> (Signature, Option<Card>) {
    let details = clean(&outcome.details(), MESSAGE_LIMIT);
    let of_chain = outcome.signatures.iter().find(|signature| signature.reason == ReasonCode::ChainInvalid);
    let invalid = Signature::Invalid {
        details,
        chain_of: of_chain.map(|signature| signature.key_id.clone().unwrap_or_default()),
    };
    if !outcome.verified {
        return (invalid, None);
    }
    // A verified outcome has all of these; without one it does not count as verified.
    let (Some(spiffe_id), Some(profile), Some(not_after), Some(payload)) =
        (outcome.spiffe_id, outcome.profile, outcome.not_after, outcome.payload)
    else {
        return (invalid, None);
    };
    let signature = Signature::Valid {
        key_id: outcome.key_id,
        spiffe_id,
        profile: SignatureProfile::from(profile.as_str()),
        not_after,
        expired: outcome.expired,
        unsigned: outcome.unsigned_members,
    };
    (signature, Some(payload))
}

/// The JSON to store, and the size of the whole card when it was too big for it.
fn stored(card: &Card, url: &str, limit: usize) -> Result<(Arc<str>, Option<usize>), String> {
    let typed = |value: Value| serde_json::from_value::<AgentCardData>(value);
    let text = |data: &AgentCardData| serde_json::to_string(data);
    let mut data =
        typed(as_stored(card.stored())).map_err(|error| clean(&error.to_string(), MESSAGE_LIMIT))?;
    data.url = Some(url.to_owned());
    let whole = text(&data).map_err(|error| error.to_string())?;
    if whole.len() <= limit {
        return Ok((whole.into(), None));
    }
    let short = |text: Option<String>| text.map(|text| text.chars().take(STUMP).collect::<String>());
    let stump = AgentCardData {
        name: short(data.name),
        version: short(data.version),
        description: short(data.description),
        url: data.url,
        ..AgentCardData::default()
    };
    let stump = text(&stump).map_err(|error| error.to_string())?;
    Ok((stump.into(), Some(whole.len())))
}

/// Free-form values in the form in which the API server gives them back: no null members, whole numbers as such. A
/// status that never reads back as it was written would be written for ever.
fn as_stored(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, as_stored(value)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(as_stored).collect()),
        Value::Number(number) => Value::Number(as_stored_number(number)),
        other => other,
    }
}

fn as_stored_number(number: Number) -> Number {
    if number.is_i64() {
        return number;
    }
    let Some(float) = number.as_f64() else { return number };
    if float.fract() == 0.0 && float.abs() < 1e21 {
        // The API server writes such a number without point or exponent, in its shortest digits.
        let digits = if float == 0.0 { "0".to_owned() } else { format!("{float}") };
        return serde_json::from_str(&digits).unwrap_or(number);
    }
    Number::from_f64(float).unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::CardSource;
    use rstest::rstest;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn inputs(max_bytes: usize) -> Inputs {
        Inputs { url: "http://echo:8000".into(), max_bytes, check: Check::Off }
    }

    fn look(card: &Value, max_bytes: usize) -> Result<Evidence, String> {
        let document = Document::new(card.to_string().into_bytes(), CardSource::Http, None);
        evaluate(&document, inputs(max_bytes), NOW).result
    }

    /// Card §6.7, §6.8: the Service's address is stored, the card's own is kept beside it and in the id.
    #[test]
    fn the_address_is_replaced() {
        let evidence = look(&json!({"name": "e", "url": "http://mine", "x": 1}), 10_000).unwrap();
        assert_eq!(&*evidence.card, r#"{"name":"e","url":"http://echo:8000"}"#);
        assert_eq!(evidence.advertised_url.as_deref(), Some("http://mine"));
        assert_eq!(evidence.card_id.len(), 64);
        let other = look(&json!({"name": "e", "url": "http://other", "x": 1}), 10_000).unwrap();
        assert_ne!(evidence.card_id, other.card_id);
        let signed = json!({"name": "e", "url": "http://mine", "x": 1, "signatures": []});
        assert_eq!(look(&signed, 10_000).unwrap().card_id, evidence.card_id);
    }

    #[test]
    fn a_card_that_is_too_big_leaves_a_stump() {
        let evidence =
            look(&json!({"name": "e", "description": "d".repeat(5000), "version": "1"}), 3000).unwrap();
        assert!(evidence.too_large.is_some_and(|size| size > 5000));
        let stump: Value = serde_json::from_str(&evidence.card).unwrap();
        assert_eq!(stump["description"].as_str().map(str::len), Some(STUMP));
        assert_eq!(stump["url"], "http://echo:8000");
    }

    #[rstest]
    #[case("[]")]
    #[case("{")]
    #[case(r#"{"name": 1}"#)]
    #[case(r#"{"name": "a", "name": "b"}"#)]
    fn what_is_no_card_is_said(#[case] text: &str) {
        let document = Document::new(text.as_bytes().to_vec(), CardSource::Http, None);
        assert!(evaluate(&document, inputs(10_000), NOW).result.is_err());
    }

    /// What is written must read back the same, or the status is written for ever.
    #[rstest]
    #[case(json!({"a": null, "b": {"c": null, "d": [null, {"e": null}]}}), r#"{"b":{"d":[null,{}]}}"#)]
    #[case(json!([1.0, 1.5, -0.0, 1e3]), "[1,1.5,0,1000]")]
    #[case(json!([9_223_372_036_854_775_807_u64, 9_223_372_036_854_775_808_u64]), "[9223372036854775807,9223372036854776000]")]
    fn free_form_values_are_normal(#[case] value: Value, #[case] want: &str) {
        let once = as_stored(value);
        assert_eq!(once.to_string(), want);
        let again: Value = serde_json::from_str(want).unwrap();
        assert_eq!(as_stored(again).to_string(), want);
    }

    #[test]
    fn an_evaluation_holds_until_its_inputs_change() {
        let document = Document::new(br#"{"name": "e"}"#.to_vec(), CardSource::Http, None);
        let evaluated = evaluate(&document, inputs(10_000), NOW);
        assert!(evaluated.holds(&inputs(10_000), NOW));
        assert!(!evaluated.holds(&Inputs { url: "x".into(), ..inputs(10_000) }, NOW));
        assert!(
            !evaluated.holds(&inputs(10_000), NOW - jiff::SignedDuration::from_secs(1)),
            "the clock went back"
        );
        let check = Check::Unavailable("no bundle".into());
        assert!(!evaluated.holds(&Inputs { check, ..inputs(10_000) }, NOW));
    }
}
