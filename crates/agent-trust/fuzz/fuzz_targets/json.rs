//! The JSON reader: never panics; what it reads it writes and reads again.
#![no_main]

use agent_trust::json::{jcs, parse, pretty};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = parse(bytes) {
        let canonical = jcs(&value);
        let again = parse(&canonical).expect("canonical JSON is JSON");
        assert_eq!(jcs(&again), canonical);
        assert_eq!(jcs(&parse(&pretty(&value)).expect("indented JSON is JSON")), canonical);
    }
});
