//! Cards verified per second on one core, beside what OpenSSL alone does with the same keys in the same run.
//!
//! A card is signed by a leaf below an intermediate, so it costs three signature checks: its payload, the leaf, the
//! intermediate. Nothing is kept from one card to the next: document, certificates and keys are read each time.

use std::hint::black_box;
use std::time::{Duration, Instant};

use agent_trust::profile::{Profile, payload};
use agent_trust::sign::Signer;
use agent_trust::verify::{Policy, verify};
use agent_trust::{Card, TrustBundle, TrustDomain};
use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::{MessageDigest, hash};
use openssl::md::Md;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::pkey_ctx::PkeyCtx;
use openssl::rsa::{Padding, Rsa};
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};

use crate::report::{Report, Unit};

const DOMAIN: &str = "bench.example";
const CHECKS_PER_CARD: f64 = 3.0;
/// Ours against OpenSSL alone, per cent.
const MUST_ES256: f64 = 60.0;
const AIM_ES256: f64 = 75.0;
/// Turns of each side, alternating, so that a disturbance hits both.
const TURNS: u32 = 10;

/// Measures each algorithm for `seconds` per side.
pub fn run(seconds: u32) -> Result<bool> {
    let mut report = Report::new("Verifying cards on one core, chain of two certificates");
    for kind in [Kind::Es256, Kind::Rs256, Kind::Es512] {
        measure(kind, Duration::from_secs(seconds.into()), &mut report)
            .with_context(|| kind.name().to_owned())?;
    }
    Ok(report.print())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Es256,
    Rs256,
    Es512,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
            Self::Es512 => "ES512",
        }
    }

    fn key(self) -> Result<PKey<Private>> {
        let curve = match self {
            Self::Rs256 => return Ok(PKey::from_rsa(Rsa::generate(2048)?)?),
            Self::Es256 => Nid::X9_62_PRIME256V1,
            Self::Es512 => Nid::SECP521R1,
        };
        let group = EcGroup::from_curve_name(curve)?;
        Ok(PKey::from_ec_key(EcKey::generate(&group)?)?)
    }

    fn digest(self) -> MessageDigest {
        if self == Self::Es512 { MessageDigest::sha512() } else { MessageDigest::sha256() }
    }
}

/// A certificate and its key.
struct Issued {
    certificate: X509,
    key: PKey<Private>,
}

fn issue(kind: Kind, name: &str, path: Option<&str>, issuer: Option<&Issued>) -> Result<Issued> {
    let key = kind.key()?;
    let text = |name: &str| -> Result<_> {
        let mut builder = X509NameBuilder::new()?;
        builder.append_entry_by_text("CN", name)?;
        Ok(builder.build())
    };
    let mut builder = X509Builder::new()?;
    builder.set_version(2)?;
    let serial: Asn1Integer = BigNum::from_u32(1)?.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    builder.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
    builder.set_not_after(Asn1Time::days_from_now(1)?.as_ref())?;
    builder.set_pubkey(&key)?;
    let subject = text(name)?;
    builder.set_subject_name(&subject)?;
    builder.set_issuer_name(issuer.map_or(&*subject, |issuer| issuer.certificate.subject_name()))?;
    let uri = format!("spiffe://{DOMAIN}{}", path.unwrap_or_default());
    let names = SubjectAlternativeName::new().uri(&uri).build(&builder.x509v3_context(None, None))?;
    builder.append_extension(names)?;
    if path.is_some() {
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
    } else {
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().build()?)?;
    }
    builder.sign(issuer.map_or(&key, |issuer| &issuer.key), kind.digest())?;
    Ok(Issued { certificate: builder.build(), key })
}

/// A card as agents have them: five skills with texts.
fn card() -> String {
    let skills: Vec<String> = (0..5)
        .map(|n| {
            format!(
                r#"{{"id":"skill-{n}","name":"Skill {n}","description":"Answers questions of kind {n} & more.","tags":["a","b"],"examples":["What is {n}?"]}}"#
            )
        })
        .collect();
    format!(
        r#"{{"name":"Bench Agent","description":"An agent that is verified often","version":"1.0.0","url":"http://bench:8000/?a=1&b=2","capabilities":{{"streaming":true}},"defaultInputModes":["text/plain"],"defaultOutputModes":["text/plain"],"skills":[{}]}}"#,
        skills.join(",")
    )
}

struct Scene {
    document: Vec<u8>,
    leaf_der: Vec<u8>,
    bundle: TrustBundle,
    domain: TrustDomain,
    leaf_key: PKey<Private>,
}

impl Scene {
    fn new(kind: Kind) -> Result<Self> {
        let root = issue(kind, "root", None, None)?;
        let middle = issue(kind, "middle", None, Some(&root))?;
        let leaf = issue(kind, "leaf", Some("/ns/bench/sa/agent"), Some(&middle))?;
        let (leaf_der, middle_der, root_der) =
            (leaf.certificate.to_der()?, middle.certificate.to_der()?, root.certificate.to_der()?);
        let signer = Signer::new(&leaf.key.private_key_to_pkcs8()?, &[&leaf_der, &middle_der])?;
        let document = signer.sign(card().as_bytes(), &[Profile::Legacy])?.document;
        let domain = TrustDomain::configured(DOMAIN)?;
        let bundle = TrustBundle::of_domain(&domain, [root_der.as_slice()])?;
        Ok(Self { document, leaf_der, bundle, domain, leaf_key: leaf.key })
    }

    fn verify_once(&self) -> bool {
        let now = Timestamp::now();
        Card::read(black_box(&self.document))
            .is_ok_and(|card| verify(&card, &self.bundle, &Policy::default(), now).verified)
    }
}

/// OpenSSL alone: one digest, one signature, one loaded key.
struct Raw {
    context: PkeyCtx<openssl::pkey::Public>,
    digest: Vec<u8>,
    signature: Vec<u8>,
}

impl Raw {
    fn new(kind: Kind, key: &PKey<Private>) -> Result<Self> {
        let digest = hash(kind.digest(), b"message")?.to_vec();
        let md = if kind == Kind::Es512 { Md::sha512() } else { Md::sha256() };
        let mut signing = PkeyCtx::new(key)?;
        signing.sign_init()?;
        let public = PKey::public_key_from_der(&key.public_key_to_der()?)?;
        let mut context = PkeyCtx::new(&public)?;
        context.verify_init()?;
        if kind == Kind::Rs256 {
            signing.set_rsa_padding(Padding::PKCS1)?;
            context.set_rsa_padding(Padding::PKCS1)?;
        }
        signing.set_signature_md(md)?;
        context.set_signature_md(md)?;
        let mut signature = Vec::new();
        signing.sign_to_vec(&digest, &mut signature)?;
        Ok(Self { context, digest, signature })
    }

    fn verify_once(&mut self) -> bool {
        self.context.verify(black_box(&self.digest), &self.signature).unwrap_or(false)
    }
}

/// How often per second `work` succeeds, over `time`.
fn rate(time: Duration, mut work: impl FnMut() -> bool) -> Result<(u32, Duration)> {
    let (start, mut done) = (Instant::now(), 0);
    while start.elapsed() < time {
        ensure!(work(), "a check failed");
        done += 1;
    }
    Ok((done, start.elapsed()))
}

/// Microseconds per run of `work`.
fn cost(mut work: impl FnMut()) -> f64 {
    let (start, runs) = (Instant::now(), 2_000);
    for _ in 0..runs {
        work();
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(runs)
}

fn measure(kind: Kind, time: Duration, report: &mut Report) -> Result<()> {
    let scene = Scene::new(kind)?;
    let mut raw = Raw::new(kind, &scene.leaf_key)?;
    ensure!(scene.verify_once() && raw.verify_once(), "the card of the benchmark must verify");
    let (mut cards, mut checks) = ((0, Duration::ZERO), (0, Duration::ZERO));
    for _ in 0..TURNS {
        let ours = rate(time / TURNS, || scene.verify_once())?;
        cards = (cards.0 + ours.0, cards.1 + ours.1);
        let alone = rate(time / TURNS, || raw.verify_once())?;
        checks = (checks.0 + alone.0, checks.1 + alone.1);
    }
    let per_second = |(count, time): (u32, Duration)| f64::from(count) / time.as_secs_f64();
    let (cards, alone) = (per_second(cards), per_second(checks));
    let share = 100.0 * cards * CHECKS_PER_CARD / alone;
    let name = kind.name();
    report.note(&format!("{name}: cards verified"), format!("{cards:.0}/s"));
    report.note(&format!("{name}: signature checks, ours"), format!("{:.0}/s", cards * CHECKS_PER_CARD));
    report.note(&format!("{name}: signature checks, OpenSSL alone"), format!("{alone:.0}/s"));
    let figure = format!("{name}: ours of OpenSSL alone");
    if kind == Kind::Es256 {
        report.floor(&figure, share, &Unit::PER_CENT, MUST_ES256, AIM_ES256);
    } else {
        report.note(&figure, format!("{share:.0} %"));
    }
    report.note(&format!("{name}: where the time of a card goes"), spent(&scene, cards, alone)?);
    Ok(())
}

/// The parts of one card, in microseconds.
fn spent(scene: &Scene, cards: f64, alone: f64) -> Result<String> {
    let card = Card::read(&scene.document)?;
    let covered = payload(card.value(), Profile::Legacy);
    let whole = 1e6 / cards;
    let signatures = CHECKS_PER_CARD * 1e6 / alone;
    let read = cost(|| drop(black_box(Card::read(&scene.document))));
    let canonical = cost(|| drop(black_box(payload(card.value(), Profile::Legacy))));
    let back = cost(|| drop(black_box(Card::read(&covered))));
    // A bundle of one certificate: reading it is nearly all there is to it. The header has two.
    let certificates =
        2.0 * cost(|| drop(black_box(TrustBundle::of_domain(&scene.domain, [scene.leaf_der.as_slice()]))));
    let rest = whole - signatures - read - canonical - back - certificates;
    Ok(format!(
        "{whole:.0} us = OpenSSL {signatures:.0}, read card {read:.0}, read certificates {certificates:.0}, \
         payload {canonical:.0}, read it back {back:.0}, keys, base64 and hashes {rest:.0}"
    ))
}
