//! Admission server of the suite: injects AuthBridge sidecars into Pods and validates the objects of
//! group agent.kagenti.dev (webhook, authbridge-split).
//!
//! The pure half ([`injection`], [`render`]) turns a Pod and its configuration into an answer; the
//! rest of the crate is the server around it: watches and indexes ([`watches`], [`caches`]), the
//! write protocol ([`writes`]), certificates ([`certificates`]) and house-keeping ([`sweeper`]).

pub mod caches;
pub mod certificates;
pub mod config;
pub mod injection;
pub mod keyed_lock;
pub mod live;
pub mod metrics;
pub mod owners;
pub mod pods;
pub mod registration;
pub mod render;
pub mod review;
pub mod run;
pub mod selftest;
pub mod server;
pub mod settings;
pub mod sweeper;
pub mod validators;
pub mod watches;
pub mod writes;
