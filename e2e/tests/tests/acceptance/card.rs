//! card-ctl: the scenarios of the card chapter.
//!
//! Each test has a namespace and a card-ctl of its own, which watches nothing else.

mod bare;
mod duplicates;
mod faults;
mod fetching;
mod fixture;
mod hostile;
mod making;
mod processes;
mod renewal;
mod scale;
mod trust;
mod upgrade;
