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
    schedule,
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
    /// The answer.
    pub result: Result<Arc<Document>, FetchError>,
    /// Failures in a row.
    pub failures: u32,
    /// Drawn once, for the time of the next fetch.
    pub spread: f64,
}

#[derive(Debug, Default)]
struct Entry {
    last: Option<Arc<Observation>>,
    document: Option<Arc<Document>>,
    validator: Option<Validator>,
    config_map: Option<Arc<Document>>,
    in_flight: bool,
}

/// The last observations by workload.
#[derive(Debug, Default)]
pub struct Observations(Mutex<HashMap<TargetKey, Entry>>);

impl Observations {
    fn lock(&self) -> MutexGuard<'_, HashMap<TargetKey, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last fetch.
    pub fn last(&self, target: &TargetKey) -> Option<Arc<Observation>> {
        self.lock().get(target)?.last.clone()
    }

    /// What to hand in with the next fetch: the validator of the last document, and whether the last attempt failed.
    pub fn hints(&self, target: &TargetKey) -> (Option<Validator>, bool) {
        let map = self.lock();
        let Some(entry) = map.get(target) else { return (None, false) };
        (entry.validator.clone(), entry.last.as_ref().is_some_and(|last| last.failures > 0))
    }

    /// Marks a fetch as under way; false when one is already.
    pub fn begin(&self, target: &TargetKey) -> bool {
        !std::mem::replace(&mut self.lock().entry(target.clone()).or_default().in_flight, true)
    }

    /// Nothing came of it, not even a failure.
    pub fn abandon(&self, target: &TargetKey) {
        if let Some(entry) = self.lock().get_mut(target) {
            entry.in_flight = false;
        }
    }

    /// Ends a fetch. `Ok(None)` = the last document still holds. Returns false when it was thrown away, because
    /// everything about the workload was forgotten meanwhile.
    pub fn end(
        &self,
        target: &TargetKey,
        of: Arc<str>,
        answer: Result<Option<Document>, FetchError>,
        validator: Option<Validator>,
    ) -> bool {
        let mut map = self.lock();
        let Some(entry) = map.get_mut(target) else { return false };
        entry.in_flight = false;
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
        entry.last = Some(Arc::new(Observation { at: Instant::now(), of, result, failures, spread }));
        true
    }

    /// The document of a ConfigMap: the one known already when the bytes are the same, so that it is not evaluated
    /// again.
    pub fn config_map(&self, target: &TargetKey, raw: &Arc<[u8]>) -> Arc<Document> {
        let mut map = self.lock();
        let entry = map.entry(target.clone()).or_default();
        let known = entry.config_map.clone();
        if let Some(known) = known.filter(|known| Arc::ptr_eq(&known.raw, raw) || *known.raw == **raw) {
            return known;
        }
        let document = Arc::new(Document::new(raw.clone(), CardSource::ConfigMap, None));
        entry.config_map = Some(document.clone());
        document
    }

    /// The last answer is of no use any more; its document is kept, in case it comes again.
    pub fn expire(&self, target: &TargetKey) {
        if let Some(entry) = self.lock().get_mut(target) {
            entry.last = None;
        }
    }

    /// The last failure is of no use any more: what caused it may have changed.
    pub fn expire_failure(&self, target: &TargetKey) {
        if let Some(entry) = self.lock().get_mut(target)
            && entry.last.as_ref().is_some_and(|last| last.result.is_err())
        {
            entry.last = None;
        }
    }

    /// Drops everything about a workload.
    pub fn forget(&self, target: &TargetKey) {
        self.lock().remove(target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> TargetKey {
        TargetKey { namespace: "n".into(), group: "apps".into(), kind: "Deployment".into(), name: "w".into() }
    }

    fn document(text: &str) -> Document {
        Document::new(text.as_bytes().to_vec(), CardSource::Http, None)
    }

    /// Card §17.2: one fetch at a time, shared by all cards; the same bytes are the same document.
    #[tokio::test]
    async fn a_fetch_is_shared_and_an_unchanged_document_is_kept() {
        let all = Observations::default();
        assert!(all.begin(&target()));
        assert!(!all.begin(&target()), "under way");
        assert!(all.end(&target(), "a".into(), Ok(Some(document("x"))), None));
        let first = all.last(&target()).unwrap().result.clone().unwrap();
        assert!(all.begin(&target()));
        all.end(&target(), "a".into(), Ok(Some(document("x"))), None);
        assert!(Arc::ptr_eq(&first, &all.last(&target()).unwrap().result.clone().unwrap()));
        all.end(&target(), "a".into(), Ok(None), None);
        assert!(Arc::ptr_eq(&first, &all.last(&target()).unwrap().result.clone().unwrap()));
    }

    #[tokio::test]
    async fn failures_are_counted_until_an_answer_comes() {
        let all = Observations::default();
        for expected in 1..=3 {
            all.begin(&target());
            all.end(&target(), "a".into(), Err(FetchError::Refused), None);
            assert_eq!(all.last(&target()).unwrap().failures, expected);
            assert!(all.hints(&target()).1);
        }
        all.end(&target(), "a".into(), Ok(Some(document("x"))), None);
        assert_eq!(all.last(&target()).unwrap().failures, 0);
        all.forget(&target());
        assert!(!all.end(&target(), "a".into(), Ok(None), None), "nobody wants it any more");
    }
}
