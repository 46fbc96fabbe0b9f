//! client-registration-ctl: registers agents as OAuth clients in Keycloak and delivers their credentials
//! (client-registration.md), so that no Pod ever sees an administrator's password.
//!
//! Watches fill [indexes](index) and wake [passes](registration). A pass reads its namespace's [configuration](config),
//! asks [whom it may trust](trust), works out the [identity](identity), and only when something differs or a period is
//! over compares with [Keycloak](keycloak). Decisions are pure; [`write`] has every write in Kubernetes.

pub mod annotation;
pub mod audience;
pub mod authbridge_config;
pub mod claim;
pub mod cleanup;
pub mod clients;
pub mod conditions;
pub mod config;
pub mod context;
pub mod delivery;
pub mod discovery;
pub mod error;
pub mod events;
pub mod exchange;
pub mod identity;
pub mod index;
pub mod keycloak;
pub mod leaving;
pub mod metrics;
pub mod platform_clients;
pub mod pods;
pub mod process;
pub mod reason;
pub mod registration;
pub mod secret;
pub mod settings;
pub mod sharing;
pub mod sources;
pub mod subject;
pub mod sweep;
pub mod trust;
pub mod watches;
pub mod workload;
pub mod write;
