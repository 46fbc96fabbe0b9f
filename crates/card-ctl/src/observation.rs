//! What was last read of each agent, so that its cards share one fetch and an unchanged document costs nothing
//! (card §8.7, §17.2).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use agent_trust::SpiffeId;
use api_types::CardSource;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    evaluation::Evaluated,
    fetch::{FetchError, Validator},
    kinds::TargetKey,
    schedule::{self, READY_AGAIN},
};

/// A document as it came.
#[derive(Debug)]
pub struct Document {
    /// The bytes.
    pub raw: Arc<[u8]>,
    /// Their SHA-256.
    pub digest: [u8; 32],
    /// Where it came from.
    pub source: CardSource,
    /// Who served it.
    pub attested: Option<SpiffeId>,
    evaluated: Mutex<Option<Arc<Evaluated>>>,
}

impl Document {
    /// A document that nobody has looked at yet.
    pub fn new(raw: impl Into<Arc<[u8]>>, source: CardSource, attested: Option<SpiffeId>) -> Self {
        let raw = raw.into();
        let digest = Sha256::digest(&raw).into();
        Self { raw, digest, source, attested, evaluated: Mutex::default() }
    }

    /// The last evaluation.
    pub fn evaluated(&self) -> Option<Arc<Evaluated>> {
        self.evaluated.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps an evaluation.
    pub fn keep(&self, evaluated: Arc<Evaluated>) {
        *self.evaluated.lock().unwrap_or_else(PoisonError::into_inner) = Some(evaluated);
    }

    /// True when `other` says the same and came from the same place.
    pub fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest && self.source == other.source && self.attested == other.attested
    }
}

/// One fetch.
#[derive(Clone, Debug)]
pub struct Observation {
    /// When it ended.
    pub at: Instant,
    /// What was asked, and for which pod template; another one is fetched at once.
    pub of: Arc<str>,
    /// Hash of the pod template that was fully rolled out while the agent was asked (card §11.2).
    pub template: Option<Arc<str>>,
    /// The answer.
    pub result: Result<Arc<Document>, FetchError>,
    /// Failures in a row.
    pub failures: u32,
    /// Drawn once, for the time of the next fetch.
    pub spread: f64,
}

/// What a fetch is about.
#[derive(Clone, Debug)]
pub struct Asked {
    /// [`Observation::of`].
    pub of: Arc<str>,
    /// [`Observation::template`].
    pub template: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct Entry {
    last: Option<Arc<Observation>>,
    /// The last answer is to be replaced then.
    renew: Option<Instant>,
    /// When a change of endpoints last had the agent asked.
    hurried: Option<Instant>,
    document: Option<Arc<Document>>,
    validator: Option<Validator>,
    config_map: Option<Arc<Document>>,
    /// When the fetch that is under way was due.
    in_flight: Option<Instant>,
}

impl Entry {
    fn renew_at(&mut self, at: Instant) {
        self.renew = Some(self.renew.map_or(at, |known| known.min(at)));
    }
}

/// The last observations by workload.
#[derive(Debug, Default)]
pub struct Observations(Mutex<HashMap<TargetKey, Entry>>);

impl Observations {
    fn lock(&self) -> MutexGuard<'_, HashMap<TargetKey, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last fetch, and when it is to be replaced before its time is over.
    pub fn last(&self, target: &TargetKey) -> Option<(Arc<Observation>, Option<Instant>)> {
        let map = self.lock();
        let entry = map.get(target)?;
        Some((entry.last.clone()?, entry.renew))
    }

    /// What to hand in with the next fetch: the validator of the last document, and whether the last attempt failed.
    pub fn hints(&self, target: &TargetKey) -> (Option<Validator>, bool) {
        let map = self.lock();
        let Some(entry) = map.get(target) else { return (None, false) };
        (entry.validator.clone(), entry.last.as_ref().is_some_and(|last| last.failures > 0))
    }

    /// Marks a fetch that was due then as under way; false when one is already.
    pub fn begin(&self, target: &TargetKey, due: Instant) -> bool {
        let mut map = self.lock();
        let entry = map.entry(target.clone()).or_default();
        let idle = entry.in_flight.is_none();
        entry.in_flight.get_or_insert(due);
        idle
    }

    /// When the fetch that is under way was due.
    pub fn due(&self, target: &TargetKey) -> Option<Instant> {
        self.lock().get(target)?.in_flight
    }

    /// Nothing came of it, not even a failure.
    pub fn abandon(&self, target: &TargetKey) {
        if let Some(entry) = self.lock().get_mut(target) {
            entry.in_flight = None;
        }
    }

    /// Ends a fetch. `Ok(None)` = the last document still holds. Returns false when it was thrown away, because
    /// everything about the workload was forgotten meanwhile.
    pub fn end(
        &self,
        target: &TargetKey,
        asked: Asked,
        answer: Result<Option<Document>, FetchError>,
        validator: Option<Validator>,
    ) -> bool {
        let mut map = self.lock();
        let Some(entry) = map.get_mut(target) else { return false };
        entry.in_flight = None;
        let failures = entry.last.as_ref().map_or(0, |last| last.failures);
        let result = match answer {
            Ok(Some(document)) => {
                let known = entry.document.take().filter(|known| known.is_same(&document));
                let document = known.unwrap_or_else(|| Arc::new(document));
                entry.document = Some(document.clone());
                entry.validator = validator;
                Ok(document)
            }
            // 304 without a document that it could be about is no answer.
            Ok(None) => entry.document.clone().ok_or(FetchError::Status(304)),
            Err(error) => Err(error),
        };
        let failures = if result.is_ok() { 0 } else { failures.saturating_add(1) };
        let spread = schedule::spread();
        let Asked { of, template } = asked;
        entry.last =
            Some(Arc::new(Observation { at: Instant::now(), of, template, result, failures, spread }));
        entry.renew = None;
        true
    }

    /// The document of a ConfigMap: the one known already when the bytes are the same, so that it is not evaluated
    /// again. True when it is new.
    pub fn config_map(&self, target: &TargetKey, raw: &Arc<[u8]>) -> (Arc<Document>, bool) {
        let mut map = self.lock();
        let entry = map.entry(target.clone()).or_default();
        let known = entry.config_map.clone();
        if let Some(known) = known.filter(|known| Arc::ptr_eq(&known.raw, raw) || *known.raw == **raw) {
            return (known, false);
        }
        let document = Arc::new(Document::new(raw.clone(), CardSource::ConfigMap, None));
        entry.config_map = Some(document.clone());
        (document, true)
    }

    /// The agent was not ready, or not there: once it is again, it is asked again, but not sooner after the last time
    /// than [`READY_AGAIN`]. Until then the last answer counts, so that one that flaps is not asked all the time.
    pub fn expire(&self, target: &TargetKey) {
        if let Some(entry) = self.lock().get_mut(target)
            && let Some(last) = &entry.last
        {
            entry.renew_at(last.at + READY_AGAIN);
        }
    }

    /// What caused the last failure may have changed: its Service, or its endpoints. The agent is asked at once, but
    /// endpoints come and go with an agent that flaps, so only now and then. A failure that cost the agent nothing is
    /// always tried again.
    pub fn expire_failure(&self, target: &TargetKey) {
        let mut map = self.lock();
        let Some(entry) = map.get_mut(target) else { return };
        let Some(Err(error)) = entry.last.as_ref().map(|last| &last.result) else { return };
        if matches!(error, FetchError::NoAddress | FetchError::ForbiddenAddress | FetchError::NoSvid) {
            entry.last = None;
            return;
        }
        let now = Instant::now();
        let next = entry.hurried.map_or(now, |at| (at + READY_AGAIN).max(now));
        if next == now {
            entry.hurried = Some(now);
        }
        entry.renew_at(next);
    }

    /// Drops everything about a workload.
    pub fn forget(&self, target: &TargetKey) {
        self.lock().remove(target);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn target() -> TargetKey {
        TargetKey { namespace: "n".into(), group: "apps".into(), kind: "Deployment".into(), name: "w".into() }
    }

    fn document(text: &str) -> Document {
        Document::new(text.as_bytes().to_vec(), CardSource::Http, None)
    }

    fn asked() -> Asked {
        Asked { of: "a".into(), template: None }
    }

    fn last(all: &Observations) -> Arc<Observation> {
        all.last(&target()).unwrap().0
    }

    fn renewal(all: &Observations) -> Option<Instant> {
        all.last(&target()).and_then(|(_, renew)| renew)
    }

    /// Card §6.1: an agent that is ready again is asked again, but not again and again.
    #[tokio::test(start_paused = true)]
    async fn readiness_asks_now_and_then() {
        let all = Observations::default();
        all.begin(&target(), Instant::now());
        all.end(&target(), asked(), Ok(Some(document("x"))), None);
        let at = Instant::now();
        assert_eq!(renewal(&all), None);
        for _ in 0..10 {
            tokio::time::advance(Duration::from_millis(100)).await;
            all.expire(&target());
            assert_eq!(renewal(&all), Some(at + READY_AGAIN));
        }
        all.begin(&target(), Instant::now());
        all.end(&target(), asked(), Ok(Some(document("x"))), None);
        assert_eq!(renewal(&all), None, "it was asked");
        tokio::time::advance(READY_AGAIN * 3).await;
        all.expire(&target());
        assert!(renewal(&all).is_some_and(|at| at <= Instant::now()), "at once after a while");
    }

    /// Card §4.2: changed endpoints have an agent that failed asked at once, but not each time they come and go.
    #[tokio::test(start_paused = true)]
    async fn endpoints_ask_at_once_and_then_now_and_then() {
        let all = Observations::default();
        let fail = |error| {
            all.begin(&target(), Instant::now());
            all.end(&target(), asked(), Err(error), None);
        };
        fail(FetchError::Refused);
        let start = Instant::now();
        all.expire_failure(&target());
        assert_eq!(renewal(&all), Some(start));
        tokio::time::advance(Duration::from_secs(1)).await;
        fail(FetchError::Refused);
        all.expire_failure(&target());
        assert_eq!(renewal(&all), Some(start + READY_AGAIN));
        // Nobody was bothered by it.
        fail(FetchError::NoAddress);
        all.expire_failure(&target());
        assert!(all.last(&target()).is_none());
        all.begin(&target(), Instant::now());
        all.end(&target(), asked(), Ok(Some(document("x"))), None);
        all.expire_failure(&target());
        assert_eq!(renewal(&all), None, "an answer stays");
    }

    /// Card §17.2: one fetch at a time, shared by all cards; the same bytes are the same document.
    #[tokio::test]
    async fn a_fetch_is_shared_and_an_unchanged_document_is_kept() {
        let (all, now) = (Observations::default(), Instant::now());
        assert!(all.begin(&target(), now));
        assert!(!all.begin(&target(), now + std::time::Duration::from_secs(1)), "under way");
        assert_eq!(all.due(&target()), Some(now));
        assert!(all.end(&target(), asked(), Ok(Some(document("x"))), None));
        let first = last(&all).result.clone().unwrap();
        assert_eq!(all.due(&target()), None);
        assert!(all.begin(&target(), now));
        all.end(&target(), asked(), Ok(Some(document("x"))), None);
        assert!(Arc::ptr_eq(&first, &last(&all).result.clone().unwrap()));
        all.end(&target(), asked(), Ok(None), None);
        assert!(Arc::ptr_eq(&first, &last(&all).result.clone().unwrap()));
    }

    #[tokio::test]
    async fn failures_are_counted_until_an_answer_comes() {
        let all = Observations::default();
        for expected in 1..=3 {
            all.begin(&target(), Instant::now());
            all.end(&target(), asked(), Err(FetchError::Refused), None);
            assert_eq!(last(&all).failures, expected);
            assert!(all.hints(&target()).1);
        }
        all.end(&target(), asked(), Ok(Some(document("x"))), None);
        assert_eq!(last(&all).failures, 0);
        all.forget(&target());
        assert!(!all.end(&target(), asked(), Ok(None), None), "nobody wants it any more");
    }
}
