//! When to look again (card §6.1, §6.9). Pure but for the dice.

use std::time::Duration;

use api_types::card::reason;
use controller_kit::backoff::jitter;

use crate::fetch::FetchError;

/// Longest wait between attempts at an agent that does not answer.
const LONGEST: Duration = Duration::from_secs(300);
/// Shortest time from one fetch to the next where only the agent's coming and going asks for it: it became ready
/// again, or one of its endpoints did. Also the shortest time between two statuses that tell nothing but that. As long
/// as the shortest period is by default (card §4.1, §6.9), so that flapping gains nobody more than a period would.
pub const READY_AGAIN: Duration = Duration::from_secs(5);
/// First wait after a failure, and the least one for a document that is no card.
const FIRST: Duration = Duration::from_secs(60);
/// The first waits where nobody listens. Most agents have no readiness probe: their Pod is ready seconds before the
/// program in it listens, or before the node routes their Service, and no event tells when.
const STARTING: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(15)];

/// When to look again at a card that stopped for this reason; `None` = when something changes. Events come first,
/// this is for those that are lost.
pub fn after_stop(reason: &str, scaled_to_zero: bool) -> Option<Duration> {
    let seconds = match reason {
        reason::WORKLOAD_NOT_READY if scaled_to_zero => return None,
        reason::WORKLOAD_NOT_READY => 10,
        reason::SERVICE_NOT_FOUND => 30,
        reason::FORBIDDEN_TARGET => 600,
        reason::PROTOCOL_NOT_SUPPORTED => return None,
        _ => 60,
    };
    Some(jitter(Duration::from_secs(seconds), 0.1))
}

/// Time from one fetch to the next: the period, or after `failures` failures in a row 60 s growing by half up to
/// 5 min. Where nobody listens, 5 s and 15 s come before that. `spread` (0.9 to 1.1) is drawn once per fetch, so that the
/// time does not wander.
pub fn next_fetch(period: Duration, failed: Option<(&FetchError, u32)>, spread: f64) -> Duration {
    let wait = match failed {
        None => period,
        // The document is at fault, and may be replaced any time.
        Some((FetchError::TooLarge(_), _)) => period.max(FIRST),
        Some((FetchError::ForbiddenAddress, _)) => Duration::from_secs(600),
        Some((error, failures)) => after_failures(failures, error.is_nobody_listening()),
    };
    wait.mul_f64(spread)
}

fn after_failures(failures: u32, nobody_listens: bool) -> Duration {
    let past = failures.saturating_sub(1);
    let starting: &[Duration] = if nobody_listens { &STARTING } else { &[] };
    let past = usize::try_from(past).unwrap_or(usize::MAX);
    starting.get(past).copied().unwrap_or_else(|| {
        let steps = i32::try_from(past.saturating_sub(starting.len()).min(16)).unwrap_or(16);
        FIRST.mul_f64(1.5_f64.powi(steps)).min(LONGEST)
    })
}

/// The same for a document that was read and is no card.
pub fn after_bad_document(period: Duration, spread: f64) -> Duration {
    period.max(FIRST).mul_f64(spread)
}

/// Draws a spread of ±10 %.
pub fn spread() -> f64 {
    0.9 + 0.2 * fastrand::f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::Phase;
    use rstest::rstest;

    /// Card §6.1: 60 s, then half as much again up to 5 min.
    #[rstest]
    #[case(1, 60.0)]
    #[case(2, 90.0)]
    #[case(3, 135.0)]
    #[case(5, 300.0)]
    #[case(1000, 300.0)]
    fn failures_slow_down(#[case] failures: u32, #[case] seconds: f64) {
        let wait = next_fetch(Duration::from_secs(5), Some((&FetchError::Status(500), failures)), 1.0);
        assert!((wait.as_secs_f64() - seconds).abs() < 4.0, "{wait:?}");
    }

    /// An agent that starts is not the one that is broken.
    #[rstest]
    #[case(FetchError::Refused)]
    #[case(FetchError::Unreachable)]
    #[case(FetchError::Timeout(Phase::Connect))]
    fn nobody_listens_yet(#[case] error: FetchError) {
        let waits = [1, 2, 3, 4, 5, 7, 1000]
            .map(|failures| next_fetch(Duration::from_secs(300), Some((&error, failures)), 1.0).as_secs());
        assert_eq!(waits, [5, 15, 60, 90, 135, 300, 300]);
    }

    #[test]
    fn success_and_bad_documents_follow_the_period() {
        let period = Duration::from_secs(100);
        assert_eq!(next_fetch(period, None, 1.0), period);
        assert_eq!(next_fetch(period, Some((&FetchError::TooLarge(1), 3)), 1.0), period);
        assert_eq!(next_fetch(period / 10, Some((&FetchError::TooLarge(1), 3)), 1.0), FIRST);
        assert_eq!(after_bad_document(period / 10, 1.0), FIRST);
        for _ in 0..100 {
            assert!((0.9..=1.1).contains(&spread()));
        }
    }

    #[test]
    fn what_only_a_change_can_fix_waits_for_it() {
        assert_eq!(after_stop("WorkloadNotReady", true), None);
        assert!(after_stop("WorkloadNotReady", false).is_some_and(|wait| wait < Duration::from_secs(12)));
        assert!(after_stop("WorkloadNotFound", false).is_some_and(|wait| wait > Duration::from_secs(50)));
        assert_eq!(after_stop("ProtocolNotSupported", false), None);
    }
}
