//! A cursor over DER: definite, minimal lengths and single-byte tags only. Never recurses.

/// The tags we read.
pub(super) mod tag {
    pub(in crate::certificate) const BOOLEAN: u8 = 0x01;
    pub(in crate::certificate) const INTEGER: u8 = 0x02;
    pub(in crate::certificate) const BIT_STRING: u8 = 0x03;
    pub(in crate::certificate) const OID: u8 = 0x06;
    pub(in crate::certificate) const SEQUENCE: u8 = 0x30;
    pub(in crate::certificate) const SET: u8 = 0x31;
}

/// The rest of a DER encoding.
pub(super) struct Der<'a> {
    rest: &'a [u8],
}

impl<'a> Der<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next element, tag and content. `None`: malformed, or nothing left.
    pub(super) fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.rest.split_first()?;
        let (&first, rest) = rest.split_first()?;
        // 0x1f: tags of several bytes, which nothing we read has.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            if !(1..=4).contains(&digits.len()) || digits.first() == Some(&0) {
                return None;
            }
            let length = digits.iter().fold(0_usize, |sum, digit| (sum << 8) | usize::from(*digit));
            if length < 0x80 {
                return None;
            }
            (length, rest)
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some((tag, content))
    }

    /// The content of the next element, which must have `tag`.
    pub(super) fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(own, _)| *own == tag).map(|(_, content)| content)
    }

    /// The content of the last element, which must have `tag`.
    pub(super) fn only(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.take(tag).filter(|_| self.rest.is_empty())
    }

    /// The content of the next element if it has `tag`. Outer `None`: malformed.
    #[allow(clippy::option_option)] // malformed and absent are different things here
    pub(super) fn optional(&mut self, tag: u8) -> Option<Option<&'a [u8]>> {
        if self.peek() == Some(tag) { self.take(tag).map(Some) } else { Some(None) }
    }
}

/// The content of an INTEGER that is not negative, without its sign byte.
pub(super) fn unsigned(content: &[u8]) -> Option<&[u8]> {
    match content {
        [] => None,
        [0] => Some(content),
        [0, rest @ ..] => rest.first().filter(|byte| **byte >= 0x80).map(|_| rest),
        [first, ..] => (*first < 0x80).then_some(content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_minimal_definite_lengths() {
        assert_eq!(Der::new(&[2, 1, 5]).only(tag::INTEGER), Some(&[5][..]));
        for bad in [
            &[][..],
            &[2],
            &[2, 2, 5],
            &[2, 0x80, 5, 0, 0],
            &[2, 0x81, 1, 5],
            &[2, 0x82, 0, 0x80],
            &[0x1f, 1, 5],
            &[2, 0xff, 1],
            &[2, 0x84, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(Der::new(bad).next(), None, "{bad:?}");
        }
        let long = [&[0x30, 0x81, 0x80][..], &[7; 0x80]].concat();
        assert_eq!(Der::new(&long).only(tag::SEQUENCE).map(<[u8]>::len), Some(0x80));
        assert_eq!(Der::new(&[2, 1, 5, 0]).only(tag::INTEGER), None);
    }

    #[test]
    fn integers() {
        assert_eq!(unsigned(&[0]), Some(&[0][..]));
        assert_eq!(unsigned(&[0, 0x80]), Some(&[0x80][..]));
        assert_eq!(unsigned(&[0x7f]), Some(&[0x7f][..]));
        for bad in [&[][..], &[0x80], &[0, 0x7f], &[0, 0]] {
            assert_eq!(unsigned(bad), None, "{bad:?}");
        }
    }
}
