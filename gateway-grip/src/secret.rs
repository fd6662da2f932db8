//! The secret that items are sealed with, so that they are known after a restart.

use broker_core::{Broker, Notes};
use bytes::Bytes;
use grip::Key;
use parking_lot::Mutex;
use websocket_over_http::{seal_with, secret};

const NAME: &str = "seal";

/// One that was made here is kept with the first item: without items nobody needs it.
#[derive(Default)]
pub(crate) struct Secret {
    unkept: Mutex<Option<(Notes, Bytes)>>,
}

impl Secret {
    /// Has items sealed by what outlives the process: what is configured, else what is kept, if anything is.
    pub(crate) fn new(broker: &Broker, configured: Option<&Key>) -> Self {
        if let Some(key) = configured {
            seal_with(key.as_bytes());
            return Self::default();
        }
        let notes = broker.notes("grip");
        if !notes.are_kept() {
            return Self::default();
        }
        match notes.load() {
            Ok(found) => {
                if let Some((_, kept)) = found.into_iter().find(|(name, _)| &**name == NAME) {
                    seal_with(&kept);
                    return Self::default();
                }
            }
            Err(error) => {
                tracing::warn!(
                    target: "fanwire::gateway", %error, "items of GRIP of earlier lives are messages like any other"
                );
                return Self::default();
            }
        }
        // What another server of this process seals with is not ours to keep.
        let made = secret().filter(|made| seal_with(made)).map(|made| (notes, Bytes::copy_from_slice(&made)));
        Self { unkept: Mutex::new(made) }
    }

    /// Something is about to be sealed.
    pub(crate) fn keep(&self) {
        if let Some((notes, made)) = self.unkept.lock().take() {
            notes.put(NAME, made);
        }
    }
}
