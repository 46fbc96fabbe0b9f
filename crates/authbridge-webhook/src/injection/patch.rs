//! JSON patch (RFC 6902) with the operations this product uses: add, replace and remove.

use serde::Serialize;
use serde_json::Value;

/// One operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation {
    /// Adds or replaces a member, or inserts into an array (`-` appends).
    Add {
        /// JSON pointer.
        path: String,
        /// The new value.
        value: Value,
    },
    /// Replaces an existing value.
    Replace {
        /// JSON pointer.
        path: String,
        /// The new value.
        value: Value,
    },
    /// Removes an existing value.
    Remove {
        /// JSON pointer.
        path: String,
    },
}

/// A list of operations that apply in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Patch {
    operations: Vec<Operation>,
}

impl Patch {
    /// True when there is nothing to do; the response then carries no patch.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The operations.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The patch as the JSON bytes of an AdmissionResponse, before base64.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and values only: serialising to memory cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Appends `add`.
    pub(crate) fn add(&mut self, path: impl Into<String>, value: impl Into<Value>) {
        self.operations.push(Operation::Add { path: path.into(), value: value.into() });
    }

    /// Appends `replace`.
    pub(crate) fn replace(&mut self, path: impl Into<String>, value: impl Into<Value>) {
        self.operations.push(Operation::Replace { path: path.into(), value: value.into() });
    }

    /// Appends all operations of another patch.
    pub(crate) fn extend(&mut self, other: Self) {
        self.operations.extend(other.operations);
    }

    /// Appends `remove`.
    pub(crate) fn remove(&mut self, path: impl Into<String>) {
        self.operations.push(Operation::Remove { path: path.into() });
    }
}

/// A member name as one token of a JSON pointer.
pub(crate) fn token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
