//! What the environment asks for (card §16.1).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use agent_trust::Profile;
use api_types::go_duration;
use http::Uri;
use spiffe_svid::{EndpointError, SvidFiles, SvidSource, WorkloadApi};

/// Where the Workload API is when nobody says: the old default and the one of SPIRE's CSI driver.
const SOCKETS: [&str; 2] =
    ["unix:///run/spire/sockets/agent.sock", "unix:///run/spire/agent-sockets/spire-agent.sock"];
/// How often the input is looked at in mode `watch` (card §16.3).
const POLL: Duration = Duration::from_secs(10);

/// A value that cannot be used. Every one ends the process with 1 (card §16.1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No Go duration, or none above zero.
    #[error("SIGN_TIMEOUT {0:?} is no duration above zero: write for example 30s or 1m")]
    Timeout(String),
    /// A socket that is none.
    #[error("SPIFFE_ENDPOINT_SOCKET: {0}")]
    Socket(EndpointError),
    /// One of the two files of an SVID is missing.
    #[error("SVID_CERT_PATH and SVID_KEY_PATH must be set together")]
    HalfAnSvid,
    /// A word that names no profile, or none at all.
    #[error("CARD_SIGNATURE_PROFILES {0:?}: write a comma-separated list of legacy, a2a, a2a-strict and jcs")]
    Profiles(String),
    /// A word that names no mode.
    #[error("SIGNER_MODE {0:?} is neither once nor watch")]
    Mode(String),
    /// The card may only be taken from this Pod.
    #[error("UNSIGNED_CARD_URL must be http://127.0.0.1:<port>/<path>: only this Pod's own agent is asked")]
    Url,
    /// An agent starts after its init containers.
    #[error(
        "UNSIGNED_CARD_URL needs SIGNER_MODE=watch: the agent does not run yet when an init container does"
    )]
    UrlOnce,
}

/// Sign and end, or stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Init container.
    Once,
    /// Native sidecar.
    Watch,
}

/// A resource of this Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoopbackUrl {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
}

/// Where the signed card goes besides the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Publish {
    /// Into the ConfigMap `<agent>-card-signed`.
    To { namespace: String, agent: String },
    /// Nowhere; names the variable that is missing if the other one is set.
    Nowhere { missing: Option<&'static str> },
}

/// The settings of one run.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) origin: Origin,
    pub(crate) unsigned: PathBuf,
    pub(crate) url: Option<LoopbackUrl>,
    pub(crate) signed: PathBuf,
    pub(crate) timeout: Duration,
    pub(crate) publish: Publish,
    pub(crate) profiles: Vec<Profile>,
    pub(crate) mode: Mode,
    pub(crate) poll: Duration,
}

/// Where the SVID comes from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    WorkloadApi(WorkloadApi),
    Files(SvidFiles),
}

impl Origin {
    pub(crate) fn source(&self) -> SvidSource {
        match self {
            Self::WorkloadApi(api) => SvidSource::workload_api(api.clone()),
            Self::Files(files) => SvidSource::files(files.clone()),
        }
    }
}

impl Settings {
    /// Reads the variables; an empty one counts as unset.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str, default: &str| PathBuf::from(variable(name).unwrap_or(default.to_owned()));
        let origin = match (variable("SVID_CERT_PATH"), variable("SVID_KEY_PATH")) {
            (Some(cert), Some(key)) => Origin::Files(SvidFiles::new(cert, key, None)),
            (None, None) => {
                let socket = variable("SPIFFE_ENDPOINT_SOCKET");
                let sockets =
                    socket.map_or_else(|| SOCKETS.map(str::to_owned).to_vec(), |socket| vec![socket]);
                Origin::WorkloadApi(WorkloadApi::new(sockets).map_err(SettingsError::Socket)?)
            }
            _ => return Err(SettingsError::HalfAnSvid),
        };
        let mode = match variable("SIGNER_MODE").as_deref() {
            None | Some("once") => Mode::Once,
            Some("watch") => Mode::Watch,
            Some(other) => return Err(SettingsError::Mode(shown(other))),
        };
        let url = variable("UNSIGNED_CARD_URL").map(|url| loopback(&url)).transpose()?;
        if url.is_some() && mode == Mode::Once {
            return Err(SettingsError::UrlOnce);
        }
        let publish = match (variable("AGENT_NAME"), variable("POD_NAMESPACE")) {
            (Some(agent), Some(namespace)) => Publish::To { namespace, agent },
            (Some(_), None) => Publish::Nowhere { missing: Some("POD_NAMESPACE") },
            (None, Some(_)) => Publish::Nowhere { missing: Some("AGENT_NAME") },
            (None, None) => Publish::Nowhere { missing: None },
        };
        Ok(Self {
            origin,
            unsigned: path("UNSIGNED_CARD_PATH", "/etc/agentcard/agent.json"),
            url,
            signed: path("AGENT_CARD_PATH", "/app/.well-known/agent-card.json"),
            timeout: timeout(&variable("SIGN_TIMEOUT").unwrap_or("30s".to_owned()))?,
            publish,
            profiles: profiles(&variable("CARD_SIGNATURE_PROFILES").unwrap_or("legacy,a2a".to_owned()))?,
            mode,
            poll: POLL,
        })
    }
}

impl Settings {
    /// Looks at files and at the agent every `poll` instead of every 10 s (mode `watch`).
    #[must_use]
    pub fn with_poll(mut self, poll: Duration) -> Self {
        self.poll = poll;
        if let Origin::Files(files) = self.origin {
            self.origin = Origin::Files(files.with_poll(poll));
        }
        self
    }
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

fn timeout(text: &str) -> Result<Duration, SettingsError> {
    go_duration::parse(text)
        .ok()
        .and_then(|nanos| u64::try_from(nanos).ok())
        .filter(|nanos| *nanos > 0)
        .map(Duration::from_nanos)
        .ok_or_else(|| SettingsError::Timeout(shown(text)))
}

fn profiles(text: &str) -> Result<Vec<Profile>, SettingsError> {
    let named: Result<Vec<Profile>, _> =
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::parse).collect();
    named.ok().filter(|named| !named.is_empty()).ok_or_else(|| SettingsError::Profiles(shown(text)))
}

fn loopback(text: &str) -> Result<LoopbackUrl, SettingsError> {
    let uri: Uri = text.parse().map_err(|_| SettingsError::Url)?;
    let authority = uri.authority().ok_or(SettingsError::Url)?;
    if uri.scheme_str() != Some("http") || authority.as_str().contains('@') {
        return Err(SettingsError::Url);
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let ip = match host {
        "localhost" => std::net::Ipv4Addr::LOCALHOST.into(),
        host => host.parse::<std::net::IpAddr>().map_err(|_| SettingsError::Url)?,
    };
    if !ip.is_loopback() {
        return Err(SettingsError::Url);
    }
    let port = authority.port_u16().unwrap_or(80);
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    Ok(LoopbackUrl { address: SocketAddr::new(ip, port), path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn defaults() {
        let settings = read(&[]).expect("settings");
        assert_eq!(settings.unsigned, PathBuf::from("/etc/agentcard/agent.json"));
        assert_eq!(settings.signed, PathBuf::from("/app/.well-known/agent-card.json"));
        assert_eq!(settings.timeout, Duration::from_secs(30));
        assert_eq!(settings.profiles, [Profile::Legacy, Profile::A2a]);
        assert_eq!((settings.mode, settings.url), (Mode::Once, None));
        assert_eq!(settings.publish, Publish::Nowhere { missing: None });
        assert!(matches!(settings.origin, Origin::WorkloadApi(_)));
    }

    #[test]
    fn everything_set() {
        let settings = read(&[
            ("SVID_CERT_PATH", "/c"),
            ("SVID_KEY_PATH", "/k"),
            ("SIGN_TIMEOUT", "1m30s"),
            ("CARD_SIGNATURE_PROFILES", "jcs, a2a-strict"),
            ("SIGNER_MODE", "watch"),
            ("UNSIGNED_CARD_URL", "http://127.0.0.1:8000/.well-known/agent-card.json"),
            ("AGENT_NAME", "weather"),
            ("POD_NAMESPACE", "team1"),
        ])
        .expect("settings");
        assert!(matches!(settings.origin, Origin::Files(_)));
        assert_eq!(settings.timeout, Duration::from_secs(90));
        assert_eq!(settings.profiles, [Profile::Jcs, Profile::A2aStrict]);
        assert_eq!(
            settings.publish,
            Publish::To { namespace: "team1".to_owned(), agent: "weather".to_owned() }
        );
        let url = settings.url.expect("a URL");
        assert_eq!(url.address.to_string(), "127.0.0.1:8000");
        assert_eq!(url.path, "/.well-known/agent-card.json");
    }

    #[test]
    fn empty_variables_count_as_unset() {
        let settings = read(&[("SVID_CERT_PATH", ""), ("SIGN_TIMEOUT", ""), ("AGENT_NAME", "")]);
        assert_eq!(settings.expect("settings").publish, Publish::Nowhere { missing: None });
    }

    #[rstest]
    #[case(&[("SIGN_TIMEOUT", "30")], "SIGN_TIMEOUT")]
    #[case(&[("SIGN_TIMEOUT", "-1s")], "SIGN_TIMEOUT")]
    #[case(&[("SIGN_TIMEOUT", "0")], "SIGN_TIMEOUT")]
    #[case(&[("SPIFFE_ENDPOINT_SOCKET", "tcp://10.0.0.1:1")], "SPIFFE_ENDPOINT_SOCKET")]
    #[case(&[("SVID_CERT_PATH", "/c")], "SVID_KEY_PATH")]
    #[case(&[("CARD_SIGNATURE_PROFILES", "legacy,new")], "CARD_SIGNATURE_PROFILES")]
    #[case(&[("CARD_SIGNATURE_PROFILES", ",")], "CARD_SIGNATURE_PROFILES")]
    #[case(&[("SIGNER_MODE", "twice")], "SIGNER_MODE")]
    #[case(&[("UNSIGNED_CARD_URL", "http://127.0.0.1:1/")], "SIGNER_MODE=watch")]
    fn refused(#[case] variables: &[(&str, &str)], #[case] named: &str) {
        let error = read(variables).expect_err("refused").to_string();
        assert!(error.contains(named), "{error}");
    }

    #[rstest]
    #[case("http://127.0.0.1:8000/card", true)]
    #[case("http://[::1]:8000/card", true)]
    #[case("http://localhost:8000/card", true)]
    #[case("http://10.0.0.1:8000/card", false)]
    #[case("http://example.com/card", false)]
    #[case("http://127.0.0.1.example.com/card", false)]
    #[case("https://127.0.0.1:8000/card", false)]
    #[case("http://user@127.0.0.1:8000/card", false)]
    #[case("http://127.0.0.1@example.com/card", false)]
    #[case("file:///etc/passwd", false)]
    fn urls_of_this_pod_only(#[case] url: &str, #[case] fine: bool) {
        assert_eq!(loopback(url).is_ok(), fine);
    }
}
