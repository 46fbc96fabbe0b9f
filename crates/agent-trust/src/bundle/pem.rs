//! CERTIFICATE blocks of a PEM text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(super) const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The content of each CERTIFICATE block; `None` for one that is cut off or not base64. Other blocks are passed over.
pub(super) fn certificates(text: &str) -> impl Iterator<Item = Option<Vec<u8>>> {
    text.split(BEGIN).skip(1).map(|rest| {
        let (body, _) = rest.split_once(END)?;
        let dense: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        STANDARD.decode(dense).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks() {
        let text = format!(
            "# comment\n{BEGIN}\nAA\nEC\n{END}\n-----BEGIN PRIVATE KEY-----\nAAEC\n-----END PRIVATE KEY-----\n\
             {BEGIN}\r\n!!\r\n{END}\n{BEGIN}\nAAEC\n{BEGIN}\nAAED\n{END}"
        );
        let found: Vec<_> = certificates(&text).collect();
        assert_eq!(found, [Some(vec![0, 1, 2]), None, None, Some(vec![0, 1, 3])]);
    }
}
