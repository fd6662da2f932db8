//! How far event streams were read, also over a restart where the broker has an engine.

use std::collections::HashMap;

use broker_core::{Broker, Notes};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::settings::Settings;

/// The last id of each event stream, for as long as its source has the same URL.
#[derive(Debug)]
pub(crate) struct Positions {
    notes: Notes,
    /// By the ids of sources: the URL, and the last id there.
    known: Mutex<HashMap<String, (String, String)>>,
}

impl Positions {
    /// What an earlier life has left. Reads the disk.
    pub(crate) fn open(broker: &Broker) -> Self {
        let notes = broker.notes("sources/positions");
        let found = notes.load().unwrap_or_else(|error| {
            tracing::error!(%error, "how far sources were read cannot be read");
            Vec::new()
        });
        let known = found.into_iter().filter_map(|(id, note)| {
            let note = String::from_utf8(note.to_vec()).ok()?;
            let (url, last) = note.split_once('\n')?;
            Some((id.into_string(), (url.to_owned(), last.to_owned())))
        });
        Self { known: Mutex::new(known.collect()), notes }
    }

    /// Where a source goes on.
    pub(crate) fn of(&self, settings: &Settings) -> Option<String> {
        let known = self.known.lock();
        let (url, last) = known.get(&settings.id)?;
        (*url == settings.url.to_string()).then(|| last.clone())
    }

    /// It was read up to this id, and what came with it is published; an empty one takes the last one back.
    pub(crate) fn note(&self, settings: &Settings, last: &str) {
        if last.is_empty() {
            return self.forget(&settings.id);
        }
        // An id has no end of a line, nor has a URL.
        let url = settings.url.to_string();
        self.notes.put(&settings.id, Bytes::from(format!("{url}\n{last}")));
        self.known.lock().insert(settings.id.clone(), (url, last.to_owned()));
    }

    /// The source is gone.
    pub(crate) fn forget(&self, id: &str) {
        if self.known.lock().remove(id).is_some() {
            self.notes.remove(id);
        }
    }
}
