//! A session whose messages an engine keeps: what has come to it of the engine's log, as a position.
//!
//! Messages of that log are taken in rising order and nothing else: live ones, and those that a replay brings after the
//! client was away. So one number says what has come, and what waits in the session but was not started is only a copy
//! of what can be read again: it is let go of with the connection. Messages of other logs pass by all this.
//!
//! ```text
//! offsets:  ...finished | in flight, by their identifiers | waits | not come
//!                         position ───────────────────────▲  cursor ──▲
//! ```

use std::sync::Arc;

use broker_core::{Fence, GRANTED_TAG, Kind, MessageId, Qos};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::outbound::{Outbound, Outgoing, Stage};
use super::record::{Exchange, Held, Record};
use super::session::{Incoming, Session, State};
use super::subscriptions::Subscriptions;

/// What an engine knows a session by, and where it stands.
pub(crate) struct Kept {
    pub(crate) fence: Fence,
    epoch: u64,
    /// All up to here has come.
    cursor: u64,
    /// The first that did not, as nobody was there for it.
    missed: Option<u64>,
    /// Whether what comes is taken.
    is_open: bool,
    /// Nothing is left to be replayed.
    is_live: bool,
    /// What came while the client was away ends here.
    away_through: u64,
    /// Exchanges of an earlier life of the server, whose messages the replay brings.
    restored: Vec<Exchange>,
    restored_through: u64,
    /// Where subscriptions begin, by their tags, which rise.
    since: Vec<(u32, u64)>,
    /// Brings what is missing.
    pub(crate) replay: Option<JoinHandle<()>>,
    /// Held while a connection's subscriptions come or go in the broker.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    news: Arc<News>,
    /// Changes since it was last recorded; none yet is 0.
    changes: u32,
}

/// Sessions that have changed since they were recorded, by what they are found by.
#[derive(Default)]
pub(crate) struct News {
    pub(crate) changed: Mutex<Vec<Arc<str>>>,
    pub(crate) many: Notify,
}

/// So many changes are recorded at once, fewer after a while.
const MANY_CHANGES: u32 = 100;

/// A subscription that begins where it is not known yet: nothing is replayed for it.
const NOT_YET: u64 = u64::MAX;

impl Kept {
    /// A new session that has missed nothing up to `head`.
    pub(crate) fn new(fence: Fence, head: MessageId, news: Arc<News>) -> Self {
        Self {
            fence,
            epoch: head.epoch(),
            cursor: head.offset(),
            missed: None,
            is_open: false,
            is_live: false,
            away_through: 0,
            restored: Vec::new(),
            restored_through: 0,
            since: Vec::new(),
            replay: None,
            turn: Arc::default(),
            news,
            changes: 0,
        }
    }

    /// Where the replay for its next connection begins.
    pub(crate) fn cursor(&self) -> MessageId {
        MessageId::new(self.epoch, self.cursor)
    }

    pub(crate) fn is_live(&self) -> bool {
        self.is_live
    }

    /// Whether a subscription is to begin with the next replay.
    pub(crate) fn is_waiting_for_a_start(&self) -> bool {
        self.since.iter().any(|(_, since)| *since == NOT_YET)
    }

    /// The subscription begins behind `head`.
    pub(crate) fn begin(&mut self, tag: u32, head: Option<u64>) {
        let since = head.unwrap_or(NOT_YET);
        match self.since.binary_search_by_key(&tag, |(tag, _)| *tag) {
            Ok(_) => {}
            Err(at) => self.since.insert(at, (tag, since)),
        }
    }

    pub(crate) fn end(&mut self, tag: u32) {
        if let Ok(at) = self.since.binary_search_by_key(&tag, |(tag, _)| *tag) {
            self.since.remove(at);
        }
    }

    fn since(&self, tag: u32) -> u64 {
        let at = self.since.binary_search_by_key(&tag, |(tag, _)| *tag);
        at.ok().and_then(|at| self.since.get(at)).map_or(0, |(_, since)| *since)
    }

    /// A connection is there, and its replay of these subscriptions begins: what the client was away for ends at `head`. One
    /// that was made meanwhile waits for the next.
    pub(crate) fn open(&mut self, head: u64, replayed: &[u32]) {
        for (tag, since) in &mut self.since {
            if *since == NOT_YET && replayed.contains(tag) {
                *since = head;
            }
        }
        if !self.is_open {
            self.away_through = head;
        }
        (self.is_open, self.is_live, self.missed) = (true, false, None);
    }

    /// Its replay has come to the present.
    pub(crate) fn note_live(&mut self) {
        self.is_live = true;
        // The messages of what is left are gone.
        self.restored.retain(|exchange| exchange.offset > self.cursor);
    }

    fn miss(&mut self, offset: u64) {
        self.missed = Some(self.missed.map_or(offset, |missed| missed.min(offset)));
    }

    /// Nothing more is taken; what was not started is to be read again.
    fn close(&mut self, outbound: Option<&Outbound>) {
        let low = self.low(outbound);
        if !self.is_restoring() {
            // The messages of the others are gone.
            self.restored.retain(|exchange| exchange.offset > low);
        }
        let first = self.restored.iter().map(|exchange| exchange.offset).min();
        let low = first.map_or(low, |first| low.min(first.saturating_sub(1)));
        if low < self.cursor || !self.is_live {
            self.miss(low + 1);
        }
        self.cursor = low;
        (self.is_open, self.is_live, self.away_through) = (false, false, 0);
    }

    /// The connection is over, and all up to `head` has come or was missed.
    pub(crate) fn settle(&mut self, head: u64) {
        match self.missed {
            None => self.cursor = self.cursor.max(head),
            Some(missed) => self.cursor = self.cursor.max(missed.saturating_sub(1)),
        }
    }

    fn is_restoring(&self) -> bool {
        self.cursor < self.restored_through
    }

    /// Nothing up to here waits, or was missed.
    fn low(&self, outbound: Option<&Outbound>) -> u64 {
        let mut waiting = outbound.into_iter().flat_map(Outbound::waiting);
        let first =
            waiting.find_map(|outgoing| self.offset_in(outgoing)).into_iter().chain(self.missed).min();
        first.map_or(self.cursor, |first| self.cursor.min(first.saturating_sub(1)))
    }

    /// All up to here is finished or in flight.
    fn position(&self, outbound: Option<&Outbound>) -> u64 {
        self.low(outbound).max(self.restored_through)
    }

    /// The offset of a message that can be read again.
    fn offset_in(&self, outgoing: &Outgoing) -> Option<u64> {
        let id = outgoing.message.id().filter(|id| id.epoch() == self.epoch)?;
        (outgoing.shared.is_none() && !outgoing.from_store).then_some(id.offset())
    }

    /// Which of the subscriptions `tags` are to get a message.
    fn admit(
        &mut self,
        incoming: &Incoming<'_>,
        tags: &[u32],
        subscriptions: &Subscriptions,
        keeps_qos0: bool,
    ) -> SmallVec<[u32; 4]> {
        let passes_by =
            |tag: &u32| *tag >= GRANTED_TAG || subscriptions.by_tag(*tag).is_none_or(|held| held.shared);
        let id = incoming.message.id().filter(|id| id.epoch() == self.epoch);
        let Some(offset) = id.map(MessageId::offset).filter(|_| incoming.kind != Kind::Retained) else {
            return tags.into();
        };
        if tags.iter().all(passes_by) {
            return tags.into();
        }
        let is_new = offset > self.cursor;
        if is_new && !self.is_open {
            self.miss(offset);
        }
        if !is_new || !self.is_open {
            return tags.iter().copied().filter(passes_by).collect();
        }
        let was_restoring = self.is_restoring();
        self.cursor = offset;
        let is_finished = was_restoring
            && offset <= self.restored_through
            && !self.restored.iter().any(|exchange| exchange.offset == offset);
        let is_replayed = incoming.kind == Kind::Replayed;
        let passes_qos0 = is_replayed && offset <= self.away_through && !keeps_qos0;
        let is_wanted = |tag: &u32| {
            let Some(held) = subscriptions.by_tag(*tag) else { return true };
            let qos = held.qos.min(incoming.message.qos());
            let is_over = is_finished
                || is_replayed && offset <= self.since(*tag)
                || passes_qos0 && qos == Qos::AtMostOnce;
            passes_by(tag) || !is_over
        };
        tags.iter().copied().filter(is_wanted).collect()
    }

    /// The identifier under which an earlier life of the server sent this message.
    pub(super) fn restored_id(&mut self, outgoing: &Outgoing) -> Option<u16> {
        let offset = self.offset_in(outgoing)?;
        let at = self.restored.iter().position(|exchange| exchange.offset == offset)?;
        Some(self.restored.remove(at).packet_id)
    }

    /// Something is to be recorded, soon.
    fn note_change(&mut self, session: &Arc<str>) {
        self.changes += 1;
        if self.changes == 1 {
            self.news.changed.lock().push(session.clone());
        }
        if self.changes == MANY_CHANGES {
            self.news.many.notify_one();
        }
    }
}

impl Session {
    /// What was to be recorded is not.
    pub(crate) fn note_unrecorded(&self) {
        self.note_change(&mut self.lock());
    }

    /// What is kept of it has changed.
    pub(crate) fn note_change(&self, state: &mut State) {
        if let (Some(kept), Some(key)) = (state.kept_mut(), self.key_arc()) {
            kept.note_change(key);
        }
    }
}

impl State {
    pub(crate) fn kept(&self) -> Option<&Kept> {
        self.extra.as_ref().and_then(|extra| extra.kept.as_ref())
    }

    pub(crate) fn kept_mut(&mut self) -> Option<&mut Kept> {
        self.extra.as_mut().and_then(|extra| extra.kept.as_mut())
    }

    pub(crate) fn set_kept(&mut self, kept: Kept) {
        self.extra.get_or_insert_default().kept = Some(kept);
    }

    pub(super) fn admit(
        &mut self,
        incoming: &Incoming<'_>,
        tags: &[u32],
        keeps_qos0: bool,
    ) -> SmallVec<[u32; 4]> {
        let is_overrun = self.is_overrun;
        let Some(kept) = self.extra.as_mut().and_then(|extra| extra.kept.as_mut()) else {
            return tags.into();
        };
        if is_overrun {
            kept.is_open = false;
        }
        kept.admit(incoming, tags, &self.subscriptions, keeps_qos0)
    }

    /// There is no place for a message: whether it can be read again.
    pub(super) fn is_missed(&mut self, outgoing: &Outgoing) -> bool {
        let Some(kept) = self.kept_mut() else { return false };
        let Some(offset) = kept.offset_in(outgoing) else { return false };
        kept.miss(offset);
        kept.is_open = false;
        true
    }

    /// The connection is over: what was not started is let go of.
    pub(super) fn close_kept(&mut self) {
        let Some(kept) = self.extra.as_mut().and_then(|extra| extra.kept.as_mut()) else { return };
        kept.close(self.outbound.as_deref());
        if let Some(outbound) = &mut self.outbound {
            outbound.discard(|outgoing| kept.offset_in(outgoing).is_some());
        }
    }

    /// What is to be recorded of it, and up to where it was served. What has changed until now is in it.
    pub(crate) fn record(&mut self) -> Option<(Record, MessageId)> {
        let kept = self.extra.as_mut().and_then(|extra| extra.kept.as_mut())?;
        kept.changes = 0;
        let kept = &*kept;
        let outbound = self.outbound.as_deref();
        let position = kept.position(outbound);
        let mut inflight = kept.restored.clone();
        for exchange in outbound.into_iter().flat_map(Outbound::exchanges) {
            let offset = match &exchange.stage {
                Stage::Publish(outgoing) => kept.offset_in(outgoing),
                Stage::Release => Some(0),
            };
            inflight.extend(offset.map(|offset| Exchange { packet_id: exchange.packet_id, offset }));
        }
        let subscriptions = self.subscriptions.iter().filter(|held| held.tag < GRANTED_TAG);
        let subscriptions = subscriptions.map(|held| Held {
            filter: held.filter.clone(),
            id: held.id,
            qos: held.qos,
            no_local: held.no_local,
            retain_as_published: held.retain_as_published,
            shared: held.shared,
            since: kept.since(held.tag),
        });
        let record = Record {
            expiry_secs: self.expiry_secs,
            owner: self.principal.as_ref().and_then(super::owner),
            last_id: outbound.map_or(0, Outbound::last_id),
            subscriptions: subscriptions.collect(),
            inflight,
        };
        Some((record, MessageId::new(kept.epoch, position)))
    }

    /// Takes up what an earlier life of the server recorded.
    pub(crate) fn restore(&mut self, record: &Record, position: MessageId) {
        let (mut since, mut first) = (Vec::new(), position.offset());
        for held in &record.subscriptions {
            let tag = self.subscriptions.restore(held);
            since.extend((held.since > 0).then_some((tag, held.since)));
        }
        let outbound = self.outbound.get_or_insert_default();
        outbound.begin_behind(record.last_id);
        let mut restored = Vec::new();
        for exchange in &record.inflight {
            if exchange.offset == 0 {
                outbound.restore_release(exchange.packet_id);
            } else {
                first = first.min(exchange.offset - 1);
                restored.push(exchange.clone());
            }
        }
        if let Some(kept) = self.kept_mut() {
            kept.cursor = first;
            kept.restored_through = if restored.is_empty() { 0 } else { position.offset() };
            (kept.since, kept.restored) = (since, restored);
        }
    }
}
