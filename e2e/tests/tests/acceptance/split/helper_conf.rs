//! What spiffe-helper 0.11 demands of its file (split §2), as a strict reader: the real program is not to be had here.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use anyhow::{Context as _, Result, bail, ensure};

/// Every key the program knows; any other one ends it with exit 1.
const KNOWN: &[&str] = &[
    "agent_address",
    "cmd",
    "cmd_args",
    "pid_file_name",
    "exit_when_ready",
    "cert_dir",
    "svid_file_name",
    "svid_key_file_name",
    "svid_bundle_file_name",
    "jwt_svids",
    "jwt_bundle_file_name",
    "include_federated_domains",
    "renew_signal",
    "cert_file_mode",
    "key_file_mode",
    "jwt_bundle_file_mode",
    "jwt_svid_file_mode",
    "daemon_mode",
    "add_intermediates_to_bundle",
    "omit_expired",
    "health_checks",
    "hint",
    "log_level",
];

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Word(String),
    List(Vec<BTreeMap<String, Value>>),
}

/// Accepts the file as the program would, and demands that the JWT is for this audience.
pub(super) fn accept(text: &str, audience: &str) -> Result<()> {
    let file = read(text)?;
    for key in file.keys() {
        ensure!(KNOWN.contains(&key.as_str()), "the program ends over unknown key {key}");
    }
    let string = |key: &str| match file.get(key) {
        Some(Value::Text(text)) => Ok(text.as_str()),
        other => bail!("{key} is {other:?}, not a string"),
    };
    let address = string("agent_address")?;
    ensure!(address.starts_with('/'), "agent_address is a bare path, it gets `unix://` before it: {address}");
    let names = ["svid_file_name", "svid_key_file_name", "svid_bundle_file_name"];
    let given: Vec<&str> = names.into_iter().filter(|name| file.contains_key(*name)).collect();
    ensure!(given.is_empty() || given.len() == names.len(), "all or none of {names:?}, found {given:?}");
    let absolute = !file.contains_key("cert_dir");
    for name in given {
        ensure!(
            string(name)?.starts_with('/') == absolute,
            "{name} is relative to cert_dir, or absolute without"
        );
    }
    ensure!(string("cert_dir")? == "/opt", "the volume is mounted at /opt");
    let Some(Value::List(svids)) = file.get("jwt_svids") else { bail!("no jwt_svids") };
    for svid in svids {
        for key in ["jwt_audience", "jwt_svid_file_name"] {
            ensure!(
                matches!(svid.get(key), Some(Value::Text(text)) if !text.is_empty()),
                "{key} of {svid:?}"
            );
        }
        ensure!(svid.len() == 2, "unknown keys in {svid:?}");
    }
    let wanted = Some(&Value::Text(audience.to_owned()));
    ensure!(svids.iter().any(|svid| svid.get("jwt_audience") == wanted), "no JWT for {audience}");
    // Read by another container of the same pod; octal in HCL.
    ensure!(file.get("jwt_svid_file_mode") == Some(&Value::Word("0644".to_owned())), "mode of the JWT");
    Ok(())
}

/// A file of `key = value` lines; nothing else is needed of HCL, and anything else is refused.
fn read(text: &str) -> Result<BTreeMap<String, Value>> {
    let mut chars = text.chars().peekable();
    let mut file = BTreeMap::new();
    loop {
        blank(&mut chars);
        if chars.peek().is_none() {
            return Ok(file);
        }
        let (key, value) = pair(&mut chars)?;
        ensure!(file.insert(key.clone(), value).is_none(), "{key} is there twice");
    }
}

fn pair(chars: &mut Peekable<Chars<'_>>) -> Result<(String, Value)> {
    let key = word(chars)?;
    blank(chars);
    ensure!(chars.next() == Some('='), "no `=` behind {key}");
    blank(chars);
    Ok((key, value(chars)?))
}

fn value(chars: &mut Peekable<Chars<'_>>) -> Result<Value> {
    match chars.peek().copied().context("a value is missing")? {
        '"' => {
            chars.next();
            let mut text = String::new();
            loop {
                match chars.next().context("a string without end")? {
                    '"' => return Ok(Value::Text(text)),
                    '\\' | '$' | '\n' => bail!("escapes, templates and line breaks in {text:?}"),
                    letter => text.push(letter),
                }
            }
        }
        '[' => {
            chars.next();
            let mut items = Vec::new();
            loop {
                blank(chars);
                match chars.next().context("a list without end")? {
                    ']' => return Ok(Value::List(items)),
                    ',' => {}
                    '{' => items.push(map(chars)?),
                    other => bail!("{other:?} in a list"),
                }
            }
        }
        _ => Ok(Value::Word(word(chars)?)),
    }
}

fn map(chars: &mut Peekable<Chars<'_>>) -> Result<BTreeMap<String, Value>> {
    let mut items = BTreeMap::new();
    loop {
        blank(chars);
        match chars.peek().copied().context("a map without end")? {
            '}' => {
                chars.next();
                return Ok(items);
            }
            ',' => {
                chars.next();
            }
            _ => {
                let (key, value) = pair(chars)?;
                items.insert(key, value);
            }
        }
    }
}

fn word(chars: &mut Peekable<Chars<'_>>) -> Result<String> {
    let mut word = String::new();
    while let Some(letter) = chars.next_if(|letter| letter.is_ascii_alphanumeric() || *letter == '_') {
        word.push(letter);
    }
    ensure!(!word.is_empty(), "a word was expected before {:?}", chars.peek());
    Ok(word)
}

fn blank(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|letter| letter.is_whitespace()).is_some() {}
}

#[test]
fn the_strict_reader_refuses_what_the_program_refuses() {
    let good = "agent_address = \"/s\"\ncert_dir = \"/opt\"\njwt_svid_file_mode = 0644\n\
                jwt_svids = [{jwt_audience=\"a\", jwt_svid_file_name=\"t\"}]\n";
    assert!(accept(good, "a").is_ok(), "{:?}", accept(good, "a"));
    let bad = [
        good.replace("cert_dir", "certdir"),
        good.replace("\"/s\"", "\"unix:///s\""),
        format!("{good}svid_file_name = \"svid.pem\"\n"),
        good.replace(", jwt_svid_file_name=\"t\"", ""),
        good.replace("\"/s\"", "\"/$s\""),
        format!("{good}x"),
    ];
    for text in bad {
        assert!(accept(&text, "a").is_err(), "{text}");
    }
    assert!(accept(good, "b").is_err());
}
