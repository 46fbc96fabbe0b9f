//! Whom the test believes at the webhook's address: whom the API server would.

use std::{path::Path, sync::Arc};

use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret};
use kube::{Api, Client};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};

use crate::settings::Settings;

/// The authority that the webhook configuration names. With Roles only the account may not read that: then it is the authority
/// of the own Secret or, where the certificate comes from a file, that certificate.
pub(super) async fn client_config(
    client: &Client,
    own: &Settings,
    namespace: &str,
) -> Result<ClientConfig, String> {
    let name = own.mutating_configuration();
    match Api::<MutatingWebhookConfiguration>::all(client.clone()).get(&name).await {
        Ok(configuration) => {
            let bundle =
                configuration.webhooks.iter().flatten().find_map(|w| w.client_config.ca_bundle.clone());
            let missing = || format!("{name} has no caBundle: the certificate writer has not published yet");
            issued_by(&bundle.ok_or_else(missing)?.0)
        }
        Err(kube::Error::Api(status)) if status.is_forbidden() && own.manages_certificate() => {
            let secret = &own.webhook_cert_secret;
            let found = Api::<Secret>::namespaced(client.clone(), namespace).get(secret).await;
            let found = found.map_err(|error| format!("cannot read Secret {namespace}/{secret}: {error}"))?;
            let authority = found.data.unwrap_or_default().remove("ca.crt");
            issued_by(&authority.ok_or_else(|| format!("Secret {namespace}/{secret} has no ca.crt yet"))?.0)
        }
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            let path = Path::new(&own.webhook_cert_path).join(&own.webhook_cert_name);
            let text = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let leaf = CertificateDer::from_pem_slice(&text);
            holder_of(leaf.map_err(|error| format!("{}: {error}", path.display()))?)
        }
        Err(error) => Err(format!("cannot read {name}: {error}")),
    }
}

fn issued_by(bundle: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle) {
        let certificate = certificate.map_err(|error| format!("the authority: {error}"))?;
        roots.add(certificate).map_err(|error| format!("the authority: {error}"))?;
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

fn holder_of(certificate: CertificateDer<'static>) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let holder = Arc::new(Holder { certificate, provider });
    Ok(builder.dangerous().with_custom_certificate_verifier(holder).with_no_client_auth())
}

/// Believes who holds the key of one certificate, whoever issued it, under a name that is in it.
#[derive(Debug)]
struct Holder {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Holder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity != self.certificate {
            return Err(Error::General("it serves another certificate than its file holds".to_owned()));
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The certificate in the file, under a name of its own; another one of the same name is refused.
    #[test]
    fn only_the_holder_of_the_certificate_is_believed() {
        let made = |name: &str| {
            let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            pair.cert.der().clone()
        };
        let (own, other) = (made("hook.team1.svc"), made("hook.team1.svc"));
        let holder = Holder { certificate: own.clone(), provider: Arc::new(ring::default_provider()) };
        let check = |certificate: &CertificateDer<'_>, name: &'static str| {
            let name = ServerName::try_from(name).unwrap();
            holder.verify_server_cert(certificate, &[], &name, &[], UnixTime::now()).is_ok()
        };
        assert!(check(&own, "hook.team1.svc"));
        assert!(!check(&own, "hook.team2.svc"));
        assert!(!check(&other, "hook.team1.svc"));
    }
}
