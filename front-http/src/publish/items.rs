//! `POST /v1/publish` with JSON: one item, or an array of them.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http_edge::parse_connection_id;
use intake::{Gate, Item, Outcome, Publisher, Reading, Turn, key_at, parse_array};

use super::results::{Batch, write_error, write_published};
use crate::error::Error;
use crate::stats::Counters;

/// Where publishes go, and what they are counted by.
pub(crate) struct Desk {
    pub(crate) gate: Gate,
    pub(crate) counters: Arc<Counters>,
    /// Items of an array, and channels of an item.
    pub(crate) max_batch: usize,
}

/// Publishes the item, or the array of items, in `body`; answers with one JSON document. A bad item harms only itself;
/// a single one is an error of the whole request.
///
/// `key` is the request's own idempotency key: it stands for that of a single item, and with its place for that of each
/// item of an array, where the item has none.
pub(crate) async fn publish_items(
    desk: &Desk,
    publisher: &Publisher,
    key: Option<&str>,
    body: &Bytes,
) -> Result<Vec<u8>, Error> {
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let mut turn = Turn::new();
    if !is_array {
        let key = key.map(Cow::Borrowed);
        return desk
            .publish_one(publisher, body, body, key, &mut turn)
            .await
            .map(|outcome| desk.json(outcome));
    }
    let mut batch = Batch::new(&desk.counters);
    for (place, item) in parse_array(body, desk.max_batch)?.into_iter().enumerate() {
        let key = key.map(|key| key_at(key, place));
        batch.take(desk.publish_one(publisher, item.get().as_bytes(), body, key, &mut turn).await);
    }
    Ok(batch.finish())
}

impl Desk {
    /// Publishes one line of a stream; the answer is one line of JSON too.
    pub(super) async fn publish_line(
        &self,
        publisher: &Publisher,
        key: Option<Cow<'_, str>>,
        line: &Bytes,
        turn: &mut Turn,
    ) -> Vec<u8> {
        // A stream of lines may outlive the configuration that let it in.
        let published = match self.gate.still_holds(&publisher.principal) {
            Ok(()) => self.publish_one(publisher, line, line, key, turn).await,
            Err(error) => Err(error.into()),
        };
        published.map(|outcome| self.json(outcome)).unwrap_or_else(|error| {
            let mut json = Vec::with_capacity(128);
            write_error(error, &self.counters, &mut json);
            json
        })
    }

    /// Publishes the item in `text`, a part of `body`, under `key` if it has none of its own.
    async fn publish_one(
        &self,
        publisher: &Publisher,
        text: &[u8],
        body: &Bytes,
        key: Option<Cow<'_, str>>,
        turn: &mut Turn,
    ) -> Result<Outcome, Error> {
        let reading = Reading::new(self.max_batch, parse_connection_id);
        let item = Item::read(text, body, reading)?.or_key(key);
        Ok(self.gate.publish_item(publisher, &item, turn).await?)
    }

    fn json(&self, outcome: Outcome) -> Vec<u8> {
        match outcome {
            Outcome::One(published) => {
                let mut json = Vec::with_capacity(128);
                write_published(&published, &mut json);
                json
            }
            Outcome::Several(results) => Batch::of(results, &self.counters).finish(),
        }
    }
}
