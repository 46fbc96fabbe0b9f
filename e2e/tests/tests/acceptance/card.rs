//! card-ctl: the scenarios of the card chapter.
//!
//! Each test has a namespace and a card-ctl of its own, which watches nothing else.

mod bare;
mod discovery;
mod duplicates;
mod endpoints;
mod faults;
mod fetching;
mod fixture;
mod hostile;
mod label_pods;
mod making;
mod mtls;
mod processes;
mod renewal;
mod sandbox;
mod scale;
mod trust;
mod upgrade;
