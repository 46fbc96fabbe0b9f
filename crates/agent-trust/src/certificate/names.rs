//! General names and name constraints (RFC 5280 §4.2.1.6 and §4.2.1.10).

#[cfg(feature = "verify")]
mod constrain;

#[cfg(feature = "verify")]
pub(crate) use constrain::subject;

use super::der::{Der, tag};

/// Context tags of a GeneralName.
const DNS: u8 = 0x82;
const DIRECTORY: u8 = 0xa4;
const URI: u8 = 0x86;
const IP: u8 = 0x87;

/// A name in a certificate, or the base of a name constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Uri(Vec<u8>),
    Dns(Vec<u8>),
    /// An address; in a constraint address and mask.
    Ip(Vec<u8>),
    Directory(Vec<Relative>),
    /// A form that is not evaluated, by its tag.
    Other(u8),
}

impl Name {
    /// The bytes of a URI.
    pub(crate) fn uri(&self) -> Option<&[u8]> {
        match self {
            Self::Uri(uri) => Some(uri),
            _ => None,
        }
    }
}

/// One step of a directory name: attributes, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relative(Vec<Attribute>);

/// An attribute of a directory name. Text is folded; `folded` is false for encodings that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attribute {
    id: Vec<u8>,
    value: Vec<u8>,
    folded: bool,
}

/// The names an authority may and must not certify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Constraints {
    permitted: Vec<Name>,
    excluded: Vec<Name>,
}

/// The value of a subjectAltName extension. `None`: malformed.
pub(crate) fn alt_names(value: &[u8]) -> Option<Vec<Name>> {
    let mut names = Der::new(Der::new(value).only(tag::SEQUENCE)?);
    let mut found = Vec::new();
    while !names.is_empty() {
        let (tag, content) = names.next()?;
        found.push(general_name(tag, content)?);
    }
    Some(found)
}

/// The value of a nameConstraints extension. `None`: malformed, or with a minimum or maximum, which nobody evaluates.
pub(crate) fn constraints(value: &[u8]) -> Option<Constraints> {
    let mut fields = Der::new(Der::new(value).only(tag::SEQUENCE)?);
    let permitted = fields.optional(0xa0)?.map_or(Some(Vec::new()), subtrees)?;
    let excluded = fields.optional(0xa1)?.map_or(Some(Vec::new()), subtrees)?;
    let says_something = !permitted.is_empty() || !excluded.is_empty();
    (fields.is_empty() && says_something).then_some(Constraints { permitted, excluded })
}

fn subtrees(content: &[u8]) -> Option<Vec<Name>> {
    let mut list = Der::new(content);
    let mut found = Vec::new();
    while !list.is_empty() {
        let mut subtree = Der::new(list.take(tag::SEQUENCE)?);
        let (tag, base) = subtree.next()?;
        if !subtree.is_empty() {
            return None;
        }
        found.push(general_name(tag, base)?);
    }
    Some(found)
}

fn general_name(tag: u8, content: &[u8]) -> Option<Name> {
    Some(match tag {
        URI => Name::Uri(ascii(content)?),
        DNS => Name::Dns(ascii(content)?),
        IP => Name::Ip(content.to_vec()),
        // The choice inside is explicit: a whole Name.
        DIRECTORY => Name::Directory(directory(Der::new(content).only(super::der::tag::SEQUENCE)?)?),
        // Context-specific tags 0 to 8 are all there are.
        0x80..=0x88 | 0xa0..=0xa8 => Name::Other(tag & 0x1f),
        _ => return None,
    })
}

fn ascii(content: &[u8]) -> Option<Vec<u8>> {
    content.is_ascii().then(|| content.to_vec())
}

fn directory(content: &[u8]) -> Option<Vec<Relative>> {
    let mut steps = Der::new(content);
    let mut found = Vec::new();
    while !steps.is_empty() {
        let mut set = Der::new(steps.take(tag::SET)?);
        let mut attributes = Vec::new();
        while !set.is_empty() {
            let mut attribute = Der::new(set.take(tag::SEQUENCE)?);
            let id = attribute.take(tag::OID)?.to_vec();
            let (kind, value) = attribute.next()?;
            // UTF8String, PrintableString, IA5String
            let folded = matches!(kind, 0x0c | 0x13 | 0x16);
            let value = if folded { fold(value) } else { value.to_vec() };
            attributes.push(Attribute { id, value, folded });
        }
        attributes.sort_unstable();
        found.push(Relative(attributes));
    }
    Some(found)
}

/// Lower case, runs of spaces as one, none at the ends.
fn fold(value: &[u8]) -> Vec<u8> {
    let mut words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let mut out = words.next().unwrap_or_default().to_ascii_lowercase();
    for word in words {
        out.push(b' ');
        out.extend(word.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_values() {
        assert_eq!(alt_names(&[]), None);
        assert_eq!(alt_names(&[0x30, 3, 0x86, 1, 0xff]), None);
        assert_eq!(alt_names(&[0x30, 3, 0x02, 1, 1]), None);
        assert_eq!(alt_names(&[0x30, 0]), Some(Vec::new()));
        assert_eq!(constraints(&[0x30, 0]), None);
        // A maximum after the base.
        assert_eq!(constraints(&[0x30, 10, 0xa0, 8, 0x30, 6, 0x86, 1, b'a', 0x81, 1, 5]), None);
        assert!(constraints(&[0x30, 7, 0xa0, 5, 0x30, 3, 0x86, 1, b'a']).is_some());
    }
}
