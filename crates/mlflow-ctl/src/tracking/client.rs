//! The one client of the process: connections, token, and what is known of each server (MLflow §5.1, §5.2, §5.4).

use std::{sync::Arc, time::Duration};

use controller_kit::version;
use rest_client::{
    BaseUrl, RestClient,
    ca::CaFile,
    client::StartError,
    options::{ClientOptions, Observer, RetryPolicy},
};

use super::{
    answers::{self, Code, Problem},
    capabilities::{self, Capabilities, Usage},
    experiments::{Asked, Failure, Found, Session},
    known::KnownServers,
    requests::{Destination, Operation},
    token::TokenFile,
};
use crate::{
    server::Server,
    settings::{Settings, TrackingAuth, Workspaces},
    workload::WorkloadKey,
};

/// Talks to MLflow.
pub struct Tracking {
    client: RestClient,
    token: TokenFile,
    send_over_http: bool,
    api: Option<BaseUrl>,
    workspaces: Workspaces,
    auth: TrackingAuth,
    restore: bool,
    known: KnownServers,
}

impl Tracking {
    /// A client with the limits of MLflow §5.2.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(
        settings: &Settings,
        ca: Option<CaFile>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        let options = ClientOptions {
            connect: Duration::from_secs(5),
            attempt: Duration::from_secs(30),
            retry: RetryPolicy {
                delays: [500, 1000, 2000].map(Duration::from_millis).into(),
                spread: (0.5, 1.5),
                retry_after_cap: Duration::from_secs(30),
            },
            classify: answers::classify,
            observer,
            ..ClientOptions::new(format!("mlflow-ctl/{}", version::text()))
        };
        Ok(Self {
            client: RestClient::new(options, ca)?,
            token: TokenFile::new(settings.mlflow_token_file.clone()),
            send_over_http: settings.mlflow_send_token_over_http,
            api: settings.mlflow_api_uri.clone(),
            workspaces: settings.mlflow_workspaces,
            auth: settings.mlflow_tracking_auth.clone(),
            restore: settings.mlflow_restore_deleted,
            known: KnownServers::default(),
        })
    }

    /// The HTTP client, to follow its CA file.
    pub fn http(&self) -> RestClient {
        self.client.clone()
    }

    /// The address that is called for a server.
    pub fn base<'s>(&'s self, server: &'s Server) -> &'s BaseUrl {
        self.api.as_ref().unwrap_or(&server.url)
    }

    /// True when a call to this address would go through, be it as a probe.
    pub fn may_ask(&self, base: &BaseUrl) -> bool {
        self.client.circuit_open(base).is_none()
    }

    /// How a server is used: as the flags say, and where they leave it open as the server itself says, which is asked
    /// once in ten minutes.
    ///
    /// # Errors
    /// Why the server does not say.
    pub async fn usage(&self, server: &Server) -> Result<Usage, Problem> {
        let usage =
            |known: &Capabilities| capabilities::usage(self.workspaces, &self.auth, known, server.fixed);
        if !capabilities::must_ask(self.workspaces, &self.auth) {
            return Ok(usage(&Capabilities::default()));
        }
        let base = self.base(server);
        let question = async {
            let token = self.token_for(base).await;
            let session = Session { to: Destination { base, workspace: None, token: token.as_ref() } };
            match session.ask(&self.client, Operation::ServerInfo, session.to.server_info()).await {
                Ok(answer) => Capabilities::read(answer),
                Err(Failure::Problem(problem)) => Err(problem),
                Err(Failure::NoWorkspaces) => Ok(Capabilities::default()),
            }
        };
        Ok(usage(&self.known.capabilities(base, question).await?))
    }

    /// Creates, finds or restores an experiment; gives its id.
    ///
    /// # Errors
    /// [`Failure::NoWorkspaces`] once per server, when `--mlflow-workspaces=auto` had it wrong: ask for the usage again.
    pub async fn provision(
        &self,
        server: &Server,
        usage: &Usage,
        key: &WorkloadKey,
        name: &str,
    ) -> Result<String, Failure> {
        let (base, token) = (self.base(server), self.token_for(self.base(server)).await);
        let session = Self::session(base, usage, key, token.as_ref());
        let workload = workload_tag(key);
        let done = session.provision(&self.client, self.asked(key, name, &workload)).await;
        self.noted(server, done)
    }

    /// Looks whether an experiment still is what it was.
    ///
    /// # Errors
    /// As for [`Self::provision`].
    pub async fn verify(
        &self,
        server: &Server,
        usage: &Usage,
        key: &WorkloadKey,
        name: &str,
        id: &str,
    ) -> Result<Found, Failure> {
        let (base, token) = (self.base(server), self.token_for(self.base(server)).await);
        let session = Self::session(base, usage, key, token.as_ref());
        let workload = workload_tag(key);
        let done = session.verify(&self.client, id, self.asked(key, name, &workload)).await;
        self.noted(server, done)
    }

    fn session<'s>(
        base: &'s BaseUrl,
        usage: &Usage,
        key: &'s WorkloadKey,
        token: Option<&'s rest_client::Secret>,
    ) -> Session<'s> {
        let workspace = usage.workspaces.then_some(key.namespace.as_str());
        Session { to: Destination { base, workspace, token } }
    }

    fn asked<'s>(&self, key: &'s WorkloadKey, name: &'s str, workload: &'s str) -> Asked<'s> {
        Asked { name, namespace: &key.namespace, workload, restore: self.restore }
    }

    fn noted<T>(&self, server: &Server, done: Result<T, Failure>) -> Result<T, Failure> {
        if !matches!(done, Err(Failure::NoWorkspaces)) {
            return done;
        }
        let base = self.base(server);
        if self.workspaces != Workspaces::Auto {
            let text = format!(
                "MLflow server {base} has workspaces switched off: set --mlflow-workspaces=auto, or start it with \
                 MLFLOW_ENABLE_WORKSPACES=true"
            );
            return Err(Problem::new(Code::WorkspacesDisabled, text).into());
        }
        tracing::info!(server = %base, "the MLflow server has workspaces switched off");
        self.known.without_workspaces(base);
        done
    }

    async fn token_for(&self, base: &BaseUrl) -> Option<rest_client::Secret> {
        if base.is_https() || self.send_over_http { self.token.get().await } else { None }
    }
}

fn workload_tag(key: &WorkloadKey) -> String {
    format!("{}/{}", key.kind.as_str(), key.name)
}
