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
use std::sync::atomic::{AtomicBool, Ordering};

use broker_core::{Fence, GRANTED_TAG, Kind, MessageId, Qos};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::exact::{Pending, Received};
use super::kept_will::KeptWill;
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
    /// What the session is found by.
    key: Arc<str>,
    news: Arc<News>,
    /// Changes since it was last recorded; none yet is 0.
    changes: u32,
    /// It is among those that have changed, and among those that are to be recorded at once.
    is_listed: bool,
    is_urgent: bool,
    /// How many records were made of it.
    pub(crate) records: u64,
    /// Packets that wait for a record.
    pub(super) pending: Vec<Pending>,
    /// QoS 2 publishes of the client.
    pub(super) received: Received,
}

/// Sessions that have changed since they were recorded, by what they are found by.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) changed: Mutex<Vec<Arc<str>>>,
    /// Those of which something waits for that.
    pub(crate) urgent: Mutex<Vec<Arc<str>>>,
    pub(crate) is_urgent: Notify,
    /// Much has changed of shared subscriptions.
    groups: AtomicBool,
}

impl News {
    pub(super) fn hurry_groups(&self) {
        self.groups.store(true, Ordering::Release);
        self.is_urgent.notify_one();
    }

    /// Whether that is so, once each time.
    pub(crate) fn take_groups(&self) -> bool {
        self.groups.swap(false, Ordering::AcqRel)
    }
}

/// So many changes are recorded at once, fewer after a while.
const MANY_CHANGES: u32 = 100;

/// A subscription that begins where it is not known yet: nothing is replayed for it.
const NOT_YET: u64 = u64::MAX;

impl Kept {
    /// A new session that has missed nothing up to `head`.
    pub(crate) fn new(key: Arc<str>, fence: Fence, head: MessageId, news: Arc<News>) -> Self {
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
            key,
            news,
            changes: 0,
            is_listed: false,
            is_urgent: false,
            records: 0,
            pending: Vec::new(),
            received: Received::default(),
        }
    }

    /// What the session is found by.
    pub(super) fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// Another connection has it.
    pub(crate) fn renew(&mut self, fence: Fence, taken: &[u16]) {
        self.fence = fence;
        self.received = Received::of(taken);
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

    /// The messages of restored exchanges up to here are gone. The identifiers of those at QoS 2, which the client may
    /// hold on to.
    fn let_go(&mut self, through: u64) -> Vec<u16> {
        let gone = self.restored.extract_if(.., |exchange| exchange.offset <= through);
        gone.filter(|exchange| exchange.is_exact).map(|exchange| exchange.packet_id).collect()
    }

    fn miss(&mut self, offset: u64) {
        self.missed = Some(self.missed.map_or(offset, |missed| missed.min(offset)));
    }

    /// Nothing more is taken; what was not started is to be read again. The identifiers of QoS 2 whose messages are gone.
    fn close(&mut self, outbound: Option<&Outbound>) -> Vec<u16> {
        let low = self.low(outbound);
        let gone = if self.is_restoring() { Vec::new() } else { self.let_go(low) };
        self.pending.clear();
        let first = self.restored.iter().map(|exchange| exchange.offset).min();
        let low = first.map_or(low, |first| low.min(first.saturating_sub(1)));
        if low < self.cursor || !self.is_live {
            self.miss(low + 1);
        }
        self.cursor = low;
        (self.is_open, self.is_live, self.away_through) = (false, false, 0);
        gone
    }

    /// The connection is over, and all up to `head` has come or was missed.
    pub(crate) fn settle(&mut self, head: u64) {
        match self.missed {
            None => self.cursor = self.cursor.max(head),
            Some(missed) => self.cursor = self.cursor.max(missed.saturating_sub(1)),
        }
    }

    /// The client is connected, and has all that comes to it.
    fn is_up_to_date(&self) -> bool {
        self.is_open && self.is_live && self.missed.is_none() && self.restored.is_empty()
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
    pub(super) fn offset_in(&self, outgoing: &Outgoing) -> Option<u64> {
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
    pub(crate) fn note_change(&mut self) {
        self.changes += 1;
        if !self.is_listed {
            self.is_listed = true;
            self.news.changed.lock().push(self.key.clone());
        }
        if self.changes == MANY_CHANGES {
            self.hurry();
        }
    }

    /// Something waits for its next record.
    pub(super) fn hurry(&mut self) {
        self.changes += 1;
        if !self.is_urgent {
            self.is_urgent = true;
            self.news.urgent.lock().push(self.key.clone());
            self.news.is_urgent.notify_one();
        }
    }

    /// It was taken off the list of those that have changed; whether there is anything to record.
    pub(crate) fn is_to_be_recorded(&mut self, is_urgent: bool) -> bool {
        *(if is_urgent { &mut self.is_urgent } else { &mut self.is_listed }) = false;
        self.changes > 0
    }
}

impl Session {
    /// Whether its client is connected and has had nothing for so long that its position is before `head`.
    pub(crate) fn is_behind(&self, head: u64) -> bool {
        let state = self.lock();
        !state.is_parked() && state.kept().is_some_and(|kept| kept.is_up_to_date() && kept.cursor < head)
    }

    /// All up to `head` has come to it, unless it is not [behind](Self::is_behind) it any more.
    pub(crate) fn catch_up(&self, head: u64) {
        let mut state = self.lock();
        let is_parked = state.is_parked();
        let kept = state.kept_mut().filter(|kept| !is_parked && kept.is_up_to_date() && kept.cursor < head);
        if let Some(kept) = kept {
            kept.cursor = head;
            kept.note_change();
        }
    }

    /// What was to be recorded is not.
    pub(crate) fn note_unrecorded(&self) {
        self.lock().note_change();
    }
}

impl State {
    pub(crate) fn kept(&self) -> Option<&Kept> {
        self.extra.as_ref().and_then(|extra| extra.kept.as_ref())
    }

    pub(crate) fn kept_mut(&mut self) -> Option<&mut Kept> {
        self.extra.as_mut().and_then(|extra| extra.kept.as_mut())
    }

    /// What is kept of it has changed.
    pub(crate) fn note_change(&mut self) {
        if let Some(kept) = self.kept_mut() {
            kept.note_change();
        }
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
        let gone = kept.close(self.outbound.as_deref());
        if let Some(outbound) = &mut self.outbound {
            outbound.discard(|outgoing| kept.offset_in(outgoing).is_some());
            gone.into_iter().for_each(|packet_id| outbound.restore_release(packet_id));
        }
    }

    /// Its replay has come to the present, and the lane has handed over all of it. What is left of earlier exchanges has no messages any more.
    pub(super) fn note_live(&mut self) {
        let Some(kept) = self.extra.as_mut().and_then(|extra| extra.kept.as_mut()) else { return };
        kept.is_live = true;
        if kept.is_open && kept.missed.is_none() {
            // What has not come by now is gone.
            kept.cursor = kept.cursor.max(kept.away_through);
        }
        let gone = kept.let_go(kept.low(self.outbound.as_deref()));
        if let Some(outbound) = &mut self.outbound {
            gone.into_iter().for_each(|packet_id| outbound.restore_release(packet_id));
        }
    }

    /// What is to be recorded of it, and up to where it was served. What has changed until now is in it.
    pub(crate) fn record(&mut self) -> Option<(Record, MessageId)> {
        let kept = self.extra.as_mut().and_then(|extra| extra.kept.as_mut())?;
        kept.changes = 0;
        kept.records += 1;
        let kept = &*kept;
        let outbound = self.outbound.as_deref();
        let position = kept.position(outbound);
        let mut inflight = kept.restored.clone();
        for exchange in outbound.into_iter().flat_map(Outbound::exchanges) {
            let (offset, is_exact) = match &exchange.stage {
                Stage::Publish(outgoing) => (kept.offset_in(outgoing), outgoing.qos == Qos::ExactlyOnce),
                Stage::Release => (Some(0), true),
            };
            let packet_id = exchange.packet_id;
            inflight.extend(offset.map(|offset| Exchange { packet_id, offset, is_exact }));
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
            will: self.will.as_ref().zip(self.principal.as_ref()).map(|(will, who)| KeptWill::of(will, who)),
        };
        Some((record, MessageId::new(kept.epoch, position)))
    }

    /// Takes up what an earlier life of the server recorded.
    pub(crate) fn restore(&mut self, record: &Record, position: MessageId) {
        let mut since = Vec::new();
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
                restored.push(exchange.clone());
            }
        }
        if let Some(kept) = self.kept_mut() {
            kept.cursor = record.begins_behind(position).offset();
            kept.restored_through = if restored.is_empty() { 0 } else { position.offset() };
            (kept.since, kept.restored) = (since, restored);
        }
    }
}
