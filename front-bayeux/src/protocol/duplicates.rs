//! Messages that a replay and another subscription of the same session would both bring.
//!
//! The core sends a message once to a session that several live subscriptions hit. A replay is apart from them: it
//! reads the log at its own pace. While one runs, the session knows of it, and of each subscription that overlaps it,
//! up to which offset all has been brought. Offsets rise along a replay and along live delivery, so that positions are
//! enough, however long the past is. Only what comes while a subscription begins or ends is remembered message by
//! message.

use std::collections::HashSet;

use broker_core::{Filter, Kind, Message, Position};

/// Offsets remembered at most. Beyond it a message may come twice, but none is lost.
const MAX_REMEMBERED: usize = 16_384;

/// Other subscriptions that are looked at. Beyond it likewise.
pub(crate) const MAX_OTHERS: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Duplicates {
    /// The tag of the replay's subscription.
    tag: u32,
    /// The log that it reads: offsets are of that one, and what lies in another is not looked at. `None` for one that
    /// reads two; then a message may come twice, but none is lost.
    epoch: Option<u64>,
    filter: Filter,
    /// The replay brings what is after this offset,
    after: u64,
    /// and has brought all up to this one.
    through: u64,
    others: Vec<Other>,
    /// Live deliveries have brought all of theirs up to here.
    live_through: u64,
    /// Live deliveries that are remembered one by one: those up to here, and all while something is unsettled.
    remember_through: u64,
    unsettled: u32,
    remembered: HashSet<u64, ahash::RandomState>,
}

/// Another subscription of the session that overlaps the replay's.
#[derive(Debug)]
struct Other {
    filter: Filter,
    /// Of an earlier replay: it has brought what is after the first offset, up to the second.
    replayed: Option<(u64, u64)>,
    /// It is live for what is after this offset; not known yet while it begins.
    since: u64,
    /// It has ended at this offset.
    until: u64,
}

impl Other {
    fn has_brought(&self, offset: u64, live_through: u64) -> bool {
        let live = self.since < offset && offset <= live_through.min(self.until);
        live || self.replayed.is_some_and(|(after, through)| after < offset && offset <= through)
    }
}

impl Duplicates {
    /// A replay of what is after `after` is about to begin; [`settle`](Self::settle) once all up to some offset has
    /// been delivered.
    pub(crate) fn new(tag: u32, epoch: Option<u64>, filter: Filter, after: u64) -> Self {
        Self {
            tag,
            epoch,
            filter,
            after,
            through: after,
            others: Vec::new(),
            live_through: 0,
            remember_through: 0,
            unsettled: 1,
            remembered: HashSet::default(),
        }
    }

    /// Which replay this is about.
    pub(crate) fn tag(&self) -> u32 {
        self.tag
    }

    /// The offset of where the logs stand.
    pub(crate) fn head(&self, position: &Position) -> u64 {
        self.epoch.and_then(|epoch| position.in_epoch(epoch)).unwrap_or(0)
    }

    /// The offset after which a subscription brings all: none where that is not known.
    pub(crate) fn since(&self, position: &Position) -> u64 {
        self.epoch.and_then(|epoch| position.in_epoch(epoch)).unwrap_or(u64::MAX)
    }

    /// A subscription that is live already and brings what is after `since`.
    pub(crate) fn add_live(&mut self, filter: Filter, since: u64) {
        self.add(Other { filter, replayed: None, since, until: u64::MAX });
    }

    /// An earlier replay of what is after `after`; it has brought all up to `through` and is live for the rest.
    pub(crate) fn add_replayed(&mut self, filter: Filter, after: u64, through: u64) {
        self.add(Other { filter, replayed: Some((after, through)), since: through, until: u64::MAX });
    }

    fn add(&mut self, other: Other) {
        if self.others.len() < MAX_OTHERS && self.filter.overlaps(&other.filter) {
            self.others.push(other);
        }
    }

    /// A live subscription is about to be made; [`settle`](Self::settle) when it is.
    pub(crate) fn begins(&mut self, filter: &Filter) {
        self.unsettled += 1;
        self.add(Other { filter: filter.clone(), replayed: None, since: u64::MAX, until: u64::MAX });
    }

    /// A subscription is about to end; [`settle`](Self::settle) when it has. What is on its way still comes.
    pub(crate) fn ends(&mut self, filter: &Filter) {
        self.unsettled += 1;
        for other in self.others.iter_mut().filter(|other| other.filter == *filter) {
            other.until = other.until.min(self.live_through);
        }
    }

    /// What was about to happen has happened, and the log's head was `head` afterwards.
    pub(crate) fn settle(&mut self, head: u64) {
        self.unsettled = self.unsettled.saturating_sub(1);
        self.remember_through = self.remember_through.max(head);
    }

    /// All that live subscriptions bring has been delivered up to `head`.
    pub(crate) fn delivered(&mut self, head: u64) {
        self.live_through = self.live_through.max(head);
    }

    /// The live subscription that was about to be made brings all after `since`.
    pub(crate) fn begun(&mut self, filter: &Filter, since: u64) {
        let begins = |other: &&mut Other| other.since == u64::MAX && other.filter == *filter;
        if let Some(other) = self.others.iter_mut().find(begins) {
            other.since = since;
        }
    }

    /// Whether the session has not had this message.
    pub(crate) fn admits(&mut self, message: &Message, kind: Kind) -> bool {
        let Some(id) = message.id().filter(|id| self.epoch == Some(id.epoch())) else { return true };
        let offset = id.offset();
        if kind == Kind::Replayed {
            self.through = self.through.max(offset);
            let brought = |other: &Other| {
                other.has_brought(offset, self.live_through) && other.filter.matches(message.channel())
            };
            return !self.remembered.contains(&offset) && !self.others.iter().any(brought);
        }
        let brought = self.after < offset && offset <= self.through && self.filter.matches(message.channel());
        let apart = kind == Kind::Retained || self.unsettled > 0 || offset <= self.remember_through;
        if kind == Kind::Live {
            self.live_through = self.live_through.max(offset);
        }
        if !brought && apart && self.remembered.len() < MAX_REMEMBERED {
            self.remembered.insert(offset);
        }
        !brought
    }
}
