//! The phase of an AgentRuntime follows from its condition Ready (runtime §7.2).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{Phase, conditions::condition, names};

/// `Error` if Ready=False, `Active` if Ready=True, `Pending` otherwise (no Ready yet, or Unknown).
pub fn phase_of(conditions: &[Condition]) -> Phase {
    match condition(conditions, names::condition::READY).map(|ready| ready.status.as_str()) {
        Some("True") => Phase::Active,
        Some("False") => Phase::Error,
        _ => Phase::Pending,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Some("True"), Phase::Active)]
    #[case(Some("False"), Phase::Error)]
    #[case(Some("Unknown"), Phase::Pending)]
    #[case(None, Phase::Pending)]
    fn follows_ready(#[case] ready: Option<&str>, #[case] expected: Phase) {
        let of = |type_: &str, status: &str| Condition {
            type_: type_.into(),
            status: status.into(),
            reason: "R".into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        let mut list = vec![of("TargetResolved", "False")];
        list.extend(ready.map(|status| of("Ready", status)));
        assert_eq!(phase_of(&list), expected);
    }
}
