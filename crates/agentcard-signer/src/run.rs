//! Signing once, and signing for as long as the Pod lives.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agent_trust::sign::{SignError, Signed, Signer};
use spiffe_svid::{Svid, SvidSource};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config_map::{Published, publish};
use crate::input::{self, InputError, Unsigned};
use crate::key;
use crate::kube_api::{ApiError, KubeApi};
use crate::output;
use crate::settings::{Mode, Publish, Settings};

/// The API server gets this long per attempt at most.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(10);
/// How often the agent is asked for its first card.
const EAGER_POLL: Duration = Duration::from_secs(1);
/// Longest pause between two attempts at the ConfigMap in mode `watch`.
const PUBLISH_PAUSE_MAX: Duration = Duration::from_secs(300);

/// Why nothing was signed. No variant holds key, card or certificate.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no SVID within {0:?}: is the Pod registered, and the socket (or the files) mounted?")]
    NoSvid(Duration),
    #[error("not done within SIGN_TIMEOUT ({0:?})")]
    Timeout(Duration),
    #[error(transparent)]
    Input(#[from] InputError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error("cannot write {path}: {reason}")]
    Output { path: String, reason: String },
}

/// Does what the settings ask for until it is done, or until SIGTERM. `api` is only called when the ConfigMap is to be
/// written.
pub async fn run(settings: &Settings, api: impl Fn() -> Result<KubeApi, ApiError>) -> ExitCode {
    let source = settings.origin.source();
    let stop = CancellationToken::new();
    let signer = Run { settings, source: &source, api };
    let work = async {
        match settings.mode {
            Mode::Once => signer.once().await,
            Mode::Watch => signer.watch().await,
        }
    };
    tokio::select! {
        code = work => code,
        () = source.run(stop.clone()) => ExitCode::FAILURE,
        () = terminated() => match settings.mode {
            // A sidecar that is told to end has done its work; an init container has not.
            Mode::Watch => ExitCode::SUCCESS,
            Mode::Once => ExitCode::FAILURE,
        },
    }
}

async fn terminated() {
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}

struct Run<'a, A> {
    settings: &'a Settings,
    source: &'a SvidSource,
    api: A,
}

impl<A: Fn() -> Result<KubeApi, ApiError>> Run<'_, A> {
    async fn once(&self) -> ExitCode {
        let deadline = Instant::now() + self.settings.timeout;
        let signed = match tokio::time::timeout_at(deadline, self.first()).await {
            Ok(Ok(signed)) => signed,
            Ok(Err(error)) => return failed(&error),
            Err(_) => return failed(&self.late()),
        };
        if self.wants_config_map() {
            let left = deadline.saturating_duration_since(Instant::now());
            self.publish(&signed, left).await;
        }
        ExitCode::SUCCESS
    }

    /// Waits for an SVID, then signs and writes the file.
    async fn first(&self) -> Result<Signed, Failure> {
        let svid = self.first_svid().await;
        let unsigned = input::read(self.settings, false).await?;
        self.sign(&svid, &unsigned)
    }

    async fn watch(&self) -> ExitCode {
        let deadline = Instant::now() + self.settings.timeout;
        let Ok(_) = tokio::time::timeout_at(deadline, self.first_svid()).await else {
            return failed(&self.late());
        };
        let wants_config_map = self.wants_config_map();
        let mut changed = self.source.changed();
        let mut state = State::default();
        loop {
            changed.mark_unchanged();
            match self.look(&state).await {
                Ok(Some((signed, content, live, svid))) => {
                    state.signed = Some((content, svid));
                    state.had_live |= live;
                    state.complaint = None;
                    if wants_config_map {
                        state.unpublished = Some(Unpublished::new(signed, self.settings.poll));
                    }
                }
                Ok(None) => state.complaint = None,
                // Without an agent to ask there is nothing to wait for: the kubelet starts the container again.
                Err(error) if state.signed.is_none() && self.settings.url.is_none() => return failed(&error),
                Err(error) => state.complain(&error.to_string()),
            }
            self.publish_pending(&mut state).await;
            tokio::select! {
                () = tokio::time::sleep(self.pause(&state)) => {}
                _ = changed.changed() => {}
            }
        }
    }

    /// Until something is signed, the agent of this Pod is about to start.
    fn pause(&self, state: &State) -> Duration {
        if state.signed.is_some() { self.settings.poll } else { self.settings.poll.min(EAGER_POLL) }
    }

    /// Signs again if the card or the SVID is another one, or the file is gone.
    async fn look(&self, state: &State) -> Result<Option<(Signed, String, bool, Arc<Svid>)>, Failure> {
        let svid = self.source.current().ok_or(Failure::NoSvid(self.settings.timeout))?;
        let unsigned = input::read(self.settings, state.had_live).await?;
        let fresh = state
            .signed
            .as_ref()
            .is_some_and(|(content, by)| *content == unsigned.content && Arc::ptr_eq(by, &svid));
        if fresh && tokio::fs::try_exists(&self.settings.signed).await.unwrap_or(false) {
            return Ok(None);
        }
        let signed = self.sign(&svid, &unsigned)?;
        Ok(Some((signed, unsigned.content, unsigned.live, svid)))
    }

    async fn publish_pending(&self, state: &mut State) {
        if let Some(pending) = &mut state.unpublished
            && Instant::now() >= pending.next
        {
            if self.publish(&pending.signed, PUBLISH_PATIENCE).await {
                state.unpublished = None;
            } else {
                pending.next = Instant::now() + pending.pause;
                pending.pause = (pending.pause * 2).min(PUBLISH_PAUSE_MAX);
            }
        }
    }

    async fn first_svid(&self) -> Arc<Svid> {
        let mut changed = self.source.changed();
        loop {
            if let Some(svid) = self.source.current() {
                return svid;
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// What ran out of time.
    fn late(&self) -> Failure {
        if self.source.current().is_none() {
            Failure::NoSvid(self.settings.timeout)
        } else {
            Failure::Timeout(self.settings.timeout)
        }
    }

    fn sign(&self, svid: &Svid, unsigned: &Unsigned) -> Result<Signed, Failure> {
        let chain: Vec<&[u8]> = svid.chain().iter().map(AsRef::as_ref).collect();
        let identity = Signer::new(&key::encoded(&svid.key()), &chain)?;
        let signed = identity.sign(&unsigned.document, &self.settings.profiles)?;
        let path = &self.settings.signed;
        output::write(path, &signed.document).map_err(|error| Failure::Output {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
        let profiles: Vec<&str> = signed.profiles.iter().map(|profile| profile.as_str()).collect();
        tracing::info!(
            spiffe_id = svid.id(),
            output_path = %path.display(),
            kid = identity.key_id(),
            not_after = %identity.not_after(),
            profiles = profiles.join(","),
            "card signed"
        );
        Ok(signed)
    }

    /// Says once why there will be no ConfigMap.
    fn wants_config_map(&self) -> bool {
        match &self.settings.publish {
            Publish::To { .. } => true,
            Publish::Nowhere { missing: Some(missing) } => {
                tracing::warn!(missing, "no ConfigMap is written: the variable is not set");
                false
            }
            Publish::Nowhere { missing: None } => false,
        }
    }

    /// True when the ConfigMap holds the card now. The agent works without it, so a failure is a warning.
    async fn publish(&self, signed: &Signed, patience: Duration) -> bool {
        let Publish::To { namespace, agent } = &self.settings.publish else { return true };
        let attempt = async {
            let api = (self.api)().map_err(|error| error.to_string())?;
            publish(&api, namespace, agent, signed).await.map_err(|error| error.to_string())
        };
        let result = tokio::time::timeout(patience.min(PUBLISH_PATIENCE), attempt)
            .await
            .unwrap_or_else(|_| Err("the API server did not answer in time".to_owned()));
        match result {
            Ok(Published::Unchanged) => tracing::info!(namespace, agent, "ConfigMap is up to date"),
            Ok(Published::Created) => tracing::info!(namespace, agent, "ConfigMap created"),
            Ok(Published::Updated) => tracing::info!(namespace, agent, "ConfigMap updated"),
            Err(error) => {
                tracing::warn!(namespace, agent, error, "ConfigMap not written");
                return false;
            }
        }
        true
    }
}

/// What mode `watch` remembers.
#[derive(Default)]
struct State {
    /// Content of the card that was signed last, and by which SVID.
    signed: Option<(String, Arc<Svid>)>,
    /// A card of the agent itself was signed.
    had_live: bool,
    /// A signed card that the ConfigMap does not hold yet.
    unpublished: Option<Unpublished>,
    complaint: Option<String>,
}

struct Unpublished {
    signed: Signed,
    next: Instant,
    pause: Duration,
}

impl Unpublished {
    fn new(signed: Signed, pause: Duration) -> Self {
        Self { signed, next: Instant::now(), pause }
    }
}

impl State {
    /// Warns once about the same trouble.
    fn complain(&mut self, error: &str) {
        if self.complaint.as_deref() != Some(error) {
            tracing::warn!(error, "card not signed again; retrying");
            self.complaint = Some(error.to_owned());
        }
    }
}

fn failed(error: &Failure) -> ExitCode {
    tracing::error!(%error, "card not signed");
    ExitCode::FAILURE
}
