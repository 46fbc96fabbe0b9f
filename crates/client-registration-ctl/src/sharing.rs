//! Workloads that share a client, because they share a ServiceAccount (client-registration §4).

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api_types::registration::annotation as own;
use controller_kit::{backoff::jitter, controller::PassError, watch::Key as ObjectKey};
use serde_json::json;

use crate::{
    context::Context,
    error::Error,
    secret::{SecretLink, SecretMeta},
    workload::Unit,
    write,
};

/// The clients that passes are at work on. Who finds a client and writes its Secret later relies on nobody rotating or
/// deleting it meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Mutex<HashSet<String>>>);

/// The right to work on a client, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Turns,
    client_id: String,
}

impl Turns {
    /// The turn at a client; `None` while another pass has it. Nobody waits here, so that workers are never held up:
    /// come back after [`pause`].
    pub fn take(&self, client_id: &str) -> Option<Turn> {
        let news = self.taken().insert(client_id.to_owned());
        news.then(|| Turn { turns: self.clone(), client_id: client_id.to_owned() })
    }

    fn taken(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.taken().remove(&self.client_id);
    }
}

/// How long a pass stays away whose turn it is not: about as long as a registration takes.
pub fn pause() -> Duration {
    jitter(Duration::from_millis(400), 0.5)
}

/// The other Secrets with this client. An id is one namespace's, so that what a tenant elsewhere writes into an annotation
/// does not count.
fn others(ctx: &Context, unit: &Unit, uuid: &str) -> Vec<Arc<SecretMeta>> {
    let own = unit.secret_name();
    let mut secrets = ctx.index.secrets.linked(&SecretLink(uuid.to_owned()));
    secrets.retain(|secret| {
        secret.key.namespace == unit.namespace
            && secret.key.name != own
            && secret.deleting.is_none()
            && secret.is_ours()
    });
    secrets
}

/// Whether a Secret other than `own`, wherever it is, has this client and is not being deleted.
pub fn is_used_by_others(ctx: &Context, own: &ObjectKey, uuid: &str) -> bool {
    let users = ctx.index.secrets.linked(&SecretLink(uuid.to_owned()));
    users.iter().any(|other| other.key != *own && other.deleting.is_none())
}

/// Whether this value of the rotation annotation was obeyed for another workload with the client. The Secrets remember
/// it, so it survives a restart.
pub fn is_rotated_for(ctx: &Context, unit: &Unit, uuid: &str, value: &str) -> bool {
    others(ctx, unit, uuid).iter().any(|secret| secret.annotation(own::ROTATED_FOR) == Some(value))
}

/// Has the others that share the client compare their Secrets with it. To be called before its secret changes: without
/// its hash a Secret is compared also by a process that starts anew.
///
/// # Errors
/// What the API server says.
pub async fn have_others_compare(ctx: &Context, unit: &Unit, uuid: &str) -> Result<(), Error> {
    for secret in others(ctx, unit, uuid) {
        let ObjectKey { namespace, name } = &secret.key;
        let unhashed = json!({ "metadata": { "annotations": { own::REGISTRATION_HASH: null } } });
        if secret.annotation(own::REGISTRATION_HASH).is_some()
            && !write::change_secret(ctx, namespace, name, |_| Some(unhashed)).await?
        {
            return Err(PassError::NotSynced("secrets").into());
        }
        if let Some(other) = &secret.unit {
            ctx.wake(other.clone(), pause());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_end_with_their_owner() {
        let turns = Turns::default();
        let turn = turns.take("a").unwrap();
        assert!(turns.take("a").is_none());
        assert!(turns.take("b").is_some());
        drop(turn);
        assert!(turns.taken().is_empty(), "nothing is kept of those that are over");
        assert!(turns.take("a").is_some());
    }
}
