//! QoS 2 over a crash, in sessions whose messages an engine keeps: no packet leaves that an earlier state of the session
//! would contradict.
//!
//! ```text
//! client ─ PUBLISH ─▶ message and identifier in one batch ─▶ PUBREC ─▶ client
//!          PUBREL ──▶ identifier freed ────────────────────▶ PUBCOMP
//! lane ─── message ─▶ exchange recorded ───────────────────▶ PUBLISH ─▶ client
//! client ─ PUBREC ──▶ that the client has it recorded ─────▶ PUBREL
//! ```
//!
//! PUBCOMP of the client is recorded when something else is: till then PUBREL is only sent once more.

use broker_core::{Class, Fence, Qos, Taken as TakenBy, steady_ms};

use super::delivering::{Repeat, encode, send};
use super::kept::Kept;
use super::outbound::Stage;
use super::session::{Session, State};
use super::taken::Taken;
use crate::codec::{self, AckKind, Reason, Sharing};

/// A packet that waits for a record with its exchange.
pub(super) struct Pending {
    packet_id: u16,
    /// The first record that has it.
    record: u64,
    repeat: Repeat,
}

/// Identifiers of the client's publishes.
#[derive(Default)]
pub(super) struct Received {
    /// On their way. Another connection of the client does not know them: its claim says what became of them.
    begun: Taken,
    /// Kept with their messages.
    taken: Taken,
}

impl Received {
    pub(super) fn of(taken: &[u16]) -> Self {
        let mut received = Self::default();
        taken.iter().for_each(|packet_id| received.taken.insert(*packet_id));
        received
    }
}

impl Kept {
    /// The next packet of an exchange leaves once that is recorded.
    pub(super) fn hold(&mut self, packet_id: u16, repeat: Repeat) {
        self.pending.push(Pending { packet_id, record: self.records + 1, repeat });
        self.hurry();
    }

    pub(super) fn is_held(&self, packet_id: u16) -> bool {
        self.pending.iter().any(|pending| pending.packet_id == packet_id)
    }

    /// Whether packets of an exchange in this stage wait for a record.
    pub(super) fn holds(&self, stage: &Stage) -> bool {
        match stage {
            Stage::Publish(outgoing) => {
                outgoing.qos == Qos::ExactlyOnce && self.offset_in(outgoing).is_some()
            }
            Stage::Release => true,
        }
    }

    fn name(&self, session: &Session, packet_id: u16) -> TakenBy {
        TakenBy { session: session.key().into(), fence: self.fence, number: packet_id }
    }
}

impl State {
    /// Whether a QoS 2 publish is on its way, whose answer is that of its repeat too.
    pub(super) fn has_begun(&self, packet_id: u16) -> bool {
        self.kept().is_some_and(|kept| kept.received.begun.contains(packet_id))
    }

    /// Whether a QoS 2 publish of the client is answered already.
    pub(super) fn has_taken(&self, packet_id: u16) -> bool {
        self.taken.as_ref().is_some_and(|taken| taken.contains(packet_id))
            || self.kept().is_some_and(|kept| kept.received.taken.contains(packet_id))
    }

    /// QoS 2 publishes that are not released.
    pub(super) fn taken_count(&self) -> usize {
        let kept = self.kept().map_or(0, |kept| kept.received.taken.len());
        self.taken.as_ref().map_or(0, |taken| taken.len()) + kept
    }

    pub(super) fn take(&mut self, packet_id: u16) {
        match self.kept_mut() {
            Some(kept) => kept.received.begun.insert(packet_id),
            None => self.taken.get_or_insert_default().insert(packet_id),
        }
    }

    /// A publish is not kept: whether it was on its way.
    pub(super) fn give_up(&mut self, packet_id: u16) -> bool {
        self.kept_mut().is_some_and(|kept| kept.received.begun.remove(packet_id))
    }

    /// A publish that the engine has nothing to do with, or that was refused: it is known as long as the session is in
    /// memory.
    pub(super) fn take_in_memory(&mut self, packet_id: u16) {
        if self.kept_mut().is_some_and(|kept| kept.received.begun.remove(packet_id)) {
            self.taken.get_or_insert_default().insert(packet_id);
        }
    }
}

impl Session {
    /// What whoever keeps a QoS 2 publish is to know it by; `None`: the session is not kept, or is another connection's.
    pub(crate) fn name_begun(&self, connection: u32, packet_id: u16) -> Option<TakenBy> {
        self.shared().kept_epoch?;
        let state = self.lock_as(connection)?;
        let kept = state.kept().filter(|kept| kept.received.begun.contains(packet_id))?;
        Some(kept.name(self, packet_id))
    }

    /// What a publish of the client is known by that it releases; `None`: whoever keeps messages does not know it.
    pub(crate) fn name_taken(&self, connection: u32, packet_id: u16) -> Option<TakenBy> {
        self.shared().kept_epoch?;
        let state = self.lock_as(connection)?;
        let kept = state.kept().filter(|kept| kept.received.taken.contains(packet_id))?;
        Some(kept.name(self, packet_id))
    }

    pub(crate) fn take_in_memory(&self, connection: u32, packet_id: u16) {
        if self.shared().kept_epoch.is_some()
            && let Some(mut state) = self.lock_as(connection)
        {
            state.take_in_memory(packet_id);
        }
    }

    /// The publish is kept with its identifier.
    pub(super) fn note_taken(&self, connection: u32, packet_id: u16) {
        if self.shared().kept_epoch.is_some()
            && let Some(mut state) = self.lock_as(connection)
            && let Some(kept) = state.kept_mut()
            && kept.received.begun.remove(packet_id)
        {
            kept.received.taken.insert(packet_id);
        }
    }

    /// Its identifier may stand for another one.
    pub(super) fn note_freed(&self, connection: u32, packet_id: u16) {
        if let Some(mut state) = self.lock_as(connection)
            && let Some(kept) = state.kept_mut()
        {
            kept.received.taken.remove(packet_id);
        }
    }

    /// The record of this number is safe: what waited for it leaves.
    pub(crate) fn note_recorded(&self, fence: Fence, number: u64) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(kept) = state.extra.as_mut().and_then(|extra| extra.kept.as_mut()) else { return };
        let Some(online) = state.online.as_mut().filter(|_| kept.fence == fence) else { return };
        let outbox = online.outbox.clone();
        let mut wire = &outbox;
        let due: Vec<_> = kept.pending.extract_if(.., |pending| pending.record <= number).collect();
        if due.is_empty() {
            return;
        }
        let now_ms = steady_ms();
        for Pending { packet_id, repeat, .. } in due {
            let Some(outbound) = &mut state.outbound else { return };
            match outbound.find(packet_id).map(|inflight| &inflight.stage) {
                None => {}
                Some(Stage::Release) => {
                    let pubrel =
                        codec::ack(online.dialect, AckKind::PubRel, packet_id, Reason::Success, None);
                    super::wire::Wire::send(&mut wire, &pubrel, Class::Control);
                }
                Some(Stage::Publish(outgoing)) => {
                    match encode(online, outgoing, packet_id, repeat, Sharing::Allowed, now_ms) {
                        Some((encoded, _)) => {
                            send(encoded, &mut wire);
                            state.sent += u64::from(repeat == Repeat::First);
                        }
                        // As if delivered (MQTT 5.0 §3.1.2.11.4).
                        None => {
                            outbound.finish(packet_id);
                            state.dropped += 1;
                        }
                    }
                }
            }
        }
        state.pump(self.config(), now_ms, &mut wire);
        state.balance(self.config(), &|| now_ms, &mut wire);
    }

    /// The replay for this connection has come to the present.
    pub(crate) fn note_live(&self, connection: u32) {
        let Some(mut state) = self.lock_as(connection) else { return };
        state.note_live();
        if let Some(outbox) = state.online.as_ref().map(|online| online.outbox.clone()) {
            state.pump(self.config(), steady_ms(), &mut &outbox);
        }
    }
}
