//! The SPIFFE Workload API: a gRPC stream over a unix socket that pushes each new SVID (card §7).

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{Stream, StreamExt};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use spiffe::transport::Endpoint;
use spiffe::{WorkloadApiClient, X509Context};

use crate::svid::Svid;

/// How long a connected server may take for its first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

/// An address that is no socket of the Workload API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address:?} is no unix socket: write unix:///path/to/spire-agent.sock")]
pub struct EndpointError {
    /// The address, cut to 200 characters.
    pub address: String,
}

/// The sockets at which the Workload API may be found; tried in this order at each attempt.
#[derive(Clone, Debug)]
pub struct WorkloadApi {
    endpoints: Vec<Endpoint>,
}

impl WorkloadApi {
    /// Checks the addresses. Only unix sockets are taken: private keys travel over them.
    pub fn new<S: AsRef<str>>(addresses: impl IntoIterator<Item = S>) -> Result<Self, EndpointError> {
        let endpoints = addresses
            .into_iter()
            .map(|address| {
                let address = address.as_ref().trim();
                let uri =
                    if address.starts_with('/') { format!("unix://{address}") } else { address.to_owned() };
                match Endpoint::parse(&uri) {
                    Ok(endpoint @ Endpoint::Unix(_)) => Ok(endpoint),
                    _ => Err(EndpointError { address: address.chars().take(200).collect() }),
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { endpoints })
    }

    /// Opens the stream at the first socket that answers with an SVID: that SVID and those that follow.
    pub(crate) async fn open(
        &self,
    ) -> Result<(Svid, impl Stream<Item = Result<Svid, String>> + use<>), String> {
        let mut last = "no socket is configured".to_owned();
        for endpoint in &self.endpoints {
            match tokio::time::timeout(FIRST_ANSWER, open(endpoint.clone())).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = format!("{}: {error}", place(endpoint)),
                Err(_) => last = format!("{}: no answer in {} s", place(endpoint), FIRST_ANSWER.as_secs()),
            }
        }
        Err(last)
    }
}

async fn open(
    endpoint: Endpoint,
) -> Result<(Svid, impl Stream<Item = Result<Svid, String>> + use<>), String> {
    let client = WorkloadApiClient::connect(endpoint).await.map_err(|error| chain(&error))?;
    let mut stream = Box::pin(client.stream_x509_contexts().await.map_err(|error| chain(&error))?);
    let first = stream.next().await.ok_or("the stream ended without an SVID")?;
    let svid = svid_of(first)?;
    Ok((svid, stream.map(svid_of)))
}

fn svid_of(context: Result<X509Context, spiffe::WorkloadApiError>) -> Result<Svid, String> {
    let context = context.map_err(|error| chain(&error))?;
    let svid = context.default_svid().ok_or("the answer holds no SVID")?;
    let owned = |der: &[u8]| CertificateDer::from(der.to_vec());
    let certificates = svid.cert_chain().iter().map(|certificate| owned(certificate.as_bytes())).collect();
    let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes()).into();
    let bundles: BTreeMap<_, _> = context
        .bundle_set()
        .iter()
        .map(|(domain, bundle)| {
            let roots = bundle.authorities().iter().map(|root| owned(root.as_bytes())).collect();
            (domain.as_str().to_owned(), roots)
        })
        .collect();
    Svid::new(certificates, &key, bundles).map_err(|error| error.to_string())
}

/// An error with its causes; the library's texts name fields and statuses, never values.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

fn place(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Unix(path) => path.display().to_string(),
        _ => "endpoint".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_unix_sockets_only() {
        for good in ["unix:///run/spire/agent.sock", "unix:/run/a.sock", "/run/a.sock", " /run/a.sock "] {
            assert!(WorkloadApi::new([good]).is_ok(), "{good}");
        }
        for bad in ["", "tcp://127.0.0.1:8081", "unix://host/a.sock", "http://x", "a.sock"] {
            let error = WorkloadApi::new([bad]).expect_err(bad).to_string();
            assert!(error.contains("unix:///"), "{error}");
        }
    }
}
