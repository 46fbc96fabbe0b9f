//! `local-cluster images`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::Profile;
use super::suite::{PROGRAMS, Packed, default_dir, pack};

/// Arguments of `local-cluster images`.
#[derive(Debug, clap::Args)]
pub struct ImagesArgs {
    /// Programs to pack; all of them without any.
    programs: Vec<String>,
    /// Where the tarballs go; `images` in cargo's target directory unless given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Compile in a fraction of the time: larger, slower programs, for tests.
    #[arg(long)]
    quick: bool,
}

impl ImagesArgs {
    /// Builds, packs, and prints what was made.
    pub fn run(&self) -> Result<()> {
        let unknown: Vec<&str> =
            self.programs.iter().map(String::as_str).filter(|name| !PROGRAMS.contains(name)).collect();
        ensure!(unknown.is_empty(), "no image for {}, only for {}", unknown.join(", "), PROGRAMS.join(", "));
        let wanted: Vec<&str> = PROGRAMS
            .into_iter()
            .filter(|name| self.programs.is_empty() || self.programs.iter().any(|p| p == name))
            .collect();
        let out = self.out.clone().unwrap_or_else(default_dir);
        let profile = if self.quick { Profile::Quick } else { Profile::Release };
        println!("{}", table(&pack(&wanted, profile, &out)?));
        Ok(())
    }
}

fn table(packed: &[Packed]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["IMAGE", "MIB", "FILE"]);
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for image in packed {
        let mebibytes = format!("{:.1}", image.size as f64 / 1_048_576.0);
        table.add_row([image.reference.clone(), mebibytes, image.file.display().to_string()]);
    }
    table
}
