//! The canonical payloads: never panic, and each is its own payload.
#![no_main]

use agent_trust::json::parse;
use agent_trust::profile::{Profile, payload};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = parse(bytes) {
        for profile in Profile::ORDER {
            let once = payload(&value, profile);
            let again = parse(&once).expect("a payload is JSON");
            assert_eq!(payload(&again, profile), once, "{profile}");
        }
    }
});
