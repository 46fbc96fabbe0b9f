//! How often the status of one card is written (card §19). Pure.
//!
//! An agent that flaps must not make the API server flap with it: after a few writes in a row the next one waits, one
//! that tells only that the workload became ready or unready waits until a while after the last of them, and what has
//! changed back meanwhile is never written. A changed verdict does not wait.

use std::time::Duration;

use tokio::time::Instant;

use crate::schedule::READY_AGAIN;

/// Writes in a row.
const BURST: u32 = 5;
/// Time between writes after that.
const EVERY: Duration = Duration::from_secs(2);

/// The writes of one card so far.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// When all that was written would be paid for.
    paid: Instant,
    /// When it was last written that the workload became ready or unready.
    edge: Option<Instant>,
}

impl Pace {
    /// After one more write. `edge`: it told that the workload became ready or unready.
    pub fn after(before: Option<Self>, now: Instant, edge: bool) -> Self {
        let paid = before.map_or(now, |before| before.paid.max(now));
        let edge = if edge { Some(now) } else { before.and_then(|before| before.edge) };
        Self { paid: paid + EVERY, edge }
    }

    /// How long the next write waits; `None` = not at all.
    pub fn wait(&self, now: Instant, edge: bool) -> Option<Duration> {
        let burst = self.paid.saturating_duration_since(now).saturating_sub(EVERY * (BURST - 1));
        let edge = self.edge.filter(|_| edge).map(|last| (last + READY_AGAIN).saturating_duration_since(now));
        let wait = burst.max(edge.unwrap_or_default());
        (!wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_writes_are_free_and_then_they_are_spread() {
        let start = Instant::now();
        let mut pace = None;
        for _ in 0..BURST {
            assert_eq!(pace.and_then(|pace: Pace| pace.wait(start, false)), None);
            pace = Some(Pace::after(pace, start, false));
        }
        let pace = pace.unwrap();
        assert_eq!(pace.wait(start, false), Some(EVERY));
        assert_eq!(pace.wait(start + EVERY, false), None);
        let later = start + EVERY;
        assert_eq!(Pace::after(Some(pace), later, false).wait(later, false), Some(EVERY));
    }

    #[test]
    fn a_calm_card_may_be_written_at_once_again() {
        let start = Instant::now();
        let pace = (0..BURST).fold(None, |pace, _| Some(Pace::after(pace, start, false)));
        assert_eq!(pace.and_then(|pace| pace.wait(start + EVERY * BURST, false)), None);
    }

    #[test]
    fn readiness_is_told_now_and_then() {
        let start = Instant::now();
        let second = |n: u64| start + Duration::from_secs(n);
        let first = Pace::after(None, start, false);
        assert_eq!(first.wait(second(1), true), None, "the first one at once");
        let pace = Pace::after(Some(first), second(1), true);
        assert_eq!(pace.wait(second(3), true), READY_AGAIN.checked_sub(Duration::from_secs(2)));
        assert_eq!(pace.wait(second(3), false), None, "anything else");
        let pace = Pace::after(Some(pace), second(3), false);
        assert_eq!(pace.wait(second(1) + READY_AGAIN, true), None);
    }
}
