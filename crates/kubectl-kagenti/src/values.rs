//! `values convert`: files in, a file out.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use crate::convert::{Remark, convert};
use crate::document::{self, Unreadable, Yaml};
use crate::print::{Unwritable, print};
use crate::set;
use crate::table::{Broken, Table};
use crate::tree;

#[derive(Debug, Subcommand)]
pub(crate) enum ValuesCommand {
    /// Convert values of the previous chart, kagenti-operator-chart of the Go operator, to values of this chart
    ///
    /// Prints the new values to standard output and nothing else. To standard error goes one line per old key that is not among
    /// them: "dropped" when it was at its default or means nothing any more, "no new place" when somebody has to decide what to do
    /// without it. `defaults`, `featureGates` and keys of this chart stay as they are; comments are lost. Calls no cluster.
    ///
    /// Exit code: 0, 1 when something has no new place (the other values are printed all the same), 2 when a file cannot be used.
    #[command(after_help = EXAMPLES, after_long_help = EXAMPLES)]
    Convert(Convert),
}

const EXAMPLES: &str = "\
Examples:
  # the values of an installed release
  helm get values <release> -o yaml | kubectl kagenti values convert -f - > new.yaml
  helm upgrade <release> <chart> -f new.yaml

  # files that are given to Helm together
  kubectl kagenti values convert -f base.yaml -f production.yaml > new.yaml

  # the file of a chart that has kagenti-operator-chart as a dependency
  kubectl kagenti values convert --under kagenti-operator-chart -f values.yaml > new.yaml

  # arguments instead of a file (quoted for a POSIX shell)
  kubectl kagenti values convert -o set -f old.yaml";

#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// File with old values; `-` is standard input. Several are merged as Helm merges them, the last one wins
    #[arg(short = 'f', long = "values", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Convert only what is below this key (dots separate levels) and keep the rest of the file: for the values of a parent chart
    #[arg(long, value_name = "KEY")]
    under: Option<String>,
    /// What to print
    #[arg(short = 'o', long, value_enum, default_value_t = Form::Yaml)]
    output: Form,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// A values file
    Yaml,
    /// Arguments for Helm 3.10 or newer: --set-json 'key=value'
    Set,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{file} cannot be read: {source}")]
    File { file: String, source: io::Error },
    #[error("{file} is no values file: {source}")]
    Values { file: String, source: Unreadable },
    #[error("`-f -` stands for standard input, which can be read only once")]
    Twice,
    #[error("--under {path}: there is no such key; the values have {keys}")]
    NoKey { path: String, keys: String },
    #[error("--under {path}: {at} is no map of values")]
    NoMap { path: String, at: String },
    #[error("{0}")]
    Broken(#[from] Broken),
    #[error("{0}")]
    Output(#[from] Unwritable),
}

impl ValuesCommand {
    /// Does it.
    pub(crate) fn run(&self) -> Result<ExitCode, Error> {
        let Self::Convert(convert) = self;
        convert.run()
    }
}

impl Convert {
    fn run(&self) -> Result<ExitCode, Error> {
        let table = Table::built_in()?;
        let mut values = self.read()?;
        let remarks = match &self.under {
            None => {
                let converted = convert(&table, values);
                values = converted.values;
                converted.remarks
            }
            // The values of a release that was installed without any are `null`.
            Some(_) if values.is_empty() => Vec::new(),
            Some(path) => convert_under(&table, path, &mut values)?,
        };
        for remark in &remarks {
            eprintln!("{remark}");
        }
        print(&match self.output {
            Form::Yaml => document::write(&values),
            Form::Set => set::write(&values),
        })?;
        Ok(if remarks.iter().any(|remark| remark.lost) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn read(&self) -> Result<Yaml, Error> {
        if self.files.iter().filter(|file| is_stdin(file)).count() > 1 {
            return Err(Error::Twice);
        }
        let mut values = Yaml::new();
        for file in &self.files {
            let name = if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() };
            let text = text(file).map_err(|source| Error::File { file: name.clone(), source })?;
            let more = document::read(&text).map_err(|source| Error::Values { file: name, source })?;
            document::merge(&mut values, more);
        }
        Ok(values)
    }
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn text(file: &Path) -> io::Result<String> {
    if !is_stdin(file) {
        return std::fs::read_to_string(file);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

/// Converts what is at a dotted path, which stays there even when nothing is left of it; remarks name whole paths.
fn convert_under(table: &Table, path: &str, values: &mut Yaml) -> Result<Vec<Remark>, Error> {
    match tree::at(values, path) {
        None => {
            let mut keys: Vec<&str> = values.keys().map(String::as_str).collect();
            keys.sort_unstable();
            return Err(Error::NoKey { path: path.to_owned(), keys: keys.join(", ") });
        }
        // The parent chart says nothing about this one.
        Some(Value::Null) => return Ok(Vec::new()),
        Some(_) => {}
    }
    let map = tree::map_at(values, path).map_err(|at| Error::NoMap { path: path.to_owned(), at })?;
    let converted = convert(table, std::mem::take(map));
    *map = converted.values;
    let whole = |remark: Remark| Remark { key: format!("{path}.{}", remark.key), ..remark };
    Ok(converted.remarks.into_iter().map(whole).collect())
}
