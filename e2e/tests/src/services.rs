//! The services suite: the components on a real Keycloak and a real MLflow (`just e2e-services`).
//!
//! Both servers run once for all tests ([`keycloak`], [`mlflow`], [`mlflow_with_workspaces`]). A test gets what it
//! changes for itself: a [`Realm`], a namespace, a process of the component. [`Proxy`] stands before a server to count
//! requests and to break it for one test only.

pub mod agents;
pub mod counting;
pub mod proxy;
pub mod registration;
mod shared;
pub mod tracking;

pub use local_cluster::services::{jwt, realm, runs, web};

pub use jwt::Token;
pub use proxy::{Fault, Proxy, Seen};
pub use realm::{Account, Realm};
pub use registration::Registration;
pub use shared::{Servers, bare, keycloak, mlflow, mlflow_with_workspaces, without_pods};
pub use tracking::Tracking;
pub use web::{Call, Reply};
