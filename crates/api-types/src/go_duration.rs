//! Go durations such as `1h30m` (card §6.9).

use std::{fmt, time::Duration};

/// A text that is not a Go duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a duration: write a number and a unit of ns, us, ms, s, m or h, for example 30s or 1h30m"
)]
pub struct DurationError {
    /// The text, cut to 64 characters.
    pub text: String,
}

/// Parses a Go duration to nanoseconds: an optional sign, then one or more of decimal number and unit
/// (`ns`, `us`, `µs`, `μs`, `ms`, `s`, `m`, `h`); a bare `0` is allowed. Values outside 64 bits are an error.
pub fn parse(text: &str) -> Result<i64, DurationError> {
    let error = || DurationError { text: text.chars().take(64).collect() };
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, text.get(1..).unwrap_or_default()),
        Some(b'+') => (false, text.get(1..).unwrap_or_default()),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(error());
    }
    let mut total: i128 = 0;
    let mut left = rest;
    while !left.is_empty() {
        let (part, after) = one_part(left).ok_or_else(error)?;
        total += part;
        if total > i128::from(i64::MAX) + 1 {
            return Err(error());
        }
        left = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| error())
}

/// One number with its unit, in nanoseconds, and what follows it.
fn one_part(text: &str) -> Option<(i128, &str)> {
    let (whole, after) = digits(text);
    let (fraction, after_fraction) = match after.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", after),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let unit_len =
        after_fraction.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after_fraction.len());
    let (unit, rest) = after_fraction.split_at_checked(unit_len)?;
    let nanos: i128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    // Digits beyond these cannot matter: 19 whole digits already overflow 64 bits, and 15 fractional digits of
    // an hour are below a nanosecond.
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = fraction.get(..15).unwrap_or(fraction);
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = whole.checked_mul(nanos)?.checked_add(fraction.checked_mul(nanos)? / scale)?;
    (part <= i128::from(i64::MAX) + 1).then_some((part, rest))
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// Default of `AgentCard.spec.syncPeriod`.
pub const DEFAULT_SYNC_PERIOD: Duration = Duration::from_secs(30);
/// Shortest sync period that admission accepts without a warning (card §4.1 `--min-sync-period`).
pub const MIN_SYNC_PERIOD: Duration = Duration::from_secs(5);
/// Longest sync period that admission accepts without a warning (card §4.1 `--max-sync-period`).
pub const MAX_SYNC_PERIOD: Duration = Duration::from_hours(24);

/// Why a sync period was not used as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncPeriodProblem {
    /// Not a duration; the default is used.
    Unparsable(DurationError),
    /// Outside the limits; the nearer limit is used.
    Clamped {
        /// What was written.
        text: String,
        /// What is used.
        used: Duration,
    },
}

impl fmt::Display for SyncPeriodProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unparsable(error) => write!(f, "{error}; {DEFAULT_SYNC_PERIOD:?} is used"),
            Self::Clamped { text, used } => write!(f, "{text:?} is out of range; {used:?} is used"),
        }
    }
}

/// A sync period in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncPeriod {
    /// The period.
    pub period: Duration,
    /// Why it is not the written one (event `InvalidSyncPeriod`).
    pub problem: Option<SyncPeriodProblem>,
}

/// The sync period of a card with the built-in limits (card §6.9); see [`sync_period_within`].
pub fn sync_period(text: Option<&str>) -> SyncPeriod {
    sync_period_within(text, MIN_SYNC_PERIOD, MAX_SYNC_PERIOD)
}

/// The sync period of a card: empty means 30 s, unparsable means 30 s with a problem, other values are clamped
/// to `min..=max` with a problem.
pub fn sync_period_within(text: Option<&str>, min: Duration, max: Duration) -> SyncPeriod {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return SyncPeriod { period: DEFAULT_SYNC_PERIOD, problem: None };
    };
    match parse(text) {
        Err(error) => {
            SyncPeriod { period: DEFAULT_SYNC_PERIOD, problem: Some(SyncPeriodProblem::Unparsable(error)) }
        }
        Ok(nanos) => {
            let asked = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
            let period = asked.min(max).max(min);
            let problem = (period != asked || nanos < 0)
                .then(|| SyncPeriodProblem::Clamped { text: text.chars().take(64).collect(), used: period });
            SyncPeriod { period, problem }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const S: i64 = 1_000_000_000;

    #[rstest]
    #[case("0", 0)]
    #[case("+0", 0)]
    #[case("30s", 30 * S)]
    #[case("-30s", -30 * S)]
    #[case("+5s", 5 * S)]
    #[case("1h30m", 5400 * S)]
    #[case("1.5h", 5400 * S)]
    #[case(".5s", S / 2)]
    #[case("1.s", S)]
    #[case("100ms", S / 10)]
    #[case("7us", 7_000)]
    #[case("7µs", 7_000)]
    #[case("7μs", 7_000)]
    #[case("42ns", 42)]
    #[case("1h1m1s1ms1us1ns", 3661 * S + 1_001_001)]
    #[case("9223372036854775807ns", i64::MAX)]
    #[case("-9223372036854775808ns", i64::MIN)]
    #[case("0.100000000000000000000h", 360 * S)]
    fn parses(#[case] text: &str, #[case] nanos: i64) {
        assert_eq!(parse(text), Ok(nanos));
    }

    #[rstest]
    #[case("")]
    #[case("-")]
    #[case("30")]
    #[case("s")]
    #[case(".s")]
    #[case("1d")]
    #[case("1 s")]
    #[case(" 1s")]
    #[case("1s ")]
    #[case("1..5s")]
    #[case("--1s")]
    #[case("1S")]
    #[case("9223372036854775808ns")]
    #[case("99999999999999999999999999999999999999999999h")]
    #[case("1e3s")]
    fn refuses(#[case] text: &str) {
        assert_eq!(parse(text), Err(DurationError { text: text.chars().take(64).collect() }));
    }

    /// Card §6.9.
    #[rstest]
    #[case(None, 30, false)]
    #[case(Some(""), 30, false)]
    #[case(Some("1m"), 60, false)]
    #[case(Some("soon"), 30, true)]
    #[case(Some("0"), 5, true)]
    #[case(Some("-1h"), 5, true)]
    #[case(Some("1ms"), 5, true)]
    #[case(Some("5s"), 5, false)]
    #[case(Some("24h"), 86_400, false)]
    #[case(Some("25h"), 86_400, true)]
    fn periods(#[case] text: Option<&str>, #[case] seconds: u64, #[case] problem: bool) {
        let period = sync_period(text);
        assert_eq!(period.period, Duration::from_secs(seconds));
        assert_eq!(period.problem.is_some(), problem);
    }
}
