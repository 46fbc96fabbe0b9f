//! Kubernetes quantities, as far as comparing requests and limits needs.

/// The value of a quantity in billionths; `None` when it is not one.
///
/// Digits below a billionth are dropped. Exponents outside what Kubernetes writes are refused.
pub fn parse_quantity(text: &str) -> Option<i128> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 18 {
        return None;
    }
    let mut nanos: i128 = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()? * 1_000_000_000 };
    let digits = fraction.get(..9).unwrap_or(fraction);
    if !digits.is_empty() {
        let scale = 10_i128.pow(9 - u32::try_from(digits.len()).ok()?);
        nanos += digits.parse::<i128>().ok()? * scale;
    }
    let value = scaled(nanos, suffix)?;
    Some(if negative { -value } else { value })
}

fn scaled(nanos: i128, suffix: &str) -> Option<i128> {
    let by = |factor: i128| nanos.checked_mul(factor);
    match suffix {
        "" => Some(nanos),
        "n" => Some(nanos / 1_000_000_000),
        "u" => Some(nanos / 1_000_000),
        "m" => Some(nanos / 1_000),
        "k" => by(1_000),
        "M" => by(1_000_000),
        "G" => by(1_000_000_000),
        "T" => by(1_000_000_000_000),
        "P" => by(1_000_000_000_000_000),
        "E" => by(1_000_000_000_000_000_000),
        "Ki" => by(1 << 10),
        "Mi" => by(1 << 20),
        "Gi" => by(1 << 30),
        "Ti" => by(1 << 40),
        "Pi" => by(1 << 50),
        "Ei" => by(1 << 60),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs().min(40))?;
            if exponent < 0 { nanos.checked_div(power) } else { nanos.checked_mul(power) }
        }
    }
}
