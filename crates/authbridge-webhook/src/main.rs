//! The binary: arguments, sub-commands, exit code.

use std::process::ExitCode;

use authbridge_webhook::{
    registration::{Address, Registration},
    run::{run, unusable},
    selftest::selftest,
    settings::{COMPONENT, Cli, Command, PrintArgs, RegistrationAction},
};
use controller_kit::{cli, process::DEFAULT_NAMESPACE, version};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli: Cli = cli::parse(&COMPONENT);
    match &cli.command {
        None => run(&cli.common, &cli.own).await,
        Some(Command::Version) => {
            println!("{}", version::line(&COMPONENT));
            ExitCode::SUCCESS
        }
        Some(Command::Selftest(args)) => selftest(&cli.common, &cli.own, args).await,
        Some(Command::Registration { action: RegistrationAction::Print(args) }) => match print(args, &cli) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => unusable(&format!("{error:#}")),
        },
    }
}

fn print(args: &PrintArgs, cli: &Cli) -> anyhow::Result<()> {
    use anyhow::Context as _;
    let ca_bundle = match &args.ca_file {
        Some(path) => Some(std::fs::read(path).with_context(|| path.display().to_string())?),
        None => None,
    };
    let namespace = args.namespace.clone().or_else(|| cli.common.pod_namespace.clone());
    let registration = Registration {
        fullname: args.name.clone(),
        namespace: namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        address: args.url.clone().map_or(Address::Service, Address::Url),
        ca_bundle,
        namespaces: cli.common.watch_namespaces.namespaces().to_vec(),
    };
    print!("{}", registration.to_yaml()?);
    Ok(())
}
