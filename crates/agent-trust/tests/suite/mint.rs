//! Certificates and signed cards made on the spot, good ones and bad ones.

use agent_trust::TrustBundle;
use agent_trust::spiffe::TrustDomain;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::{MessageDigest, hash};
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, PKey, PKeyRef, Private};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer};
use openssl::x509::{X509, X509Builder, X509Extension, X509Name, X509NameBuilder};
use serde_json::{Value, json};

/// 2026-06-01T00:00:00Z, the "now" of the tests.
pub(crate) const NOW: i64 = 1_780_272_000;
pub(crate) const HOUR: i64 = 3600;
pub(crate) const DOMAIN: &str = "dev.example";
pub(crate) const ID: &str = "spiffe://dev.example/ns/demo/sa/echo";

pub(crate) fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).expect("curve");
    PKey::from_ec_key(EcKey::generate(&group).expect("key")).expect("key")
}

pub(crate) fn p256() -> PKey<Private> {
    ec(Nid::X9_62_PRIME256V1)
}

pub(crate) fn rsa(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).expect("key")).expect("key")
}

/// A certificate and its key.
pub(crate) struct Issued {
    pub(crate) certificate: X509,
    pub(crate) key: PKey<Private>,
}

impl Issued {
    pub(crate) fn der(&self) -> Vec<u8> {
        self.certificate.to_der().expect("DER")
    }
}

/// What a certificate shall say. Starts as a good one.
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) name: String,
    pub(crate) uris: Vec<Vec<u8>>,
    pub(crate) ca: Option<bool>,
    pub(crate) path_length: Option<u8>,
    /// The first byte of keyUsage: 0x80 digitalSignature, 0x04 keyCertSign, 0x02 cRLSign.
    pub(crate) key_usage: Option<u8>,
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// Object identifier, critical, value.
    pub(crate) extensions: Vec<(&'static str, bool, Vec<u8>)>,
    pub(crate) hash: MessageDigest,
}

/// A leaf with the usual ID, valid from an hour ago for two hours.
pub(crate) fn leaf() -> Wish {
    Wish {
        name: "leaf".to_owned(),
        uris: vec![ID.as_bytes().to_vec()],
        ca: Some(false),
        path_length: None,
        key_usage: Some(0x80),
        from: NOW - HOUR,
        to: NOW + HOUR,
        extensions: Vec::new(),
        hash: MessageDigest::sha256(),
    }
}

/// An authority, valid for a year around now.
pub(crate) fn authority(name: &str) -> Wish {
    Wish {
        name: name.to_owned(),
        uris: vec![format!("spiffe://{DOMAIN}").into_bytes()],
        ca: Some(true),
        key_usage: Some(0x06),
        from: NOW - 180 * 24 * HOUR,
        to: NOW + 180 * 24 * HOUR,
        ..leaf()
    }
}

/// A DER element with a length below 128, or up to 65535.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = match length {
        0..=0x7f => vec![tag, length as u8],
        0x80..=0xff => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    out.extend_from_slice(content);
    out
}

/// nameConstraints that permit one URI host.
pub(crate) fn permit_uri(host: &str) -> Vec<u8> {
    tlv(0x30, &tlv(0xa0, &tlv(0x30, &tlv(0x86, host.as_bytes()))))
}

fn name(text: &str) -> X509Name {
    let mut builder = X509NameBuilder::new().expect("name");
    builder.append_entry_by_text("CN", text).expect("name");
    builder.build()
}

#[allow(deprecated)] // the only way to write an extension as bytes
fn extension(id: &str, critical: bool, value: &[u8]) -> X509Extension {
    let id = Asn1Object::from_str(id).expect("identifier");
    let value = Asn1OctetString::new_from_bytes(value).expect("value");
    X509Extension::new_from_der(&id, critical, &value).expect("extension")
}

impl Wish {
    /// A self-signed authority.
    pub(crate) fn root(&self, key: PKey<Private>) -> Issued {
        let certificate = self.build(&key, &self.name, &key);
        Issued { certificate, key }
    }

    /// Issued by `issuer`.
    pub(crate) fn by(&self, issuer: &Issued, key: PKey<Private>) -> Issued {
        let certificate = self.for_key(issuer, &key);
        Issued { certificate, key }
    }

    /// Issued by `issuer` for any key, also one that could not sign.
    pub(crate) fn for_key<T: HasPublic>(&self, issuer: &Issued, key: &PKeyRef<T>) -> X509 {
        let subject = issuer.certificate.subject_name().entries().next().expect("a name");
        let issuer_name = subject.data().to_string().expect("text");
        self.build(key, &issuer_name, &issuer.key)
    }

    fn build<T: HasPublic>(&self, key: &PKeyRef<T>, issuer: &str, issuer_key: &PKeyRef<Private>) -> X509 {
        let mut builder = X509Builder::new().expect("builder");
        builder.set_version(2).expect("version");
        let serial = BigNum::from_u32(7).expect("number").to_asn1_integer().expect("number");
        builder.set_serial_number(&serial).expect("serial");
        builder.set_subject_name(&name(&self.name)).expect("subject");
        builder.set_issuer_name(&name(issuer)).expect("issuer");
        builder.set_not_before(&Asn1Time::from_unix(self.from).expect("time")).expect("start");
        builder.set_not_after(&Asn1Time::from_unix(self.to).expect("time")).expect("end");
        builder.set_pubkey(key).expect("key");
        if let Some(ca) = self.ca {
            let mut content = if ca { vec![1, 1, 0xff] } else { Vec::new() };
            content.extend(self.path_length.map(|length| vec![2, 1, length]).unwrap_or_default());
            builder
                .append_extension(extension("2.5.29.19", true, &tlv(0x30, &content)))
                .expect("constraints");
        }
        if let Some(bits) = self.key_usage {
            builder.append_extension(extension("2.5.29.15", true, &[3, 2, 0, bits])).expect("usage");
        }
        if !self.uris.is_empty() {
            let names: Vec<u8> = self.uris.iter().flat_map(|uri| tlv(0x86, uri)).collect();
            builder.append_extension(extension("2.5.29.17", false, &tlv(0x30, &names))).expect("names");
        }
        for (id, critical, value) in &self.extensions {
            builder.append_extension(extension(id, *critical, value)).expect("extension");
        }
        builder.sign(issuer_key, self.hash).expect("signature");
        builder.build()
    }
}

/// A bundle of the usual domain.
pub(crate) fn bundle_of(roots: &[&Issued]) -> TrustBundle {
    let ders: Vec<Vec<u8>> = roots.iter().map(|root| root.der()).collect();
    let domain = TrustDomain::configured(DOMAIN).expect("domain");
    TrustBundle::of_domain(&domain, ders.iter().map(Vec::as_slice)).expect("bundle")
}

/// A protected header.
pub(crate) fn header(alg: &str, chain: &[Vec<u8>]) -> Value {
    let x5c: Vec<String> = chain.iter().map(|der| STANDARD.encode(der)).collect();
    json!({"alg": alg, "typ": "JOSE", "kid": "test", "x5c": x5c})
}

/// The raw signature that `alg` asks for, made with whatever key is given.
pub(crate) fn raw_signature(alg: &str, key: &PKeyRef<Private>, input: &[u8]) -> Vec<u8> {
    let digest = match alg.get(2..) {
        Some("384") => MessageDigest::sha384(),
        Some("512") => MessageDigest::sha512(),
        _ => MessageDigest::sha256(),
    };
    if let Ok(ec) = key.ec_key() {
        let size = i32::try_from(ec.group().degree().div_ceil(8)).expect("small");
        let signature = EcdsaSig::sign(&hash(digest, input).expect("hash"), &ec).expect("signature");
        let part = |number: &openssl::bn::BigNumRef| number.to_vec_padded(size).expect("padded");
        return [part(signature.r()), part(signature.s())].concat();
    }
    let mut signer = Signer::new(digest, key).expect("signer");
    if alg.starts_with("PS") {
        signer.set_rsa_padding(Padding::PKCS1_PSS).expect("padding");
        signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).expect("salt");
    }
    signer.sign_oneshot_to_vec(input).expect("signature")
}

/// The entry of `signatures` over exact payload bytes.
pub(crate) fn jws(header: &Value, alg: &str, key: &PKeyRef<Private>, payload: &[u8]) -> Value {
    let protected = URL_SAFE_NO_PAD.encode(header.to_string());
    let input = format!("{protected}.{}", URL_SAFE_NO_PAD.encode(payload));
    let signature = URL_SAFE_NO_PAD.encode(raw_signature(alg, key, input.as_bytes()));
    json!({"protected": protected, "signature": signature})
}
