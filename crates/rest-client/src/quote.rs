//! Foreign text in our own messages: one clean, short line.

/// Most characters of a server's text that a message quotes.
pub const LIMIT: usize = 256;

/// `text` as one line of at most `limit` characters: control characters and runs of white space become one space, the
/// cut is marked by `…`.
pub fn bounded(text: &str, limit: usize) -> String {
    let mut line = String::new();
    let mut count = 0;
    let mut gap = false;
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() || is_invisible(c) {
            gap = !line.is_empty();
            continue;
        }
        let needed = 1 + usize::from(gap);
        if count + needed > limit {
            while count >= limit && line.pop().is_some() {
                count -= 1;
            }
            if limit > 0 {
                line.push('…');
            }
            return line;
        }
        if gap {
            line.push(' ');
            gap = false;
        }
        line.push(c);
        count += needed;
    }
    line
}

/// Characters that reorder or hide what a reader sees.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("plain", 256, "plain")]
    #[case("  a \r\n\t b\u{0}c ", 256, "a b c")]
    #[case("abcdef", 6, "abcdef")]
    #[case("abcdefg", 6, "abcde…")]
    #[case("äöüäöü", 4, "äöü…")]
    #[case("a\u{202e}b", 9, "a b")]
    #[case("ab c", 3, "ab…")]
    #[case("", 3, "")]
    fn one_clean_line(#[case] text: &str, #[case] limit: usize, #[case] expected: &str) {
        let line = bounded(text, limit);
        assert_eq!(line, expected);
        assert!(line.chars().count() <= limit);
    }
}
