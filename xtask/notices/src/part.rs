//! One thing that is linked: a crate or a library, and which of its texts belong into the notices.

use anyhow::{Context as _, Result, ensure};

use crate::choice::{chosen, named};
use crate::texts::Text;

/// Standard texts, for crates that ship none: the suite's own licence, and SPDX's text of the other.
const APACHE: &str = include_str!("../../../LICENSE");
const MIT: &str = include_str!("../texts/MIT.txt");

/// A crate or a library.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    /// Name and version.
    pub(crate) title: String,
    /// Where its sources are.
    pub(crate) source: String,
    /// Its licence as an SPDX expression. Without one all of its texts count.
    pub(crate) expression: Option<String>,
    /// Whom the manifest names, for a licence text that must name somebody.
    pub(crate) authors: Vec<String>,
    /// Every text about licences that it ships.
    pub(crate) texts: Vec<Text>,
}

impl Part {
    /// Its texts without those of licences that were not taken. A taken licence without text is looked for in a crate
    /// of the same repository, then among the standard texts. An error names the part whose text is not to be had.
    pub(crate) fn selected(&self, sibling: &dyn Fn(&str) -> Result<Option<Text>>) -> Result<Vec<Text>> {
        let Some(expression) = &self.expression else {
            ensure!(!self.texts.is_empty(), "{} names no licence and ships no text of one", self.title);
            return Ok(self.texts.clone());
        };
        let (chosen, named) = (
            chosen(expression).with_context(|| format!("choosing a licence of {}", self.title))?,
            named(expression)?,
        );
        // What holds other texts than those taken, such as a file with both licences, is the second choice.
        let (mut selected, mut mixed) = (Vec::new(), Vec::new());
        for text in &self.texts {
            let found = &text.licences;
            // What it took over has a licence of its own, and no choice.
            if text.nested || found.iter().all(|licence| chosen.contains(licence) || !named.contains(licence))
            {
                selected.push(text.clone());
            } else if found.iter().any(|licence| chosen.contains(licence)) {
                mixed.push(text.clone());
            }
        }
        for licence in chosen {
            let has = |text: &Text| !text.nested && text.licences.contains(&licence);
            if !selected.iter().any(has) {
                let own = mixed.iter().find(|text| has(text)).cloned();
                let text = match own {
                    Some(text) => Some(text),
                    None => sibling(licence)?.or_else(|| self.standard(licence)),
                };
                let text = text.with_context(|| {
                    format!(
                        "{} ships no text of its licence {licence}, nor does a crate of its repository",
                        self.title
                    )
                })?;
                selected.push(text);
            }
        }
        Ok(selected)
    }

    /// The text that SPDX has for a licence, where it says all that is needed.
    fn standard(&self, licence: &str) -> Option<Text> {
        match licence {
            "Apache-2.0" => Some(Text::new("Apache-2.0", APACHE)),
            "MIT" if !self.authors.is_empty() => {
                Some(Text::new("MIT", &format!("Copyright (c) {}\n\n{MIT}", self.authors.join(", "))))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISC: &str = "Permission to use, copy, modify, and/or distribute this software for any purpose";

    fn part(expression: &str, texts: &[(&str, &str)]) -> Part {
        Part {
            title: "some-crate 1.2.3".to_owned(),
            expression: Some(expression.to_owned()),
            texts: texts.iter().map(|(file, content)| Text::new(*file, content)).collect(),
            ..Part::default()
        }
    }

    fn files(part: &Part) -> Vec<String> {
        let selected = part.selected(&|_| Ok(None)).expect("texts");
        selected.into_iter().map(|text| text.file).collect()
    }

    #[test]
    fn only_texts_of_licences_not_taken_are_left_out() {
        let texts = [("LICENSE-APACHE", APACHE), ("LICENSE-MIT", MIT), ("NOTICE", "Somebody wrote this.")];
        assert_eq!(files(&part("MIT OR Apache-2.0", &texts)), ["LICENSE-APACHE", "NOTICE"]);
        assert_eq!(files(&part("MIT AND Apache-2.0", &texts)), ["LICENSE-APACHE", "LICENSE-MIT", "NOTICE"]);
        // A licence that the expression does not name is somebody else's, and stays.
        let texts = [("LICENSE", APACHE), ("vendored/LICENSE", MIT)];
        assert_eq!(files(&part("Apache-2.0", &texts)), ["LICENSE", "vendored/LICENSE"]);
        assert_eq!(files(&part("MIT OR Apache-2.0", &texts)), ["LICENSE", "vendored/LICENSE"]);
    }

    #[test]
    fn a_file_with_several_licences_serves_where_no_other_does() {
        let both = format!("{APACHE}\n{MIT}");
        assert_eq!(files(&part("MIT OR Apache-2.0", &[("LICENSE", &both)])), ["LICENSE"]);
        let texts = [("COPYING", both.as_str()), ("LICENSE-APACHE", APACHE)];
        assert_eq!(files(&part("MIT OR Apache-2.0", &texts)), ["LICENSE-APACHE"]);
    }

    #[test]
    fn a_missing_text_comes_from_the_repository_then_from_the_standard() {
        let bare = part("ISC", &[]);
        let sibling = |licence: &str| Ok((licence == "ISC").then(|| Text::new("sibling", ISC)));
        assert_eq!(bare.selected(&sibling).expect("texts")[0].file, "sibling");
        let mut bare = part("MIT/Apache-2.0", &[]);
        assert_eq!(files(&bare), ["Apache-2.0"]);
        bare.expression = Some("MIT".to_owned());
        bare.authors = vec!["A Body".to_owned(), "B Body".to_owned()];
        let texts = bare.selected(&|_| Ok(None)).expect("texts");
        assert!(texts[0].content.starts_with("Copyright (c) A Body, B Body\n\nPermission"), "{texts:?}");
    }

    #[test]
    fn a_crate_without_text_is_an_error_that_names_it() {
        // The text of what a crate took over is not its own.
        let nested = part("ISC", &[("vendored/LICENSE", ISC)]);
        // A licence that must name somebody does not become anonymous.
        let anonymous = part("MIT", &[]);
        let unlicensed = Part { title: "some-crate 1.2.3".to_owned(), ..Part::default() };
        for part in [nested, anonymous, unlicensed, part("GPL-3.0-only", &[("LICENSE", "GPL")])] {
            let error = format!("{:#}", part.selected(&|_| Ok(None)).expect_err("no text"));
            assert!(error.contains("some-crate 1.2.3"), "{error}");
        }
    }
}
