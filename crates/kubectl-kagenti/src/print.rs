//! What goes to standard output: aligned columns for people, documents for scripts.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use crate::document;

/// What to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Columns for people
    #[default]
    Table,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
}

/// Standard output takes no more.
#[derive(Debug, thiserror::Error)]
#[error("the result cannot be written: {0}")]
pub(crate) struct Unwritable(io::Error);

/// Prints to standard output; a reader that has seen enough (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), Unwritable> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Unwritable(error)),
        _ => Ok(()),
    }
}

/// A result as one document.
pub(crate) fn document(form: Form, result: &impl Serialize) -> Result<String, Unwritable> {
    let value = serde_json::to_value(result).map_err(|error| Unwritable(error.into()))?;
    Ok(match value {
        Value::Object(map) if form == Form::Yaml => document::write(&map),
        other => format!("{other:#}\n"),
    })
}

/// Aligned columns, three spaces between them; the last one is not padded. An empty cell is shown as `-`.
pub(crate) fn table<const COLUMNS: usize>(
    head: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(
        rows.into_iter().map(|row| row.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell })),
    );
    let mut widths = [0; COLUMNS];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    lines.iter().fold(String::new(), |mut text, line| {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{}", cells.join("   ").trim_end());
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_hangs_over() {
        let rows = [["a".to_owned(), "é".to_owned()], ["bbbb".to_owned(), String::new()]];
        assert_eq!(table(["X", "LONG"], rows), "X      LONG\na      é\nbbbb   -\n");
    }

    #[test]
    fn documents_are_one_each() {
        let result = serde_json::json!({"plugin": {"version": "0.1.0"}, "warnings": []});
        assert_eq!(
            document(Form::Yaml, &result).expect("YAML"),
            "plugin:\n  version: \"0.1.0\"\nwarnings: []\n"
        );
        let json = document(Form::Json, &result).expect("JSON");
        assert_eq!(serde_json::from_str::<Value>(&json).expect("JSON"), result);
        assert!(json.ends_with("}\n"));
    }
}
