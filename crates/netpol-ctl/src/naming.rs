//! Names, labels and reasons of netpol-ctl (card §3, §5.3, §15.2).

use api_types::card::short_name;
use sha2::{Digest, Sha256};

/// Label key and value: made by this suite.
pub const MANAGED_BY: (&str, &str) = ("managed-by", "kagenti-operator");
/// Label key and value: a policy made of a verdict.
pub const POLICY_TYPE: (&str, &str) = ("kagenti.dev/policy-type", "identity-verification");
/// Label with the shortened name of the card.
pub const CARD_LABEL: &str = "kagenti.dev/agentcard";
/// Annotation with the whole name of the card.
pub const CARD_ANNOTATION: &str = "kagenti.dev/agentcard-name";
/// Field manager of every write.
pub const MANAGER: &str = "kagenti-netpol-ctl";
/// End of every name.
const SUFFIX: &str = "signature-policy";

/// Reasons of events.
pub mod reason {
    /// The workload is verified now.
    pub const PERMISSIVE: &str = "NetworkPolicyPermissive";
    /// The workload is not verified (any more).
    pub const RESTRICTIVE: &str = "NetworkPolicyRestrictive";
    /// A foreign object has the name.
    pub const NAME_CONFLICT: &str = "PolicyNameConflict";
    /// Nothing would tell the Pods of the workload from others.
    pub const NO_POD_SELECTOR: &str = "NoPodSelector";
}

/// `<workload>-signature-policy`: for the first kind of a name.
pub fn plain(workload: &str) -> String {
    short_name(&format!("{workload}-{SUFFIX}"))
}

/// `<workload>-<kind lower case>-signature-policy`: for further kinds of the same name.
pub fn of_kind(workload: &str, kind: &str) -> String {
    short_name(&format!("{workload}-{}-{SUFFIX}", kind.to_ascii_lowercase()))
}

/// `<workload>-<8 hex of the card's uid>-signature-policy`: when a foreign object has the name.
pub fn fallback(workload: &str, card_uid: &str) -> String {
    let mut digits: String = card_uid.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    if digits.len() < 8 {
        digits = hex::encode(Sha256::digest(card_uid));
        digits.truncate(8);
    }
    short_name(&format!("{workload}-{digits}-{SUFFIX}"))
}

/// Names of workloads whose policy may have this name, without looking at any of them; `None` when the name was
/// shortened and does not tell.
pub fn possible_workloads(policy: &str) -> Option<Vec<&str>> {
    let base = policy.strip_suffix(SUFFIX)?.strip_suffix('-')?;
    let shorter = base.rsplit_once('-').map(|(name, _)| name);
    Some([Some(base), shorter].into_iter().flatten().filter(|name| !name.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn names_of_the_table() {
        assert_eq!(plain("weather-agent"), "weather-agent-signature-policy");
        assert_eq!(of_kind("w", "StatefulSet"), "w-statefulset-signature-policy");
        assert_eq!(fallback("w", "0f3c-1a2b9-ffff"), "w-0f3c1a2b-signature-policy");
        assert_eq!(fallback("w", "x").len(), "w-01234567-signature-policy".len());
    }

    /// Card §5.3: object names made by appending suffixes stay legal.
    #[test]
    fn long_names_are_shortened() {
        let longest = "w".repeat(253);
        for name in [plain(&longest), of_kind(&longest, "Deployment"), fallback(&longest, "0123456789")] {
            assert!(name.len() <= 253, "{}", name.len());
            assert_eq!(possible_workloads(&name), None);
        }
        assert_eq!(plain(&"w".repeat(63)).len(), 80);
    }

    #[rstest]
    #[case("w-signature-policy", Some(vec!["w"]))]
    #[case("a-b-signature-policy", Some(vec!["a-b", "a"]))]
    #[case("-signature-policy", None)]
    #[case("mine", None)]
    fn a_name_tells_whose_it_may_be(#[case] policy: &str, #[case] want: Option<Vec<&str>>) {
        assert_eq!(possible_workloads(policy).filter(|names| !names.is_empty()), want);
    }
}
