//! card-ctl: the scenarios of the card chapter.
//!
//! Each test has a namespace and a card-ctl of its own, which watches nothing else.

mod fetching;
mod fixture;
mod hostile;
mod making;
mod renewal;
mod trust;
