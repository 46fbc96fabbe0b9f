//! The vectors, read once.

use std::sync::LazyLock;

use agent_trust::TrustBundle;
use agent_trust::spiffe::TrustDomain;
use serde_json::Value;

/// The whole file.
pub(crate) static VECTORS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../vectors/card-vectors.json")).expect("the vectors are JSON")
});

/// The entries of a section.
pub(crate) fn entries(section: &str) -> &'static [Value] {
    VECTORS[section].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A string member.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is a string in {value}"))
}

/// The operator's trust domain.
pub(crate) fn operator_domain() -> TrustDomain {
    TrustDomain::configured(text(&VECTORS, "trustDomain")).expect("a trust domain")
}

/// One of the named bundles.
pub(crate) fn bundle(name: &str) -> TrustBundle {
    TrustBundle::parse(text(&VECTORS["trustBundles"][name], "text"), Some(&operator_domain()))
        .expect("a bundle")
}

/// The entry of a section with an id.
pub(crate) fn entry(section: &str, id: &str) -> &'static Value {
    entries(section).iter().find(|entry| entry["id"] == id).unwrap_or_else(|| panic!("{section} has {id}"))
}
