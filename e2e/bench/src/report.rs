//! The table a benchmark prints.

use std::fmt::Display;

use comfy_table::{CellAlignment, Table, presets};

/// One table: figure, measured, must, aim, reference.
pub(crate) struct Report {
    title: String,
    table: Table,
    kept: bool,
}

impl Report {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["figure", "measured", "must", "aim", "Go operator"]);
        for index in 1..5 {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { title: title.into(), table, kept: true }
    }

    /// A figure with nothing to compare it with.
    pub(crate) fn note(&mut self, figure: &str, measured: impl Display) {
        self.table.add_row([
            figure.to_owned(),
            measured.to_string(),
            String::new(),
            String::new(),
            String::new(),
        ]);
    }

    /// A figure with an upper bound, in `unit` with `decimals` places.
    pub(crate) fn bound(
        &mut self,
        figure: &str,
        measured: f64,
        unit: &Unit,
        must: f64,
        aim: f64,
        reference: &str,
    ) {
        let kept = unit.rounded(measured) <= must;
        let verdict = if kept { "" } else { " (missed)" };
        self.kept &= kept;
        self.table.add_row([
            figure.to_owned(),
            format!("{}{verdict}", unit.show(measured)),
            format!("<= {}", unit.show(must)),
            format!("<= {}", unit.show(aim)),
            reference.to_owned(),
        ]);
    }

    /// A figure with a lower bound.
    pub(crate) fn floor(&mut self, figure: &str, measured: f64, unit: &Unit, must: f64, aim: f64) {
        let kept = unit.rounded(measured) >= must;
        let verdict = if kept { "" } else { " (missed)" };
        self.kept &= kept;
        self.table.add_row([
            figure.to_owned(),
            format!("{}{verdict}", unit.show(measured)),
            format!(">= {}", unit.show(must)),
            format!(">= {}", unit.show(aim)),
            String::new(),
        ]);
    }

    /// Prints the table; true when every bound held.
    pub(crate) fn print(self) -> bool {
        println!("\n### {}\n\n{}", self.title, self.table);
        self.kept
    }
}

/// How a figure is written.
pub(crate) struct Unit {
    name: &'static str,
    decimals: i32,
}

impl Unit {
    pub(crate) const SECONDS: Self = Self { name: " s", decimals: 1 };
    pub(crate) const MILLISECONDS: Self = Self { name: " ms", decimals: 1 };
    pub(crate) const MEGABYTES: Self = Self { name: " MB", decimals: 0 };
    pub(crate) const HUNDREDTHS_OF_SECONDS: Self = Self { name: " s", decimals: 2 };
    pub(crate) const MILLICORES: Self = Self { name: " m", decimals: 1 };
    pub(crate) const TENTHS_OF_MEGABYTES: Self = Self { name: " MB", decimals: 1 };
    pub(crate) const PER_CENT: Self = Self { name: " %", decimals: 0 };
    pub(crate) const COUNT: Self = Self { name: "", decimals: 1 };
    pub(crate) const HUNDREDTHS: Self = Self { name: "", decimals: 2 };
    pub(crate) const WHOLE: Self = Self { name: "", decimals: 0 };

    /// What a reader sees: a bound is held or missed by the figure that is printed.
    fn rounded(&self, value: f64) -> f64 {
        let scale = 10_f64.powi(self.decimals);
        (value * scale).round() / scale
    }

    fn show(&self, value: f64) -> String {
        format!("{value:.*}{}", usize::try_from(self.decimals).unwrap_or_default(), self.name)
    }
}

/// Bytes as megabytes (10^6).
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
