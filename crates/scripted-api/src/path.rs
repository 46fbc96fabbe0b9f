//! What a path of the Kubernetes API names.

/// The parts of a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// Everything up to the plural, without namespace: `/apis/apps/v1`.
    pub(crate) version: &'a str,
    /// Namespace.
    pub(crate) namespace: Option<&'a str>,
    /// Plural.
    pub(crate) plural: &'a str,
    /// Name; `None` = the collection.
    pub(crate) name: Option<&'a str>,
    /// Subresource.
    pub(crate) subresource: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Takes a path apart; `None` when it is none of an object or a collection.
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        let depth = if path.starts_with("/apis/") { 4 } else { 3 };
        let end = path.match_indices('/').nth(depth - 1)?.0;
        let (version, rest) = path.split_at(end);
        let mut parts: Vec<&str> = rest.split('/').skip(1).collect();
        let namespace = (parts.len() > 2 && parts[0] == "namespaces").then(|| parts[1]);
        if namespace.is_some() {
            parts.drain(..2);
        }
        let mut parts = parts.into_iter();
        let plural = parts.next()?;
        Some(Self { version, namespace, plural, name: parts.next(), subresource: parts.next() })
    }

    /// Path of the object, without subresource.
    pub(crate) fn object(&self, name: &str) -> String {
        let namespace =
            self.namespace.map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
        format!("{}{namespace}/{}/{name}", self.version, self.plural)
    }

    /// True when the object at `path` belongs to this collection, of one namespace or of all.
    pub(crate) fn holds(&self, path: &str) -> bool {
        Target::of(path).is_some_and(|object| {
            object.name.is_some()
                && (object.version, object.plural) == (self.version, self.plural)
                && (self.namespace.is_none() || self.namespace == object.namespace)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        let of = |path| {
            let Target { version, namespace, plural, name, subresource } = Target::of(path).unwrap();
            (version, namespace, plural, name, subresource)
        };
        assert_eq!(
            of("/apis/apps/v1/namespaces/a/deployments/b/status"),
            ("/apis/apps/v1", Some("a"), "deployments", Some("b"), Some("status"))
        );
        assert_eq!(of("/api/v1/namespaces/a/pods"), ("/api/v1", Some("a"), "pods", None, None));
        assert_eq!(of("/api/v1/namespaces/a"), ("/api/v1", None, "namespaces", Some("a"), None));
        assert_eq!(of("/apis/g/v1/things"), ("/apis/g/v1", None, "things", None, None));
        assert_eq!(Target::of("/version"), None);
    }

    #[test]
    fn a_collection_holds_its_objects() {
        let pods = Target::of("/api/v1/namespaces/a/pods").unwrap();
        assert!(pods.holds("/api/v1/namespaces/a/pods/x") && !pods.holds("/api/v1/namespaces/b/pods/x"));
        assert!(Target::of("/api/v1/pods").unwrap().holds("/api/v1/namespaces/b/pods/x"));
        assert_eq!(pods.object("x"), "/api/v1/namespaces/a/pods/x");
    }
}
