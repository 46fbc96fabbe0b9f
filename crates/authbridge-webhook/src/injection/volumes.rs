//! Volumes of an injected Pod (webhook §11.1; split §6).

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{
    names::volume,
    pod::{Pod, text},
};

/// Members of a volume source that do not say where the content comes from.
const PRESENTATION: [&str; 2] = ["optional", "defaultMode"];
/// Volume types a container can write to; what else a user mounts as `shared-data` would break the sidecar.
const READ_ONLY_TYPES: [&str; 4] = ["configMap", "secret", "projected", "downwardAPI"];

/// A volume the Pod needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    /// Volume name.
    pub(crate) name: String,
    /// The source, for example `{"emptyDir": {}}`.
    pub(crate) source: Value,
    /// What of the user's may stand in its place.
    pub(crate) accepts: Accepts,
}

/// What a user volume of the same name may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// The same source.
    Same,
    /// Any type a container can write to.
    Writable,
    /// Anything: an intentional override, with a warning.
    Override,
    /// A ConfigMap, Secret or projected volume, with a warning.
    Files,
}

/// What becomes of a wanted volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is added.
    Add,
    /// The Pod has it.
    Present,
    /// The user's volume takes its place; gives a warning.
    Overridden,
    /// The user's volume has another source: the Pod is refused.
    Clash,
}

impl Wanted {
    /// A volume that must be exactly this one.
    pub(crate) fn new(name: impl Into<String>, source: Value) -> Self {
        Self { name: name.into(), source, accepts: Accepts::Same }
    }

    /// An `emptyDir`.
    pub(crate) fn empty_dir(name: &str) -> Self {
        Self::new(name, json!({"emptyDir": {}}))
    }

    /// A ConfigMap.
    pub(crate) fn config_map(name: &str, map: &str, optional: bool) -> Self {
        Self::new(name, json!({"configMap": {"name": map, "optional": optional}}))
    }

    /// With another rule for the user's volumes.
    pub(crate) fn accepting(mut self, accepts: Accepts) -> Self {
        self.accepts = accepts;
        self
    }

    /// The volume as an entry of `spec.volumes`.
    pub(crate) fn entry(&self) -> Value {
        let mut entry = Map::from_iter([("name".to_owned(), Value::from(self.name.as_str()))]);
        if let Value::Object(source) = &self.source {
            entry.extend(source.clone());
        }
        Value::Object(entry)
    }

    /// Compares with the volume of that name in the Pod.
    pub(crate) fn place(&self, pod: &Pod<'_>) -> Place {
        let Some(theirs) = pod.volume(&self.name) else { return Place::Add };
        if self.same_source(theirs) {
            return Place::Present;
        }
        let has =
            |types: &[&str]| types.iter().any(|kind| theirs.get(*kind).is_some_and(|value| !value.is_null()));
        let allowed = match self.accepts {
            Accepts::Writable if !has(&READ_ONLY_TYPES) => return Place::Present,
            Accepts::Same | Accepts::Writable => false,
            Accepts::Override => true,
            Accepts::Files => has(&["configMap", "secret", "projected"]),
        };
        if allowed { Place::Overridden } else { Place::Clash }
    }

    fn same_source(&self, theirs: &Map<String, Value>) -> bool {
        let Value::Object(ours) = &self.source else { return false };
        ours.iter().all(|(kind, ours)| theirs.get(kind).is_some_and(|theirs| source_covers(theirs, ours)))
    }
}

fn source_covers(theirs: &Value, ours: &Value) -> bool {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => ours
            .iter()
            .filter(|(member, _)| !PRESENTATION.contains(&member.as_str()))
            .all(|(member, value)| theirs.get(member) == Some(value)),
        _ => false,
    }
}

/// Volume of the credentials Secret: named like it where that is a DNS label, else by its hash (webhook §11.3).
pub(crate) fn credentials_name(secret: &str) -> String {
    if is_dns_label(secret) {
        return secret.to_owned();
    }
    let hash = hex::encode(Sha256::digest(secret));
    format!("kc-{}", hash.get(..16).unwrap_or_default())
}

fn is_dns_label(name: &str) -> bool {
    let edge =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = name.as_bytes();
    name.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

/// The Secret with the credentials (webhook §11.1).
pub(crate) fn credentials(secret: &str) -> Wanted {
    Wanted::new(credentials_name(secret), json!({"secret": {"secretName": secret, "optional": false}}))
}

/// The CSI volume with the Workload API socket.
pub(crate) fn spire_socket() -> Wanted {
    let source = json!({"csi": {"driver": api_types::names::SPIFFE_CSI_DRIVER, "readOnly": true}});
    Wanted::new(volume::SPIRE_SOCKET, source)
}

/// The TLS-bridge CA: with its key for the sidecar, certificate only for the app containers.
pub(crate) fn tls_bridge(secret: &str) -> [Wanted; 2] {
    // 0444 in octal; JSON has decimal numbers only.
    let mode = 0o444;
    [
        Wanted::new(volume::TLS_BRIDGE_CA, json!({"secret": {"secretName": secret, "defaultMode": mode}})),
        Wanted::new(
            volume::TLS_BRIDGE_CA_CERT,
            json!({"secret": {
                "secretName": secret,
                "defaultMode": mode,
                "items": [{"key": "ca.crt", "path": "ca.crt"}],
            }}),
        ),
    ]
}

/// The message of a clash (webhook §11.1).
pub(crate) fn clash_message(pod: &Pod<'_>, wanted: &Wanted) -> String {
    let kind = pod
        .volume(&wanted.name)
        .and_then(|volume| volume.keys().find(|member| *member != "name"))
        .map_or("unknown", String::as_str);
    format!(
        "spec.volumes: the name {} is reserved for the AuthBridge sidecar, but the Pod has a {kind} volume of that name with another source: rename it",
        wanted.name
    )
}

/// A mount; `read_only` is written only when true, as users write it.
pub(crate) fn mount(name: &str, path: &str, read_only: bool) -> Value {
    if read_only {
        json!({"name": name, "mountPath": path, "readOnly": true})
    } else {
        json!({"name": name, "mountPath": path})
    }
}

/// The two credential mounts, secret first (webhook §11.3).
pub(crate) fn credential_mounts(secret: &str) -> [Value; 2] {
    let name = credentials_name(secret);
    ["client-secret.txt", "client-id.txt"].map(|file| {
        json!({"name": name, "mountPath": format!("/shared/{file}"), "subPath": file, "readOnly": true})
    })
}

/// Path of a mount.
pub(crate) fn mount_path(mount: &Value) -> &str {
    mount.as_object().map_or("", |mount| text(mount, "mountPath"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn placed(wanted: &Wanted, volume: &Value) -> Place {
        let raw = json!({"metadata": {}, "spec": {"containers": [], "volumes": [volume]}});
        wanted.place(&Pod::parse(&raw).expect("a Pod"))
    }

    fn shared() -> Wanted {
        Wanted::empty_dir("shared-data").accepting(Accepts::Writable)
    }

    // Webhook §11.1, last paragraph but two.
    #[rstest]
    #[case(shared(), json!({"name": "other", "emptyDir": {}}), Place::Add)]
    #[case(shared(), json!({"name": "shared-data", "emptyDir": {"medium": "Memory"}}), Place::Present)]
    #[case(shared(), json!({"name": "shared-data", "persistentVolumeClaim": {"claimName": "c"}}), Place::Present)]
    #[case(shared(), json!({"name": "shared-data", "configMap": {"name": "c"}}), Place::Clash)]
    #[case(
        Wanted::config_map("authproxy-routes", "authproxy-routes", true),
        json!({"name": "authproxy-routes", "configMap": {"name": "authproxy-routes", "defaultMode": 420}}),
        Place::Present
    )]
    #[case(
        Wanted::config_map("authproxy-routes", "authproxy-routes", true),
        json!({"name": "authproxy-routes", "configMap": {"name": "mine"}}),
        Place::Clash
    )]
    #[case(
        Wanted::config_map("envoy-config", "envoy-config-w", false).accepting(Accepts::Override),
        json!({"name": "envoy-config", "secret": {"secretName": "mine"}}),
        Place::Overridden
    )]
    #[case(
        Wanted::config_map("spiffe-helper-config", "spiffe-helper-config", false).accepting(Accepts::Files),
        json!({"name": "spiffe-helper-config", "emptyDir": {}}),
        Place::Clash
    )]
    fn user_volumes(#[case] wanted: Wanted, #[case] volume: Value, #[case] want: Place) {
        assert_eq!(placed(&wanted, &volume), want);
    }

    #[test]
    fn a_ca_volume_that_shows_the_key_is_a_clash() {
        let [_, certificate] = tls_bridge("w-tls-bridge-ca");
        let whole = json!({"name": "tls-bridge-ca-cert", "secret": {"secretName": "w-tls-bridge-ca"}});
        assert_eq!(placed(&certificate, &whole), Place::Clash);
        assert_eq!(placed(&certificate, &certificate.entry()), Place::Present);
    }

    #[rstest]
    #[case("kagenti-keycloak-client-credentials-a325925866a45ebf", None)]
    #[case("my.secret", Some("kc-"))]
    #[case("-x", Some("kc-"))]
    fn credential_volume_names(#[case] secret: &str, #[case] prefix: Option<&str>) {
        let name = credentials_name(secret);
        match prefix {
            None => assert_eq!(name, secret),
            Some(prefix) => assert!(name.starts_with(prefix) && name.len() == 19, "{name}"),
        }
    }
}
