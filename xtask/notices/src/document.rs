//! The notices as one text: each licence text once, with what it applies to.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::ORDER;
use crate::texts::{Text, copyrights, key, without_copyrights};

/// A text and all who use it.
struct Group {
    /// Its licence, or the name of its file.
    title: String,
    /// Place of its licence in the order.
    rank: usize,
    /// The different forms that were found, the first of them as an example.
    example: String,
    forms: BTreeSet<String>,
    /// Parts by title: where from, and their copyright lines.
    users: BTreeMap<String, (String, BTreeSet<String>)>,
}

/// The notices of a program, from title, texts and source of each part. The order of the parts does not matter.
pub(crate) fn render(program: &str, mut parts: Vec<(String, Vec<Text>, String)>) -> String {
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    let count = parts.len();
    let groups = groups(parts);
    let mut text = format!(
        "Third-party notices of {program}\n\n\
         {program} is licensed under the Apache License 2.0, see LICENSE. {count} parts of it are the work of others.\n\
         Each licence text stands here once, followed by the parts it applies to. Where a part may be used under one of\n\
         several licences, the first of these was chosen: {}.\n",
        ORDER.join(",\n")
    );
    for (number, group) in groups.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "\n{}\n{}. {}\n\n{}\n", "=".repeat(100), number + 1, group.title, group.text());
        let _ = writeln!(text, "{}\napplies to:", "-".repeat(100));
        for (title, (source, copyrights)) in &group.users {
            let _ = writeln!(text, "- {title}, {source}");
            if group.forms.len() > 1 {
                for line in copyrights {
                    let _ = writeln!(text, "    {line}");
                }
            }
        }
    }
    text
}

impl Group {
    /// Copyright lines stay where they are when the text has one form; else each part lists its own.
    fn text(&self) -> String {
        if self.forms.len() > 1 { without_copyrights(&self.example) } else { self.example.clone() }
    }
}

fn groups(parts: Vec<(String, Vec<Text>, String)>) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (title, texts, source) in parts {
        for text in texts {
            let licences = &text.licences;
            let group = groups.entry(key(&text.content)).or_insert_with(|| Group {
                title: if licences.is_empty() { text.file.clone() } else { licences.join(" and ") },
                rank: ORDER.iter().position(|name| licences.first() == Some(name)).unwrap_or(ORDER.len()),
                example: text.content.clone(),
                forms: BTreeSet::new(),
                users: BTreeMap::new(),
            });
            let lines = copyrights(&text.content);
            // Layout alone makes no other form.
            group.forms.insert(lines.join("\n"));
            let user = group.users.entry(title.clone()).or_insert_with(|| (source.clone(), BTreeSet::new()));
            user.1.extend(lines);
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_cached_key(|group| {
        (group.rank, Reverse(group.users.len()), group.users.keys().next().cloned(), group.title.clone())
    });
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIT: &str = include_str!("../texts/MIT.txt");

    fn part(title: &str, content: &str) -> (String, Vec<Text>, String) {
        (title.to_owned(), vec![Text::new("LICENSE", content)], "https://example.org".to_owned())
    }

    #[test]
    fn a_text_stands_once_and_every_copyright_line_stays() {
        let parts = vec![
            part("a 1.0.0", &format!("MIT License\n\nCopyright (c) 2015 A\nCopyright (c) 2016 B\n\n{MIT}")),
            part("b 1.0.0", &format!("Copyright 2020 C\n\n{}", MIT.replace('\n', "\r\n"))),
            part("c 1.0.0", "Words of its own, by somebody."),
        ];
        let text = render("tool", parts.clone());
        assert!(text.starts_with("Third-party notices of tool\n"), "{text}");
        assert_eq!(text.matches("to any person obtaining a copy").count(), 1, "{text}");
        let users = "applies to:\n- a 1.0.0, https://example.org\n    Copyright (c) 2015 A\n    Copyright (c) 2016 B\n\
                     - b 1.0.0, https://example.org\n    Copyright 2020 C\n";
        assert!(text.contains(users), "{text}");
        assert!(text.contains("LICENSE\n\nWords of its own, by somebody."), "{text}");
        let mut turned = parts;
        turned.reverse();
        assert_eq!(render("tool", turned), text);
    }

    #[test]
    fn a_text_with_one_form_stays_as_it_is() {
        let text = format!("Part one\nCopyright 2001 A\n\n{MIT}\n\nPart two\nCopyright 2002 B\n\n{MIT}");
        let notices = render("tool", vec![part("a 1.0.0", &text), part("b 1.0.0", &text)]);
        assert!(notices.contains(&text.trim_end().to_owned()), "{notices}");
        assert!(
            notices.contains("- a 1.0.0, https://example.org\n- b 1.0.0, https://example.org\n"),
            "{notices}"
        );
    }
}
