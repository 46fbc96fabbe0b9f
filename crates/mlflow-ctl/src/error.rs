//! Errors a retry may fix. Whatever a user has to change is a condition instead.

pub use controller_kit::controller::PassError as Error;
