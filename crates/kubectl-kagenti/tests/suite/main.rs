//! The plugin as its users meet it, and what holds for every input.

#![allow(clippy::expect_used, reason = "a test says what it expects, and panics otherwise")]

mod command;
mod krew;
mod properties;
mod rows;

use std::sync::OnceLock;

use kubectl_kagenti::convert::{Converted, convert};
use kubectl_kagenti::table::Table;
use serde_json::Value;

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| Table::built_in().expect("built in"))
}

/// Converts a JSON object.
fn converted(values: &Value) -> Converted {
    convert(table(), values.as_object().expect("a map").clone())
}

/// The lines on standard error.
fn lines(converted: &Converted) -> Vec<String> {
    converted.remarks.iter().map(ToString::to_string).collect()
}
