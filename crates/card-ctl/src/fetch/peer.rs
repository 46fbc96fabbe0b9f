//! Who a TLS server is: a workload of one trust domain, or nobody (card §7).

use std::sync::{Arc, OnceLock};

use agent_trust::spiffe::{SpiffeId, TrustDomain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, anchor_from_trusted_cert};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::error::PeerProblem;

/// Longest chain that is looked at, leaf included.
const MAX_CHAIN: usize = 4;

/// Checks one handshake and remembers whom it accepted, so that the identity reported is the one verified.
/// One verifier serves one connection.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    roots: Vec<TrustAnchor<'static>>,
    trust_domain: TrustDomain,
    algorithms: WebPkiSupportedAlgorithms,
    accepted: OnceLock<SpiffeId>,
}

impl PeerVerifier {
    /// Believes `roots` (DER) for workloads of `trust_domain`. Roots that cannot be parsed are left out; `None`
    /// when none is left.
    pub(super) fn new(
        roots: &[CertificateDer<'static>],
        trust_domain: TrustDomain,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Option<Self> {
        let roots: Vec<_> = roots
            .iter()
            .filter_map(|root| anchor_from_trusted_cert(root).ok().map(|anchor| anchor.to_owned()))
            .collect();
        (!roots.is_empty()).then(|| Self { roots, trust_domain, algorithms, accepted: OnceLock::new() })
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
        if intermediates.len() >= MAX_CHAIN {
            return Err(PeerProblem::Chain);
        }
        let certificate = EndEntityCert::try_from(leaf).map_err(|_| PeerProblem::Malformed)?;
        certificate
            .verify_for_usage(self.algorithms.all, &self.roots, intermediates, now, AnyUsage, None, None)
            .map_err(|error| problem(&error))?;
        let id = spiffe_id(leaf)?;
        // The roots are those of this trust domain only, so a member of another one cannot even chain to them
        // unless its CA is ours: then it is an impostor.
        if *id.trust_domain() != self.trust_domain {
            return Err(PeerProblem::TrustDomain);
        }
        Ok(id)
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

fn problem(error: &webpki::Error) -> PeerProblem {
    match error {
        webpki::Error::CertExpired { .. } => PeerProblem::Expired,
        webpki::Error::CertNotValidYet { .. } => PeerProblem::NotYetValid,
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            PeerProblem::Malformed
        }
        _ => PeerProblem::Chain,
    }
}

/// The one URI name of a leaf, which must be a SPIFFE ID with a path.
fn spiffe_id(leaf: &CertificateDer<'_>) -> Result<SpiffeId, PeerProblem> {
    let (rest, leaf) = X509Certificate::from_der(leaf).map_err(|_| PeerProblem::Malformed)?;
    if !rest.is_empty() {
        return Err(PeerProblem::Malformed);
    }
    let names = leaf.subject_alternative_name().map_err(|_| PeerProblem::Malformed)?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => SpiffeId::parse(uri).map_err(|_| PeerProblem::SpiffeId),
        _ => Err(PeerProblem::SpiffeId),
    }
}

/// SVIDs are used on both ends of connections, and issuers differ in what they put into the extension.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}
