//! One pass over whatever the queue handed out.

use std::time::Duration;

use crate::{
    agent, card,
    context::{Context, Key},
    error::Error,
    runtime_card,
};

/// When to look again while a watch has not delivered.
const NOT_SYNCED: Duration = Duration::from_millis(300);

/// When to look again.
pub type Next = Option<Duration>;

/// One pass.
///
/// # Errors
/// What a retry may fix.
pub async fn pass(ctx: &Context, key: &Key) -> Result<Next, Error> {
    let result = match key {
        Key::Workload(key) => agent::pass(ctx, key).await,
        Key::Card(key) => card::pass(ctx, key).await,
        Key::Runtime(key) => runtime_card::pass(ctx, key).await,
    };
    match result {
        Err(Error::NotSynced(what)) => {
            tracing::debug!(object = %key, "waiting for the watch of {what}");
            Ok(Some(NOT_SYNCED))
        }
        result => result,
    }
}
