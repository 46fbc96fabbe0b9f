//! How often the status of one card is written (card §19). Pure.
//!
//! An agent that flaps must not make the API server flap with it: after a few writes in a row the next one waits, and
//! what has changed back meanwhile is never written. A changed verdict does not wait.

use std::time::Duration;

use tokio::time::Instant;

/// Writes in a row.
const BURST: u32 = 5;
/// Time between writes after that.
const EVERY: Duration = Duration::from_secs(2);

/// The writes of one card so far.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// When all that was written would be paid for.
    paid: Instant,
}

impl Pace {
    /// After one more write.
    pub fn after(before: Option<Self>, now: Instant) -> Self {
        let paid = before.map_or(now, |before| before.paid.max(now));
        Self { paid: paid + EVERY }
    }

    /// How long the next write waits; `None` = not at all.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let wait = self.paid.saturating_duration_since(now).saturating_sub(EVERY * (BURST - 1));
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
            assert_eq!(pace.and_then(|pace: Pace| pace.wait(start)), None);
            pace = Some(Pace::after(pace, start));
        }
        let pace = pace.unwrap();
        assert_eq!(pace.wait(start), Some(EVERY));
        assert_eq!(pace.wait(start + EVERY), None);
        let later = start + EVERY;
        assert_eq!(Pace::after(Some(pace), later).wait(later), Some(EVERY));
    }

    #[test]
    fn a_calm_card_may_be_written_at_once_again() {
        let start = Instant::now();
        let pace = (0..BURST).fold(None, |pace, _| Some(Pace::after(pace, start)));
        assert_eq!(pace.and_then(|pace| pace.wait(start + EVERY * BURST)), None);
    }
}
