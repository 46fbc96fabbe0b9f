//! Generated files of the repository: `cargo xtask generate` writes them, `cargo xtask generate --check` fails
//! when one differs. The same check is a test, so `cargo test --workspace` covers it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Generates files of the repository")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write every generated file.
    Generate {
        /// Write nothing; exit 1 and name the files that differ.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<ExitCode> {
    let Cli { command: Command::Generate { check } } = Cli::parse();
    let differing = xtask::differing(&repository_root())?;
    if check {
        for file in &differing {
            eprintln!("differs from its source: {} (run `cargo xtask generate`)", file.path.display());
        }
        return Ok(if differing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    for file in differing {
        let path = repository_root().join(&file.path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        std::fs::write(&path, &file.content).with_context(|| format!("writing {}", path.display()))?;
        println!("wrote {}", file.path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn repository_root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
