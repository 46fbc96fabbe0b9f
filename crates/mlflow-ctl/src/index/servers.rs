//! MLflow servers that can be chosen from.

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

use rest_client::BaseUrl;

use crate::server::{Candidate, NoServer, Server, Servers};

/// The index.
#[derive(Debug, Default)]
pub struct ServerIndex {
    servers: RwLock<Servers>,
}

impl ServerIndex {
    /// `fixed` is `--mlflow-tracking-uri`.
    pub fn new(fixed: Option<BaseUrl>) -> Self {
        Self { servers: RwLock::new(Servers { fixed, candidates: Vec::new() }) }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Candidate>)) -> bool {
        let mut servers = self.servers.write().unwrap_or_else(PoisonError::into_inner);
        let before = servers.candidates.clone();
        change(&mut servers.candidates);
        before != servers.candidates
    }

    /// An MLflow object exists, with (`Some`) or without usable address; true when that is news.
    pub fn put(&self, namespace: &str, name: &str, candidate: Option<Candidate>) -> bool {
        self.change(|all| {
            let at = all.iter().position(|known| known.namespace == namespace && known.name == name);
            match (at.and_then(|at| all.get_mut(at)), candidate) {
                (Some(known), Some(candidate)) => *known = candidate,
                (None, Some(candidate)) => all.push(candidate),
                (_, None) => all.retain(|known| known.namespace != namespace || known.name != name),
            }
        })
    }

    /// After a new list of `namespace` (everything, when `None`): removes what was not in it; true when that is news.
    pub fn retain(&self, namespace: Option<&str>, seen: &HashSet<(String, String)>) -> bool {
        self.change(|all| {
            all.retain(|known| {
                namespace.is_some_and(|ns| known.namespace != ns)
                    || seen.contains(&(known.namespace.clone(), known.name.clone()))
            });
        })
    }

    /// The server of a workload that has `recorded` as tracking URI.
    ///
    /// # Errors
    /// Why there is none.
    pub fn choose(&self, recorded: Option<&str>) -> Result<Server, NoServer> {
        self.servers.read().unwrap_or_else(PoisonError::into_inner).choose(recorded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, available: bool) -> Candidate {
        Candidate {
            namespace: "m".into(),
            name: name.into(),
            created: None,
            preferred: false,
            available,
            url: BaseUrl::parse(&format!("http://{name}")).unwrap(),
        }
    }

    #[test]
    fn objects_come_change_and_go() {
        let index = ServerIndex::default();
        assert_eq!(index.choose(None), Err(NoServer::Nothing));
        assert!(index.put("m", "a", Some(candidate("a", false))));
        assert!(!index.put("m", "a", Some(candidate("a", false))), "no news");
        assert!(index.put("m", "a", Some(candidate("a", true))));
        assert_eq!(index.choose(None).unwrap().text, "http://a");
        assert!(index.put("m", "a", None));
        assert!(!index.put("m", "a", None));
        index.put("m", "a", Some(candidate("a", true)));
        assert!(!index.retain(Some("other"), &HashSet::new()));
        assert!(index.retain(None, &HashSet::new()));
    }
}
