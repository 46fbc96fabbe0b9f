//! Writers: RFC 8785, the `legacy` variant of card §8.2, and indented text for people.

use std::fmt::Write as _;

use super::Value;

/// RFC 8785: members sorted by UTF-16 code units, ECMAScript numbers, only `"`, `\` and control characters escaped.
pub fn jcs(value: &Value) -> Vec<u8> {
    canonical(value, Style::Rfc8785)
}

/// The serialisation of profile `legacy` (card §8.2): members sorted by UTF-8 bytes, `<`, `>`, `&`, U+2028 and U+2029
/// escaped, negative zero kept.
pub(crate) fn legacy(value: &Value) -> Vec<u8> {
    canonical(value, Style::Legacy)
}

/// The document with two spaces of indentation, members in order, numbers as they were written. Ends without newline.
pub fn pretty(value: &Value) -> Vec<u8> {
    let mut out = String::new();
    write_pretty(&mut out, value, 0);
    out.into_bytes()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Rfc8785,
    Legacy,
}

fn canonical(value: &Value, style: Style) -> Vec<u8> {
    let mut out = String::new();
    write_canonical(&mut out, value, style);
    out.into_bytes()
}

fn write_canonical(out: &mut String, value: &Value, style: Style) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_double(out, number.as_f64(), style),
        Value::String(text) => write_string(out, text, style),
        Value::Array(elements) => {
            out.push('[');
            for (n, element) in elements.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_canonical(out, element, style);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<&(String, Value)> = members.iter().collect();
            match style {
                Style::Rfc8785 => sorted.sort_by(|a, b| utf16_order(&a.0, &b.0)),
                Style::Legacy => sorted.sort_by(|a, b| a.0.cmp(&b.0)),
            }
            out.push('{');
            for (n, (name, member)) in sorted.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_string(out, name, style);
                out.push(':');
                write_canonical(out, member, style);
            }
            out.push('}');
        }
    }
}

fn utf16_order(one: &str, other: &str) -> std::cmp::Ordering {
    one.encode_utf16().cmp(other.encode_utf16())
}

fn write_double(out: &mut String, double: f64, style: Style) {
    if style == Style::Legacy && double == 0.0 && double.is_sign_negative() {
        out.push_str("-0");
    } else {
        out.push_str(ryu_js::Buffer::new().format_finite(double));
    }
}

fn write_string(out: &mut String, text: &str, style: Style) {
    out.push('"');
    let mut plain = 0;
    for (at, character) in text.char_indices() {
        let escaped = match character {
            '"' | '\\' | '\0'..='\u{1f}' => true,
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => style == Style::Legacy,
            _ => false,
        };
        if escaped {
            out.push_str(text.get(plain..at).unwrap_or_default());
            plain = at + character.len_utf8();
            write_escape(out, character);
        }
    }
    out.push_str(text.get(plain..).unwrap_or_default());
    out.push('"');
}

fn write_escape(out: &mut String, character: char) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{8}' => out.push_str("\\b"),
        '\t' => out.push_str("\\t"),
        '\n' => out.push_str("\\n"),
        '\u{c}' => out.push_str("\\f"),
        '\r' => out.push_str("\\r"),
        other => {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(other));
        }
    }
}

fn write_pretty(out: &mut String, value: &Value, level: usize) {
    match value {
        Value::Number(number) => out.push_str(number.text()),
        Value::Array(elements) if !elements.is_empty() => {
            out.push('[');
            for (n, element) in elements.iter().enumerate() {
                new_line(out, n, level + 1);
                write_pretty(out, element, level + 1);
            }
            close(out, ']', level);
        }
        Value::Object(members) if !members.is_empty() => {
            out.push('{');
            for (n, (name, member)) in members.iter().enumerate() {
                new_line(out, n, level + 1);
                write_string(out, name, Style::Rfc8785);
                out.push_str(": ");
                write_pretty(out, member, level + 1);
            }
            close(out, '}', level);
        }
        other => write_canonical(out, other, Style::Rfc8785),
    }
}

fn new_line(out: &mut String, n: usize, level: usize) {
    if n > 0 {
        out.push(',');
    }
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", level));
}

fn close(out: &mut String, bracket: char, level: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", level));
    out.push(bracket);
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::parse;
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).expect("UTF-8")
    }

    /// The numbers that RFC 8785 names, and the ends of the ranges of each notation.
    #[rstest]
    #[case("1e21", "1e+21")]
    #[case("1e-7", "1e-7")]
    #[case("0.000001", "0.000001")]
    #[case("1.0", "1")]
    #[case("-0", "0")]
    #[case("-0.0", "0")]
    #[case("999999999999999900000", "999999999999999900000")]
    #[case("9007199254740993", "9007199254740992")]
    #[case("333333333.33333329", "333333333.3333333")]
    #[case("4.50", "4.5")]
    #[case("2e-3", "0.002")]
    #[case("1e-27", "1e-27")]
    #[case("5e-324", "5e-324")]
    #[case("1.7976931348623157e308", "1.7976931348623157e+308")]
    #[case("295147905179352830000", "295147905179352830000")]
    fn numbers(#[case] input: &str, #[case] expected: &str) {
        assert_eq!(text(jcs(&parse(input.as_bytes()).expect("valid"))), expected);
    }

    #[test]
    fn legacy_keeps_negative_zero() {
        assert_eq!(text(legacy(&parse(b"[-0,0,-0.0]").expect("valid"))), "[-0,0,-0]");
    }

    #[test]
    fn strings() {
        let value = parse(r#""<>& é\u2028\u0001\u007f\b\t\n\f\r\"\\\/""#.as_bytes()).expect("valid");
        assert_eq!(text(jcs(&value)), "\"<>& é\u{2028}\\u0001\u{7f}\\b\\t\\n\\f\\r\\\"\\\\/\"");
        assert_eq!(
            text(legacy(&value)),
            "\"\\u003c\\u003e\\u0026 é\\u2028\\u0001\u{7f}\\b\\t\\n\\f\\r\\\"\\\\/\""
        );
    }

    /// U+FB33 sorts before an astral character by bytes and after it by UTF-16 units.
    #[test]
    fn the_two_orders_differ_beyond_the_basic_plane() {
        let value = parse("{\"\u{fb33}\":1,\"\u{1f600}\":2,\"a\":3}".as_bytes()).expect("valid");
        assert_eq!(text(jcs(&value)), "{\"a\":3,\"\u{1f600}\":2,\"\u{fb33}\":1}");
        assert_eq!(text(legacy(&value)), "{\"a\":3,\"\u{fb33}\":1,\"\u{1f600}\":2}");
    }

    #[test]
    fn pretty_keeps_order_and_numbers() {
        let value = parse(br#"{"b":[1.0,{}],"a":{"x":1e2},"c":[]}"#).expect("valid");
        assert_eq!(
            text(pretty(&value)),
            "{\n  \"b\": [\n    1.0,\n    {}\n  ],\n  \"a\": {\n    \"x\": 1e2\n  },\n  \"c\": []\n}"
        );
    }
}
