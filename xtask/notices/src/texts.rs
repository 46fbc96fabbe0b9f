//! Licence texts: where a crate keeps them, which licences they are, when two are the same.

use std::path::Path;

use anyhow::{Context as _, Result};

/// A file about licences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    /// Its path inside the crate.
    pub(crate) file: String,
    /// What it says, with plain line ends and without blanks at the ends of lines.
    pub(crate) content: String,
    /// The licences whose own text it holds, in the order of [`crate::ORDER`].
    pub(crate) licences: Vec<&'static str>,
    /// Whether it lies in a folder of the crate: then it is about something that the crate took over.
    pub(crate) nested: bool,
}

impl Text {
    /// A text with line ends and blanks made equal, and recognised.
    pub(crate) fn new(file: impl Into<String>, content: &str) -> Self {
        let lines: Vec<&str> = content.trim_start_matches('\u{feff}').lines().map(str::trim_end).collect();
        let first = lines.iter().position(|line| !line.is_empty()).unwrap_or(lines.len());
        let last = lines.iter().rposition(|line| !line.is_empty()).map_or(first, |at| at + 1);
        let content = lines.get(first..last).unwrap_or_default().join("\n");
        let licences = recognised(&content);
        let file = file.into();
        Self { nested: file.contains('/'), file, content, licences }
    }
}

/// A phrase that only the licence's own text has, in the words of [`words`].
const PHRASES: [(&str, &str); 11] = [
    ("Apache-2.0", "terms and conditions for use reproduction and distribution 1 definitions"),
    ("MIT", "permission is hereby granted free of charge to any person obtaining a copy of this software"),
    ("BSD-3-Clause", "redistribution and use in source and binary forms"),
    ("BSD-2-Clause", "redistribution and use in source and binary forms"),
    ("ISC", "permission to use copy modify and or distribute this software for any purpose"),
    ("ISC", "permission to use copy modify and distribute this software for any purpose"),
    ("Zlib", "this software is provided as is without any express or implied warranty in no event"),
    ("BSL-1.0", "permission is hereby granted free of charge to any person or organization obtaining"),
    ("Unicode-3.0", "unicode license v3"),
    ("Apache-2.0 WITH LLVM-exception", "llvm exceptions to the apache 2 0 license"),
    ("Unlicense", "this is free and unencumbered software released into the public domain"),
];
/// What tells the two licences of BSD apart.
const THIRD_CLAUSE: &str = "used to endorse or promote products";

/// The licences whose own text is in a file.
fn recognised(text: &str) -> Vec<&'static str> {
    let words = words(text);
    let three = words.contains(THIRD_CLAUSE);
    let found = PHRASES.iter().filter(|(name, phrase)| {
        words.contains(phrase)
            && match *name {
                "BSD-3-Clause" => three,
                "BSD-2-Clause" => !three,
                _ => true,
            }
    });
    found.map(|(name, _)| *name).collect()
}

/// What two texts have in common when they differ only by copyright lines, title, layout, quotes and case.
pub(crate) fn key(text: &str) -> String {
    let kept: Vec<&str> =
        text.lines().filter(|line| !is_copyright(line) && !is_template(line) && !is_title(line)).collect();
    words(&kept.join("\n"))
}

/// The copyright lines of a text.
pub(crate) fn copyrights(text: &str) -> Vec<String> {
    text.lines().filter(|line| is_copyright(line)).map(|line| bare(line).to_owned()).collect()
}

/// A text without copyright lines and the gaps they leave.
pub(crate) fn without_copyrights(text: &str) -> String {
    let mut kept: Vec<&str> = text.lines().filter(|line| !is_copyright(line)).collect();
    kept.dedup_by(|a, b| a.is_empty() && b.is_empty());
    kept.join("\n").trim_matches('\n').to_owned()
}

/// Lower-case words with single blanks between.
fn words(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_alphanumeric() {
            words.extend(letter.to_lowercase());
        } else if !words.is_empty() && !words.ends_with(' ') {
            words.push(' ');
        }
    }
    words.truncate(words.trim_end().len());
    words
}

/// A line without the marks of comments, lists and emphasis around it.
fn bare(line: &str) -> &str {
    line.trim_matches(|c: char| c.is_whitespace() || "*#/>".contains(c))
}

/// Whether a line says whose copyright it is. Licences have lines that begin with the word, too, where it is broken.
fn is_copyright(line: &str) -> bool {
    let line = bare(line);
    // Most lines are told by their first letter; every text of every crate comes by here.
    if !line.starts_with(['c', 'C', '(', '©', 'p', 'P', 'a', 'A']) || is_template(line) {
        return false;
    }
    let lower = line.to_lowercase();
    let word = lower.starts_with("copyright") || lower.starts_with("portions copyright");
    let year = line.as_bytes().windows(4).any(|four| four.iter().all(u8::is_ascii_digit));
    let name = line.strip_prefix("Copyright ").and_then(|rest| rest.chars().next());
    lower.starts_with("all rights reserved")
        || (word && (year || lower.contains("(c)") || lower.contains('©')))
        || lower.starts_with('©')
        || (lower.starts_with("(c)") && year)
        || name.is_some_and(char::is_uppercase)
}

/// The line of the Apache licence that shows how to write a copyright line.
fn is_template(line: &str) -> bool {
    line.contains("yyyy") || line.contains("YYYY")
}

/// A heading that some copies of a licence have and others have not.
fn is_title(line: &str) -> bool {
    if line.len() > 40 {
        return false;
    }
    let words = words(line);
    ["mit license", "the mit license", "the mit license mit", "mit license mit", "isc license", "license"]
        .contains(&words.as_str())
}

/// Beginnings of the names of files about licences.
const NAMES: [&str; 8] =
    ["license", "licence", "unlicense", "copying", "notice", "copyright", "patents", "authors"];
/// Ends of names of files that are about something else.
const CODE: [&str; 10] = ["rs", "c", "h", "go", "py", "pl", "toml", "json", "html", "hbs"];
/// Folders that do not end in a program: tests, documentation, and the Perl modules that configure OpenSSL.
const NOT_COMPILED: [&str; 9] =
    ["bench", "benches", "doc", "docs", "examples", "fuzz", "perl", "test", "tests"];
/// With fewer words a file only points to another.
const FEWEST_WORDS: usize = 8;

/// Every text about licences in a crate: at its root, in folders with sources that it took over, and what its manifest
/// names. Sorted by path.
pub(crate) fn of_crate(directory: &Path, named: Option<&str>) -> Result<Vec<Text>> {
    let mut files = Vec::new();
    walk(directory, "", false, &mut files).with_context(|| format!("reading {}", directory.display()))?;
    // It may lie outside the crate, as `../LICENSE` in a repository with several.
    if let Some(file) = named.filter(|file| directory.join(file).is_file()) {
        files.push(file.to_owned());
    }
    files.sort();
    files.dedup();
    let mut texts = Vec::new();
    for file in files {
        let bytes = std::fs::read(directory.join(&file)).with_context(|| format!("reading {file}"))?;
        let mut text = Text::new(file, &String::from_utf8_lossy(&bytes));
        text.nested &= named != Some(text.file.as_str());
        if text.content.split_whitespace().count() >= FEWEST_WORDS {
            texts.push(text);
        }
    }
    Ok(texts)
}

/// Collects files by their names, or all of them in a folder that is about licences.
fn walk(directory: &Path, prefix: &str, every: bool, files: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let lower = name.to_lowercase();
        if entry.file_type()?.is_dir() {
            if !NOT_COMPILED.contains(&lower.as_str()) {
                let every =
                    ["license", "licence"].iter().any(|word| lower.trim_matches('.').starts_with(word));
                walk(&entry.path(), &format!("{prefix}{name}/"), every, files)?;
            }
        } else if (every || NAMES.iter().any(|begin| lower.starts_with(begin)))
            && !CODE.iter().any(|end| lower.ends_with(&format!(".{end}")))
        {
            files.push(format!("{prefix}{name}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIT: &str = include_str!("../texts/MIT.txt");
    const APACHE: &str = include_str!("../../../LICENSE");

    #[test]
    fn a_text_is_recognised_by_its_own_words() {
        assert_eq!(recognised(APACHE), ["Apache-2.0"]);
        assert_eq!(recognised(MIT), ["MIT"]);
        assert_eq!(recognised(&format!("{APACHE}\n---\n{MIT}")), ["Apache-2.0", "MIT"]);
        let bsd = "Redistribution and use in source and\n// binary forms, with or without";
        assert_eq!(recognised(bsd), ["BSD-2-Clause"]);
        assert_eq!(
            recognised(&format!("{bsd} may be used to endorse or promote products")),
            ["BSD-3-Clause"]
        );
        assert!(recognised("Licensed under the Apache License, Version 2.0, or the MIT license").is_empty());
    }

    #[test]
    fn copies_differ_by_copyright_lines_title_and_layout_only() {
        let one = format!("The MIT License (MIT)\n\nCopyright (c) 2015 Somebody\n\n{MIT}");
        let two = format!(
            "# MIT License\r\n\r\n© 2020 Others\r\nAll rights reserved.\r\n\r\n{}",
            MIT.replace('\n', " ").replace('"', "“")
        );
        assert_eq!(key(&one), key(&two));
        assert_eq!(key(&one), key(MIT));
        assert_ne!(key(&one), key(&one.replace("publish, ", "")));
        assert_eq!(copyrights(&one), ["Copyright (c) 2015 Somebody"]);
        assert_eq!(copyrights(&two), ["© 2020 Others", "All rights reserved."]);
    }

    #[test]
    fn a_copyright_line_is_told_from_a_broken_line_of_a_licence() {
        for line in [
            "Copyright 2019 A",
            "   Copyright (c) A",
            "copyright 2001 by A",
            "Copyright The A Authors",
            "// Copyright © A",
            "Portions Copyright (C) 1999, A",
        ] {
            assert!(is_copyright(line), "{line}");
        }
        for line in [
            "copyright license to reproduce, prepare Derivative Works of,",
            "COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM",
            "copyright notice and this permission notice appear in all copies.",
            "   Copyright [yyyy] [name of copyright owner]",
            "the copyright owner or entity authorized by",
            "(c) You must retain, in the Source form of any Derivative Works",
        ] {
            assert!(!is_copyright(line), "{line}");
        }
        assert!(copyrights(APACHE).is_empty());
    }

    #[test]
    fn files_are_found_by_any_name_and_in_folders_that_are_compiled() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "one two three four five six seven eight";
        let texts = [
            ".licenses/Somebody-MIT",
            "COPYING",
            "LICENSE-MIT",
            "LICENSE.Apache-2.0",
            "NOTICE",
            "UNLICENSE",
            "c_src/lib/LICENSE",
            "legal/own.txt",
            "licence.md",
        ];
        let others =
            ["external/perl/LICENSE", "license.rs", "readme.md", "src/own.txt", "tests/data/LICENSE"];
        for file in texts.iter().chain(&others) {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        std::fs::write(folder.path().join("LICENSE-Apache"), "../../LICENSE-APACHE").expect("written");
        let found = of_crate(folder.path(), Some("legal/own.txt")).expect("read");
        let names: Vec<&str> = found.iter().map(|text| text.file.as_str()).collect();
        assert_eq!(names, texts);
        let nested: Vec<&str> =
            found.iter().filter(|text| text.nested).map(|text| text.file.as_str()).collect();
        assert_eq!(nested, [".licenses/Somebody-MIT", "c_src/lib/LICENSE"]);
    }
}
