//! What is known of each server: asked for once in ten minutes, and held while the server does not say (MLflow §5.4).

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rest_client::BaseUrl;
use tokio::time::Instant;

use super::{
    answers::{Pace, Problem},
    capabilities::Capabilities,
};

/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(600);
/// Servers of which something is remembered.
const SERVERS: usize = 64;

/// The servers that were asked what they can do.
#[derive(Default)]
pub struct KnownServers(Mutex<HashMap<BaseUrl, Arc<Server>>>);

#[derive(Default)]
struct Server {
    said: Mutex<Option<Said>>,
    /// Held by whoever asks.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Said {
    at: Instant,
    capabilities: Capabilities,
}

impl Said {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH
    }
}

impl KnownServers {
    /// What a server can do; `question` asks it and is dropped where nobody needs to. A slow server holds up only those
    /// who know nothing of it yet.
    ///
    /// # Errors
    /// Why the server does not say, unless it is merely away and has said so before.
    pub async fn capabilities(
        &self,
        base: &BaseUrl,
        question: impl Future<Output = Result<Capabilities, Problem>>,
    ) -> Result<Capabilities, Problem> {
        let server = self.server(base);
        let before = server.said();
        let asking = match (before, server.asking.try_lock()) {
            (Some(said), _) if said.is_fresh() => return Ok(said.capabilities),
            (_, Ok(asking)) => asking,
            (Some(said), Err(_)) => return Ok(said.capabilities),
            (None, Err(_)) => server.asking.lock().await,
        };
        let before = server.said();
        if let Some(said) = &before
            && said.is_fresh()
        {
            return Ok(said.capabilities.clone());
        }
        let answer = question.await;
        let known = match (answer, before.as_ref()) {
            // A proxy's page in the server's place must not take its agents' isolation away.
            (Ok(now), Some(said)) if now.workspaces.is_none() => said.capabilities.clone(),
            (Ok(now), _) => now,
            (Err(problem), Some(said)) if problem.code.pace() == Pace::Transient => {
                return Ok(said.capabilities.clone());
            }
            (Err(problem), _) => return Err(problem),
        };
        if before.is_none_or(|said| said.capabilities != known) {
            tracing::info!(server = %base, workspaces = ?known.workspaces, auth = ?known.auth, "MLflow server");
        }
        server.put(known.clone());
        drop(asking);
        Ok(known)
    }

    /// A server refused a request for having workspaces switched off.
    pub fn without_workspaces(&self, base: &BaseUrl) {
        let server = self.server(base);
        let auth = server.said().and_then(|said| said.capabilities.auth);
        server.put(Capabilities { workspaces: Some(false), auth });
    }

    fn server(&self, base: &BaseUrl) -> Arc<Server> {
        let mut servers = lock(&self.0);
        if servers.len() >= SERVERS && !servers.contains_key(base) {
            servers.retain(|_, server| server.said().is_some_and(|said| said.is_fresh()));
            if servers.len() >= SERVERS {
                servers.clear();
            }
        }
        servers.entry(base.clone()).or_default().clone()
    }
}

impl Server {
    fn said(&self) -> Option<Said> {
        lock(&self.said).clone()
    }

    fn put(&self, capabilities: Capabilities) {
        *lock(&self.said) = Some(Said { at: Instant::now(), capabilities });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::{super::answers::Code, *};

    fn base(text: &str) -> BaseUrl {
        text.parse().unwrap()
    }

    fn can(workspaces: Option<bool>) -> Capabilities {
        Capabilities { workspaces, auth: None }
    }

    async fn ask(known: &KnownServers, answer: Result<Capabilities, Code>) -> Option<Option<bool>> {
        let answer = answer.map_err(|code| Problem::new(code, "x"));
        let said = known.capabilities(&base("http://mlflow.test"), ready(answer)).await;
        said.ok().map(|capabilities| capabilities.workspaces)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_for_ten_minutes() {
        let known = KnownServers::default();
        assert_eq!(ask(&known, Err(Code::ServerUnavailable)).await, None);
        assert_eq!(ask(&known, Ok(can(Some(false)))).await, Some(Some(false)));
        assert_eq!(ask(&known, Ok(can(Some(true)))).await, Some(Some(false)));
        tokio::time::advance(FRESH).await;
        assert_eq!(ask(&known, Ok(can(Some(true)))).await, Some(Some(true)));
    }

    /// An ingress may answer with a page of its own, and a server may be away.
    #[tokio::test(start_paused = true)]
    async fn what_was_said_holds_until_the_server_says_otherwise() {
        for said in [true, false] {
            let known = KnownServers::default();
            ask(&known, Ok(can(Some(said)))).await;
            for answer in [Ok(Capabilities::default()), Err(Code::ServerUnavailable)] {
                tokio::time::advance(FRESH).await;
                assert_eq!(ask(&known, answer).await, Some(Some(said)));
            }
            tokio::time::advance(FRESH).await;
            assert_eq!(ask(&known, Err(Code::Unauthenticated)).await, None, "a refusal is no absence");
            known.without_workspaces(&base("http://mlflow.test"));
            assert_eq!(ask(&known, Ok(can(Some(true)))).await, Some(Some(false)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_server_holds_up_nobody_who_can_do_without_its_answer() {
        let known = Arc::new(KnownServers::default());
        ask(&known, Ok(can(Some(true)))).await;
        tokio::time::advance(FRESH).await;
        let slow = known.clone();
        let slow = tokio::spawn(async move {
            slow.capabilities(&base("http://mlflow.test"), pending()).await.ok();
        });
        tokio::task::yield_now().await;
        let limit = Duration::from_secs(1);
        let same = tokio::time::timeout(limit, ask(&known, Ok(can(Some(false))))).await;
        assert_eq!(same, Ok(Some(Some(true))), "what it said before");
        let other = base("http://other.test");
        let other = known.capabilities(&other, ready(Ok(can(Some(false)))));
        assert_eq!(tokio::time::timeout(limit, other).await.unwrap().ok(), Some(can(Some(false))));
        slow.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn who_knows_nothing_waits_for_the_one_question() {
        let known = Arc::new(KnownServers::default());
        let first = known.clone();
        let first = tokio::spawn(async move {
            let question = async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                Ok(can(Some(true)))
            };
            first.capabilities(&base("http://mlflow.test"), question).await.ok()
        });
        tokio::task::yield_now().await;
        assert_eq!(ask(&known, Err(Code::Unauthenticated)).await, Some(Some(true)));
        assert_eq!(first.await.unwrap(), Some(can(Some(true))));
    }

    #[tokio::test(start_paused = true)]
    async fn remembers_a_limited_number_of_servers() {
        let known = KnownServers::default();
        for number in 0..SERVERS * 3 {
            let server = base(&format!("http://mlflow-{number}.test"));
            known.capabilities(&server, ready(Ok(can(None)))).await.unwrap();
        }
        assert!(lock(&known.0).len() <= SERVERS);
    }
}
