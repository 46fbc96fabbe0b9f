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
    parts(&sysroot, version, target)
}

fn parts(sysroot: &Path, version: &str, target: &str) -> Result<Vec<Part>> {
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
    let exception = Text::new("LLVM-exception", &read("licenses/LLVM-exception.txt")?);
    let titled = |name: &str| format!("{name} in the standard library of Rust {version}");
    let mut parts = vec![in_tree(&notices, version, &read("licenses/Unicode-3.0.txt")?)?];
    for name in rlibs(sysroot, target)? {
        if name == "compiler_builtins" {
            // Part of Rust's repository: LLVM's run-time functions, and the mathematics of libm.
            let libm = section(&all, "libm").context("the notices of Rust do not name libm")?;
            parts.push(Part {
                title: titled(&name),
                source: "https://github.com/rust-lang/compiler-builtins".to_owned(),
                expression: Some("MIT AND Apache-2.0 AND Apache-2.0 WITH LLVM-exception".to_owned()),
                authors: Vec::new(),
                texts: libm.texts.into_iter().chain([exception.clone()]).collect(),
            });
        } else if !NOT_LINKED.contains(&name.as_str()) && !IN_TREE.contains(&name.as_str()) {
            let dashed = name.replace('_', "-");
            let found = [&notices, &all]
                .into_iter()
                .find_map(|page| section(page, &name).or_else(|| section(page, &dashed)));
            let found = found
                .with_context(|| format!("the notices of Rust {version} do not name its part {name}"))?;
            parts.push(Part { title: titled(&name), ..found });
        }
    }
    ensure!(parts.len() > 1, "the standard library of {target} has no parts");
    // With musl it brings the library that unwinds the stack; elsewhere that is the compiler's.
    if target.ends_with("-musl") {
        parts.push(Part {
            title: titled("LLVM libunwind"),
            source: "https://github.com/llvm/llvm-project".to_owned(),
            expression: Some("Apache-2.0 AND Apache-2.0 WITH LLVM-exception".to_owned()),
            authors: Vec::new(),
            texts: vec![exception],
        });
    }
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

    /// A toolchain with notices of `tool` and `libm`, and with the given libraries for every target.
    fn toolchain(libraries: &[&str]) -> tempfile::TempDir {
        let sysroot = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = sysroot.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        let about =
            "<h2 id=\"in-tree-files\">In-tree</h2>\n<p><b>Copyright:</b> Somebody</p>\n<h2>Others</h2>";
        write("share/doc/rust/COPYRIGHT-library.html", &format!("{about}{PAGE}"));
        let libm = "<h3>📦 libm-1.0.0</h3><summary><code>LICENSE</code></summary><pre>MIT</pre>";
        write("share/doc/rust/COPYRIGHT.html", libm);
        write("share/doc/rust/licenses/LLVM-exception.txt", "LLVM Exceptions to the Apache 2.0 License");
        write("share/doc/rust/licenses/Unicode-3.0.txt", "UNICODE LICENSE V3");
        for target in ["x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl"] {
            for name in libraries {
                write(&format!("lib/rustlib/{target}/lib/lib{name}-0123.rlib"), "");
            }
            write(&format!("lib/rustlib/{target}/lib/libstd-0123.so"), "");
        }
        sysroot
    }

    #[test]
    fn the_standard_library_is_what_the_target_has() {
        let sysroot = toolchain(&["core", "std", "test", "tool", "compiler_builtins"]);
        let titles = |target: &str| {
            let parts = parts(sysroot.path(), "1.2.3", target).expect("parts");
            parts.into_iter().map(|part| part.title).collect::<Vec<_>>()
        };
        let rest = "in the standard library of Rust 1.2.3";
        let common = [
            "The standard library of Rust 1.2.3".to_owned(),
            format!("compiler_builtins {rest}"),
            format!("tool {rest}"),
        ];
        assert_eq!(titles("x86_64-unknown-linux-gnu"), common);
        let with_musl = titles("x86_64-unknown-linux-musl");
        assert_eq!(with_musl.split_last(), Some((&format!("LLVM libunwind {rest}"), &common[..])));
    }

    #[test]
    fn a_part_without_notices_and_a_missing_target_are_errors() {
        let sysroot = toolchain(&["std", "something_new"]);
        let error = |target: &str| parts(sysroot.path(), "1.2.3", target).expect_err("an error").to_string();
        assert!(error("x86_64-unknown-linux-gnu").contains("something_new"));
        assert!(error("aarch64-unknown-linux-musl").contains("rustup target add aarch64-unknown-linux-musl"));
    }

    #[test]
    fn every_target_has_its_c_library() {
        let title = |target: &str| c_library(target).map(|part| part.title);
        assert_eq!(title("aarch64-unknown-linux-musl").unwrap(), "musl");
        assert_eq!(title("x86_64-unknown-linux-gnu").unwrap(), "The GNU C Library");
        assert!(title("x86_64-pc-windows-msvc").is_err());
    }
}
