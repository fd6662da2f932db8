//! Events that were not delivered, kept for who looks after them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use broker_core::{Broker, Channel, Publish, unix_ms};
use bytes::Bytes;
use envelope::{timestamp, write_string};
use parking_lot::Mutex;

use crate::delivery::{Cause, Dead, Event};

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

    fn weight(&self) -> usize {
        self.event.len() + self.error.as_ref().map_or(0, String::len) + 256
    }

    /// The event, to be delivered anew: the same id, happening now.
    pub fn again(&self) -> Event {
        Event::new(self.id.clone(), Arc::clone(&self.order), self.event.clone(), Instant::now())
    }

    /// As it is shown: JSON.
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
        out.extend_from_slice(&self.event);
        out.push(b'}');
        out
    }
}

/// The dead letters of one webhook, the oldest first. Over 10,000, or 64 MiB, the oldest goes. Each is also the retained
/// message of the channel `$dead/ID` until the next.
#[derive(Debug)]
pub struct DeadLetters {
    hook: Arc<str>,
    letters: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    all: VecDeque<DeadLetter>,
    bytes: usize,
}

impl DeadLetters {
    pub(crate) fn new(hook: &str) -> Self {
        Self { hook: hook.into(), letters: Mutex::default() }
    }

    pub(crate) fn bury(&self, broker: &Broker, dead: &Dead) {
        let letter = DeadLetter::of(&self.hook, dead);
        let json = letter.json();
        let mut kept = self.letters.lock();
        kept.bytes += letter.weight();
        kept.all.push_back(letter);
        while kept.all.len() > MAX_LETTERS || kept.bytes > MAX_BYTES {
            let Some(oldest) = kept.all.pop_front() else { break };
            kept.bytes = kept.bytes.saturating_sub(oldest.weight());
        }
        drop(kept);
        if let Ok(channel) = Channel::parse(&format!("$dead/{}", self.hook)) {
            // It is kept here whatever becomes of that.
            let _ = broker.post(Publish::new(channel, json).json().retain(true));
        }
    }

    pub(crate) fn hand_over(&self, next: &DeadLetters) {
        let Kept { all, bytes } = std::mem::take(&mut *self.letters.lock());
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
        Some(letter)
    }
}
