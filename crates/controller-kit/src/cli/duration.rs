//! Durations of flags and chart values: `^([0-9]+(ms|s|m|h))+$` (packaging §3.3), above zero.

use std::time::Duration;

/// A value parser for duration flags, e.g. `15s`, `1h30m`, `43800h`. Zero is refused.
pub fn duration(text: &str) -> Result<Duration, String> {
    parse(text)
        .filter(|value| !value.is_zero())
        .ok_or_else(|| format!("{text:?} is not a duration: write e.g. 500ms, 15s, 2m or 1h30m"))
}

/// As [`duration`], where `0s` means "not at all".
pub fn duration_or_zero(text: &str) -> Result<Duration, String> {
    if text.is_empty() { None } else { parse(text) }
        .ok_or_else(|| format!("{text:?} is not a duration: write e.g. 0s, 500ms, 15s or 2m"))
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let amount: u64 = number.parse().ok()?;
        let (unit, tail) = match tail {
            _ if tail.starts_with("ms") => (Duration::from_millis(1), tail.strip_prefix("ms")?),
            _ if tail.starts_with('s') => (Duration::from_secs(1), tail.strip_prefix('s')?),
            _ if tail.starts_with('m') => (Duration::from_mins(1), tail.strip_prefix('m')?),
            _ => (Duration::from_hours(1), tail.strip_prefix('h')?),
        };
        total = total.checked_add(unit.checked_mul(u32::try_from(amount).ok()?)?)?;
        rest = tail;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("500ms", 500)]
    #[case("15s", 15_000)]
    #[case("1h30m", 5_400_000)]
    #[case("43800h", 43_800 * 3_600_000)]
    fn durations_of_values_files_are_read(#[case] text: &str, #[case] millis: u64) {
        assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
    }

    #[rstest]
    #[case("")]
    #[case("15")]
    #[case("0s")]
    #[case("-1s")]
    #[case("1.5h")]
    #[case("5d")]
    #[case("99999999999999999999s")]
    #[case("s")]
    fn anything_else_is_refused_with_an_example(#[case] text: &str) {
        assert!(duration(text).unwrap_err().contains("15s"));
    }
}
