//! The SignedAgentCard envelope (card §6.6, §13).

use crate::json::Value;

const CARD: &str = "agentCard";
/// The present name and the older one; the present one wins.
const EVIDENCE: [&str; 2] = ["attestations", "verificationMaterial"];

/// What surrounds a card in a SignedAgentCard document.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    raw: Vec<u8>,
    evidence: Option<Value>,
}

impl Envelope {
    /// The whole document as it was read.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The member `attestations`, else `verificationMaterial`.
    pub fn evidence(&self) -> Option<&Value> {
        self.evidence.as_ref()
    }

    /// The Sigstore bundle over the card, absent also when `null` (card §13).
    pub fn signature_bundle(&self) -> Option<&Value> {
        self.evidence.as_ref()?.get("signatureBundle")
    }
}

/// Takes the card out of its envelope: an object with an object `agentCard` and evidence that is not `null`, or without
/// evidence and without a `name` of its own. Anything else is the card itself.
pub(super) fn unwrap(document: Value, raw: &[u8]) -> (Value, Option<Envelope>) {
    let evidence = EVIDENCE.iter().find_map(|name| document.get(name)).cloned();
    let named = document.members().is_some_and(|members| members.iter().any(|(name, _)| name == "name"));
    let wrapped = document.get(CARD).is_some_and(|card| card.members().is_some());
    if !wrapped || (evidence.is_none() && named) {
        return (document, None);
    }
    match document {
        Value::Object(members) => {
            let card = members.into_iter().find_map(|(name, value)| (name == CARD).then_some(value));
            (card.unwrap_or(Value::Null), Some(Envelope { raw: raw.to_vec(), evidence }))
        }
        other => (other, None),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use crate::card::Card;

    #[rstest]
    #[case::plain(r#"{"name":"n"}"#, false, Some("n"))]
    #[case::attested(r#"{"agentCard":{"name":"n"},"attestations":{"signatureBundle":{}}}"#, true, Some("n"))]
    #[case::older(r#"{"agentCard":{"name":"n"},"verificationMaterial":{}}"#, true, Some("n"))]
    #[case::null_evidence(r#"{"agentCard":{"name":"n"},"attestations":null}"#, true, Some("n"))]
    #[case::no_evidence(r#"{"agentCard":{"name":"n"}}"#, true, Some("n"))]
    #[case::a_card_with_that_member(r#"{"agentCard":{"name":"n"},"name":"outer"}"#, false, Some("outer"))]
    #[case::evidence_wins_over_a_name(
        r#"{"agentCard":{"name":"n"},"name":"outer","attestations":{}}"#,
        true,
        Some("n")
    )]
    #[case::not_an_object(r#"{"agentCard":"x","attestations":{}}"#, false, None)]
    fn detection(#[case] text: &str, #[case] enveloped: bool, #[case] name: Option<&str>) {
        let card = Card::read(text.as_bytes()).expect("a card");
        assert_eq!((card.envelope().is_some(), card.name()), (enveloped, name));
        assert!(card.envelope().is_none_or(|envelope| envelope.raw() == text.as_bytes()));
    }

    #[test]
    fn attestations_win_and_null_bundles_are_absent() {
        let text = r#"{"agentCard":{},"attestations":{"signatureBundle":null},"verificationMaterial":{"signatureBundle":{}}}"#;
        let card = Card::read(text.as_bytes()).expect("a card");
        assert_eq!(card.envelope().expect("enveloped").signature_bundle(), None);
    }
}
