//! What is linked into every program without being a crate of the workspace: Rust's standard library and the C library.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::output;
use crate::part::Part;
use crate::texts::Text;

/// The folder of a toolchain with its notices; it comes with the compiler, also in rustup's profile `minimal`.
const NOTICES: &str = "share/doc/rust";
/// What the notices of the standard library itself cover.
const IN_TREE: [&str; 7] = ["alloc", "core", "panic_abort", "panic_unwind", "std", "std_detect", "unwind"];
/// What a target has beside the parts of programs: tests, macros, profiles, and names without content.
const NOT_LINKED: [&str; 9] = [
    "getopts",
    "proc_macro",
    "profiler_builtins",
    "rustc_literal_escaper",
    "rustc_std_workspace_alloc",
    "rustc_std_workspace_core",
    "rustc_std_workspace_std",
    "sysroot",
    "test",
];

/// Everything the standard library of a target consists of. The toolchain's own notices are its source.
pub(crate) fn standard_library(workspace: &Path, target: &str) -> Result<Vec<Part>> {
    let sysroot = PathBuf::from(output("rustc", "RUSTC", &["--print=sysroot"], workspace)?.trim());
    let version = output("rustc", "RUSTC", &["--version"], workspace)?;
    let version = version.split_whitespace().nth(1).context("rustc does not say its version")?;
    let read = |name: &str| {
        let path = sysroot.join(NOTICES).join(name);
        std::fs::read_to_string(&path).with_context(|| {
            format!(
                "reading {}; toolchains of rustup have it, some distributions package it apart",
                path.display()
            )
        })
    };
    let notices = read("COPYRIGHT-library.html")?;
    // Also of the compiler's own dependencies, among them what the first forgets.
    let all = read("COPYRIGHT.html")?;
    let mut parts = Vec::new();
    for name in rlibs(&sysroot, target)? {
        if NOT_LINKED.contains(&name.as_str()) || IN_TREE.contains(&name.as_str()) {
            continue;
        }
        let title = format!("{name} in the standard library of Rust {version}");
        // Part of Rust's repository: LLVM's run-time functions, and the mathematics of libm.
        if name == "compiler_builtins" {
            let mut texts = section(&all, "libm").context("no notices of libm")?.texts;
            texts.push(Text::new("LLVM-exception", &read("licenses/LLVM-exception.txt")?));
            let expression = "MIT AND Apache-2.0 AND Apache-2.0 WITH LLVM-exception".to_owned();
            let source = "https://github.com/rust-lang/compiler-builtins".to_owned();
            parts.push(Part { title, source, expression: Some(expression), texts, authors: Vec::new() });
            continue;
        }
        let dashed = name.replace('_', "-");
        let found = [&notices, &all]
            .into_iter()
            .find_map(|page| section(page, &name).or_else(|| section(page, &dashed)));
        let found =
            found.with_context(|| format!("the notices of Rust {version} do not name its part {name}"))?;
        parts.push(Part { title, ..found });
    }
    ensure!(!parts.is_empty(), "the standard library of {target} has no parts");
    parts.insert(0, in_tree(&notices, version, &read("licenses/Unicode-3.0.txt")?)?);
    Ok(parts)
}

/// The C library that is linked statically: musl for releases, glibc where musl cannot be had. The texts are Debian's files
/// `copyright` of its packages musl 1.2.3 and libc6 2.36, the latter with the LGPL 2.1 that it points to.
pub(crate) fn c_library(target: &str) -> Result<Part> {
    let (title, source, text) = if target.ends_with("-musl") {
        ("musl", "https://musl.libc.org", include_str!("../texts/musl.txt"))
    } else if target.ends_with("-gnu") {
        ("The GNU C Library", "https://sourceware.org/git/glibc.git", include_str!("../texts/glibc.txt"))
    } else {
        bail!("no notices for the C library of {target}, only for those of musl and gnu")
    };
    let texts = vec![Text::new("copyright", text)];
    Ok(Part { title: title.to_owned(), source: source.to_owned(), texts, ..Part::default() })
}

/// The names of the libraries that a target's standard library consists of.
fn rlibs(sysroot: &Path, target: &str) -> Result<BTreeSet<String>> {
    let directory = sysroot.join("lib/rustlib").join(target).join("lib");
    let entries = std::fs::read_dir(&directory)
        .with_context(|| format!("reading {}; `rustup target add {target}`", directory.display()))?;
    let mut names = BTreeSet::new();
    for entry in entries {
        let file = entry?.file_name().into_string().unwrap_or_default();
        let name = file.strip_suffix(".rlib").and_then(|file| file.strip_prefix("lib"));
        names.extend(name.and_then(|name| name.rsplit_once('-')).map(|(name, _)| name.to_owned()));
    }
    Ok(names)
}

/// The standard library's own sources: what its page says about them.
fn in_tree(page: &str, version: &str, unicode: &str) -> Result<Part> {
    let about =
        between(page, "id=\"in-tree-files\">", "<h2").context("no notices of the standard library")?;
    let lines: Vec<String> = plain(about.split_once("</h2>").map_or(about, |(_, rest)| rest))
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty())
        .collect();
    Ok(Part {
        title: format!("The standard library of Rust {version}"),
        source: "https://github.com/rust-lang/rust".to_owned(),
        expression: Some("(Apache-2.0 OR MIT) AND Unicode-3.0".to_owned()),
        authors: Vec::new(),
        texts: vec![Text::new("COPYRIGHT", &lines.join("\n")), Text::new("Unicode-3.0", unicode)],
    })
}

/// What a page of notices says about a crate, its last version where it has several.
fn section(page: &str, name: &str) -> Option<Part> {
    let is_version = |rest: &&str| rest.starts_with(|first: char| first.is_ascii_digit());
    let head = format!("<h3>📦 {name}-");
    let text = page.split(&head).skip(1).filter(is_version).last()?;
    let text = text.split("<h3>").next()?;
    let field = |label: &str| {
        let value = plain(between(text, &format!("<b>{label}:</b>"), "</p>")?).trim().to_owned();
        (!value.is_empty()).then_some(value)
    };
    let mut texts = Vec::new();
    for notice in text.split("<summary><code>").skip(1) {
        let (file, rest) = notice.split_once("</code>")?;
        texts.push(Text::new(file, &plain(between(rest, "<pre>", "</pre>")?)));
    }
    Some(Part {
        title: name.to_owned(),
        source: format!("https://crates.io/crates/{name}"),
        expression: field("License"),
        authors: field("Authors").into_iter().collect(),
        texts,
    })
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    text.split_once(open).map(|(_, rest)| rest.split_once(close).map_or(rest, |(inside, _)| inside))
}

/// Text without tags, and with characters instead of their names.
fn plain(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut inside = false;
    for letter in html.chars() {
        match letter {
            '<' => inside = true,
            '>' => inside = false,
            letter if !inside => text.push(letter),
            _ => {}
        }
    }
    for (name, letter) in
        [("&#34;", "\""), ("&#39;", "'"), ("&#x27;", "'"), ("&#60;", "<"), ("&#62;", ">"), ("&quot;", "\"")]
    {
        text = text.replace(name, letter);
    }
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&#38;", "&").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "<h3>📦 tool-1.0.0</h3><p><b>License:</b> MIT</p>\n\
        <h3>📦 tool-src-3.0.0</h3><p><b>License:</b> ISC</p>\n\
        <h3>📦 tool-2.0.0</h3>\n<p><b>Authors:</b> A &#60;a@b&#62;</p>\n<p><b>License:</b> MIT/Zlib</p>\n<details>\
        <summary><code>LICENSE</code></summary><pre>\nSay &#34;yes&#34; &amp; go.\n</pre></details>\
        <h3>📦 zoo-1.0.0</h3><p><b>License:</b> Zlib</p>";

    #[test]
    fn a_crate_is_read_from_a_page_of_notices() {
        let part = section(PAGE, "tool").expect("a section");
        assert_eq!(part.expression.as_deref(), Some("MIT/Zlib"));
        assert_eq!(part.authors, ["A <a@b>"]);
        assert_eq!(part.texts, [Text::new("LICENSE", "Say \"yes\" & go.")]);
        assert!(section(PAGE, "too").is_none());
    }

    #[test]
    fn every_target_has_its_c_library() {
        let title = |target: &str| c_library(target).map(|part| part.title);
        assert_eq!(title("aarch64-unknown-linux-musl").unwrap(), "musl");
        assert_eq!(title("x86_64-unknown-linux-gnu").unwrap(), "The GNU C Library");
        assert!(title("x86_64-pc-windows-msvc").is_err());
    }
}
