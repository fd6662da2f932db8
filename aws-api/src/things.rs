//! Shadows of things: asked by MQTT and over HTTP, and published.

use std::sync::Arc;
use std::time::Duration;

use broker_core::{Broker, Channel, Client, Notes, Publish, PublishError, Service, Unavailable, unix_ms};
use parking_lot::Mutex;
use shadow::{Action, Listed, Name, Rejection, Request, Shadows};

use crate::outlet::Outlet;

/// All shadows, and where what becomes of them is published.
pub(crate) struct Things {
    shadows: Mutex<Shadows>,
    /// Where they outlive a crash, if the broker has an engine.
    notes: Notes,
    outlet: Outlet,
}

/// The room of their notes.
const ROOM: &str = "shadows";

/// When a request for which there was no room is worth another try.
const RETRY: Duration = Duration::from_millis(100);

/// Messages that one request brings about, at most.
const MAX_MESSAGES: usize = 3;

impl Things {
    /// With those of an earlier life. Reads the disk.
    pub(crate) fn new(broker: Broker) -> Self {
        let notes = broker.notes(ROOM);
        let mut shadows = Shadows::default();
        let found = notes.load().unwrap_or_else(|error| {
            tracing::error!(%error, "shadows cannot be read");
            Vec::new()
        });
        for (word, note) in found {
            let name = Name::of_word(&word);
            if !name.is_some_and(|name| shadows.restore(&name, &note)) {
                tracing::warn!(shadow = %front::shortened(&word), "a shadow is not taken over from the store");
            }
        }
        Self { shadows: Mutex::new(shadows), outlet: Outlet::new(broker, notes.clone()), notes }
    }

    /// Resolves once all that was changed before outlives a crash.
    pub(crate) async fn settled(&self) -> Result<(), Unavailable> {
        self.notes.settled().await
    }

    /// Notes what became of a shadow, and forgets what is not to be known any more.
    fn note(&self, shadows: &Shadows, name: &Name, forgotten: &[Name]) {
        for name in forgotten {
            self.notes.remove(&name.word());
        }
        if let Some(note) = shadows.note(name).filter(|_| self.notes.are_kept()) {
            self.notes.put(&name.word(), note);
        }
    }

    /// Updates a shadow, and publishes that. The document that answers it.
    pub(crate) fn update(&self, name: &Name, payload: &[u8]) -> Result<String, Rejection> {
        // What is published is handed on under the lock, so that documents come in the order of their versions.
        let mut shadows = self.shadows.lock();
        let forgotten = shadows.forget(now());
        let updated = shadows.update(name, payload, now());
        self.note(&shadows, name, &forgotten);
        let updated = updated?;
        self.publish(name, "update/accepted", updated.accepted.clone());
        self.publish(name, "update/documents", updated.documents);
        if let Some(delta) = updated.delta {
            self.publish(name, "update/delta", delta);
        }
        Ok(updated.accepted)
    }

    pub(crate) fn get(&self, name: &Name, payload: &[u8]) -> Result<String, Rejection> {
        self.shadows.lock().get(name, payload, now())
    }

    /// Forgets a shadow, and publishes that.
    pub(crate) fn delete(&self, name: &Name, payload: &[u8]) -> Result<String, Rejection> {
        let mut shadows = self.shadows.lock();
        let forgotten = shadows.forget(now());
        let deleted = shadows.delete(name, payload, now());
        self.note(&shadows, name, &forgotten);
        let deleted = deleted?;
        self.publish(name, "delete/accepted", deleted.clone());
        Ok(deleted)
    }

    pub(crate) fn list(&self, thing: &str, after: Option<&str>, limit: usize) -> Listed {
        self.shadows.lock().list(thing, after, limit)
    }

    /// Whether what one more request brings about could be published.
    pub(crate) fn has_room(&self) -> bool {
        self.outlet.has_room_for(MAX_MESSAGES)
    }

    fn publish(&self, name: &Name, end: &str, document: String) {
        // Names are plain and short, so this is a channel.
        if let Ok(channel) = Channel::parse(&format!("{}/{end}", name.topic())) {
            self.outlet.send(Publish::new(channel, document).json());
        }
    }

    fn answer(&self, request: &Request, payload: &[u8]) {
        let Request { name, action, .. } = request;
        let answer = match action {
            Action::Update => self.update(name, payload).map(drop),
            Action::Delete => self.delete(name, payload).map(drop),
            _ => {
                let document = self.get(name, payload);
                document.map(|document| self.publish(name, "get/accepted", document))
            }
        };
        if let Err(rejection) = answer {
            self.publish(name, &format!("{}/rejected", action.name()), rejection.to_json(now()));
        }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    unix_ms() / 1_000
}

/// What MQTT clients ask. It is held by the broker, and holds none.
pub(crate) struct Asked(pub(crate) std::sync::Weak<Things>);

impl Service for Asked {
    fn takes(&self, channel: &Channel) -> bool {
        Request::of(channel.as_str()).is_some()
    }

    fn ask(&self, _: &Client<'_>, request: &Publish) -> Result<(), PublishError> {
        let things: Arc<Things> = self.0.upgrade().ok_or(PublishError::Closed)?;
        let busy = PublishError::Busy { retry_after: RETRY };
        let asked = Request::of(request.channel().as_str()).ok_or(PublishError::Closed)?;
        if !things.has_room() {
            return Err(busy);
        }
        things.answer(&asked, request.payload());
        Ok(())
    }
}
