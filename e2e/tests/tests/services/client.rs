//! client-registration-ctl: the scenarios of the chapter by their number.
//!
//! The tests that need no unusual flags share one process, with the least rights in Keycloak (scenario 22) and one realm;
//! each keeps to its own namespaces. The others have a process, a realm and a cluster of their own.

mod answers;
mod audience;
mod defaults;
mod drift;
mod faults;
mod injected;
mod leaving;
mod logins;
mod namespaced;
mod outage;
mod ownership;
mod registering;
mod scale;
mod spiffe;
mod tokens;
mod trust;
