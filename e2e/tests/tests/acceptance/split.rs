//! Scenarios of the chapter about layout `split`.

mod credentials;
mod defaults;
mod fixture;
mod helper_conf;
mod identity;
mod jobs;
mod own_helper;
mod platform;
mod scale;
mod switch;
mod vectors;
