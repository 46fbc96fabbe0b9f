//! What a component asked a server outside Kubernetes, as a proxy between the two saw it.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use e2e::services::Seen;

/// Requests to a server.
pub(crate) struct Calls {
    /// All but logins, repetitions included.
    pub(crate) work: usize,
    /// Logins.
    pub(crate) tokens: usize,
    /// Those whose answer never came, or was an error of the server.
    pub(crate) failed: usize,
    /// `GET clients` and how many, most first.
    pub(crate) kinds: Vec<(String, usize)>,
}

impl Calls {
    /// Counts requests; `prefix` is what the paths of all have in common.
    pub(crate) fn count(seen: &[Seen], prefix: &str) -> Self {
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for call in seen.iter().filter(|call| !call.is_token()) {
            *kinds.entry(kind(&call.method, &call.path, prefix)).or_default() += 1;
        }
        let mut kinds: Vec<(String, usize)> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let tokens = seen.iter().filter(|call| call.is_token()).count();
        let failed = seen.iter().filter(|call| call.status == 0 || call.status >= 500).count();
        Self { work: seen.len() - tokens, tokens, failed, kinds }
    }

    pub(crate) fn total(&self) -> usize {
        self.work + self.tokens
    }

    /// Fails unless the component counted as many: a request that went past the proxy would be in its count only.
    pub(crate) fn agree_with(&self, component: f64) -> Result<()> {
        ensure!(
            (self.total() as f64 - component).abs() < 0.5,
            "the proxy saw {} requests, and the component says it made {component}",
            self.total()
        );
        Ok(())
    }
}

/// Method and path without prefix, query and ids.
fn kind(method: &str, path: &str, prefix: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let path = path.strip_prefix(prefix).unwrap_or(path);
    let is_id = |part: &str| part.len() == 36 && part.bytes().filter(|byte| *byte == b'-').count() == 4;
    let parts: Vec<&str> = path.split('/').map(|part| if is_id(part) { "*" } else { part }).collect();
    format!("{method} {}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn ids_do_not_make_kinds() {
        let path = "/admin/realms/r/clients/0f6e5a4c-4a1f-4a57-9d8e-2f1f0a9b8c7d/client-secret?x=1";
        assert_eq!(kind("GET", path, "/admin/realms/r/"), "GET clients/*/client-secret");
    }
}
