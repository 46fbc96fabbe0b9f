//! Values of the previous chart -> values of this one. Pure.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::document::Yaml;
use crate::flags::{self, Became};
use crate::table::{Row, Table, Transform};
use crate::tree::{at, is_empty, leaves, map_at, part, take};

/// What became of a key that is not in the new values as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Dotted path in the old values; of a flag the flag follows.
    pub key: String,
    /// Why.
    pub why: String,
    /// It meant something and has no new place, so somebody has to decide.
    pub lost: bool,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", if self.lost { "no new place" } else { "dropped" }, self.key, self.why)
    }
}

/// New values, and one remark per key that is not among them.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// For this chart.
    pub values: Yaml,
    /// What was dropped, then what has no place.
    pub remarks: Vec<Remark>,
}

impl Converted {
    /// Whether something that meant something has no place in the new values.
    pub fn is_lossy(&self) -> bool {
        self.remarks.iter().any(|remark| remark.lost)
    }
}

/// Converts the values of one chart. Keys of this chart stay as they are and win over what an old key became.
pub fn convert(table: &Table, values: Yaml) -> Converted {
    let (new, old): (Yaml, Yaml) = values.into_iter().partition(|(key, _)| table.keys.contains(key));
    let mut work = Work { table, given: new.clone(), new, remarks: Vec::new(), scoped: Vec::new() };
    work.rows(old);
    work.remarks.sort_by_key(|remark| remark.lost);
    Converted { values: work.new, remarks: work.remarks }
}

/// A setting that goes to every component that is on, once it is known which are.
struct Scoped {
    key: String,
    path: String,
    value: Value,
}

struct Work<'a> {
    table: &'a Table,
    given: Yaml,
    new: Yaml,
    remarks: Vec<Remark>,
    scoped: Vec<Scoped>,
}

impl Work<'_> {
    fn dropped(&mut self, key: &str, why: impl Into<String>) {
        self.remarks.push(Remark { key: key.to_owned(), why: why.into(), lost: false });
    }

    fn lost(&mut self, key: &str, why: impl Into<String>) {
        self.remarks.push(Remark { key: key.to_owned(), why: why.into(), lost: true });
    }

    fn rows(&mut self, mut old: Yaml) {
        let table = self.table;
        // A key of its own says more than a flag in a list, so flags come last.
        let (flags, keys): (Vec<_>, Vec<_>) =
            table.rows.iter().partition(|row| row.transform == Some(Transform::Args));
        for row in keys.into_iter().chain(flags) {
            if let Some(value) = take(&mut old, &row.old) {
                self.row(row, value);
            }
        }
        for Scoped { key, path, value } in std::mem::take(&mut self.scoped) {
            self.place_in_components(&key, &path, &value);
        }
        let mut left = Vec::new();
        for (key, value) in &old {
            leaves(key, value, &mut left);
        }
        for (key, value) in left {
            if is_empty(value) {
                self.dropped(&key, "it says nothing");
            } else {
                self.lost(&key, "neither the previous chart nor this one has such a value");
            }
        }
    }

    fn row(&mut self, row: &Row, value: Value) {
        let key = row.old.as_str();
        if value.is_null() {
            return self.dropped(key, "null means that it is not set");
        }
        if let Some(why) = &row.any {
            let why = if is_empty(&value) { "it says nothing" } else { why };
            return self.dropped(key, why);
        }
        let (value, defaults) = part(key, value, row.default.as_ref());
        for path in defaults {
            self.dropped(&path, "it is at its default");
        }
        let Some(value) = value else { return };
        if let Some(why) = &row.refuse {
            return self.lost(key, why.clone());
        }
        match row.transform {
            Some(Transform::Image) => self.image(key, &value),
            Some(Transform::Args) => self.args(key, &value),
            Some(Transform::Env) => self.env(key, value),
            None => match &row.values {
                Some(settings) => match settings.get(&flags::text(&value)) {
                    Some(settings) => {
                        for setting in settings {
                            let (path, text) = setting.split_once('=').unwrap_or((setting, ""));
                            let value = serde_json::from_str(text).unwrap_or_else(|_| json!(text));
                            self.place(key, path, value);
                        }
                    }
                    None => self.lost(key, format!("{value} is no value of it")),
                },
                None => {
                    for path in &row.new {
                        self.place_or_keep(key, path, &value);
                    }
                }
            },
        }
    }

    fn place_or_keep(&mut self, key: &str, path: &str, value: &Value) {
        if path.starts_with('<') {
            self.scoped.push(Scoped { key: key.to_owned(), path: path.to_owned(), value: value.clone() });
        } else {
            self.place(key, path, value.clone());
        }
    }

    fn place_in_components(&mut self, key: &str, path: &str, value: &Value) {
        let (scope, rest) = path.split_once('.').unwrap_or((path, ""));
        let table = self.table;
        let mut placed = false;
        for (component, _) in &table.components {
            let meant = scope == "<component>" || component != "authbridge-webhook";
            if meant && table.is_on(component, &self.new) {
                placed = true;
                self.place(key, &format!("{component}.{rest}"), value.clone());
            }
        }
        if !placed {
            self.dropped(key, "no component that it is for is on");
        }
    }

    /// Puts a value at a path of the new values; what is there already wins.
    fn place(&mut self, key: &str, path: &str, value: Value) {
        let (parent, last) = path.rsplit_once('.').unwrap_or(("", path));
        let mut stands = Vec::new();
        let map = if parent.is_empty() { Ok(&mut self.new) } else { map_at(&mut self.new, parent) };
        match map {
            Ok(map) => put(map, path, last, value, &mut stands),
            Err(in_the_way) => {
                return self.lost(key, format!("{path} cannot be set, because {in_the_way} is no map"));
            }
        }
        for Stand { path, item } in stands {
            let is_given = at(&self.given, &path).is_some_and(|value| match (&item, value) {
                (Some(standing), Value::Array(items)) => items.contains(standing),
                _ => true,
            });
            let who = if is_given { "these values set" } else { "another old key sets" };
            let what = item
                .as_ref()
                .and_then(name_of)
                .map_or_else(|| path.clone(), |name| format!("{name} in {path}"));
            self.dropped(key, format!("{who} {what} already"));
        }
    }

    /// The image of the previous operator names registry and path of ours, where it ends as that one did.
    fn image(&mut self, key: &str, value: &Value) {
        let text = flags::text(value);
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [registry, path @ .., "kagenti-operator"] if !path.is_empty() || is_host(registry) => {
                self.place(key, "global.registry", json!(registry));
                self.place(key, "global.imagePrefix", json!(path.join("/")));
            }
            _ => {
                let images: Vec<&str> = self.table.components.iter().map(|(name, _)| name.as_str()).collect();
                let why = format!(
                    "{text} is one image, and this chart has {}; set global.registry and global.imagePrefix of your mirror",
                    images.join(", ")
                );
                self.lost(key, why);
            }
        }
    }

    fn args(&mut self, key: &str, value: &Value) {
        let Value::Array(args) = value else { return self.lost(key, "it is no list of flags") };
        if args.is_empty() {
            return self.dropped(key, "it says nothing");
        }
        let before = self.remarks.len();
        // The last of several counts for a program, so it is placed first and the others find it set.
        for (flag, became) in flags::became(&self.table.flags, args).into_iter().rev() {
            let key = format!("{key}: {flag}");
            match became {
                Became::Nothing(why) => self.dropped(&key, why),
                Became::NoPlace(why) => self.lost(&key, why),
                Became::Key(path, value) => self.place(&key, &path, value),
                Became::Argument(owner, argument) => {
                    self.place(&key, &format!("{owner}.extraArgs"), json!([argument]));
                }
            }
        }
        let remarks = self.remarks.split_off(before);
        self.remarks.extend(remarks.into_iter().rev());
    }

    /// `{NAME: value}` becomes `[{name: NAME, value: "value"}]`; a list is one already.
    fn env(&mut self, key: &str, value: Value) {
        let variables = match value {
            Value::Object(map) => {
                let mut list = Vec::new();
                for (name, value) in sorted(map) {
                    match value {
                        Value::Object(_) | Value::Array(_) => {
                            self.lost(&format!("{key}.{name}"), "the value of a variable is a text");
                        }
                        value => list.push(json!({"name": name, "value": flags::text(&value)})),
                    }
                }
                list
            }
            Value::Array(list) => list,
            _ => return self.lost(key, "it is no map of variables"),
        };
        if !variables.is_empty() {
            self.place(key, "global.extraEnv", Value::Array(variables));
        }
    }
}

/// The members of a map in the order of their keys.
fn sorted(map: Map<String, Value>) -> Vec<(String, Value)> {
    let mut members: Vec<_> = map.into_iter().collect();
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    members
}

/// Puts a value under a key of a map. Maps are merged, lists are put before those that are there (later flags and variables
/// win); of anything else what is there stays, and its path is noted when it differs.
fn put(map: &mut Yaml, path: &str, key: &str, value: Value, stands: &mut Vec<Stand>) {
    match (map.get_mut(key), value) {
        (None, value) => {
            map.insert(key.to_owned(), value);
        }
        (Some(Value::Object(below)), Value::Object(more)) => {
            for (key, value) in more {
                put(below, &format!("{path}.{key}"), &key, value, stands);
            }
        }
        (Some(Value::Array(list)), Value::Array(more)) => {
            let mut new = Vec::new();
            for item in more {
                match list.iter().find(|other| alike(&item, other)) {
                    None => new.push(item),
                    Some(other) if *other == item => {}
                    Some(other) => {
                        stands.push(Stand { path: path.to_owned(), item: Some(other.clone()) });
                    }
                }
            }
            list.splice(0..0, new);
        }
        (Some(there), value) if *there == value => {}
        (Some(_), _) => stands.push(Stand { path: path.to_owned(), item: None }),
    }
}

/// Whether the first part of an image's name is a registry (the rule of every container runtime).
fn is_host(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':'])
}

/// What was there already, and is something else.
struct Stand {
    /// Of the value.
    path: String,
    /// The item, where the value is a list.
    item: Option<Value>,
}

/// Whether two items of a list are about the same: equal, variables of one name, or one flag.
fn alike(one: &Value, other: &Value) -> bool {
    one == other || name_of(one).is_some_and(|one| name_of(other) == Some(one))
}

/// The flag or the variable that an item of a list is about.
fn name_of(item: &Value) -> Option<String> {
    match item {
        Value::String(flag) => {
            flag.split_once('=').map(|(name, _)| format!("--{}", name.trim_start_matches('-')))
        }
        Value::Object(variable) => variable.get("name").and_then(Value::as_str).map(str::to_owned),
        _ => None,
    }
}
