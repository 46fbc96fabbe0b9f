//! The card reader and everything that is asked of a card: never panics.
#![no_main]

use agent_trust::profile::{Profile, unsigned_members};
use agent_trust::Card;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(card) = Card::read(bytes) {
        let _ = (card.stored(), card.missing_required(), card.content_id());
        let _ = (card.name(), card.advertised_url(), card.protocol_version());
        let _ = card.envelope().and_then(|envelope| envelope.signature_bundle());
        assert!(unsigned_members(card.value(), Profile::Legacy).len() <= 32);
    }
});
