//! Linked skills (runtime §11). Pure.

/// Reads the annotation `kagenti.io/skills`: a JSON array of strings, copied in order with duplicates.
///
/// Absent, empty, `null` and `[]` mean none.
///
/// # Errors
/// Anything else, with what the event says.
pub fn parse(annotation: Option<&str>) -> Result<Vec<String>, String> {
    match annotation {
        None | Some("") => Ok(Vec::new()),
        Some(text) => serde_json::from_str::<Option<Vec<String>>>(text)
            .map(Option::unwrap_or_default)
            .map_err(|error| format!("Failed to parse kagenti.io/skills annotation: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(None, Some(&[][..]))]
    #[case(Some(""), Some(&[][..]))]
    #[case(Some("null"), Some(&[][..]))]
    #[case(Some("[]"), Some(&[][..]))]
    #[case(Some(r#"["b","a","b"]"#), Some(&["b", "a", "b"][..]))]
    #[case(Some("not-json"), None)]
    #[case(Some(r#"{"a":1}"#), None)]
    #[case(Some(r#"["a",1]"#), None)]
    fn annotation(#[case] text: Option<&str>, #[case] want: Option<&[&str]>) {
        match (parse(text), want) {
            (Ok(got), Some(want)) => assert_eq!(got, want),
            (Err(message), None) => {
                assert!(message.starts_with("Failed to parse kagenti.io/skills annotation: "));
            }
            (got, want) => panic!("{got:?} instead of {want:?}"),
        }
    }
}
