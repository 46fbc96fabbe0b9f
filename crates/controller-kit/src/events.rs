//! Kubernetes Events: emitted in the background, once per thing worth saying.
//!
//! An Event repeated on every retry is noise and load, so the same (object, reason, note) is emitted
//! at most once in five minutes. The queue is bounded; what does not fit is dropped and counted. A
//! rate of its own keeps Events from competing with the process's work (runtime §7.3, webhook §17).

mod dedupe;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::bucket::TokenBucket;
use crate::metrics::Metrics;

pub use dedupe::Dedupe;

/// Events waiting to be sent. At the rate below that is about two minutes of them.
const QUEUE: usize = 4096;
/// Events per second, and how many may go out at once.
const RATE: f64 = 30.0;
const BURST: u32 = 60;
/// Limit of the API for `note`, which is 1 kB; and for `reason`, `action` and the reporter.
const NOTE_LIMIT: usize = 1024;
const WORD_LIMIT: usize = 128;
/// A request that takes longer is given up; Events are never worth a hang.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of the process waits for Events.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Whether an Event tells of normal work or of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something was done.
    Normal,
    /// A user or an admin should look.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What an Event says.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Normal or Warning.
    pub kind: EventType,
    /// CamelCase reason, a constant.
    pub reason: Cow<'static, str>,
    /// CamelCase name of what was being done, a constant.
    pub action: Cow<'static, str>,
    /// Text for people; cut at 1 KiB.
    pub note: String,
}

impl NewEvent {
    /// A Normal event.
    pub fn normal(reason: &'static str, action: &'static str, note: impl Into<String>) -> Self {
        Self { kind: EventType::Normal, reason: reason.into(), action: action.into(), note: note.into() }
    }

    /// A Warning event.
    pub fn warning(reason: &'static str, action: &'static str, note: impl Into<String>) -> Self {
        Self { kind: EventType::Warning, reason: reason.into(), action: action.into(), note: note.into() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// Where controllers put their Events; clones share queue and memory of what was said.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Event>,
    dedupe: Arc<Dedupe>,
    outcomes: Family<OutcomeLabel, Counter>,
    reporter: Arc<str>,
    instance: Arc<str>,
}

/// The other end of a recorder: sends what was recorded.
pub struct EventSender {
    queue: mpsc::Receiver<Event>,
    client: Client,
    outcomes: Family<OutcomeLabel, Counter>,
}

/// A reference to `obj` as Events name it.
pub fn reference<K: Resource<DynamicType: Default>>(obj: &K) -> ObjectReference {
    obj.object_ref(&K::DynamicType::default())
}

impl EventRecorder {
    /// A recorder and its sender, which somebody must [`EventSender::run`]. `reporter` is the
    /// controller named in the Events, `instance` the Pod.
    pub fn new(client: Client, metrics: &Metrics, reporter: &str, instance: &str) -> (Self, EventSender) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let outcomes = metrics.register(
            "kagenti_events",
            "Events by outcome: sent, failed, dropped (queue full)",
            Family::<OutcomeLabel, Counter>::default(),
        );
        let recorder = Self {
            queue: sender,
            dedupe: Arc::new(Dedupe::default()),
            outcomes: outcomes.clone(),
            reporter: reporter.into(),
            instance: clip(instance, WORD_LIMIT).into(),
        };
        (recorder, EventSender { queue, client, outcomes })
    }

    /// The same recorder under another controller name, e.g. `agentruntime-controller`.
    #[must_use]
    pub fn reporting_as(&self, reporter: &str) -> Self {
        Self { reporter: clip(reporter, WORD_LIMIT).into(), ..self.clone() }
    }

    /// Records an Event about `regarding`, unless the same one was recorded in the last five minutes.
    /// Never blocks.
    pub fn publish(&self, regarding: &ObjectReference, event: NewEvent) {
        let object = regarding.uid.as_deref().or(regarding.name.as_deref()).unwrap_or_default();
        if !self.dedupe.first(object, &event.reason, &event.note) {
            return;
        }
        let event = build(regarding, event, &self.reporter, &self.instance, Timestamp::now());
        if self.queue.try_send(event).is_err() {
            self.outcomes.get_or_create(&OutcomeLabel { outcome: "dropped" }).inc();
        }
    }
}

impl EventSender {
    /// Sends until `halt`, then what is still queued, for at most a second. Failures are counted and
    /// logged; they never end the process.
    pub async fn run(mut self, halt: CancellationToken) {
        let bucket = TokenBucket::new(RATE, BURST);
        while let Some(event) = self.next(&halt).await {
            // An event in hand is sent although the end has come, but not for long.
            halt.run_until_cancelled(bucket.take()).await;
            tokio::select! {
                () = self.send(event) => {}
                () = last_words(&halt) => return,
            }
        }
        let rest = async {
            while let Ok(event) = self.queue.try_recv() {
                self.send(event).await;
            }
        };
        let _ = timeout(LAST_WORDS, rest).await;
    }

    async fn next(&mut self, halt: &CancellationToken) -> Option<Event> {
        let event = halt.run_until_cancelled(self.queue.recv()).await?;
        if event.is_none() {
            // Every recorder is gone; that is no reason to end before the process does.
            halt.cancelled().await;
        }
        event
    }

    async fn send(&self, event: Event) {
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api = Api::<Event>::namespaced(self.client.clone(), &namespace);
        let params = PostParams::default();
        let request = api.create(&params, &event);
        let outcome = match timeout(SEND_TIMEOUT, request).await {
            Ok(Ok(_)) => "sent",
            Ok(Err(error)) => {
                // A terminating namespace refuses Events; nobody can do anything about that.
                tracing::debug!(k8s.namespace.name = %namespace, error = %crate::message::message_of(&error), "event not written");
                "failed"
            }
            Err(_) => {
                tracing::debug!(k8s.namespace.name = %namespace, "event not written within {SEND_TIMEOUT:?}");
                "failed"
            }
        };
        self.outcomes.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}

async fn last_words(halt: &CancellationToken) {
    halt.cancelled().await;
    tokio::time::sleep(LAST_WORDS).await;
}

fn build(
    regarding: &ObjectReference,
    event: NewEvent,
    reporter: &str,
    instance: &str,
    now: Timestamp,
) -> Event {
    // Events about cluster-scoped objects live in `default` by convention of the API.
    let namespace = regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let about = clip(regarding.name.as_deref().unwrap_or("unknown"), 200).to_owned();
    let name = format!("{about}.{:x}{:04x}", now.as_nanosecond(), fastrand::u16(..));
    Event {
        action: Some(clipped(event.action.into_owned(), WORD_LIMIT)),
        event_time: Some(MicroTime(now)),
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
        note: Some(clipped(event.note, NOTE_LIMIT)),
        reason: Some(clipped(event.reason.into_owned(), WORD_LIMIT)),
        regarding: Some(regarding.clone()),
        reporting_controller: Some(reporter.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        type_: Some(event.kind.as_str().to_owned()),
        ..Event::default()
    }
}

/// The longest beginning of at most `limit` bytes that ends at a character.
fn clip(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

fn clipped(mut text: String, limit: usize) -> String {
    text.truncate(clip(&text, limit).len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regarding() -> ObjectReference {
        ObjectReference {
            name: Some("weather".to_owned()),
            namespace: Some("team1".to_owned()),
            uid: Some("u1".to_owned()),
            ..ObjectReference::default()
        }
    }

    /// Style 2.8: a note has at most 1 KiB; the cut never splits a character.
    #[test]
    fn long_notes_are_cut_at_a_character() {
        let note = "é".repeat(600);
        let event = build(&regarding(), NewEvent::warning("R", "A", note), "c", "pod", Timestamp::UNIX_EPOCH);
        let note = event.note.unwrap();
        assert_eq!(note.len(), 1024);
        assert!(note.chars().all(|c| c == 'é'));
    }

    #[test]
    fn the_event_names_object_reporter_and_instance() {
        let event = build(
            &regarding(),
            NewEvent::normal("R", "A", "n"),
            "agentruntime-controller",
            "pod-1",
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(event.metadata.namespace.as_deref(), Some("team1"));
        assert!(event.metadata.name.unwrap().starts_with("weather."));
        assert_eq!(event.reporting_controller.as_deref(), Some("agentruntime-controller"));
        assert_eq!(event.reporting_instance.as_deref(), Some("pod-1"));
        assert_eq!(event.type_.as_deref(), Some("Normal"));
    }
}
