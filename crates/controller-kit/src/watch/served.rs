//! Whether the API server serves a kind: for kinds whose CRD may be missing, or come in several versions.

use kube::Client;

use crate::apply::code_of;

/// True when a group version (`cert-manager.io/v1`) serves a kind. An absent group is no error.
pub async fn serves(client: &Client, group_version: &str, kind: &str) -> kube::Result<bool> {
    match client.list_api_group_resources(group_version).await {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.kind == kind)),
        Err(error) if code_of(&error) == 404 => Ok(false),
        Err(error) => Err(error),
    }
}
