//! The tree: members in the order of the text, numbers with their text.

/// A JSON value. Members keep the order of the document; an object that was read has no duplicate names.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object, members in order.
    Object(Vec<(String, Value)>),
}

/// A number: its double and, for documents that are passed on member for member, its text.
#[derive(Clone, Debug)]
pub struct Number {
    double: f64,
    text: Box<str>,
}

impl Number {
    /// A number that was read. `double` must be the value of `text` and finite.
    pub(super) fn read(double: f64, text: &str) -> Self {
        Self { double, text: text.into() }
    }

    /// The value as an IEEE double, always finite.
    pub fn as_f64(&self) -> f64 {
        self.double
    }

    /// The number as the document wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Equal when the doubles are the same bits: `1.0` equals `1`, `-0` does not equal `0`.
impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.double.to_bits() == other.double.to_bits()
    }
}

impl Value {
    /// The members of an object, `None` for anything else.
    pub fn members(&self) -> Option<&[(String, Value)]> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The elements of an array, `None` for anything else.
    pub fn elements(&self) -> Option<&[Value]> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The text of a string, `None` for anything else.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// A boolean, `None` for anything else.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A member of an object; `None` also when it is `null`, which counts as absent (card §6.6).
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.members()?.iter().find(|(own, value)| own == name && !value.is_null()).map(|(_, value)| value)
    }

    /// True for `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// True for `null`, `""`, `[]` and `{}`: what several canonical payloads leave out (card §8.2).
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Null => true,
            Self::String(text) => text.is_empty(),
            Self::Array(elements) => elements.is_empty(),
            Self::Object(members) => members.is_empty(),
            Self::Bool(_) | Self::Number(_) => false,
        }
    }
}

/// For types that `serde_json` knows. Integers stay integers where 64 bits hold them, else doubles.
impl From<&Value> for serde_json::Value {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => number_to_serde(number),
            Value::String(text) => Self::String(text.clone()),
            Value::Array(elements) => Self::Array(elements.iter().map(Self::from).collect()),
            Value::Object(members) => {
                Self::Object(members.iter().map(|(name, value)| (name.clone(), Self::from(value))).collect())
            }
        }
    }
}

fn number_to_serde(number: &Number) -> serde_json::Value {
    if let Ok(integer) = number.text().parse::<i64>() {
        return integer.into();
    }
    if let Ok(integer) = number.text().parse::<u64>() {
        return integer.into();
    }
    serde_json::Number::from_f64(number.as_f64()).map_or(serde_json::Value::Null, serde_json::Value::Number)
}
