//! What operators put over HTTP, as the broker's engine keeps it over a restart.

use std::collections::HashMap;
use std::fmt;

use broker_core::{Broker, Notes, Unavailable};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What was put over HTTP of one kind, secrets included, in a room of the broker's [`Notes`] of its own. Without an engine
/// nothing is kept.
pub struct Register {
    kind: &'static str,
    notes: Notes,
    places: Mutex<Places>,
}

/// Who is the how manieth.
#[derive(Debug, Default)]
struct Places {
    taken: HashMap<String, u64>,
    next: u64,
}

/// The register in the hands of who changes what it is about: meanwhile nobody else does, so that the two agree.
#[derive(Debug)]
pub struct Entries<'a> {
    register: &'a Register,
    places: MutexGuard<'a, Places>,
}

impl Register {
    /// That of a kind, `"webhooks"` for example, and what an earlier life has put into it, in the order in which it first
    /// came. Reads the disk.
    pub fn open<T: DeserializeOwned>(broker: &Broker, kind: &'static str) -> (Self, Vec<T>) {
        let notes = broker.notes(&format!("put/{kind}"));
        let found = notes.load().unwrap_or_else(|error| {
            tracing::error!(kind, %error, "what was put over HTTP cannot be read");
            Vec::new()
        });
        let (places, left) = read_all(kind, found);
        (Self { kind, notes, places: Mutex::new(places) }, left)
    }

    /// To change it, together with what it is about.
    pub fn entries(&self) -> Entries<'_> {
        Entries { register: self, places: self.places.lock() }
    }

    /// Resolves once all that was entered before outlives a crash; at once where nothing is kept.
    ///
    /// # Errors
    /// The engine takes nothing now. It is tried again all the same.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn settled(&self) -> Result<(), Unavailable> {
        self.notes.settled().await
    }
}

impl Entries<'_> {
    /// Enters one, in the place of another with its id.
    pub fn put(&mut self, id: &str, written: &impl Serialize) {
        if !self.register.notes.are_kept() {
            return;
        }
        let text = match serde_json::to_vec(written) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(kind = self.register.kind, id, %error, "what was put over HTTP is not kept");
                return;
            }
        };
        let Places { taken, next } = &mut *self.places;
        let place = *taken.entry(id.to_owned()).or_insert_with(|| {
            *next += 1;
            *next - 1
        });
        let mut note = BytesMut::with_capacity(8 + text.len());
        note.put_u64(place);
        note.extend_from_slice(&text);
        self.register.notes.put(id, note.freeze());
    }

    /// Strikes one out, if it is there.
    pub fn remove(&mut self, id: &str) {
        if self.places.taken.remove(id).is_some() {
            self.register.notes.remove(id);
        }
    }
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register").field("notes", &self.notes).finish_non_exhaustive()
    }
}

/// What was written, in its order. Nothing of what cannot be read is shown, as it may be a secret.
fn read_all<T: DeserializeOwned>(kind: &str, found: Vec<(Box<str>, Bytes)>) -> (Places, Vec<T>) {
    let (mut places, mut left) = (Places::default(), Vec::new());
    for (id, mut note) in found {
        let Ok(place) = note.try_get_u64() else {
            tracing::warn!(kind, id = &*id, "a note of what was put over HTTP is not as known");
            continue;
        };
        // Also of one that cannot be read: it is struck out by its id, or put anew.
        places.next = places.next.max(place.saturating_add(1));
        places.taken.insert(id.to_string(), place);
        match serde_json::from_slice(&note) {
            Ok(written) => left.push((place, written)),
            Err(_) => tracing::warn!(kind, id = &*id, "a note of what was put over HTTP is not as known"),
        }
    }
    left.sort_unstable_by_key(|(place, _)| *place);
    (places, left.into_iter().map(|(_, written)| written).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_note_of_this_form_is_passed_over_and_the_rest_is_in_order() {
        let note = |place: u64, text: &str| {
            let mut note = BytesMut::new();
            note.put_u64(place);
            note.extend_from_slice(text.as_bytes());
            note.freeze()
        };
        let found = [
            ("c", note(7, "3")),
            ("a", note(2, "1")),
            ("b", note(4, "2")),
            ("short", Bytes::from_static(b"1234567")),
            ("other", note(9, r#"{"a":1}"#)),
        ];
        let found = found.map(|(id, note)| (Box::<str>::from(id), note)).to_vec();
        let (places, left) = read_all::<u32>("test", found);
        assert_eq!(left, [1, 2, 3]);
        assert_eq!((places.next, places.taken.get("b"), places.taken.get("short")), (10, Some(&4), None));
    }
}
