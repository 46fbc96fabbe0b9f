//! Command lines: the flags every component has, and how a component adds its own.
//!
//! One rule set for all binaries (runtime §19.1, packaging §12, README decision 7): the same common
//! flags, every flag also as environment variable `<COMPONENT>_<FLAG>`, unknown flags fatal with
//! the name of the component a legacy flag moved to, bad values exit 2.
//!
//! ```no_run
//! use controller_kit::cli::{self, Cli, Component, Requests};
//! use controller_kit::commands::CommonCommand;
//!
//! const COMPONENT: Component =
//!     Component { name: "runtime-ctl", about: "Enrols workloads", requests: Requests::COMMON };
//!
//! #[derive(Clone, Debug, clap::Args)]
//! struct Settings {
//!     /// Rollouts per second.
//!     #[arg(long, default_value_t = 20.0)]
//!     rollout_qps: f64,
//! }
//!
//! let cli: Cli<Settings, CommonCommand> = cli::parse(&COMPONENT);
//! ```

mod bind;
mod duration;
mod moved;
mod rate;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, Subcommand, ValueEnum};

pub use bind::{Bind, BindParseError};
pub use duration::{duration, duration_or_zero};
pub use rate::rate_or_zero;

use crate::scope::Scope;
use crate::version;

/// What makes one binary of the suite different from the others.
#[derive(Clone, Copy, Debug)]
pub struct Component {
    /// Name as in charts, leases and metrics, e.g. `runtime-ctl`.
    pub name: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// How fast it may ask the API server.
    pub requests: Requests,
}

/// Defaults of `--kube-qps` and `--kube-burst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requests {
    /// Requests per second.
    pub qps: u32,
    /// Requests at once.
    pub burst: u32,
}

impl Requests {
    /// What a component has that gives no reason for more or less (runtime §19.1).
    pub const COMMON: Self = Self { qps: 100, burst: 200 };
}

/// The command line of a component.
#[derive(Clone, Debug, clap::Parser)]
pub struct Cli<Own: Args, Command: Subcommand> {
    /// Flags that every component has.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Flags of this one.
    #[command(flatten)]
    pub own: Own,
    /// Something else than running the component.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Component {
    /// Prefix of the component's environment variables: `RUNTIME_CTL` (README decision 7).
    pub fn env_prefix(&self) -> String {
        self.name.to_ascii_uppercase().replace('-', "_")
    }

    /// Name of its Lease (README decision 7).
    pub fn lease(&self, scope: &Scope) -> String {
        format!("{}.kagenti.dev{}", self.name, scope.lease_suffix())
    }

    /// Environment variable of a flag: `--rollout-qps` of runtime-ctl is `RUNTIME_CTL_ROLLOUT_QPS`.
    pub fn env_name(&self, flag: &str) -> String {
        format!("{}_{}", self.env_prefix(), flag.to_ascii_uppercase().replace('-', "_"))
    }
}

/// Form of the log lines on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// For people.
    #[value(alias = "console")]
    Text,
}

/// The flags that every component has, with the same names and defaults (runtime §19.1).
#[derive(Args, Clone, Debug)]
pub struct CommonArgs {
    /// How many objects are worked on at the same time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,

    /// Requests per second to the API server (watches, leases and Events are not limited by it)
    #[arg(long, default_value_t = 100.0, value_parser = rate::rate)]
    pub kube_qps: f64,

    /// Requests that may go out at once before --kube-qps holds
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub kube_burst: u32,

    /// Namespaces to work in, comma separated; empty = the whole cluster (also env NAMESPACES2WATCH)
    #[arg(long, default_value = "", value_parser = Scope::parse, hide_default_value = true)]
    pub watch_namespaces: Scope,

    /// error, warn, info, debug, trace, or a filter such as info,kube=debug; default info (RUST_LOG is read when the flag is absent)
    #[arg(long, alias = "zap-log-level")]
    pub log_level: Option<String>,

    /// Form of the log lines
    #[arg(long, alias = "zap-encoder", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Shorthand of Existing for --log-format=text --log-level=debug
    #[arg(long, hide = true, default_value_t = false, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub zap_devel: bool,

    /// Work only while holding the Lease COMPONENT.kagenti.dev
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub leader_elect: bool,

    /// How long a Lease lasts without renewal
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub leader_elect_lease_duration: std::time::Duration,

    /// After this long without a successful renewal the leader stops writing and exits
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub leader_elect_renew_deadline: std::time::Duration,

    /// How often the Lease is read and renewed
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub leader_elect_retry_period: std::time::Duration,

    /// Address of /healthz and /readyz; 0 = off
    #[arg(long, default_value = ":8081")]
    pub health_probe_bind_address: Bind,

    /// Address of /metrics; 0 = off
    #[arg(long, default_value = ":8443")]
    pub metrics_bind_address: Bind,

    /// Serve /metrics over HTTPS to callers with a bearer token that may get the URL /metrics
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub metrics_secure: bool,

    /// Directory of the metrics certificate; empty = self-signed at start
    #[arg(long)]
    pub metrics_cert_path: Option<PathBuf>,

    /// File name of the metrics certificate
    #[arg(long, default_value = "tls.crt")]
    pub metrics_cert_name: String,

    /// File name of the metrics key
    #[arg(long, default_value = "tls.key")]
    pub metrics_cert_key: String,

    /// Offer HTTP/2 on the TLS listeners
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub enable_http2: bool,

    /// Kubeconfig file; default: KUBECONFIG, else the Pod's ServiceAccount
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace the component runs in (its Lease and platform ConfigMaps)
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: Option<String>,

    /// Name of this replica: holder of the Lease and instance in Events; default: the host name
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
}

/// Parses the process's arguments, or prints what is wrong and exits: 2 for bad flags, 0 for
/// `--help` and `--version` (packaging §12).
pub fn parse<C: clap::Parser>(component: &Component) -> C {
    match try_parse_from(component, std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    }
}

/// As [`parse`] for the given arguments (the first one is the program's name). Errors carry the
/// exit code.
pub fn try_parse_from<C, I, A>(component: &Component, args: I) -> Result<C, clap::Error>
where
    C: clap::Parser,
    I: IntoIterator<Item = A>,
    A: Into<OsString> + Clone,
{
    let mut command = command::<C>(component, &|name| std::env::var_os(name));
    let mut matches = command
        .try_get_matches_from_mut(args)
        .map_err(|error| with_new_home(component, &mut command, error))?;
    C::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// The component's clap command with names, environment variables and version filled in. Also
/// used to generate the flag tables of the documentation.
pub fn command<C: clap::CommandFactory>(
    component: &Component,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> clap::Command {
    let own = component.env_name("watch-namespaces");
    // A flag has one variable in clap; this one has two names (README decision 7).
    let namespaces = if env(&own).is_none() { "NAMESPACES2WATCH".to_owned() } else { own };
    let Requests { qps, burst } = component.requests;
    C::command()
        .mut_arg("kube_qps", |arg| arg.default_value(qps.to_string()))
        .mut_arg("kube_burst", |arg| arg.default_value(burst.to_string()))
        .name(component.name)
        .bin_name(component.name)
        .about(component.about)
        .version(version::text())
        // A chart's extraArgs come after the generated ones and win (packaging §3.2).
        .args_override_self(true)
        .mut_args(|arg| {
            let Some(flag) = arg.get_long().map(str::to_owned) else { return arg };
            if arg.get_env().is_some() || flag == "help" || flag == "version" {
                return arg;
            }
            let name =
                if flag == "watch-namespaces" { namespaces.clone() } else { component.env_name(&flag) };
            // An empty variable is how a chart writes "not set"; clap would parse the empty text.
            if env(&name).is_some_and(|value| value.is_empty()) { arg } else { arg.env(name) }
        })
}

fn with_new_home(component: &Component, command: &mut clap::Command, error: clap::Error) -> clap::Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return error };
    match moved::explain(component.name, argument) {
        Some(text) => clap::Error::raw(ErrorKind::UnknownArgument, format!("{text}\n")).with_cmd(command),
        None => error,
    }
}
