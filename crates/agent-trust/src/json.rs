//! JSON as this crate reads and writes it: one small tree, one strict reader, exact canonical writers (card §6.6, §8.2).
//!
//! Not `serde_json::Value`: a signed document needs its member order and the exact text of its numbers, doubles must be
//! read as ECMAScript reads them, and duplicate names, which most maps hide, must be seen.

mod error;
mod read;
mod value;
mod write;

pub use error::{JsonError, JsonFault};
pub use read::parse;
pub use value::{Number, Value};
pub use write::{jcs, pretty};

pub(crate) use write::legacy;

/// Deepest nesting of objects and arrays that is read (card §6.6).
pub const MAX_DEPTH: usize = 64;
/// Most values (objects, arrays and scalars, counted together) that are read (card §6.6).
pub const MAX_VALUES: usize = 20_000;
