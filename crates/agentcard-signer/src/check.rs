//! `--check`: is there a signed card whose certificate is valid now (card §16.3)?

use std::path::Path;
use std::process::ExitCode;

use agent_trust::Card;
use agent_trust::json;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::settings::Settings;

/// Why the output is not good. Holds nothing of the card.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("cannot read {path}: {reason}")]
    Read { path: String, reason: String },
    #[error("the file is no agent card: {0}")]
    Card(String),
    #[error("the card carries no signature with a certificate")]
    NoCertificate,
    #[error("the certificate of the signature is not valid now, but from {not_before} to {not_after}")]
    NotNow { not_before: String, not_after: String },
}

/// Exit code 0 for a good output, else 1 and a line that says why.
pub(crate) fn run(settings: &Settings) -> ExitCode {
    match check(&settings.signed, Timestamp::now()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(output_path = %settings.signed.display(), %error, "no valid signed card");
            ExitCode::FAILURE
        }
    }
}

fn check(path: &Path, now: Timestamp) -> Result<(), CheckError> {
    let document = std::fs::read(path)
        .map_err(|error| CheckError::Read { path: path.display().to_string(), reason: error.to_string() })?;
    // Signatures come on top of a card that was within the limit itself.
    let card =
        Card::read_within(&document, usize::MAX).map_err(|error| CheckError::Card(error.to_string()))?;
    let leaf = first_leaf(&card).ok_or(CheckError::NoCertificate)?;
    let (_, leaf) = X509Certificate::from_der(&leaf).map_err(|_| CheckError::NoCertificate)?;
    let (from, to) = (leaf.validity().not_before, leaf.validity().not_after);
    if (from.timestamp()..=to.timestamp()).contains(&now.as_second()) {
        Ok(())
    } else {
        Err(CheckError::NotNow { not_before: from.to_string(), not_after: to.to_string() })
    }
}

/// DER of the certificate that the first signature names.
fn first_leaf(card: &Card) -> Option<Vec<u8>> {
    let protected = card.signatures().first()?.get("protected")?.as_str()?;
    let header = json::parse(&URL_SAFE_NO_PAD.decode(protected).ok()?).ok()?;
    STANDARD.decode(header.get("x5c")?.elements()?.first()?.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_that_are_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("card.json");
        let told = |path: &Path| check(path, Timestamp::now()).expect_err("bad").to_string();
        assert!(told(&path).contains("card.json"), "missing");
        for (text, wanted) in [
            ("{", "no agent card"),
            (r#"{"name":"a"}"#, "no signature"),
            (r#"{"name":"a","signatures":[{"protected":"e30","signature":"AA"}]}"#, "no signature"),
        ] {
            std::fs::write(&path, text).expect("written");
            assert!(told(&path).contains(wanted), "{text}: {}", told(&path));
        }
    }
}
