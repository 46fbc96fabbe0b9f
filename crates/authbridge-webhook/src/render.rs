//! The files of the generated ConfigMaps (webhook §12; split §6): text from resolved values, nothing else.

pub(crate) mod config;
pub(crate) mod envoy;
pub(crate) mod helper_conf;
