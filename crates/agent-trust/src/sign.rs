//! Signing a card with a workload's identity (card §16.2).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use openssl::bn::BigNumRef;
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::pkey_ctx::PkeyCtx;
use openssl::rsa::Padding;
use openssl::sign::RsaPssSaltlen;

use crate::card::{Card, CardError};
use crate::certificate::{Certificate, CertificateError, SanError};
use crate::crypto::{KeyRefused, PublicKey, RsaPadding, digest, md};
use crate::json::{self, Value};
use crate::profile::{Profile, payload};
use crate::spiffe::SpiffeId;
use crate::verify::{Algorithm, Family, MAX_CHAIN, is_own_signature};

/// A card that cannot be signed. Messages hold neither key nor card.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The private key cannot be read.
    #[error("the private key is not an unencrypted PKCS#8 key in PEM or DER")]
    Key,
    /// A certificate of the chain cannot be read.
    #[error("certificate {number} of the chain: {source}")]
    Certificate {
        /// Its place in the chain, from 0.
        number: usize,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// The chain is empty or longer than verifiers accept.
    #[error("the chain has {0} certificates, verifiers accept 1 to {MAX_CHAIN}")]
    Chain(usize),
    /// The leaf carries no single SPIFFE ID.
    #[error("the certificate has no single SPIFFE ID: {0}")]
    SpiffeId(String),
    /// The leaf belongs to another key.
    #[error("the certificate does not belong to the private key")]
    OtherKey,
    /// The key is of a kind or size that verifiers refuse.
    #[error("the key cannot sign cards: {0}")]
    KeyPolicy(String),
    /// The input is not a card.
    #[error("{0}")]
    Card(#[from] CardError),
    /// The input is a SignedAgentCard: its attestation covers the card as it is.
    #[error("the input is a SignedAgentCard envelope; pass the card inside it")]
    Enveloped,
    /// No profile was asked for.
    #[error("no signature profile was chosen")]
    NoProfile,
    /// The cryptographic library failed.
    #[error("the cryptographic library failed while signing")]
    Library(#[from] ErrorStack),
}

impl From<KeyRefused> for SignError {
    fn from(refused: KeyRefused) -> Self {
        Self::KeyPolicy(refused.to_string())
    }
}

impl From<SanError> for SignError {
    fn from(error: SanError) -> Self {
        Self::SpiffeId(error.to_string())
    }
}

/// A key and the certificates that vouch for it: an X.509-SVID. The key is wiped from memory when this is dropped.
pub struct Signer {
    key: PKey<Private>,
    algorithm: Algorithm,
    header: String,
    key_id: String,
    spiffe_id: SpiffeId,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// A signed card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The document: indented by two spaces, members in the order of the input, `signatures` replaced.
    pub document: Vec<u8>,
    /// The profiles signed, one signature each; profiles whose payload equals an earlier one are left out.
    pub profiles: Vec<Profile>,
}

impl Signed {
    /// True when `there` is this document, byte for byte but for the values of the signatures, and each of those is
    /// valid, too, for the certificate in its own header: signing the same card twice gives different values.
    pub fn is_held_by(&self, there: &[u8]) -> bool {
        let read = |document: &[u8]| Card::read_within(document, usize::MAX).ok();
        let (Some(ours), Some(theirs)) = (read(&self.document), read(there)) else { return false };
        let count = self.profiles.len();
        if ours.signatures().len() != count || theirs.signatures().len() != count {
            return false;
        }
        let value = |signature: &Value| Some(signature.get("signature")?.as_str()?.to_owned());
        let Some(values) = theirs.signatures().iter().map(value).collect::<Option<Vec<_>>>() else {
            return false;
        };
        let entries =
            ours.signatures().iter().zip(&values).map(|(own, value)| with_value(own, value)).collect();
        if json::pretty(&with_signatures(ours.value(), entries)) != there {
            return false;
        }
        self.profiles.iter().zip(ours.signatures().iter().zip(&values)).all(|(profile, (own, value))| {
            let protected = own.get("protected").and_then(Value::as_str);
            is_own_signature(protected, &payload(ours.value(), *profile), value)
        })
    }
}

/// An entry of `signatures` with another value.
fn with_value(entry: &Value, value: &str) -> Value {
    let mut members = entry.members().unwrap_or_default().to_vec();
    for (name, old) in &mut members {
        if name == "signature" {
            *old = Value::String(value.to_owned());
        }
    }
    Value::Object(members)
}

impl Signer {
    /// Takes a private key (PKCS#8, PEM or DER, not encrypted) and its chain of DER certificates, leaf first.
    pub fn new(key: &[u8], chain: &[&[u8]]) -> Result<Self, SignError> {
        // The callback answers for a passphrase, which would otherwise be asked for on the terminal.
        let key = PKey::private_key_from_pem_callback(key, |_| Ok(0))
            .or_else(|_| PKey::private_key_from_pkcs8(key))
            .map_err(|_| SignError::Key)?;
        if !(1..=MAX_CHAIN).contains(&chain.len()) {
            return Err(SignError::Chain(chain.len()));
        }
        let mut certificates = Vec::with_capacity(chain.len());
        for (number, der) in chain.iter().enumerate() {
            certificates
                .push(Certificate::read(der).map_err(|source| SignError::Certificate { number, source })?);
        }
        let leaf = certificates.first().ok_or(SignError::Chain(0))?;
        let spiffe_id = leaf.spiffe_id()?;
        let algorithm = Algorithm::for_key(&leaf.key).ok_or(KeyRefused)?;
        let certified = PublicKey::load(&leaf.key)?.into_pkey()?;
        if !key.public_eq(&certified) {
            return Err(SignError::OtherKey);
        }
        let key_id = leaf.key_id();
        let entries: Vec<String> = chain.iter().map(|der| format!("\"{}\"", STANDARD.encode(der))).collect();
        // Base64, hex and the algorithm's name need no escapes.
        let header = format!(
            r#"{{"alg":"{}","typ":"JOSE","kid":"{key_id}","x5c":[{}]}}"#,
            algorithm.name,
            entries.join(",")
        );
        Ok(Self {
            key,
            algorithm,
            header: URL_SAFE_NO_PAD.encode(header),
            key_id,
            spiffe_id,
            not_before: leaf.not_before(),
            not_after: leaf.not_after(),
        })
    }

    /// `kid` of the signatures: the first 8 bytes of SHA-256 of the leaf as 16 hex.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The identity that signs.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// Start of validity of the leaf.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// End of validity of the leaf.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Signs a card under each of `profiles`, in the order verifiers try them. The document keeps its members, their
    /// order and the text of its numbers; previous signatures are replaced.
    pub fn sign(&self, document: &[u8], profiles: &[Profile]) -> Result<Signed, SignError> {
        let card = Card::read(document)?;
        if card.envelope().is_some() {
            return Err(SignError::Enveloped);
        }
        let mut payloads: Vec<(Profile, Vec<u8>)> = Vec::new();
        for profile in Profile::ORDER.into_iter().filter(|profile| profiles.contains(profile)) {
            let bytes = payload(card.value(), profile);
            if payloads.iter().all(|(_, other)| *other != bytes) {
                payloads.push((profile, bytes));
            }
        }
        if payloads.is_empty() {
            return Err(SignError::NoProfile);
        }
        let mut entries = Vec::with_capacity(payloads.len());
        for (_, payload) in &payloads {
            let input = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(payload));
            let signature = URL_SAFE_NO_PAD.encode(self.raw(input.as_bytes())?);
            entries.push(Value::Object(vec![
                ("protected".to_owned(), Value::String(self.header.clone())),
                ("signature".to_owned(), Value::String(signature)),
            ]));
        }
        Ok(Signed {
            document: json::pretty(&with_signatures(card.value(), entries)),
            profiles: payloads.into_iter().map(|(profile, _)| profile).collect(),
        })
    }

    /// The signature over a JWS signing input, in the form JWS asks for.
    fn raw(&self, input: &[u8]) -> Result<Vec<u8>, SignError> {
        let hash = self.algorithm.hash;
        let digest = digest(hash, input);
        match self.algorithm.family {
            Family::Ecdsa(curve) => {
                let signature = EcdsaSig::sign(&digest, self.key.ec_key()?.as_ref())?;
                let padded = |number: &BigNumRef| {
                    number.to_vec_padded(i32::try_from(curve.coordinate_bytes()).unwrap_or_default())
                };
                Ok([padded(signature.r())?, padded(signature.s())?].concat())
            }
            Family::Rsa(padding) => {
                let mut context = PkeyCtx::new(&self.key)?;
                context.sign_init()?;
                context.set_rsa_padding(match padding {
                    RsaPadding::Pkcs1 => Padding::PKCS1,
                    RsaPadding::Pss => Padding::PKCS1_PSS,
                })?;
                context.set_signature_md(md(hash))?;
                if padding == RsaPadding::Pss {
                    context.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
                }
                let mut signature = Vec::new();
                context.sign_to_vec(&digest, &mut signature)?;
                Ok(signature)
            }
        }
    }
}

/// The card with `signatures` in the place where they were, else at the end.
fn with_signatures(card: &Value, entries: Vec<Value>) -> Value {
    let mut members = card.members().unwrap_or_default().to_vec();
    match members.iter_mut().find(|(name, _)| name == "signatures") {
        Some((_, old)) => *old = Value::Array(entries),
        None => members.push(("signatures".to_owned(), Value::Array(entries))),
    }
    Value::Object(members)
}
