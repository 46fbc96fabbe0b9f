//! Rates of flags: how often per second.

/// A value parser for rates that cannot be off. Zero is refused.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    number(text)
        .filter(|rate| *rate > 0.0)
        .ok_or_else(|| format!("{text:?} is no rate: write a number above 0"))
}

/// A value parser for rates of which `0` means "no limit".
pub fn rate_or_zero(text: &str) -> Result<f64, String> {
    number(text)
        .filter(|rate| *rate >= 0.0)
        .ok_or_else(|| format!("{text:?} is no rate: write a number, 0 or more"))
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("20", Ok(20.0), true)]
    #[case("0.5", Ok(0.5), true)]
    #[case("0", Ok(0.0), false)]
    #[case("-1", Err("\"-1\" is no rate"), false)]
    #[case("inf", Err("\"inf\" is no rate"), false)]
    #[case("NaN", Err("\"NaN\" is no rate"), false)]
    #[case("many", Err("\"many\" is no rate"), false)]
    fn rates(#[case] text: &str, #[case] want: Result<f64, &str>, #[case] above_zero: bool) {
        match (rate_or_zero(text), want) {
            (Ok(found), Ok(want)) => assert!((found - want).abs() < f64::EPSILON),
            (found, want) => assert!(found.unwrap_err().starts_with(want.unwrap_err())),
        }
        assert_eq!(rate(text).is_ok(), above_zero);
    }
}
