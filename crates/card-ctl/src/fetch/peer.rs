//! Who a TLS server is: a workload of one trust domain, or nobody (card §7).

use std::sync::{Arc, OnceLock};

use agent_trust::TrustBundle;
use agent_trust::peer::{PeerError, identify};
use agent_trust::spiffe::{SpiffeId, TrustDomain};
use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};

use super::error::PeerProblem;

/// Checks one handshake and remembers whom it accepted, so that the identity reported is the one verified.
/// One verifier serves one connection.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    bundle: TrustBundle,
    trust_domain: TrustDomain,
    algorithms: WebPkiSupportedAlgorithms,
    accepted: OnceLock<SpiffeId>,
}

impl PeerVerifier {
    /// Believes `roots` (DER) for workloads of `trust_domain`; `None` when there are none, or unreadable ones.
    pub(super) fn new(
        roots: &[CertificateDer<'static>],
        trust_domain: TrustDomain,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Option<Self> {
        let bundle = TrustBundle::of_domain(&trust_domain, roots.iter().map(AsRef::as_ref)).ok()?;
        Some(Self { bundle, trust_domain, algorithms, accepted: OnceLock::new() })
    }

    /// Whom the handshake accepted.
    pub(super) fn accepted(&self) -> Option<&SpiffeId> {
        self.accepted.get()
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SpiffeId, PeerProblem> {
        let now = i64::try_from(now.as_secs())
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .ok_or(PeerProblem::Expired)?;
        let chain: Vec<&[u8]> = std::iter::once(leaf).chain(intermediates).map(AsRef::as_ref).collect();
        identify(&chain, &self.bundle, &self.trust_domain, now).map_err(|error| problem(&error, now))
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let id = self.check(end_entity, intermediates, now).map_err(|problem| {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(problem))))
        })?;
        self.accepted
            .set(id)
            .map_err(|_| rustls::Error::General("a second handshake on one connection".to_owned()))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The verdict on the peer in a TLS error, if it is one.
pub(super) fn verdict(error: &rustls::Error) -> Option<PeerProblem> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            Some(other.0.downcast_ref::<PeerProblem>().copied().unwrap_or(PeerProblem::Malformed))
        }
        // Our own check names its reasons; what else rustls finds is about the handshake's signature.
        rustls::Error::InvalidCertificate(_)
        | rustls::Error::PeerMisbehaved(rustls::PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme) => {
            Some(PeerProblem::Proof)
        }
        rustls::Error::NoCertificatesPresented => Some(PeerProblem::NoCertificate),
        _ => None,
    }
}

fn problem(error: &PeerError, now: Timestamp) -> PeerProblem {
    match error {
        PeerError::Malformed { .. } => PeerProblem::Malformed,
        PeerError::NotValidNow { not_before, .. } if now < *not_before => PeerProblem::NotYetValid,
        PeerError::NotValidNow { .. } => PeerProblem::Expired,
        PeerError::NotALeaf => PeerProblem::NotALeaf,
        PeerError::NoSpiffeId(_) => PeerProblem::SpiffeId,
        PeerError::ForeignDomain { .. } => PeerProblem::TrustDomain,
        PeerError::ChainTooLong | PeerError::Chain(_) => PeerProblem::Chain,
    }
}
