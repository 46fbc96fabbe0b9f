//! Which licences are taken where an expression leaves a choice.

use anyhow::{Context as _, Result, anyhow};
use spdx::{Expression, Licensee, ParseMode};

/// Every licence that may be taken, the preferred first: of `A OR B` the one that stands first here. The suite's own licence
/// leads, because its text is the same for all crates and it comes with a patent grant.
pub const ORDER: [&str; 10] = [
    "Apache-2.0",
    "MIT",
    "BSD-3-Clause",
    "BSD-2-Clause",
    "ISC",
    "Zlib",
    "BSL-1.0",
    "Unicode-3.0",
    "Apache-2.0 WITH LLVM-exception",
    "Unlicense",
];

/// The licences taken of an SPDX expression, in [`ORDER`]. `A/B`, which older crates write, is `A OR B`. An error when
/// the expression cannot be read, or asks for a licence that is not in the list.
pub(crate) fn chosen(expression: &str) -> Result<Vec<&'static str>> {
    let parsed = parse(expression)?;
    let licensees = licensees()?;
    let taken = parsed
        .minimized_requirements(licensees.iter().map(|(_, licensee)| licensee))
        .map_err(|_| anyhow!("no licence of `{expression}` may be taken, only: {}", ORDER.join(", ")))?;
    Ok(licensees
        .into_iter()
        .filter(|(_, licensee)| taken.iter().any(|wanted| licensee.satisfies(wanted)))
        .map(|(name, _)| name)
        .collect())
}

/// Every licence of the list that an expression names, taken or not.
pub(crate) fn named(expression: &str) -> Result<Vec<&'static str>> {
    let parsed = parse(expression)?;
    let named = licensees()?;
    let named =
        named.into_iter().filter(|(_, licensee)| parsed.requirements().any(|r| licensee.satisfies(&r.req)));
    Ok(named.map(|(name, _)| name).collect())
}

fn parse(expression: &str) -> Result<Expression> {
    Expression::parse_mode(expression, ParseMode::LAX)
        .map_err(|error| anyhow!("`{expression}` is no SPDX expression: {}", error.reason))
}

fn licensees() -> Result<Vec<(&'static str, Licensee)>> {
    let parsed = |name| Ok((name, Licensee::parse(name).with_context(|| format!("licence {name}"))?));
    ORDER.into_iter().map(parsed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_order_is_taken() {
        for (expression, wanted) in [
            ("MIT", &["MIT"][..]),
            ("MIT OR Apache-2.0", &["Apache-2.0"]),
            ("MIT/Apache-2.0", &["Apache-2.0"]),
            ("Apache-2.0 / MIT", &["Apache-2.0"]),
            ("Unlicense OR MIT", &["MIT"]),
            ("0BSD OR MIT OR Apache-2.0", &["Apache-2.0"]),
            ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", &["Apache-2.0"]),
            ("Apache-2.0 WITH LLVM-exception", &["Apache-2.0 WITH LLVM-exception"]),
            ("BSD-2-Clause OR ISC", &["BSD-2-Clause"]),
        ] {
            assert_eq!(chosen(expression).unwrap(), wanted, "{expression}");
        }
    }

    #[test]
    fn what_is_joined_by_and_is_taken_whole() {
        for (expression, wanted) in [
            ("ISC AND Apache-2.0", ["Apache-2.0", "ISC"]),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", ["Apache-2.0", "Unicode-3.0"]),
            ("(Apache-2.0 OR MIT) AND BSD-3-Clause", ["Apache-2.0", "BSD-3-Clause"]),
            ("MIT AND BSD-3-Clause", ["MIT", "BSD-3-Clause"]),
        ] {
            assert_eq!(chosen(expression).unwrap(), wanted, "{expression}");
        }
    }

    #[test]
    fn other_licences_are_refused_by_name() {
        for expression in ["GPL-3.0-only", "MIT AND LGPL-2.1-only", "no licence at all", ""] {
            let error = chosen(expression).expect_err(expression).to_string();
            assert!(error.contains(&format!("`{expression}`")), "{error}");
        }
    }

    #[test]
    fn alternatives_are_known_whether_taken_or_not() {
        assert_eq!(named("MIT OR Apache-2.0").unwrap(), ["Apache-2.0", "MIT"]);
        assert_eq!(named("MIT AND BSD-3-Clause").unwrap(), ["MIT", "BSD-3-Clause"]);
    }
}
