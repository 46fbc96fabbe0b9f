//! The work queue: every key at most once, never two workers on one key, earliest time wins.
//!
//! kube-runtime's scheduler does the same for one stream of requests; here several watches push from inside
//! their event handlers, each with a delay of its own, and depth and adds are counted.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// A de-duplicating queue of keys with delays. Bounded by the number of distinct keys.
#[derive(Debug)]
pub struct Queue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

#[derive(Debug)]
struct State<K> {
    /// When each waiting key is due; the number makes keys of one instant first in, first out.
    due: HashMap<K, (Instant, u64)>,
    order: BTreeSet<(Instant, u64, K)>,
    /// Keys in the hands of a worker, with the time of a look that was asked for meanwhile.
    running: HashMap<K, Option<Instant>>,
    sequence: u64,
    adds: u64,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        let state = State {
            due: HashMap::new(),
            order: BTreeSet::new(),
            running: HashMap::new(),
            sequence: 0,
            adds: 0,
        };
        Self { state: Mutex::new(state), wake: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a look at `key` after `delay`. An earlier request that still waits stays as it is, a later one is
    /// brought forward; a key being worked on is looked at again afterwards.
    pub fn add(&self, key: K, delay: Duration) {
        let at = Instant::now() + delay;
        let mut state = self.lock();
        state.adds += 1;
        if let Some(again) = state.running.get_mut(&key) {
            *again = Some(again.map_or(at, |old| old.min(at)));
            return;
        }
        if state.schedule(key, at) {
            drop(state);
            self.wake.notify_one();
        }
    }

    /// The next due key, once there is one. Every key must be given back by [`Queue::done`].
    pub async fn next(&self) -> K {
        loop {
            let notified = self.wake.notified();
            let sleep = {
                let mut state = self.lock();
                match state.order.first().cloned() {
                    Some((at, number, key)) if at <= Instant::now() => {
                        state.order.remove(&(at, number, key.clone()));
                        state.due.remove(&key);
                        state.running.insert(key.clone(), None);
                        // Another worker may sleep until a later time: let it look at the new head.
                        self.wake.notify_one();
                        return key;
                    }
                    head => head.map(|(at, ..)| at),
                }
            };
            match sleep {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, notified).await;
                }
                None => notified.await,
            }
        }
    }

    /// Gives a key back; `again` asks for another look after that time.
    pub fn done(&self, key: &K, again: Option<Duration>) {
        let mut state = self.lock();
        let asked = state.running.remove(key).flatten();
        let wanted = again.map(|delay| Instant::now() + delay);
        if let Some(at) = [asked, wanted].into_iter().flatten().min() {
            state.schedule(key.clone(), at);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Keys that are due and wait for a worker. Keys that wait for their time are no backlog.
    pub fn depth(&self) -> usize {
        let now = Instant::now();
        self.lock().order.iter().take_while(|(at, ..)| *at <= now).count()
    }

    /// Since when the key that waits longest for a worker has been due; nothing while no key is.
    pub fn oldest_due(&self) -> Option<Instant> {
        self.lock().order.first().map(|(at, ..)| *at).filter(|at| *at <= Instant::now())
    }

    /// Requests since the start.
    pub fn adds(&self) -> u64 {
        self.lock().adds
    }
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    /// True when the head may have changed.
    fn schedule(&mut self, key: K, at: Instant) -> bool {
        if let Some((old, number)) = self.due.get(&key).copied() {
            if old <= at {
                return false;
            }
            self.order.remove(&(old, number, key.clone()));
        }
        self.sequence += 1;
        self.due.insert(key.clone(), (at, self.sequence));
        self.order.insert((at, self.sequence, key));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const SOON: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_the_earliest_time_wins() {
        let queue = Queue::default();
        queue.add("a", SOON);
        queue.add("a", Duration::from_secs(60));
        queue.add("b", Duration::ZERO);
        assert_eq!((queue.depth(), queue.adds()), (1, 3));
        let start = Instant::now();
        assert_eq!(queue.oldest_due(), Some(start));
        assert_eq!(queue.next().await, "b");
        assert_eq!(queue.oldest_due(), None, "a key that waits for its time is not due");
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed(), SOON);
        assert_eq!(queue.depth(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_key_is_never_handed_out_twice() {
        let queue = Arc::new(Queue::default());
        queue.add(1, Duration::ZERO);
        let key = queue.next().await;
        queue.add(1, Duration::ZERO);
        let second = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await }
        });
        tokio::time::sleep(SOON).await;
        assert!(!second.is_finished());
        queue.done(&key, Some(Duration::from_secs(3600)));
        assert_eq!(second.await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn done_asks_for_another_look() {
        let queue = Queue::default();
        queue.add("a", Duration::ZERO);
        let key = queue.next().await;
        queue.done(&key, Some(SOON));
        let start = Instant::now();
        queue.next().await;
        assert_eq!(start.elapsed(), SOON);
    }

    #[tokio::test(start_paused = true)]
    async fn workers_share_the_keys() {
        let queue = Arc::new(Queue::default());
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.next().await })
            })
            .collect();
        tokio::task::yield_now().await;
        for key in 0..3 {
            queue.add(key, Duration::from_millis(key));
        }
        let mut got = Vec::new();
        for worker in workers {
            got.push(worker.await.unwrap());
        }
        got.sort_unstable();
        assert_eq!(got, [0, 1, 2]);
    }
}
