//! Flags of mlflow-ctl beside the common ones (MLflow §3).

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, ValueEnum, builder::BoolishValueParser};
use controller_kit::cli::{self, Component, Requests};
use rest_client::base_url::BaseUrl;

use crate::{
    env::{Mode, Policy},
    naming::NameTemplate,
    server::UrlSource,
};

/// This component.
pub const COMPONENT: Component = Component {
    name: "mlflow-ctl",
    about: "Gives every agent its own MLflow experiment",
    // A new agent is six requests. With the common limit of 100 per second that would be 16 agents per second; 50 are
    // promised (MLflow §15). The API server's own fairness protects it.
    requests: Requests { qps: 300, burst: 300 },
};

/// Where a Pod finds the token of its ServiceAccount.
pub const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// `--mlflow-workspaces`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Workspaces {
    /// As the server says.
    #[default]
    Auto,
    /// Every request names the namespace as its workspace.
    Always,
    /// No request does.
    Never,
}

/// Flags of mlflow-ctl.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Work at all; false = run without touching anything
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub enable_mlflow: bool,

    /// PEM file with CA certificates to trust for MLflow, beside those of the system
    #[arg(long)]
    pub mlflow_ca_file: Option<PathBuf>,

    /// Accepted for compatibility, without effect
    #[arg(long, default_value = "")]
    pub mlflow_workspace: String,

    /// Accepted for compatibility, without effect
    #[arg(long, default_value = "kagenti-traces")]
    pub mlflow_experiment_name: String,

    /// Address of the MLflow server; when it is set, no MLflow object is read
    #[arg(long)]
    pub mlflow_tracking_uri: Option<BaseUrl>,

    /// Address that the controller itself calls, when it must be another one than the agents use
    #[arg(long)]
    pub mlflow_api_uri: Option<BaseUrl>,

    /// Which address of an MLflow object comes first: status.url (external) or status.address.url (internal)
    #[arg(long, value_enum, default_value_t)]
    pub mlflow_url_source: UrlSource,

    /// Name the namespace as MLflow workspace in every request
    #[arg(long, value_enum, default_value_t)]
    pub mlflow_workspaces: Workspaces,

    /// Value of MLFLOW_TRACKING_AUTH; none = no variable, no Role; auto = as the server is found to be
    #[arg(long, default_value = "auto")]
    pub mlflow_tracking_auth: TrackingAuth,

    /// File with the bearer token for requests to MLflow
    #[arg(long, default_value = TOKEN_FILE)]
    pub mlflow_token_file: PathBuf,

    /// Send the token over plain http too
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub mlflow_send_token_over_http: bool,

    /// Name of experiments, with {namespace}, {name}, {kind}; auto = {name}, or {namespace}/{name} without workspaces
    #[arg(long, default_value = "auto")]
    pub mlflow_experiment_name_template: NameTemplate,

    /// Restore an experiment that was deleted in MLflow
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub mlflow_restore_deleted: bool,

    /// Write environment variables into the pod template, or annotations only
    #[arg(long, value_enum, default_value_t)]
    pub mlflow_inject_mode: Mode,

    /// What happens to variables that the user set
    #[arg(long, value_enum, default_value_t)]
    pub mlflow_env_policy: Policy,

    /// How often each experiment is looked for on the server, give or take a fifth; 0s = never
    #[arg(long, default_value = "1h", value_parser = cli::duration_or_zero)]
    pub mlflow_resync_period: Duration,

    /// How many running workloads are changed per second; 0 = no limit
    #[arg(long, default_value_t = 10.0, value_parser = cli::rate_or_zero)]
    pub rollout_qps: f64,

    /// How many of them may change at once before --rollout-qps holds
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub rollout_burst: u32,
}

/// `--mlflow-tracking-auth`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TrackingAuth {
    /// `kubernetes-namespaced` with workspaces, else what the server advertises, else none.
    #[default]
    Auto,
    /// No variable and no Role.
    None,
    /// This value.
    Value(String),
}

impl std::str::FromStr for TrackingAuth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => {
                Err("write auto, none, or a value of MLFLOW_TRACKING_AUTH such as kubernetes-namespaced"
                    .into())
            }
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            value => Ok(Self::Value(value.to_owned())),
        }
    }
}

impl std::fmt::Display for TrackingAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::None => "none",
            Self::Value(value) => value,
        })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enable_mlflow: true,
            mlflow_ca_file: None,
            mlflow_workspace: String::new(),
            mlflow_experiment_name: "kagenti-traces".into(),
            mlflow_tracking_uri: None,
            mlflow_api_uri: None,
            mlflow_url_source: UrlSource::default(),
            mlflow_workspaces: Workspaces::default(),
            mlflow_tracking_auth: TrackingAuth::default(),
            mlflow_token_file: TOKEN_FILE.into(),
            mlflow_send_token_over_http: false,
            mlflow_experiment_name_template: NameTemplate::default(),
            mlflow_restore_deleted: true,
            mlflow_inject_mode: Mode::default(),
            mlflow_env_policy: Policy::default(),
            mlflow_resync_period: Duration::from_secs(3600),
            rollout_qps: 10.0,
            rollout_burst: 100,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use rstest::rstest;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    /// Defaults of the flags are the ones tests work with.
    #[test]
    fn flag_defaults_are_the_defaults() {
        let parsed = Cli::parse_from(["mlflow-ctl"]).settings;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Settings::default()));
    }

    #[rstest]
    #[case("auto", Some(TrackingAuth::Auto))]
    #[case("none", Some(TrackingAuth::None))]
    #[case("kubernetes", Some(TrackingAuth::Value("kubernetes".into())))]
    #[case("", None)]
    fn tracking_auth(#[case] text: &str, #[case] want: Option<TrackingAuth>) {
        assert_eq!(text.parse().ok(), want);
    }

    #[rstest]
    #[case(&["--mlflow-tracking-uri=ftp://m"])]
    #[case(&["--mlflow-tracking-uri=https://user@m"])]
    #[case(&["--mlflow-experiment-name-template=same"])]
    #[case(&["--mlflow-resync-period=soon"])]
    #[case(&["--rollout-qps=-1"])]
    fn bad_values_are_refused(#[case] args: &[&str]) {
        assert!(Cli::try_parse_from(["mlflow-ctl"].iter().chain(args)).is_err());
    }

    #[test]
    fn switches_take_values_or_none() {
        let args = [
            "mlflow-ctl",
            "--enable-mlflow=false",
            "--mlflow-send-token-over-http",
            "--mlflow-env-policy=overwrite",
        ];
        let parsed = Cli::parse_from(args).settings;
        assert!(!parsed.enable_mlflow && parsed.mlflow_send_token_over_http);
        assert_eq!(parsed.mlflow_env_policy, Policy::Overwrite);
    }
}
