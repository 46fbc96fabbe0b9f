//! Whether a page of metrics is OpenMetrics 1.0, as strict as a scraper may be.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

/// Finds the first line that breaks the format; the error quotes it. Checked are the end mark, descriptors before their
/// samples, families that stay together, suffixes by type, units, label syntax, series that come once, values, and
/// buckets that add up.
pub fn check(page: &str) -> Result<()> {
    let lines = page.strip_suffix("# EOF\n").context("the page does not end with `# EOF`")?;
    let mut families = Families::default();
    for line in lines.split_terminator('\n') {
        families.take(line).with_context(|| format!("the line {line:?}"))?;
    }
    families.close()
}

/// A series within its family: the name's suffix and its labels.
type Series = (String, BTreeMap<String, String>);

#[derive(Default)]
struct Family {
    name: String,
    descriptors: BTreeSet<&'static str>,
    kind: String,
    series: BTreeMap<Series, f64>,
}

#[derive(Default)]
struct Families {
    now: Family,
    closed: BTreeSet<String>,
}

impl Families {
    fn take(&mut self, line: &str) -> Result<()> {
        let Some(descriptor) = line.strip_prefix("# ") else { return self.sample(line) };
        let (what, rest) = descriptor.split_once(' ').context("a comment is not allowed")?;
        let (name, text) = rest.split_once(' ').context("name and text")?;
        if name != self.now.name {
            self.close()?;
            ensure!(!self.closed.contains(name), "the family was there before");
            ensure!(is_name(name, true), "no name of a family");
            name.clone_into(&mut self.now.name);
        }
        let what = match what {
            "TYPE" => {
                ensure!(!suffixes(text).is_empty(), "no type");
                text.clone_into(&mut self.now.kind);
                "TYPE"
            }
            "UNIT" => {
                ensure!(name.ends_with(&format!("_{text}")), "the name does not end with the unit");
                "UNIT"
            }
            "HELP" => "HELP",
            _ => bail!("neither TYPE nor UNIT nor HELP"),
        };
        ensure!(self.now.series.is_empty(), "a descriptor behind samples");
        ensure!(self.now.descriptors.insert(what), "a second {what}");
        Ok(())
    }

    fn sample(&mut self, line: &str) -> Result<()> {
        let end = line.find(['{', ' ']).context("no value")?;
        let (name, rest) = line.split_at(end);
        let suffix = name.strip_prefix(self.now.name.as_str()).context("another family's")?;
        ensure!(suffixes(&self.now.kind).contains(&suffix), "{suffix:?} of a {}", self.now.kind);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (BTreeMap::new(), rest),
        };
        let rest = rest.strip_prefix(' ').context("no blank before the value")?;
        // A timestamp or an exemplar may follow.
        let value: f64 = rest.split(' ').next().unwrap_or_default().parse().context("no number")?;
        let counts = matches!(suffix, "_total" | "_bucket" | "_count");
        ensure!(!counts || value >= 0.0, "a count below zero");
        let before = self.now.series.insert((suffix.to_owned(), labels), value);
        ensure!(before.is_none(), "the series was there before");
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let family = std::mem::take(&mut self.now);
        if family.kind == "histogram" {
            family.adds_up().with_context(|| format!("histogram {}", family.name))?;
        }
        if !family.name.is_empty() {
            ensure!(family.descriptors.contains("TYPE"), "{} has no TYPE", family.name);
            self.closed.insert(family.name);
        }
        Ok(())
    }
}

impl Family {
    /// Buckets hold what those below them hold, and the last one holds all that was counted.
    fn adds_up(&self) -> Result<()> {
        let mut buckets: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
        for ((_, labels), count) in self.series.iter().filter(|((suffix, _), _)| suffix == "_bucket") {
            let mut labels = labels.clone();
            let bound = labels.remove("le").context("a bucket without le")?;
            let bound = bound.parse().with_context(|| format!("le={bound:?}"))?;
            buckets.entry(labels).or_default().push((bound, *count));
        }
        for (labels, mut of) in buckets {
            of.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            ensure!(of.is_sorted_by(|(_, a), (_, b)| a <= b), "{labels:?}: {of:?}");
            let all = self.series.get(&("_count".to_owned(), labels.clone())).copied();
            let last = of.last().copied();
            ensure!(last == all.map(|all| (f64::INFINITY, all)), "{labels:?}: {last:?} of {all:?}");
        }
        Ok(())
    }
}

/// What names of samples have behind the family's, by its type; empty for what is no type.
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total", "_created"],
        "gauge" | "unknown" | "stateset" => &[""],
        "histogram" => &["_bucket", "_count", "_sum", "_created"],
        "summary" => &["", "_count", "_sum", "_created"],
        "info" => &["_info"],
        _ => &[],
    }
}

fn is_name(text: &str, colons: bool) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    !text.is_empty() && text.chars().all(fits) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// The labels up to the closing brace, and what follows it.
fn labels(text: &str) -> Result<(BTreeMap<String, String>, &str)> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    loop {
        if let Some(behind) = rest.strip_prefix('}') {
            return Ok((found, behind));
        }
        let (name, behind) = rest.split_once("=\"").context("a label without value")?;
        ensure!(is_name(name, false), "no name of a label: {name:?}");
        let (value, behind) = quoted(behind)?;
        ensure!(found.insert(name.to_owned(), value).is_none(), "label {name} twice");
        rest = match behind.strip_prefix(',') {
            Some(next) if !next.starts_with('}') => next,
            Some(_) => bail!("a comma behind the last label"),
            None => behind,
        };
        ensure!(behind.starts_with([',', '}']), "neither comma nor brace behind label {name}");
    }
}

/// A label's value up to its quote, and what follows that.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => match letters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                other => bail!("escape of {other:?}"),
            },
            letter => value.push(letter),
        }
    }
    bail!("no quote behind a label's value")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP jobs Jobs done.\n# TYPE jobs counter\njobs_total{kind=\"a\"} 3\n\
        jobs_total{kind=\"b, \\\"c\\\"}\"} 0\n# TYPE build info\nbuild_info{version=\"1\"} 1\n\
        # TYPE wait_seconds histogram\n# UNIT wait_seconds seconds\nwait_seconds_sum 0.5\nwait_seconds_count 2\n\
        wait_seconds_bucket{le=\"0.1\"} 1 # {trace_id=\"x\"} 0.05\nwait_seconds_bucket{le=\"+Inf\"} 2\n# EOF\n";

    #[test]
    fn a_good_page_passes() {
        check(GOOD).expect("good");
        check("# EOF\n").expect("empty");
    }

    #[test]
    fn every_fault_is_found() {
        for (from, to) in [
            ("# EOF\n", ""),
            ("# TYPE build info\n", ""),
            ("# TYPE build info", "# TYPE build text"),
            ("# TYPE build info\n", "\n# TYPE build info\n"),
            ("# TYPE build info\n", "# A comment\n# TYPE build info\n"),
            ("# TYPE build info\n", "# TYPE build info\n# TYPE build info\n"),
            ("build_info{", "build{"),
            ("version=\"1\"", "version=\"1"),
            ("version=\"1\"", "version=\"\\1\""),
            ("version=\"1\"", "version=\"1\","),
            ("version=\"1\"", "version=\"1\";a=\"1\""),
            ("version=\"1\"", "version=\"1\",version=\"2\""),
            ("version=\"1\"", "1version=\"1\""),
            ("jobs_total{kind=\"a\"} 3", "jobs_total{kind=\"a\"} -3"),
            ("jobs_total{kind=\"a\"} 3", "jobs_total{kind=\"a\"} three"),
            ("jobs_total{kind=\"a\"} 3", "jobs{kind=\"a\"} 3"),
            ("jobs_total{kind=\"a\"} 3\n", "jobs_total{kind=\"a\"} 3\njobs_total{kind=\"a\"} 3\n"),
            ("build_info{version=\"1\"} 1\n", "build_info{version=\"1\"} 1\njobs_total{kind=\"z\"} 1\n"),
            ("build_info{version=\"1\"} 1\n", "build_info{version=\"1\"} 1\n# TYPE jobs counter\n"),
            ("# UNIT wait_seconds seconds", "# UNIT wait_seconds bytes"),
            ("wait_seconds_count 2", "wait_seconds_count 3"),
            ("{le=\"+Inf\"} 2", "{le=\"+Inf\"} 0"),
            ("wait_seconds_bucket{le=\"+Inf\"} 2\n", ""),
            ("{le=\"0.1\"}", "{lt=\"0.1\"}"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let page = GOOD.replace(from, to);
            assert!(check(&page).is_err(), "{to:?} instead of {from:?} passes");
        }
    }
}
