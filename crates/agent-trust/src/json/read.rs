//! The strict reader of card §6.6. Recursion is bounded by [`MAX_DEPTH`], memory by the text and [`MAX_VALUES`].

use super::{JsonError, JsonFault, MAX_DEPTH, MAX_VALUES, Number, Value};

/// Below this many members pairs are compared; above, names are sorted.
const FEW_MEMBERS: usize = 12;

/// Reads one document: strict UTF-8, no byte order mark, nothing after the document, no duplicate names, no lone
/// surrogates, numbers that fit a double, nesting of at most [`MAX_DEPTH`], at most [`MAX_VALUES`] values (card §6.6).
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| JsonError { fault: JsonFault::NotUtf8, offset: error.valid_up_to() })?;
    if text.starts_with('\u{feff}') {
        return Err(JsonError { fault: JsonFault::ByteOrderMark, offset: 0 });
    }
    let mut reader = Reader { text, at: 0, values: 0 };
    reader.skip_space();
    let value = reader.value(0)?;
    reader.skip_space();
    if reader.at < text.len() {
        return Err(reader.fault(JsonFault::TrailingData));
    }
    Ok(value)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    values: usize,
}

impl Reader<'_> {
    fn fault(&self, fault: JsonFault) -> JsonError {
        JsonError { fault, offset: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The fault of a character that does not belong here, or of its absence.
    fn unexpected(&self) -> JsonError {
        self.fault(if self.at < self.text.len() { JsonFault::Unexpected } else { JsonFault::Truncated })
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    fn literal(&mut self, word: &str, value: Value) -> Result<Value, JsonError> {
        for byte in word.bytes() {
            self.expect(byte)?;
        }
        Ok(value)
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(self.fault(JsonFault::TooManyValues));
        }
        match self.peek() {
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true", Value::Bool(true)),
            Some(b'f') => self.literal("false", Value::Bool(false)),
            Some(b'n') => self.literal("null", Value::Null),
            _ => Err(self.unexpected()),
        }
    }

    /// Steps over the opening bracket and says whether the closing one follows at once.
    fn open(&mut self, depth: usize, close: u8) -> Result<bool, JsonError> {
        if depth > MAX_DEPTH {
            return Err(self.fault(JsonFault::TooDeep));
        }
        self.at += 1;
        self.skip_space();
        let empty = self.peek() == Some(close);
        if empty {
            self.at += 1;
        }
        Ok(empty)
    }

    /// Steps over `,` (true) or the closing bracket (false).
    fn more(&mut self, close: u8) -> Result<bool, JsonError> {
        self.skip_space();
        if self.peek() == Some(b',') {
            self.at += 1;
            self.skip_space();
            return Ok(true);
        }
        self.expect(close)?;
        Ok(false)
    }

    fn array(&mut self, depth: usize) -> Result<Value, JsonError> {
        let mut elements = Vec::new();
        if self.open(depth, b']')? {
            return Ok(Value::Array(elements));
        }
        loop {
            elements.push(self.value(depth)?);
            if !self.more(b']')? {
                return Ok(Value::Array(elements));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, JsonError> {
        let mut members: Vec<(String, Value)> = Vec::new();
        if self.open(depth, b'}')? {
            return Ok(Value::Object(members));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.unexpected());
            }
            let name = self.string()?;
            self.skip_space();
            self.expect(b':')?;
            self.skip_space();
            let value = self.value(depth)?;
            members.push((name, value));
            if !self.more(b'}')? {
                break;
            }
        }
        if has_duplicates(&members) {
            return Err(self.fault(JsonFault::DuplicateName));
        }
        Ok(Value::Object(members))
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.expect(b'"')?;
        let mut out = String::new();
        loop {
            let start = self.at;
            while self.peek().is_some_and(|byte| byte != b'"' && byte != b'\\' && byte >= 0x20) {
                self.at += 1;
            }
            // The run ends before an ASCII byte or at the end, so it never cuts a character.
            out.push_str(self.text.get(start..self.at).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err(self.fault(JsonFault::ControlCharacter)),
                None => return Err(self.fault(JsonFault::Truncated)),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        self.at += 1;
        let Some(kind) = self.peek() else { return Err(self.fault(JsonFault::Truncated)) };
        let plain = match kind {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.fault(JsonFault::Escape)),
        };
        self.at += 1;
        Ok(plain)
    }

    fn unicode(&mut self) -> Result<char, JsonError> {
        let first = self.hex4()?;
        let scalar = match first {
            0xd800..=0xdbff => {
                if !self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(b"\\u")) {
                    return Err(self.fault(JsonFault::LoneSurrogate));
                }
                self.at += 2;
                let second = self.hex4()?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(self.fault(JsonFault::LoneSurrogate));
                }
                0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            other => other,
        };
        char::from_u32(scalar).ok_or_else(|| self.fault(JsonFault::LoneSurrogate))
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let mut unit = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|byte| char::from(byte).to_digit(16)) else {
                return Err(self.fault(JsonFault::Escape));
            };
            unit = unit * 16 + digit;
            self.at += 1;
        }
        Ok(unit)
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.fault(JsonFault::Number));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                return Err(self.fault(JsonFault::Number));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        // The standard library rounds correctly, as ECMAScript does.
        let double: f64 = text.parse().map_err(|_| self.fault(JsonFault::Number))?;
        if !double.is_finite() {
            return Err(JsonError { fault: JsonFault::NumberRange, offset: start });
        }
        Ok(Value::Number(Number::read(double, text)))
    }
}

fn has_duplicates(members: &[(String, Value)]) -> bool {
    if members.len() <= FEW_MEMBERS {
        return members
            .iter()
            .enumerate()
            .any(|(n, (name, _))| members.iter().take(n).any(|(other, _)| other == name));
    }
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| matches!(pair, [one, other] if one == other))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn fault(text: &[u8]) -> JsonFault {
        parse(text).expect_err("must be refused").fault
    }

    #[rstest]
    #[case(b"", JsonFault::Truncated)]
    #[case(b"{", JsonFault::Truncated)]
    #[case(b"[1,]", JsonFault::Unexpected)]
    #[case(b"{\"a\":1,}", JsonFault::Unexpected)]
    #[case(b"{a:1}", JsonFault::Unexpected)]
    #[case(b"'a'", JsonFault::Unexpected)]
    #[case(b"nul", JsonFault::Truncated)]
    #[case(b"NaN", JsonFault::Unexpected)]
    #[case(b"1 2", JsonFault::TrailingData)]
    #[case(b"{}\0", JsonFault::TrailingData)]
    #[case(b"\xef\xbb\xbf{}", JsonFault::ByteOrderMark)]
    #[case(b"\"\xff\"", JsonFault::NotUtf8)]
    #[case(b"\"\xed\xa0\x80\"", JsonFault::NotUtf8)]
    #[case(b"\"\n\"", JsonFault::ControlCharacter)]
    #[case(b"\"\\x\"", JsonFault::Escape)]
    #[case(b"\"\\u12\"", JsonFault::Escape)]
    #[case(b"\"\\ud800\"", JsonFault::LoneSurrogate)]
    #[case(b"\"\\udc00\"", JsonFault::LoneSurrogate)]
    #[case(b"\"\\ud800\\u0041\"", JsonFault::LoneSurrogate)]
    #[case(b"01", JsonFault::Number)]
    #[case(b"-", JsonFault::Number)]
    #[case(b"1.", JsonFault::Number)]
    #[case(b"1e", JsonFault::Number)]
    #[case(b"+1", JsonFault::Unexpected)]
    #[case(b"1e999", JsonFault::NumberRange)]
    #[case(b"-1e999", JsonFault::NumberRange)]
    #[case(b"{\"a\":1,\"a\":1}", JsonFault::DuplicateName)]
    #[case(b"{\"a\":1,\"\\u0061\":2}", JsonFault::DuplicateName)]
    #[case(b"[{\"x\":{\"b\":1,\"b\":null}}]", JsonFault::DuplicateName)]
    fn refuses(#[case] text: &[u8], #[case] expected: JsonFault) {
        assert_eq!(fault(text), expected);
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(fault(nested(MAX_DEPTH + 1).as_bytes()), JsonFault::TooDeep);
        assert_eq!(fault("[".repeat(1_000_000).as_bytes()), JsonFault::TooDeep);
        assert_eq!(fault("{\"a\":".repeat(1_000_000).as_bytes()), JsonFault::TooDeep);
    }

    #[test]
    fn values_are_bounded() {
        let zeros = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        assert!(parse(zeros(MAX_VALUES - 1).as_bytes()).is_ok());
        assert_eq!(fault(zeros(MAX_VALUES).as_bytes()), JsonFault::TooManyValues);
    }

    #[test]
    fn duplicates_are_seen_among_many_members() {
        let members: Vec<String> = (0..50).map(|n| format!("\"m{n}\":0")).collect();
        assert!(parse(format!("{{{}}}", members.join(",")).as_bytes()).is_ok());
        assert_eq!(fault(format!("{{{},\"m7\":1}}", members.join(",")).as_bytes()), JsonFault::DuplicateName);
    }

    #[test]
    fn order_text_and_escapes_are_kept() {
        let value = parse(br#" {"b":1.0,"a":"\u00e9\ud83d\ude00\/","c":[true,null,-0]} "#).expect("valid");
        let names: Vec<&str> =
            value.members().expect("object").iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "a", "c"]);
        assert_eq!(value.get("a").and_then(Value::as_str), Some("é😀/"));
        let Some(Value::Number(number)) = value.get("b") else { panic!("a number") };
        assert_eq!(number.text(), "1.0");
    }
}
