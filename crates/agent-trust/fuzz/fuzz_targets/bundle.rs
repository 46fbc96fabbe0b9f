//! Trust bundles of every shape: never panic.
#![no_main]

use agent_trust::TrustBundle;
use agent_trust::spiffe::TrustDomain;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let domain = TrustDomain::configured("dev.cluster.local").expect("a trust domain");
    match TrustBundle::parse(text, Some(&domain)) {
        Ok(bundle) => {
            assert!(bundle.fingerprint().starts_with("v2:"));
            let _ = (bundle.trust_domain(), bundle.trust_domains(), bundle.roots().count());
        }
        Err(error) => assert!(!error.label().is_empty()),
    }
});
