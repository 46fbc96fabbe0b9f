//! What verification asks a certificate.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::Certificate;
use super::names::Name;
use crate::card::hex;
use crate::spiffe::{SpiffeError, SpiffeId};

impl Certificate {
    /// The bytes that the issuer signed.
    pub(crate) fn signed(&self) -> &[u8] {
        self.der.get(self.signed.clone()).unwrap_or_default()
    }

    /// The key id of a signer: the first 8 bytes of SHA-256 of the DER as 16 hex (card §16.2).
    pub(crate) fn key_id(&self) -> String {
        hex(Sha256::digest(&self.der).get(..8).unwrap_or_default())
    }

    /// The one SPIFFE ID of a leaf: exactly one URI name, which is a SPIFFE ID with a path (card §8.3 step 8).
    pub(crate) fn spiffe_id(&self) -> Result<SpiffeId, SanError> {
        let mut uris = self.alt_names.iter().filter_map(Name::uri);
        match (uris.next(), uris.next()) {
            (Some(uri), None) => {
                let text = std::str::from_utf8(uri).map_err(|_| SpiffeError::Path)?;
                Ok(SpiffeId::parse(text)?)
            }
            (None, _) => Err(SanError::None),
            (Some(_), Some(_)) => Err(SanError::Several),
        }
    }

    /// Start of validity.
    pub(crate) fn not_before(&self) -> Timestamp {
        instant(self.not_before)
    }

    /// End of validity, still inside.
    pub(crate) fn not_after(&self) -> Timestamp {
        instant(self.not_after)
    }
}

/// A leaf without exactly one SPIFFE ID (card §8.3 step 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SanError {
    #[error("the certificate has no URI name")]
    None,
    #[error("the certificate has more than one URI name")]
    Several,
    #[error(transparent)]
    Id(#[from] SpiffeError),
}

/// Unix seconds as an instant; beyond the calendar (9999-12-31 stands for "no end") the last one there is.
pub(crate) fn instant(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX })
}
