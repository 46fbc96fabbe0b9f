//! Enforcement is off: no policy is left behind, and no finalizer (card §15.5).

use std::time::Duration;

use controller_kit::{
    apply::is_not_found, backoff::PerKey, lease::Leadership, message::message_of, scope::Scope,
};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{Api, Client, api::ListParams};
use serde::de::DeserializeOwned;

use crate::{
    card::{Card, CardView},
    naming::POLICY_TYPE,
    policy::Policy,
    write,
};

/// Objects of one page of a list.
const PAGE: u32 = 200;
/// How often the lists are read again because something changed under way.
const ROUNDS: u32 = 10;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Policies deleted.
    pub policies: usize,
    /// Cards that lost a finalizer of the previous operator.
    pub cards: usize,
}

/// Why something is left.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// A request failed.
    #[error("cannot {action}")]
    Api {
        /// What was tried.
        action: String,
        /// The answer.
        #[source]
        source: kube::Error,
    },
    /// This replica may not write any more.
    #[error("no longer the leader, nothing more was written")]
    NotLeader,
    /// Somebody keeps writing policies.
    #[error("policies keep changing, the last one is NetworkPolicy {0}: is another netpol-ctl at work here?")]
    Restless(String),
}

impl CleanupError {
    /// The whole chain in one line.
    pub fn describe(&self) -> String {
        match self {
            Self::Api { source, .. } => format!("{self}: {}", message_of(source)),
            Self::NotLeader | Self::Restless(_) => self.to_string(),
        }
    }
}

fn api_error(action: impl Into<String>) -> impl FnOnce(kube::Error) -> CleanupError {
    let action = action.into();
    move |source| CleanupError::Api { action, source }
}

/// Deletes every policy of the scope that this suite made (if `policies`), and takes the finalizers of the previous
/// operator off every card.
///
/// # Errors
/// The first thing that cannot be done; what was done before stays done.
pub async fn run(
    client: &Client,
    scope: &Scope,
    policies: bool,
    concurrency: usize,
    leadership: &Leadership,
) -> Result<Done, CleanupError> {
    let mut done = Done::default();
    // One namespace that cannot be cleaned must not keep the others from it.
    let mut first = None;
    for api in scope.apis::<NetworkPolicy>(client).into_iter().filter(|_| policies) {
        match delete_all(client, &api, concurrency, leadership).await {
            Ok(count) => done.policies += count,
            Err(error) => first = first.or(Some(error)),
        }
    }
    for api in scope.apis::<CardView>(client) {
        match strip_all(client, &api, concurrency, leadership).await {
            Ok(count) => done.cards += count,
            Err(error) => first = first.or(Some(error)),
        }
    }
    first.map_or(Ok(done), Err)
}

async fn strip_all(
    client: &Client,
    api: &Api<CardView>,
    concurrency: usize,
    leadership: &Leadership,
) -> Result<usize, CleanupError> {
    let cards: Vec<Card> = list(api, "", "list AgentCards", |view| {
        Some(Card::from_view(view)).filter(|card| card.finalizers.is_some())
    })
    .await?;
    let strip = async |card: Card| {
        may_write(leadership)?;
        let action = format!("take the finalizers of the previous operator off AgentCard {}", card.key);
        write::strip_finalizers(client, &card).await.map_err(api_error(action))
    };
    let stripped: Vec<bool> =
        stream::iter(cards).map(strip).buffer_unordered(concurrency.max(1)).try_collect().await?;
    Ok(stripped.into_iter().filter(|stripped| *stripped).count())
}

fn may_write(leadership: &Leadership) -> Result<(), CleanupError> {
    if leadership.is_leader() { Ok(()) } else { Err(CleanupError::NotLeader) }
}

async fn delete_all(
    client: &Client,
    api: &Api<NetworkPolicy>,
    concurrency: usize,
    leadership: &Leadership,
) -> Result<usize, CleanupError> {
    let selector = format!("{}={}", POLICY_TYPE.0, POLICY_TYPE.1);
    let mut count = 0;
    let mut restless = String::new();
    for _ in 0..ROUNDS {
        let found: Vec<Policy> = list(api, &selector, "list NetworkPolicies", |object| {
            Some(Policy::new(object)).filter(Policy::is_managed)
        })
        .await?;
        let delete = async |policy: Policy| {
            may_write(leadership)?;
            let own = Api::<NetworkPolicy>::namespaced(client.clone(), &policy.key.namespace);
            let deleted = write::remove(&own, &policy).await;
            let deleted = deleted.map_err(api_error(format!("delete NetworkPolicy {}", policy.key)))?;
            Ok::<_, CleanupError>(if deleted { None } else { Some(policy.key.to_string()) })
        };
        let total = found.len();
        let changed: Vec<Option<String>> =
            stream::iter(found).map(delete).buffer_unordered(concurrency.max(1)).try_collect().await?;
        let changed: Vec<String> = changed.into_iter().flatten().collect();
        count += total - changed.len();
        match changed.into_iter().next() {
            None => return Ok(count),
            Some(key) => restless = key,
        }
    }
    Err(CleanupError::Restless(restless))
}

/// Lists page by page and keeps what `keep` makes of each object. A kind that is not served has no objects.
async fn list<K, T>(
    api: &Api<K>,
    selector: &str,
    action: &'static str,
    keep: impl Fn(K) -> Option<T>,
) -> Result<Vec<T>, CleanupError>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut found = Vec::new();
    let mut params = ListParams::default().labels(selector).limit(PAGE);
    loop {
        let page = match api.list(&params).await {
            Ok(page) => page,
            Err(error) if is_not_found(&error) => return Ok(found),
            Err(error) => return Err(api_error(action)(error)),
        };
        found.extend(page.items.into_iter().filter_map(&keep));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(found),
        }
    }
}

/// Cleans up once and says how it went, again and again until it went well; then there is nothing to do any more.
pub async fn until_done(
    client: Client,
    scope: Scope,
    policies: bool,
    concurrency: usize,
    leadership: Leadership,
    report: impl Fn(Result<Done, &str>),
) {
    let backoff = PerKey::new(Duration::from_secs(60));
    loop {
        leadership.wait_until_leader().await;
        match run(&client, &scope, policies, concurrency, &leadership).await {
            Ok(done) => {
                report(Ok(done));
                return;
            }
            Err(error) => report(Err(&error.describe())),
        }
        tokio::time::sleep(backoff.next((), Duration::from_secs(1))).await;
    }
}
