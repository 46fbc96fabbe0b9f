//! Whole injections.
