//! SPIFFE IDs of workloads (webhook §11.2, card §8.5). Parsing foreign IDs belongs to the trust crate.

/// The SPIFFE ID of a ServiceAccount: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
///
/// The trust domain is lower-cased: that is how SPIRE issues it, however the override was typed.
pub fn workload_id(trust_domain: &str, namespace: &str, service_account: &str) -> String {
    format!("spiffe://{}/ns/{namespace}/sa/{service_account}", trust_domain.to_ascii_lowercase())
}

/// True for a legal trust domain in lower case: `[a-z0-9._-]{1,255}` (card §8.5).
pub fn is_trust_domain(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_of_a_service_account() {
        assert_eq!(
            workload_id("Example.ORG", "team1", "weather"),
            "spiffe://example.org/ns/team1/sa/weather"
        );
    }

    #[test]
    fn trust_domains() {
        for good in ["cluster.local", "a", "a_b-c.1"] {
            assert!(is_trust_domain(good), "{good}");
        }
        for bad in ["", "A", "a/b", "a:1", "é", &"a".repeat(256)] {
            assert!(!is_trust_domain(bad), "{bad}");
        }
    }
}
