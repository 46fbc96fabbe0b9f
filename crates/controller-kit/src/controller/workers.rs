//! The workers: they take keys from the queue, one pass each.

use std::{sync::Arc, time::Duration};

use kube::runtime::controller::Action;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Common, Controller, Failed, Key, Retry};
use crate::reconcile::{Failure, guarded};

/// How often the queue's metrics are brought up to date.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// When to look again while another replica leads.
const FOLLOWER: Duration = Duration::from_secs(1);

/// Makes passes while this replica leads, at most `number` at a time, until `stop`; passes that run then are finished.
pub async fn workers<K: Key, S: Send + Sync + 'static, C: Controller<K, S>>(
    controller: &Arc<C>,
    number: usize,
    stop: &CancellationToken,
) {
    let running = (0..number.max(1)).map(|_| {
        let (controller, stop) = (controller.clone(), stop.clone());
        tokio::spawn(async move { worker(&*controller, &stop).await })
    });
    let counting = async {
        let mut leads_since = None;
        loop {
            let leads = controller.leadership.is_leader();
            leads_since = leads.then(|| leads_since.unwrap_or_else(Instant::now));
            count(controller, leads_since);
            tokio::time::sleep(COUNT_EVERY).await;
        }
    };
    let ended = tokio::select! {
        ended = futures::future::join_all(running) => ended,
        () = counting => Vec::new(),
    };
    for worker in ended {
        if let Err(error) = worker {
            tracing::error!("a worker ended: {error}");
        }
    }
}

/// Brings the queue's metrics up to date. Counting walks the backlog, so it is done now and then only. What a follower's queue
/// holds is worked on by another replica, so waiting counts from the time this one leads.
fn count<K: Key, S>(common: &Common<K, S>, leads_since: Option<Instant>) {
    let (queue, metrics) = (&common.queue, &common.passes);
    metrics.depth.set(i64::try_from(queue.depth()).unwrap_or(i64::MAX));
    let waits = leads_since.zip(queue.oldest_due()).map(|(leads, due)| due.max(leads).elapsed());
    metrics.oldest_due.set(waits.unwrap_or_default().as_secs_f64());
    metrics.adds.inc_by(queue.adds().saturating_sub(metrics.adds.get()));
}

async fn worker<K: Key, S: Send + Sync, C: Controller<K, S>>(controller: &C, stop: &CancellationToken) {
    let common: &Common<K, S> = controller;
    loop {
        let next = async {
            common.leadership.wait_until_leader().await;
            common.queue.next().await
        };
        let Some(key) = stop.run_until_cancelled(next).await else { return };
        if !common.leadership.is_leader() {
            common.queue.done(&key, Some(FOLLOWER));
            continue;
        }
        let again = once(controller, &key).await;
        common.queue.done(&key, again);
    }
}

/// One guarded pass; says when to look again.
async fn once<K: Key, S: Send + Sync, C: Controller<K, S>>(controller: &C, key: &K) -> Option<Duration> {
    let common: &Common<K, S> = controller;
    let mut next = None;
    let pass = async {
        next = controller.pass(key).await?;
        Ok(next.map_or_else(Action::await_change, Action::requeue))
    };
    let Err(failure) = guarded::<C::Error>(&common.passes, pass).await else {
        common.succeeded(key);
        return next;
    };
    let retry = match &failure {
        Failure::Error(error) => error.retry(),
        Failure::Panic(_) => Retry::SOON,
    };
    let delay = match retry {
        Retry::Follower => FOLLOWER,
        Retry::BackOff(first) => common.failures.next(key.clone(), first),
    };
    let text = failure.to_string();
    // A standing error is said once.
    if common.last_error.insert(key.clone(), text.clone()).as_ref() == Some(&text) {
        tracing::debug!(object = %key, retry_in = ?delay, "{text}");
    } else {
        tracing::warn!(object = %key, retry_in = ?delay, "{text}");
    }
    Some(delay)
}

#[cfg(test)]
mod tests {
    use std::ops::Deref;
    use std::sync::atomic::{AtomicU32, Ordering};

    use jiff::Timestamp;
    use kube::{Client, client::Body};
    use tokio::sync::watch;

    use super::*;
    use crate::{
        controller::{Handles, PassError},
        events::EventRecorder,
        lease::Leadership,
        metrics::Metrics,
        readiness::Readiness,
        scope::Scope,
    };

    struct Context {
        common: Common<&'static str, ()>,
        passes: AtomicU32,
    }

    impl Deref for Context {
        type Target = Common<&'static str, ()>;

        fn deref(&self) -> &Self::Target {
            &self.common
        }
    }

    impl Controller<&'static str, ()> for Context {
        type Error = PassError;

        async fn pass(&self, key: &&'static str) -> Result<Option<Duration>, PassError> {
            let before = self.passes.fetch_add(1, Ordering::Relaxed);
            match *key {
                "twice" if before < 2 => Err(PassError::NotSynced("pods")),
                "panics" => {
                    assert!(before > 0, "index out of range");
                    Ok(None)
                }
                "deposed" if before == 0 => Err(PassError::NotLeader),
                "slow" => {
                    tokio::time::sleep(SLOW).await;
                    Ok(None)
                }
                _ => Ok(None),
            }
        }
    }

    /// How long a pass over the key `slow` takes.
    const SLOW: Duration = Duration::from_secs(400);

    fn context(leadership: Leadership) -> Arc<Context> {
        let (service, _) = tower_test::mock::pair::<http::Request<Body>, http::Response<Body>>();
        let client = Client::new(service, "default");
        let metrics = Metrics::new("test");
        let (events, _) = EventRecorder::new(client.clone(), &metrics, "test", "test");
        let handles = Handles {
            client,
            operator_namespace: "kagenti-system".to_owned(),
            scope: Scope::Cluster,
            metrics,
            readiness: Readiness::new(),
            events,
            leadership,
            clock: || Timestamp::UNIX_EPOCH,
        };
        Arc::new(Context { common: Common::new(handles, "agentruntime"), passes: AtomicU32::new(0) })
    }

    /// Runtime §20: failures and panics are retried with back-off, and a success forgets them.
    #[rstest::rstest]
    #[case("fine", 1, Duration::ZERO..Duration::from_millis(1))]
    #[case("twice", 3, Duration::from_millis(300)..Duration::from_millis(650))]
    #[case("panics", 2, Duration::from_millis(100)..Duration::from_millis(250))]
    #[case("deposed", 2, FOLLOWER..FOLLOWER + Duration::from_millis(50))]
    #[tokio::test(start_paused = true)]
    async fn a_key_is_tried_until_it_succeeds(
        #[case] key: &'static str,
        #[case] passes: u32,
        #[case] takes: std::ops::Range<Duration>,
    ) {
        let (context, stop) = (context(Leadership::always()), CancellationToken::new());
        context.common.queue.add(key, Duration::ZERO);
        let (running, start) = (context.clone(), Instant::now());
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { workers(&running, 2, &stop).await }
        });
        while context.passes.load(Ordering::Relaxed) < passes {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let took = start.elapsed();
        assert!(takes.start <= took && took <= takes.end + Duration::from_millis(5), "{took:?}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(context.passes.load(Ordering::Relaxed), passes, "nothing asks for more");
        assert!(context.common.failures.is_empty());
        stop.cancel();
        task.await.unwrap();
        let text = context.common.watches.metrics.openmetrics().unwrap();
        assert!(text.contains("workqueue_adds_total{name=\"agentruntime\"} 1"), "{text}");
    }

    /// A leader that is late says by how much; a follower's keys wait for nobody, and do not count when it takes over.
    #[tokio::test(start_paused = true)]
    async fn the_age_of_the_oldest_key_is_told_while_leading() {
        let (guard, open) = watch::channel(false);
        let (context, stop) = (context(Leadership::always().with_guard(open)), CancellationToken::new());
        for key in ["slow", "late"] {
            context.common.queue.add(key, Duration::ZERO);
        }
        let task = tokio::spawn({
            let (context, stop) = (context.clone(), stop.clone());
            async move { workers(&context, 1, &stop).await }
        });
        let age = || context.common.passes.oldest_due.get();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(age() < 1.0, "{} s on a follower", age());
        guard.send_replace(true);
        tokio::time::sleep(Duration::from_secs(310)).await;
        assert!((308.0..=310.0).contains(&age()), "{} s beside a slow pass", age());
        tokio::time::sleep(SLOW).await;
        assert!(age() < 1.0, "{} s with nothing to do", age());
        stop.cancel();
        task.await.unwrap();
    }
}
