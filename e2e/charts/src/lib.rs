//! The charts of the repository under real Helm: packed once per test program, rendered, checked, installed, and what
//! follows from them below `deploy/`.

pub mod deploy;
mod helm;
mod objects;

pub use self::helm::{COMPONENTS, Helm, Refused, UMBRELLA, charts, value_sets};
pub use self::objects::{Objects, text};
