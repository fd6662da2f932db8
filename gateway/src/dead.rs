//! Events that were not delivered, kept for who looks after them.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker_core::{Broker, Channel, Publish, unix_ms};
use bytes::Bytes;
use envelope::{timestamp, write_string};
use parking_lot::{Mutex, RwLock};

use crate::delivery::{Cause, Dead, Event};
use crate::kept::{Kept, Letter};

/// Most that are kept of one webhook.
const MAX_LETTERS: usize = 10_000;

/// Most bytes of them.
const MAX_BYTES: usize = 64 << 20;

/// An event that was not delivered and will not be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The event's own id.
    pub id: String,
    /// Whose it was.
    pub hook: Arc<str>,
    /// Why it was not tried again.
    pub cause: Cause,
    /// When that was, in milliseconds since 1970.
    pub at_ms: u64,
    order: Arc<str>,
    event: Bytes,
    attempts: u32,
    status: Option<u16>,
    error: Option<String>,
}

impl DeadLetter {
    fn of(hook: &Arc<str>, dead: &Dead) -> Self {
        let (status, error) = match &dead.last {
            Some(last) => (last.status, Some(last.error.clone())),
            None => (None, None),
        };
        Self {
            id: dead.event.id.clone(),
            hook: Arc::clone(hook),
            cause: dead.cause,
            at_ms: unix_ms(),
            order: Arc::clone(&dead.event.order),
            event: dead.event.body.clone(),
            attempts: dead.attempts,
            status,
            error,
        }
    }

    /// As it was written.
    fn read(hook: &Arc<str>, letter: Letter) -> Self {
        let Letter { id, order, event, cause, at_ms, attempts, status, error } = letter;
        Self { id, hook: Arc::clone(hook), cause, at_ms, order, event, attempts, status, error }
    }

    fn written(&self) -> Letter {
        Letter {
            id: self.id.clone(),
            order: Arc::clone(&self.order),
            event: self.event.clone(),
            cause: self.cause,
            at_ms: self.at_ms,
            attempts: self.attempts,
            status: self.status,
            error: self.error.clone(),
        }
    }

    fn weight(&self) -> usize {
        self.event.len() + self.error.as_ref().map_or(0, String::len) + 256
    }

    /// The event, to be delivered anew: the same id, happening now.
    pub fn again(&self) -> Event {
        Event::new(self.id.clone(), Arc::clone(&self.order), self.event.clone(), Instant::now())
    }

    /// As it is shown: JSON. An event that is none is a string there, of its text or of its base64.
    pub fn json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.event.len() + 256);
        out.extend_from_slice(b"{\"id\":");
        write_string(&self.id, &mut out);
        out.extend_from_slice(b",\"hook\":");
        write_string(&self.hook, &mut out);
        out.extend_from_slice(b",\"cause\":");
        write_string(self.cause.name(), &mut out);
        out.extend_from_slice(b",\"at\":");
        write_string(&timestamp(self.at_ms), &mut out);
        out.extend_from_slice(format!(",\"attempts\":{},\"last\":", self.attempts).as_bytes());
        match &self.error {
            None => out.extend_from_slice(b"null"),
            Some(error) => {
                let status = self.status.map_or("null".to_owned(), |status| status.to_string());
                out.extend_from_slice(format!("{{\"status\":{status},\"error\":").as_bytes());
                write_string(error, &mut out);
                out.extend_from_slice(b",\"at\":");
                write_string(&timestamp(self.at_ms), &mut out);
                out.push(b'}');
            }
        }
        out.extend_from_slice(b",\"event\":");
        match std::str::from_utf8(&self.event) {
            _ if is_json(&self.event) => out.extend_from_slice(&self.event),
            // Of a rule, whose messages go as they are.
            Ok(text) => write_string(text, &mut out),
            Err(_) => write_string(&STANDARD.encode(&self.event), &mut out),
        }
        out.push(b'}');
        out
    }
}

/// Who has dead letters, and can deliver them anew.
pub trait Owner: std::fmt::Debug + Send + Sync + 'static {
    /// What was not delivered.
    fn dead_letters(&self) -> &DeadLetters;

    /// Delivers an event anew.
    fn replay(&self, event: Event);
}

/// Owners of dead letters besides webhooks and rules, for who looks after all of them. A clone is the same. Nobody is kept
/// alive by it.
#[derive(Clone, Debug, Default)]
pub struct Graveyard(Arc<RwLock<Vec<Weak<dyn Owner>>>>);

impl Graveyard {
    /// Those of this owner are shown from now on, until it is dropped.
    pub fn enter(&self, owner: &Arc<dyn Owner>) {
        let mut owners = self.0.write();
        owners.retain(|known| known.strong_count() > 0);
        owners.push(Arc::downgrade(owner));
    }

    /// All that are there.
    pub fn owners(&self) -> Vec<Arc<dyn Owner>> {
        self.0.read().iter().filter_map(Weak::upgrade).collect()
    }
}

/// The dead letters of one webhook, the oldest first. Over 10,000, or 64 MiB, the oldest goes. Each is also the retained
/// message of the channel `$dead/ID` until the next.
#[derive(Debug)]
pub struct DeadLetters {
    hook: Arc<str>,
    letters: Mutex<Letters>,
    /// Where they outlive a crash.
    kept: Option<Kept>,
}

#[derive(Debug, Default)]
struct Letters {
    all: VecDeque<DeadLetter>,
    bytes: usize,
}

impl DeadLetters {
    /// None yet, of whoever has this name.
    pub fn new(hook: &str) -> Self {
        Self { hook: hook.into(), letters: Mutex::default(), kept: None }
    }

    /// The same, kept over a crash where the broker has an engine, with what an earlier life has left.
    pub fn of(broker: &Broker, hook: &str) -> Self {
        let kept = Kept::of(broker, hook);
        let left = kept.take_left();
        Self::kept(hook, &kept, left.letters)
    }

    pub(crate) fn kept(hook: &str, kept: &Kept, left: Vec<Letter>) -> Self {
        let hook: Arc<str> = hook.into();
        let all: VecDeque<_> = left.into_iter().map(|letter| DeadLetter::read(&hook, letter)).collect();
        let bytes = all.iter().map(DeadLetter::weight).sum();
        Self { hook, letters: Mutex::new(Letters { all, bytes }), kept: Some(kept.clone()) }
    }

    /// Whose they are.
    pub fn owner(&self) -> &str {
        &self.hook
    }

    /// Keeps one, and publishes it.
    pub fn bury(&self, broker: &Broker, dead: &Dead) {
        let letter = DeadLetter::of(&self.hook, dead);
        let json = letter.json();
        let mut kept = self.letters.lock();
        if let Some(notes) = &self.kept {
            notes.bury(&letter.written());
        }
        kept.bytes += letter.weight();
        kept.all.push_back(letter);
        while kept.all.len() > MAX_LETTERS || kept.bytes > MAX_BYTES {
            let Some(oldest) = kept.all.pop_front() else { break };
            kept.bytes = kept.bytes.saturating_sub(oldest.weight());
            self.exhume(&oldest.id);
        }
        drop(kept);
        if let Ok(channel) = Channel::parse(&format!("$dead/{}", self.hook)) {
            // It is kept here whatever becomes of that.
            let _ = broker.post(Publish::new(channel, json).json().retain(true));
        }
    }

    pub(crate) fn hand_over(&self, next: &DeadLetters) {
        let Letters { all, bytes } = std::mem::take(&mut *self.letters.lock());
        let mut kept = next.letters.lock();
        kept.bytes += bytes;
        let newer = std::mem::replace(&mut kept.all, all);
        kept.all.extend(newer);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.letters.lock().all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Up to `limit` of them behind the one with the id `after`; from the oldest on if there is none such.
    pub fn page(&self, after: Option<&str>, limit: usize) -> Vec<DeadLetter> {
        let kept = self.letters.lock();
        let from = after.and_then(|after| kept.all.iter().position(|letter| letter.id == after));
        kept.all.iter().skip(from.map_or(0, |at| at + 1)).take(limit).cloned().collect()
    }

    /// One of them.
    pub fn find(&self, id: &str) -> Option<DeadLetter> {
        self.letters.lock().all.iter().find(|letter| letter.id == id).cloned()
    }

    /// Whether one of them has this id.
    pub fn has(&self, id: &str) -> bool {
        self.letters.lock().all.iter().any(|letter| letter.id == id)
    }

    /// Takes one out.
    pub fn take(&self, id: &str) -> Option<DeadLetter> {
        let mut kept = self.letters.lock();
        let at = kept.all.iter().position(|letter| letter.id == id)?;
        let letter = kept.all.remove(at)?;
        kept.bytes = kept.bytes.saturating_sub(letter.weight());
        self.exhume(id);
        Some(letter)
    }

    fn exhume(&self, id: &str) {
        if let Some(kept) = &self.kept {
            kept.exhume(id);
        }
    }
}

pub(crate) fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}
