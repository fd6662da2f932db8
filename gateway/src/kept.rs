//! What waits for a receiver and what was given up, as the broker's engine keeps it over a crash.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use broker_core::{Broker, Notes, unix_ms};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;

use crate::delivery::{Cause, Event};

/// What the names of notes begin with.
const EVENT: char = 'e';
const LETTER: char = 'd';

/// Events of one receiver that were accepted and not delivered, and its dead letters, in a room of the broker's
/// [`Notes`]. Without an engine nothing is kept. A clone writes into the same.
#[derive(Clone)]
pub struct Kept(Arc<Inner>);

struct Inner {
    notes: Notes,
    /// The next in order.
    next: AtomicU64,
    /// What an earlier life has left, until somebody takes it.
    left: Mutex<Left>,
}

/// What an earlier life has left, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Left {
    pub(crate) events: Vec<Event>,
    pub(crate) letters: Vec<Letter>,
}

/// A dead letter, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) id: String,
    pub(crate) order: Arc<str>,
    pub(crate) event: Bytes,
    pub(crate) cause: Cause,
    pub(crate) at_ms: u64,
    pub(crate) attempts: u32,
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
}

impl Kept {
    /// That of the receiver with this id, with what is left of it. Reads the disk.
    pub fn of(broker: &Broker, id: &str) -> Self {
        let notes = broker.notes(&format!("gateway/{id}"));
        let (left, next) = match notes.load() {
            Ok(found) => read_all(id, found),
            Err(error) => {
                tracing::error!(hook = id, %error, "what waited for a backend cannot be read");
                (Left::default(), 0)
            }
        };
        Self(Arc::new(Inner { notes, next: AtomicU64::new(next), left: Mutex::new(left) }))
    }

    /// What an earlier life has left. Whoever asks first has it.
    pub(crate) fn take_left(&self) -> Left {
        std::mem::take(&mut *self.0.left.lock())
    }

    /// An event waits from now on.
    pub(crate) fn note(&self, event: &Event) {
        if !self.0.notes.are_kept() {
            return;
        }
        let age = u64::try_from(event.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut out = self.begin(event.body.len());
        out.put_u64(unix_ms().saturating_sub(age));
        put_text(&mut out, &event.order);
        out.extend_from_slice(&event.body);
        self.0.notes.put(&name(EVENT, &event.id), out.freeze());
    }

    /// It was delivered, or is a dead letter.
    pub(crate) fn forget(&self, id: &str) {
        self.0.notes.remove(&name(EVENT, id));
    }

    /// It is a dead letter from now on.
    pub(crate) fn bury(&self, letter: &Letter) {
        if !self.0.notes.are_kept() {
            return;
        }
        let mut out = self.begin(letter.event.len());
        out.put_u64(letter.at_ms);
        out.put_u8(Cause::ALL.iter().position(|cause| *cause == letter.cause).unwrap_or(0) as u8);
        out.put_u32(letter.attempts);
        out.put_u16(letter.status.unwrap_or(0));
        out.put_u8(u8::from(letter.error.is_some()));
        put_text(&mut out, letter.error.as_deref().unwrap_or_default());
        put_text(&mut out, &letter.order);
        out.extend_from_slice(&letter.event);
        self.0.notes.put(&name(LETTER, &letter.id), out.freeze());
        self.forget(&letter.id);
    }

    /// The dead letter is none any more.
    pub(crate) fn exhume(&self, id: &str) {
        self.0.notes.remove(&name(LETTER, id));
    }

    /// Forgets all, whatever waits.
    pub(crate) async fn clear(&self) {
        // What is on its way is not read yet.
        self.settled().await;
        let notes = self.0.notes.clone();
        let cleared = tokio::task::spawn_blocking(move || {
            for (name, _) in notes.load().unwrap_or_default() {
                notes.remove(&name);
            }
        });
        _ = cleared.await;
        self.settled().await;
    }

    /// Whether all that waits outlives a crash.
    pub(crate) fn is_safe(&self) -> bool {
        self.0.notes.are_safe()
    }

    /// Resolves once all is written that happened before, or the engine takes nothing.
    pub async fn settled(&self) {
        _ = self.0.notes.settled().await;
    }

    /// The place in the order, which names on the disk do not have.
    fn begin(&self, bytes: usize) -> BytesMut {
        let mut out = BytesMut::with_capacity(bytes + 128);
        out.put_u64(self.0.next.fetch_add(1, Relaxed));
        out
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kept").field(&self.0.notes).finish()
    }
}

fn name(kind: char, id: &str) -> String {
    format!("{kind}{id}")
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(text.as_bytes());
}

fn read_text(from: &mut Bytes) -> Option<String> {
    let length = usize::try_from(from.try_get_u32().ok()?).ok()?;
    let text = (length <= from.len()).then(|| from.split_to(length))?;
    String::from_utf8(text.to_vec()).ok()
}

/// What was written, in its order, and the number that follows.
fn read_all(id: &str, found: Vec<(Box<str>, Bytes)>) -> (Left, u64) {
    let (mut events, mut letters, mut next) = (Vec::new(), Vec::new(), 0);
    for (name, text) in found {
        let read = match name.split_at_checked(1) {
            Some(("e", name)) => read_event(name, text.clone()).map(|(at, event)| {
                events.push((at, event));
                at
            }),
            Some(("d", name)) => read_letter(name, text.clone()).map(|(at, letter)| {
                letters.push((at, letter));
                at
            }),
            _ => None,
        };
        match read {
            Some(at) => next = next.max(at + 1),
            None => tracing::warn!(hook = id, "a note of what waited for a backend is not as known"),
        }
    }
    events.sort_unstable_by_key(|(at, _)| *at);
    letters.sort_unstable_by_key(|(at, _)| *at);
    let left = Left {
        events: events.into_iter().map(|(_, event)| event).collect(),
        letters: letters.into_iter().map(|(_, letter)| letter).collect(),
    };
    (left, next)
}

fn read_event(id: &str, mut from: Bytes) -> Option<(u64, Event)> {
    let (at, made_ms) = (from.try_get_u64().ok()?, from.try_get_u64().ok()?);
    let order = read_text(&mut from)?;
    let age = Duration::from_millis(unix_ms().saturating_sub(made_ms));
    let now = Instant::now();
    // A machine that has just begun knows no time before.
    let made = now.checked_sub(age).unwrap_or(now);
    Some((at, Event::new(id, order, from, made)))
}

fn read_letter(id: &str, mut from: Bytes) -> Option<(u64, Letter)> {
    let (at, at_ms) = (from.try_get_u64().ok()?, from.try_get_u64().ok()?);
    let cause = *Cause::ALL.get(usize::from(from.try_get_u8().ok()?))?;
    let attempts = from.try_get_u32().ok()?;
    let status = Some(from.try_get_u16().ok()?).filter(|status| *status > 0);
    let has_error = from.try_get_u8().ok()? == 1;
    let error = Some(read_text(&mut from)?).filter(|_| has_error);
    let order = read_text(&mut from)?.into();
    let letter = Letter { id: id.to_owned(), order, event: from, cause, at_ms, attempts, status, error };
    Some((at, letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_note_of_this_form_is_passed_over() {
        let mut whole = BytesMut::new();
        whole.put_u64(4);
        whole.put_u64(unix_ms() - 5_000);
        put_text(&mut whole, "c-1");
        whole.extend_from_slice(b"{}");
        let whole = whole.freeze();
        let named = |name: &str, text: Bytes| (Box::<str>::from(name), text);
        let mut found =
            vec![named("", whole.clone()), named("x1", whole.clone()), named("d1", whole.clone())];
        found.extend((0..whole.len() - 2).map(|length| named("e0", whole.slice(..length))));
        found.push(named("e1", whole));
        let (left, next) = read_all("test", found);
        assert_eq!((left.events.len(), left.letters.len(), next), (1, 0, 5));
        let event = &left.events[0];
        assert_eq!((&*event.id, &*event.order, &event.body[..]), ("1", "c-1", &b"{}"[..]));
        assert!(event.made.elapsed() >= Duration::from_secs(5), "it is as old as it was");
    }
}
