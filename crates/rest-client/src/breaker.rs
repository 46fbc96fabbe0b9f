//! The circuit of one server: closed, or open until a probe succeeds.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::options::BreakerLimits;

/// How soon to ask again while another caller's probe is under way.
const PROBE_PENDING: Duration = Duration::from_secs(1);

pub(crate) struct Breaker {
    limits: BreakerLimits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failures: u32,
    open: Option<Open>,
}

struct Open {
    until: Instant,
    lasts: Duration,
    probing: bool,
    cause: Cause,
}

/// What a failure was, for those who are turned away by it.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    pub(crate) text: String,
    pub(crate) tls: bool,
}

/// The right to make one attempt. Dropping it without a verdict says nothing about the server.
pub(crate) struct Pass<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

/// What a verdict changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    Opened,
    Closed,
}

impl Breaker {
    pub(crate) fn new(limits: BreakerLimits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets an attempt through, or says how long not to ask and why.
    pub(crate) fn admit(&self, now: Instant) -> Result<Pass<'_>, (Duration, Cause)> {
        let mut state = self.lock();
        let Some(open) = &mut state.open else { return Ok(Pass { breaker: self, probe: false }) };
        if now < open.until {
            return Err((open.until - now, open.cause.clone()));
        }
        if open.probing {
            return Err((PROBE_PENDING, open.cause.clone()));
        }
        open.probing = true;
        Ok(Pass { breaker: self, probe: true })
    }

    /// How long the circuit stays open; `None` when it is closed.
    pub(crate) fn open_for(&self, now: Instant) -> Option<Duration> {
        self.lock().open.as_ref().map(|open| open.until.saturating_duration_since(now))
    }
}

impl Pass<'_> {
    /// The only attempt while the circuit is open.
    pub(crate) fn is_probe(&self) -> bool {
        self.probe
    }

    /// The server works.
    pub(crate) fn succeeded(self) -> Change {
        let mut state = self.breaker.lock();
        state.failures = 0;
        if state.open.take().is_some() { Change::Closed } else { Change::Nothing }
    }

    /// The server failed.
    pub(crate) fn failed(self, now: Instant, cause: Cause) -> Change {
        let limits = self.breaker.limits;
        let mut state = self.breaker.lock();
        if let Some(open) = &mut state.open {
            // A call that began before the circuit opened says nothing new.
            if self.probe {
                open.lasts = (open.lasts * 2).min(limits.longest);
                open.until = now + open.lasts;
                open.cause = cause;
            }
            return Change::Nothing;
        }
        state.failures = state.failures.saturating_add(1);
        if state.failures < limits.failures {
            return Change::Nothing;
        }
        state.open = Some(Open { until: now + limits.open, lasts: limits.open, probing: false, cause });
        Change::Opened
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe
            && let Some(open) = &mut self.breaker.lock().open
        {
            open.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(breaker: &Breaker, now: Instant) -> Pass<'_> {
        breaker.admit(now).unwrap_or_else(|(left, _)| panic!("open for {left:?}"))
    }

    fn cause() -> Cause {
        Cause { text: "no answer".to_owned(), tls: false }
    }

    fn fail(breaker: &Breaker, now: Instant) -> Change {
        breaker.admit(now).map_or(Change::Nothing, |pass| pass.failed(now, cause()))
    }

    fn seconds(breaker: &Breaker, now: Instant) -> Option<u64> {
        breaker.open_for(now).map(|open| open.as_secs())
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_one_success_closes_it() {
        let breaker = Breaker::new(BreakerLimits::default());
        let mut now = Instant::now();
        for _ in 0..4 {
            assert_eq!(fail(&breaker, now), Change::Nothing);
        }
        assert_eq!(breaker.admit(now).map(Pass::succeeded).ok(), Some(Change::Nothing));
        for _ in 0..4 {
            assert_eq!(fail(&breaker, now), Change::Nothing);
        }
        assert_eq!(fail(&breaker, now), Change::Opened);
        assert_eq!(seconds(&breaker, now), Some(15));
        assert!(breaker.admit(now).is_err_and(|(left, cause)| left.as_secs() == 15 && !cause.tls));
        now += Duration::from_secs(15);
        assert_eq!(breaker.admit(now).map(Pass::succeeded).ok(), Some(Change::Closed));
        assert_eq!(breaker.open_for(now), None);
    }

    #[test]
    fn one_probe_at_a_time_and_each_failed_one_doubles_the_pause() {
        let breaker = Breaker::new(BreakerLimits::default());
        let mut now = Instant::now();
        for _ in 0..5 {
            fail(&breaker, now);
        }
        for lasts in [30, 60, 120, 120] {
            now += breaker.open_for(now).expect("open");
            let probe = pass(&breaker, now);
            assert!(probe.is_probe());
            assert!(breaker.admit(now).is_err(), "a second probe");
            assert_eq!(probe.failed(now, cause()), Change::Nothing);
            assert_eq!(seconds(&breaker, now), Some(lasts));
        }
    }

    /// A caller that is cancelled in the middle of its probe must not keep the circuit shut for ever.
    #[test]
    fn a_dropped_probe_makes_room_for_the_next() {
        let breaker = Breaker::new(BreakerLimits { failures: 1, ..BreakerLimits::default() });
        let mut now = Instant::now();
        fail(&breaker, now);
        now += Duration::from_secs(15);
        drop(pass(&breaker, now));
        assert!(breaker.admit(now).is_ok());
    }

    #[test]
    fn a_late_failure_does_not_prolong_the_pause() {
        let breaker = Breaker::new(BreakerLimits { failures: 1, ..BreakerLimits::default() });
        let now = Instant::now();
        let (early, late) = (pass(&breaker, now), pass(&breaker, now));
        early.failed(now, cause());
        late.failed(now + Duration::from_secs(10), cause());
        assert_eq!(seconds(&breaker, now), Some(15));
    }
}
