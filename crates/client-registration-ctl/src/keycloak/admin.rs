//! The administrator's credentials, read from one Secret and kept in memory only (client-registration §5.2).

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use k8s_openapi::ByteString;
use rest_client::Secret;

use super::KeycloakError;
use crate::settings::AdminAuth;

/// How the controller logs in.
#[derive(Clone, Debug)]
pub struct AdminCredentials {
    /// Kind of login.
    pub auth: AdminAuth,
    /// User name or client id.
    pub principal: String,
    /// Password or client secret.
    pub secret: Secret,
    /// `resourceVersion` of the Secret: another one is another login.
    pub version: String,
}

impl AdminCredentials {
    /// Reads the data of the Secret.
    ///
    /// # Errors
    /// Which key is missing or empty.
    pub fn read(
        auth: AdminAuth,
        data: &BTreeMap<String, ByteString>,
        version: String,
    ) -> Result<Self, String> {
        let (principal, secret) = match auth {
            AdminAuth::Password => ("username", "password"),
            AdminAuth::ClientCredentials | AdminAuth::SpiffeJwt => ("client-id", "client-secret"),
        };
        let text = |key: &str| {
            data.get(key)
                .and_then(|value| String::from_utf8(value.0.clone()).ok())
                .map(Secret::new)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("has no key {key}, or it is empty"))
        };
        Ok(Self { auth, principal: text(principal)?.expose().to_owned(), secret: text(secret)?, version })
    }
}

/// What is known of the Secret.
#[derive(Debug)]
pub struct AdminSecret {
    object: String,
    state: RwLock<Result<Arc<AdminCredentials>, String>>,
}

impl AdminSecret {
    /// Not read yet.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            object: format!("Secret {namespace}/{name}"),
            state: RwLock::new(Err("is not read yet".to_owned())),
        }
    }

    /// Takes in what was read; true when that changes anything.
    pub fn set(&self, next: Result<AdminCredentials, String>) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let same = match (&*state, &next) {
            (Ok(old), Ok(new)) => old.version == new.version,
            (Err(old), Err(new)) => old == new,
            _ => false,
        };
        if !same {
            *state = next.map(Arc::new);
        }
        !same
    }

    /// The version in use.
    pub fn version(&self) -> Option<String> {
        self.current().ok().map(|credentials| credentials.version.clone())
    }

    /// The credentials.
    ///
    /// # Errors
    /// [`KeycloakError::NoCredentials`].
    pub fn current(&self) -> Result<Arc<AdminCredentials>, KeycloakError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.clone().map_err(|why| {
            KeycloakError::NoCredentials(format!(
                "{} with the Keycloak administrator {why}: create it, or name another one with \
                 --keycloak-admin-secret-name",
                self.object
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect()
    }

    #[rstest]
    #[case(AdminAuth::Password, &[("username", "u"), ("password", "p")], Ok(()))]
    #[case(AdminAuth::Password, &[("username", "u"), ("password", "")], Err("password"))]
    #[case(AdminAuth::Password, &[("password", "p")], Err("username"))]
    #[case(AdminAuth::ClientCredentials, &[("client-id", "i"), ("client-secret", "s")], Ok(()))]
    #[case(AdminAuth::ClientCredentials, &[("username", "u"), ("password", "p")], Err("client-id"))]
    fn keys(#[case] auth: AdminAuth, #[case] pairs: &[(&str, &str)], #[case] expected: Result<(), &str>) {
        let read = AdminCredentials::read(auth, &data(pairs), "1".to_owned());
        match expected {
            Ok(()) => assert!(read.is_ok()),
            Err(key) => assert!(read.expect_err("missing").contains(key)),
        }
    }

    #[test]
    fn changes_are_noticed_by_version() {
        let secret = AdminSecret::new("keycloak", "admin");
        let read = |version: &str| {
            AdminCredentials::read(
                AdminAuth::Password,
                &data(&[("username", "u"), ("password", "hunter2")]),
                version.to_owned(),
            )
        };
        let error = secret.current().expect_err("nothing yet").to_string();
        assert!(error.contains("Secret keycloak/admin"), "{error}");
        assert!(secret.set(read("1")) && !secret.set(read("1")) && secret.set(read("2")));
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert!(secret.set(Err("is missing".to_owned())));
        assert!(secret.current().is_err());
    }
}
