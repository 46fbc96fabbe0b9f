//! `cargo notices`: writes the licence texts of what is linked into a program.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use notices::Notices;

#[derive(Parser)]
#[command(about = "Writes the licence texts of everything that is linked into a program")]
struct Cli {
    /// The program, such as card-ctl.
    #[arg(long)]
    package: String,
    /// The target it is compiled for.
    #[arg(long, default_value = "x86_64-unknown-linux-musl")]
    target: String,
    /// The file to write.
    #[arg(short, long)]
    out: PathBuf,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let workspace = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let text = Notices::read(&workspace, &cli.target)?.text(&cli.package)?;
    std::fs::write(&cli.out, text).with_context(|| format!("writing {}", cli.out.display()))
}
