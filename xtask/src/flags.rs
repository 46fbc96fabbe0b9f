//! Flag tables, from the same command lines that the programs parse.

use std::fmt::Write as _;

use anyhow::Result;
use clap::{Arg, Command};
use controller_kit::cli;

/// The program called `component`.
pub fn command(component: &str) -> Result<Command> {
    Ok(match component {
        "runtime-ctl" => {
            cli::command::<runtime_ctl::process::Cli>(&runtime_ctl::settings::COMPONENT, &|_| None)
        }
        "card-ctl" => cli::command::<card_ctl::process::Cli>(&card_ctl::settings::COMPONENT, &|_| None),
        "client-registration-ctl" => cli::command::<client_registration_ctl::process::Cli>(
            &client_registration_ctl::settings::COMPONENT,
            &|_| None,
        ),
        "mlflow-ctl" => cli::command::<mlflow_ctl::process::Cli>(&mlflow_ctl::settings::COMPONENT, &|_| None),
        "netpol-ctl" => cli::command::<netpol_ctl::process::Cli>(&netpol_ctl::settings::COMPONENT, &|_| None),
        "authbridge-webhook" => cli::command::<authbridge_webhook::settings::Cli>(
            &authbridge_webhook::settings::COMPONENT,
            &|_| None,
        ),
        other => anyhow::bail!("no component `{other}`"),
    })
}

/// One row per flag: name, environment variable, default, meaning.
pub(crate) fn table(component: &str) -> Result<String> {
    let command = command(component)?;
    let mut flags: Vec<&Arg> =
        command.get_arguments().filter(|a| a.get_long().is_some() && !a.is_hide_set()).collect();
    flags.sort_by_key(|arg| arg.get_long());
    let mut table = String::from("| flag | environment | default | meaning |\n|---|---|---|---|\n");
    for arg in flags {
        let env = arg.get_env().map(|e| format!("`{}`", e.to_string_lossy())).unwrap_or_default();
        let default =
            arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect::<Vec<_>>().join(",");
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let help = arg.get_help().map(|help| help.to_string().replace('|', "\\|")).unwrap_or_default();
        writeln!(table, "| `--{}` | {env} | {default} | {help} |", arg.get_long().unwrap_or_default())?;
    }
    Ok(table)
}
