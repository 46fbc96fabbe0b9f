//! Which names an authority's constraints allow.
//!
//! Where RFC 5280 leaves room, a name is permitted only by the narrow reading and excluded already by the wide one.

use super::super::der::{Der, tag};
use super::{Constraints, Name, Relative, directory};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Narrow,
    Wide,
}

impl Constraints {
    /// True when an authority with these constraints may certify every one of `names`.
    pub(crate) fn allow<'a>(&self, names: impl IntoIterator<Item = &'a Name>) -> bool {
        names.into_iter().all(|name| {
            let mut permitted = self.permitted.iter().filter(|base| base.same_form(name)).peekable();
            let inside =
                permitted.peek().is_none() || permitted.any(|base| within(name, base, Reading::Narrow));
            inside
                && !self.excluded.iter().any(|base| base.same_form(name) && within(name, base, Reading::Wide))
        })
    }
}

impl Name {
    fn same_form(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Other(one), Self::Other(another)) => one == another,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// The subject as a name, `None` when it is empty, which no constraint touches. Outer `None`: malformed.
#[allow(clippy::option_option)] // malformed and empty are different things here
pub(crate) fn subject(der: &[u8]) -> Option<Option<Name>> {
    let steps = directory(Der::new(der).only(tag::SEQUENCE)?)?;
    Some((!steps.is_empty()).then_some(Name::Directory(steps)))
}

fn within(name: &Name, base: &Name, reading: Reading) -> bool {
    match (name, base) {
        (Name::Uri(uri), Name::Uri(base)) => match host(uri) {
            Some(host) => host_within(&host, base, reading),
            // A URI without a host that can be compared: never permitted, always excluded.
            None => reading == Reading::Wide,
        },
        (Name::Dns(name), Name::Dns(base)) => dns_within(name, base),
        (Name::Ip(address), Name::Ip(base)) => address_within(address, base, reading),
        (Name::Directory(steps), Name::Directory(base)) => directory_within(steps, base, reading),
        // Forms we do not evaluate: never permitted, always excluded.
        _ => reading == Reading::Wide,
    }
}

/// The host of a URI in lower case; `None` without one, or when it is an address.
fn host(uri: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(uri).ok()?;
    let (_, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    if host.starts_with('[') {
        return None;
    }
    let host = host.split(':').next()?;
    let address = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (!host.is_empty() && !address).then(|| host.to_ascii_lowercase().into_bytes())
}

/// RFC 5280: a base that starts with a dot takes every host below it, another one exactly that host. The wide reading
/// takes hosts below any base.
fn host_within(host: &[u8], base: &[u8], reading: Reading) -> bool {
    let base = base.to_ascii_lowercase();
    if base.is_empty() {
        return true;
    }
    match base.strip_prefix(b".") {
        Some(parent) => below(host, parent) || (reading == Reading::Wide && host == parent),
        None => host == base || (reading == Reading::Wide && below(host, &base)),
    }
}

fn below(host: &[u8], parent: &[u8]) -> bool {
    host.strip_suffix(parent).is_some_and(|front| front.len() > 1 && front.ends_with(b"."))
}

fn dns_within(name: &[u8], base: &[u8]) -> bool {
    let (name, base) = (name.to_ascii_lowercase(), base.to_ascii_lowercase());
    let base = base.strip_prefix(b".").unwrap_or(&base);
    base.is_empty() || name == base || below(&name, base)
}

fn address_within(address: &[u8], base: &[u8], reading: Reading) -> bool {
    let known = matches!(address.len(), 4 | 16) && matches!(base.len(), 8 | 32);
    if !known {
        return reading == Reading::Wide;
    }
    let Some((network, mask)) = base.split_at_checked(base.len() / 2) else { return false };
    network.len() == address.len()
        && address.iter().zip(network).zip(mask).all(|((byte, network), mask)| byte & mask == network & mask)
}

fn directory_within(steps: &[Relative], base: &[Relative], reading: Reading) -> bool {
    let unclear = steps.iter().chain(base).any(|step| step.0.iter().any(|attribute| !attribute.folded));
    (unclear && reading == Reading::Wide) || steps.starts_with(base)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn uri(text: &str) -> Name {
        Name::Uri(text.as_bytes().to_vec())
    }

    fn allow(permitted: &[Name], excluded: &[Name], name: &Name) -> bool {
        Constraints { permitted: permitted.to_vec(), excluded: excluded.to_vec() }.allow([name])
    }

    #[rstest]
    #[case("spiffe://dev.example/a", "dev.example", true, true)]
    #[case("spiffe://DEV.example/a", "dev.EXAMPLE", true, true)]
    #[case("spiffe://a.dev.example/a", "dev.example", false, true)]
    #[case("spiffe://a.dev.example/a", ".dev.example", true, true)]
    #[case("spiffe://dev.example/a", ".dev.example", false, true)]
    #[case("spiffe://evildev.example/a", "dev.example", false, false)]
    #[case("spiffe://evildev.example/a", ".dev.example", false, false)]
    #[case("spiffe://other.example/a", "dev.example", false, false)]
    #[case("spiffe://dev.example/a", "", true, true)]
    #[case("spiffe://1.2.3.4/a", "dev.example", false, true)]
    #[case("https://[::1]/a", "dev.example", false, true)]
    #[case("urn:x", "dev.example", false, true)]
    #[case("spiffe://dev.example@other.example/a", "dev.example", false, false)]
    fn uris(#[case] name: &str, #[case] base: &str, #[case] permitted: bool, #[case] excluded: bool) {
        assert_eq!(allow(&[uri(base)], &[], &uri(name)), permitted);
        assert_eq!(!allow(&[], &[uri(base)], &uri(name)), excluded);
    }

    #[test]
    fn exclusion_beats_permission_and_forms_do_not_mix() {
        let base = uri(".example");
        assert!(!allow(std::slice::from_ref(&base), &[uri("bad.example")], &uri("spiffe://bad.example/a")));
        assert!(allow(std::slice::from_ref(&base), &[], &Name::Dns(b"anything".to_vec())));
        assert!(allow(&[], &[], &uri("spiffe://a/b")));
    }

    #[test]
    fn forms_that_are_not_evaluated_are_refused_where_constrained() {
        assert!(!allow(&[Name::Other(1)], &[], &Name::Other(1)));
        assert!(!allow(&[], &[Name::Other(1)], &Name::Other(1)));
        assert!(allow(&[Name::Other(1)], &[], &Name::Other(0)));
    }

    #[test]
    fn addresses() {
        let base = Name::Ip(vec![10, 1, 0, 0, 255, 255, 0, 0]);
        assert!(allow(std::slice::from_ref(&base), &[], &Name::Ip(vec![10, 1, 2, 3])));
        assert!(!allow(std::slice::from_ref(&base), &[], &Name::Ip(vec![10, 2, 2, 3])));
        assert!(!allow(std::slice::from_ref(&base), &[], &Name::Ip(vec![0; 16])));
        assert!(!allow(&[], &[Name::Ip(vec![1])], &Name::Ip(vec![10, 2, 2, 3])));
    }

    fn attribute(kind: u8, value: &[u8]) -> Vec<u8> {
        let inner =
            [&[6, 3, 0x55, 4, 0x0a, kind, u8::try_from(value.len()).expect("short")][..], value].concat();
        let sequence = [&[0x30, u8::try_from(inner.len()).expect("short")][..], &inner].concat();
        [&[0x31, u8::try_from(sequence.len()).expect("short")][..], &sequence].concat()
    }

    fn dn(steps: &[Vec<u8>]) -> Name {
        Name::Directory(directory(&steps.concat()).expect("well-formed"))
    }

    #[test]
    fn directory_names_fold_text_and_fail_closed_on_other_encodings() {
        let base = dn(&[attribute(0x0c, b"Acme  Corp")]);
        assert!(allow(
            std::slice::from_ref(&base),
            &[],
            &dn(&[attribute(0x13, b"ACME corp "), attribute(0x0c, b"x")])
        ));
        assert!(!allow(std::slice::from_ref(&base), &[], &dn(&[attribute(0x0c, b"Other")])));
        assert!(!allow(&[], std::slice::from_ref(&base), &dn(&[attribute(0x1e, b"\0O\0t")])));
        assert!(!allow(std::slice::from_ref(&base), &[], &dn(&[attribute(0x1e, b"\0A\0c")])));
    }
}
