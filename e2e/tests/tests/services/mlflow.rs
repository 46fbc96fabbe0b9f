//! mlflow-ctl: the scenarios of the chapter by their number; 17 and 18 belong to the operand controller, which is not
//! built.
//!
//! Those that name a server "that the test controls" use a scripted one on loopback, the others a real MLflow.

mod keeping;
mod outage;
mod setup;
mod stock;
