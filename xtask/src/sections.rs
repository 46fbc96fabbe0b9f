//! Generated parts of hand-written pages. A page holds
//!
//! ```text
//! <!-- generated: flags runtime-ctl -->
//! ...
//! <!-- /generated -->
//! ```
//!
//! and whatever stands between the two lines is replaced by what the named generator returns.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{Generated, charts, flags, rights};

const OPEN: &str = "<!-- generated: ";
const CLOSE: &str = "<!-- /generated -->";

/// Every page below `docs/`, and every README and values.yaml of a chart, with their generated parts renewed.
pub(crate) fn pages(root: &Path) -> Result<Vec<Generated>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(root.join("docs")).context("reading docs")? {
        let path = PathBuf::from("docs").join(entry?.file_name());
        paths.extend(path.extension().is_some_and(|e| e == "md").then_some(path));
    }
    for entry in std::fs::read_dir(root.join("charts")).context("reading charts")? {
        let chart = PathBuf::from("charts").join(entry?.file_name());
        let pages = ["README.md", "values.yaml"].map(|file| chart.join(file));
        paths.extend(pages.into_iter().filter(|path| root.join(path).is_file()));
    }
    let mut pages = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(root.join(&path))
            .with_context(|| format!("reading {}", path.display()))?;
        let content =
            renewed(&text, &|name| section(root, name)).with_context(|| path.display().to_string())?;
        pages.push(Generated { path, content });
    }
    pages.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(pages)
}

fn section(root: &Path, name: &str) -> Result<String> {
    match name.split_once(' ') {
        Some(("flags", component)) => flags::table(component),
        Some(("rights", component)) => rights::table(root, component),
        _ => match charts::section(root, name)? {
            Some(text) => Ok(text),
            None => bail!("no generator for `{name}`"),
        },
    }
}

/// `text` with every generated part replaced by `generate(name)`. Errors: a part that is not closed, or whatever
/// `generate` says.
pub fn renewed(text: &str, generate: &dyn Fn(&str) -> Result<String>) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(OPEN) {
        let (before, marked) = rest.split_at(at);
        let (line, after) = marked.split_once('\n').context("a marker ends its line")?;
        let name = line.trim_start_matches(OPEN).trim_end_matches("-->").trim();
        let end = after.find(CLOSE).with_context(|| format!("generated part `{name}` is not closed"))?;
        out.push_str(before);
        out.push_str(line);
        out.push('\n');
        out.push_str(generate(name)?.trim_end());
        out.push('\n');
        // In a values.yaml the line begins as a comment.
        out.push_str(after.get(..end).and_then(|old| old.rsplit('\n').next()).unwrap_or_default());
        out.push_str(CLOSE);
        rest = after.get(end + CLOSE.len()..).unwrap_or_default();
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_parts_change() {
        let page = "a\n<!-- generated: x y -->\nold\n<!-- /generated -->\nb\n";
        let new = renewed(page, &|name| Ok(format!("[{name}]"))).unwrap();
        assert_eq!(new, "a\n<!-- generated: x y -->\n[x y]\n<!-- /generated -->\nb\n");
        assert_eq!(renewed(&new, &|name| Ok(format!("[{name}]"))).unwrap(), new);
    }

    #[test]
    fn a_comment_stays_one() {
        let page = "# <!-- generated: x -->\nold\n# <!-- /generated -->\n";
        let new = renewed(page, &|_| Ok("# new".to_owned())).unwrap();
        assert_eq!(new, "# <!-- generated: x -->\n# new\n# <!-- /generated -->\n");
    }

    #[test]
    fn an_open_part_is_an_error() {
        assert!(renewed("<!-- generated: x -->\nold\n", &|_| Ok(String::new())).is_err());
    }
}
