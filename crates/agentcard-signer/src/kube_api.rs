//! The three requests that the signer sends to the API server, with the Pod's service account.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::http1::{self, HttpError};

/// Where Kubernetes mounts the service account into every container.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Largest answer that is read: a ConfigMap holds at most 1 MiB, escaped in JSON.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// Why the API server could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The environment of a Pod is missing.
    #[error("{0} is not set: not in a Pod")]
    NotInAPod(&'static str),
    /// A file of the service account cannot be used.
    #[error("{path}: {reason}; mount the service account (automountServiceAccountToken)")]
    ServiceAccount {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The connection failed.
    #[error("API server: {0}")]
    Http(HttpError),
    /// An answer that is no JSON.
    #[error("the API server's answer is no JSON")]
    NotJson,
}

/// The API server as seen from a Pod.
pub struct KubeApi {
    address: (String, u16),
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    token: PathBuf,
}

impl KubeApi {
    /// The API server of the cluster that the process runs in.
    pub fn in_pod(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ApiError> {
        const HOST: &str = "KUBERNETES_SERVICE_HOST";
        const PORT: &str = "KUBERNETES_SERVICE_PORT";
        let host = variable(HOST).ok_or(ApiError::NotInAPod(HOST))?;
        let port = variable(PORT).and_then(|port| port.parse().ok()).ok_or(ApiError::NotInAPod(PORT))?;
        Self::new(&host, port, Path::new(SERVICE_ACCOUNT))
    }

    /// The API server at `host`, with `ca.crt` and `token` of the directory `service_account`.
    pub fn new(host: &str, port: u16, service_account: &Path) -> Result<Self, ApiError> {
        let path = service_account.join("ca.crt");
        let bad = |reason: &str| ApiError::ServiceAccount {
            path: path.display().to_string(),
            reason: reason.to_owned(),
        };
        let pem = std::fs::read(&path).map_err(|error| bad(&error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|_| bad("holds no certificates in PEM"))?;
            roots.add(certificate).map_err(|_| bad("holds a certificate that cannot be read"))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| ApiError::Http(HttpError::Tls))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(host.to_owned()).map_err(|_| ApiError::Http(HttpError::Tls))?;
        Ok(Self {
            address: (host.to_owned(), port),
            name,
            tls: Arc::new(tls),
            token: service_account.join("token"),
        })
    }

    /// One request. Any status is an answer.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, &Value)>,
    ) -> Result<(StatusCode, Value), ApiError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.host())
            .header(AUTHORIZATION, self.bearer()?)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("agentcard-signer/", env!("CARGO_PKG_VERSION")));
        let content = match body {
            Some((kind, value)) => {
                request = request.header(CONTENT_TYPE, kind);
                Bytes::from(value.to_string())
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(content)).map_err(|_| ApiError::Http(HttpError::Broken))?;
        let (host, port) = &self.address;
        let connect = TcpStream::connect((host.as_str(), *port));
        let stream = connect.await.map_err(|_| ApiError::Http(HttpError::Connect))?;
        let stream = tokio_rustls::TlsConnector::from(self.tls.clone())
            .connect(self.name.clone(), stream)
            .await
            .map_err(|_| ApiError::Http(HttpError::Tls))?;
        let (status, answer) = http1::exchange(stream, request, MAX_ANSWER).await.map_err(ApiError::Http)?;
        // Errors of proxies need not be JSON; their status says enough.
        let answer = match serde_json::from_slice(&answer) {
            Ok(answer) => answer,
            Err(_) if !status.is_success() => Value::Null,
            Err(_) => return Err(ApiError::NotJson),
        };
        Ok((status, answer))
    }

    fn host(&self) -> String {
        let (host, port) = &self.address;
        match host.parse() {
            Ok(ip) => SocketAddr::new(ip, *port).to_string(),
            Err(_) => format!("{host}:{port}"),
        }
    }

    /// The token is read for each request: the kubelet renews it.
    fn bearer(&self) -> Result<HeaderValue, ApiError> {
        let bad =
            |reason: String| ApiError::ServiceAccount { path: self.token.display().to_string(), reason };
        let token = std::fs::read_to_string(&self.token).map_err(|error| bad(error.to_string()))?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
            .map_err(|_| bad("holds no token".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}
