//! Shared subscriptions whose messages an engine keeps: a position of the group's own, in two rooms of notes. Sessions that
//! outlive their connections are its members, and are in no list while their clients are away. What comes while nobody is
//! there is read from the log when somebody is back, and given to whoever has room.
//!
//! ```text
//! the first is back ─▶ read: from the position, page by page ─▶ Group's queue ─▶ members
//!                                    live meanwhile ─▶ behind what is read
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use broker_core::{Broker, Filter, HistoryQuery, MessageId, Notes, Position, Qos, Unavailable, unix_ms};
use parking_lot::Mutex;

use super::group_work::Named;
use super::sessions::Hosted;
use crate::front::Inner;
use crate::protocol::{Group, Ledger, News, Standings, forced_name, target_of};

/// Those of a front.
#[derive(Default)]
pub(crate) struct KeptGroups {
    positions: Notes,
    members: Notes,
    known: Mutex<Known>,
    /// Where the log stood when it was last looked at, and how often that was.
    head: AtomicU64,
    looks: AtomicU64,
}

#[derive(Default)]
struct Known {
    groups: HashMap<Arc<str>, Entry>,
    by_session: HashMap<Arc<str>, Vec<Arc<str>>>,
}

struct Entry {
    kept: Arc<KeptGroup>,
    /// By their sessions' keys: when they are over, in milliseconds since 1970, if their clients do not come.
    members: HashMap<Arc<str>, u64>,
}

/// A group.
pub(super) struct KeptGroup {
    name: Arc<str>,
    group: Box<str>,
    filter: Filter,
    pub(super) ledger: Arc<Ledger>,
    is_reading: AtomicBool,
}

/// A subscription's name, whoever wrote it.
fn name_of((group, filter): (&str, &Filter)) -> String {
    format!("$share/{group}/{}", forced_name(filter))
}

/// How often sessions are looked for that are over, in looks.
const EXPIRE_EVERY: u64 = 60;
/// What is read at once.
const PAGE: usize = 64;
/// How long a group without room is left alone.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(10);

impl KeptGroups {
    /// Those that earlier lives have left.
    pub(crate) fn of(broker: &Broker, news: &Arc<News>) -> Self {
        let Some(head) = broker.kept_head() else { return Self::default() };
        let (positions, members) = (broker.notes("mqtt.groups"), broker.notes("mqtt.members"));
        let mut known = Known::default();
        let load = |notes: &Notes| {
            notes.load().unwrap_or_else(|_| {
                tracing::error!("the positions of shared subscriptions cannot be read; they begin anew");
                Vec::new()
            })
        };
        for (name, text) in load(&positions) {
            let read = read_position(&text).filter(|(epoch, ..)| *epoch == head.epoch());
            let target = target_of(&name);
            let Some(((epoch, standings), target)) = read.zip(target) else { continue };
            let Some(group) = target.group else { continue };
            let ledger = Ledger::restored(epoch, standings, Some(news.clone()));
            known.add(name.into(), group, target.filter, ledger);
        }
        let now_ms = unix_ms();
        for (name, text) in load(&members) {
            let Some((session, name)) = name.split_once('\0') else { continue };
            if let Some(ends_ms) = read_member(&text, now_ms).filter(|ends_ms| *ends_ms > now_ms) {
                known.enter(name, session.into(), ends_ms);
            }
        }
        let lonely = known.groups.extract_if(|_, entry| entry.members.is_empty());
        lonely.for_each(|(name, _)| positions.remove(&name));
        Self { positions, members, known: Mutex::new(known), ..Self::default() }
    }

    /// A session is a member from here on, if it outlives its connection and an engine keeps all that the filter matches;
    /// with whether it was none before.
    pub(super) fn enter(
        &self,
        inner: &Inner,
        hosted: &Hosted,
        named: (&str, &Filter),
        tag: u32,
    ) -> Option<(Arc<KeptGroup>, bool)> {
        let head = inner.broker.kept_head().filter(|_| self.positions.are_kept())?;
        let reach = inner.broker.reach_of(named.1);
        if !reach.kept || reach.in_memory {
            return None;
        }
        let expiry_secs = {
            let state = hosted.session.lock();
            let keeps_qos0 = inner.shared.config.queue_qos0_offline;
            let held = state.subscriptions.by_tag(tag)?;
            let is_kept = state.kept().is_some() && (keeps_qos0 || held.qos > Qos::AtMostOnce);
            (is_kept && state.expiry_secs > 0).then_some(state.expiry_secs)?
        };
        let name: Arc<str> = name_of(named).into();
        let mut known = self.known.lock();
        if !known.groups.contains_key(&name) {
            let ledger = Ledger::new(head.epoch(), head.offset(), Some(inner.shared.news.clone()));
            self.write(&name, head.epoch(), &ledger);
            known.add(name.clone(), named.0.into(), named.1.clone(), ledger);
        }
        let session = hosted.session.key();
        let is_new = known.enter(&name, session.into(), u64::MAX);
        self.write_member(session, &name, expiry_secs, 0);
        known.groups.get(&name).map(|entry| (entry.kept.clone(), is_new))
    }

    /// A session is a member no more; of a group without any nothing is known.
    pub(super) fn leave(&self, session: &str, named: (&str, &Filter)) {
        if self.positions.are_kept() {
            self.forget_member(&mut self.known.lock(), session, &name_of(named));
        }
    }

    /// Nothing is left of a session that an earlier life of the server knew.
    pub(super) fn forget(&self, session: &str) {
        if !self.positions.are_kept() {
            return;
        }
        let mut known = self.known.lock();
        for name in known.by_session.get(session).cloned().unwrap_or_default() {
            self.forget_member(&mut known, session, &name);
        }
    }

    fn forget_member(&self, known: &mut Known, session: &str, name: &str) {
        let Some(entry) = known.groups.get_mut(name) else { return };
        if entry.members.remove(session).is_none() {
            return;
        }
        self.members.remove(&format!("{session}\0{name}"));
        if entry.members.is_empty() {
            known.groups.remove(name);
            self.positions.remove(name);
        }
        if let Some(names) = known.by_session.get_mut(session) {
            names.retain(|known| **known != *name);
            if names.is_empty() {
                known.by_session.remove(session);
            }
        }
    }

    fn find(&self, named: (&str, &Filter)) -> Option<Arc<KeptGroup>> {
        if !self.positions.are_kept() {
            return None;
        }
        self.known.lock().groups.get(&*name_of(named)).map(|entry| entry.kept.clone())
    }

    /// Where a group is read from when somebody comes, if nobody is there.
    pub(super) fn begins_behind(&self, named: (&str, &Filter)) -> Option<MessageId> {
        let (epoch, offset) = self.find(named)?.ledger.begins_behind()?;
        Some(MessageId::new(epoch, offset))
    }

    /// Whether all that was noted is safe.
    pub(super) fn are_safe(&self) -> bool {
        !self.positions.are_kept() || self.positions.are_safe() && self.members.are_safe()
    }

    /// Resolves once it is.
    pub(super) async fn settled(&self) -> Result<(), Unavailable> {
        self.positions.settled().await?;
        self.members.settled().await
    }

    fn write(&self, name: &str, epoch: u64, ledger: &Ledger) {
        if let Some(standings) = ledger.to_be_written() {
            self.positions.put(name, write_position(epoch, &standings));
        }
    }

    /// Writes down what has changed of all.
    pub(super) fn write_all(&self, broker: &Broker) {
        let Some(head) = broker.kept_head() else { return };
        let known = self.known.lock();
        known.groups.iter().for_each(|(name, entry)| self.write(name, head.epoch(), &entry.kept.ledger));
    }

    fn write_member(&self, session: &str, name: &str, expiry_secs: u32, since_ms: u64) {
        let text = [&[VERSION], &expiry_secs.to_be_bytes()[..], &since_ms.to_be_bytes()[..]].concat();
        self.members.put(&format!("{session}\0{name}"), text);
    }

    /// The groups among these of a session's subscriptions.
    pub(super) fn among<'n>(&self, held: impl Iterator<Item = (&'n str, u32)>) -> Vec<(Arc<KeptGroup>, u32)> {
        if !self.positions.are_kept() {
            return Vec::new();
        }
        let targets = held.filter_map(|(name, tag)| Some((target_of(name)?, tag)));
        let found =
            targets.filter_map(|(target, tag)| Some((self.find((&target.group?, &target.filter))?, tag)));
        found.collect()
    }

    /// All that has come to these groups is known to them.
    pub(super) async fn catch_up(&self, inner: &Inner, groups: &[(Arc<KeptGroup>, u32)]) {
        let Some(head) = inner.broker.kept_head().filter(|_| !groups.is_empty()) else { return };
        inner.broker.handed_over().await;
        groups.iter().for_each(|(kept, _)| kept.ledger.advance(head.offset()));
    }

    /// A member's client is away.
    pub(super) fn note_away(&self, hosted: &Hosted, groups: &[(Arc<KeptGroup>, u32)], epoch: u64) {
        let (session, expiry_secs) = (hosted.session.key(), hosted.session.lock().expiry_secs);
        let now_ms = unix_ms();
        for (kept, _) in groups {
            let mut known = self.known.lock();
            let ends_ms = ends(expiry_secs, now_ms);
            let held = known.groups.get_mut(&kept.name).and_then(|entry| entry.members.get_mut(session));
            if let Some(held) = held {
                *held = ends_ms;
                self.write_member(session, &kept.name, expiry_secs, now_ms);
                self.write(&kept.name, epoch, &kept.ledger);
            }
        }
    }
}

impl KeptGroup {
    pub(super) fn named(&self) -> Named {
        (self.group.clone(), self.filter.clone())
    }
}

impl Known {
    fn add(&mut self, name: Arc<str>, group: Box<str>, filter: Filter, ledger: Arc<Ledger>) {
        let kept =
            KeptGroup { name: name.clone(), group, filter, ledger, is_reading: AtomicBool::new(false) };
        self.groups.insert(name, Entry { kept: Arc::new(kept), members: HashMap::new() });
    }

    /// Whether it is new there.
    fn enter(&mut self, name: &str, session: Arc<str>, ends_ms: u64) -> bool {
        let Some((name, entry)) = self
            .groups
            .get_key_value(name)
            .map(|(name, _)| name.clone())
            .and_then(|name| Some((name.clone(), self.groups.get_mut(&name)?)))
        else {
            return false;
        };
        let is_new = entry.members.insert(session.clone(), ends_ms).is_none();
        if is_new {
            self.by_session.entry(session).or_default().push(name);
        }
        is_new
    }
}

/// When a session is over.
fn ends(expiry_secs: u32, since_ms: u64) -> u64 {
    if expiry_secs == u32::MAX { u64::MAX } else { since_ms.saturating_add(u64::from(expiry_secs) * 1_000) }
}

/// What this version writes, of members, and of positions.
const VERSION: u8 = 1;
const LISTS: u8 = 2;

/// The epoch, up to where all has come, how many of that are not finished and which, and what is finished beyond.
fn write_position(epoch: u64, standings: &Standings) -> Vec<u8> {
    let Standings { through, unread, ahead } = standings;
    let mut text = vec![LISTS];
    let numbers = [epoch, *through, unread.len() as u64].into_iter();
    for number in numbers.chain(unread.iter().copied()).chain(ahead.iter().copied()) {
        text.extend_from_slice(&number.to_be_bytes());
    }
    text
}

fn read_position(text: &[u8]) -> Option<(u64, Standings)> {
    let (version, rest) = text.split_first()?;
    let (numbers, rest) = rest.as_chunks::<8>();
    let mut numbers = numbers.iter().map(|number| u64::from_be_bytes(*number));
    let (epoch, through) = (numbers.next().filter(|_| rest.is_empty())?, numbers.next()?);
    let mut rest: Vec<u64> = numbers.collect();
    let (unread, ahead) = match *version {
        // An earlier version knew of no list beyond.
        VERSION => (rest, Vec::new()),
        LISTS => {
            let count = usize::try_from(*rest.first()?).ok()?;
            rest.remove(0);
            let ahead = (count <= rest.len()).then(|| rest.split_off(count))?;
            (rest, ahead)
        }
        _ => return None,
    };
    Some((epoch, Standings { through, unread, ahead }))
}

/// When it is over. One that was here when the server ended has its time from now on.
fn read_member(text: &[u8], now_ms: u64) -> Option<u64> {
    let (version, rest) = text.split_first()?;
    let (expiry, since) = rest.split_first_chunk::<4>().filter(|_| *version == VERSION)?;
    let since_ms = u64::from_be_bytes(since.try_into().ok()?);
    Some(ends(u32::from_be_bytes(*expiry), if since_ms == 0 { now_ms } else { since_ms }))
}

/// Once a second: what has changed is written down, and what is behind is read.
pub(super) async fn look(inner: Arc<Inner>) {
    let groups = &inner.kept_groups;
    let Some(head) = inner.broker.kept_head().filter(|_| groups.positions.are_kept()) else { return };
    let all: Vec<_> = groups.known.lock().groups.values().map(|entry| entry.kept.clone()).collect();
    // What was released a second ago has been brought, also to who waited for SUBACK.
    let before = groups.head.swap(head.offset(), Ordering::Relaxed);
    if all.is_empty() {
        return;
    }
    inner.broker.handed_over().await;
    for kept in &all {
        kept.ledger.advance(before);
        // Under the lock, so that what nobody is a member of any more is not written again.
        let known = groups.known.lock();
        if known.groups.contains_key(&kept.name) {
            groups.write(&kept.name, head.epoch(), &kept.ledger);
        }
        drop(known);
        read_if_behind(&inner, kept);
    }
    if groups.looks.fetch_add(1, Ordering::Relaxed).is_multiple_of(EXPIRE_EVERY) {
        let now_ms = unix_ms();
        let mut known = groups.known.lock();
        let over: Vec<_> = known
            .groups
            .iter()
            .flat_map(|(name, entry)| entry.members.iter().map(move |(session, ends)| (name, session, *ends)))
            .filter(|(_, session, ends_ms)| *ends_ms <= now_ms && inner.sessions.get(session).is_none())
            .map(|(name, session, _)| (name.clone(), session.clone()))
            .collect();
        over.iter().for_each(|(name, session)| groups.forget_member(&mut known, session, name));
    }
}

/// Reads what a group has missed, if somebody is there for it.
pub(super) fn read_if_behind(inner: &Arc<Inner>, kept: &Arc<KeptGroup>) {
    let is_there = || inner.broker.group(&kept.group, &kept.filter).is_some();
    if kept.ledger.is_behind() && is_there() && !kept.is_reading.swap(true, Ordering::AcqRel) {
        tokio::spawn(read(Arc::downgrade(inner), kept.clone()));
    }
}

async fn read(front: Weak<Inner>, kept: Arc<KeptGroup>) {
    while let Some(inner) = front.upgrade()
        && kept.ledger.is_behind()
        && let Some(members) = inner.broker.group(&kept.group, &kept.filter)
    {
        let group = Group::of(&members, &inner.shared);
        group.keep(kept.ledger.clone());
        drop(inner);
        if !group.begin_reading() {
            break;
        }
        let is_done = read_once(&front, &kept, &group).await;
        let is_whole = kept.ledger.end_reading();
        group.end_reading();
        if !is_done && !is_whole {
            break;
        }
    }
    kept.is_reading.store(false, Ordering::Release);
}

/// False if it was broken off, as nobody is there any more.
async fn read_once(front: &Weak<Inner>, kept: &KeptGroup, group: &Group) -> bool {
    let Some(head) = front.upgrade().and_then(|inner| inner.broker.kept_head()) else { return false };
    let (after, through) = kept.ledger.begin_reading(head.offset());
    let mut position = Position::from(MessageId::new(head.epoch(), after));
    let mut is_told = false;
    loop {
        match group.has_room_for_read() {
            None => return false,
            Some(true) => {}
            Some(false) => {
                tokio::time::sleep(NO_ROOM_PAUSE).await;
                continue;
            }
        }
        let Some(inner) = front.upgrade() else { return false };
        let mut query = HistoryQuery::default();
        (query.after, query.limit) = (Some(position), PAGE);
        let page = match inner.broker.read_history(&kept.filter, query).await {
            Ok(page) => page,
            Err(unavailable) => {
                drop(inner);
                tokio::time::sleep(unavailable.retry_after.max(NO_ROOM_PAUSE)).await;
                continue;
            }
        };
        if page.gap && !std::mem::replace(&mut is_told, true) {
            inner.shared.gaps.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                subscription = &*kept.name,
                requested = %position,
                first = %page.first,
                "messages of a shared MQTT subscription were dropped from the store before a client came",
            );
        }
        let passes_qos0 = !inner.shared.config.queue_qos0_offline;
        for message in &page.messages {
            let Some(id) = message.id().filter(|id| id.epoch() == head.epoch()) else { continue };
            if let Some(ticket) = kept.ledger.take_read(id.offset())
                && !(passes_qos0 && message.qos() == Qos::AtMostOnce)
            {
                group.push_read(message.clone(), ticket);
            }
        }
        position = page.position_after(page.messages.len());
        let Some(read) = position.in_epoch(head.epoch()) else { return false };
        kept.ledger.note_read(read);
        if read >= through {
            return true;
        }
        drop(inner);
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_of_a_group_is_read_and_nothing_else_is() {
        let standings = |unread: &[u64], ahead: &[u64]| {
            Some((7, Standings { through: 9, unread: unread.to_vec(), ahead: ahead.to_vec() }))
        };
        let (_, full) = standings(&[3, 4], &[11]).expect("some");
        let mut text = write_position(7, &full);
        assert_eq!(read_position(&text), standings(&[3, 4], &[11]));
        assert_eq!(read_position(&text[..text.len() - 8]), standings(&[3, 4], &[]));
        for length in [0, 1, 10, 17, 24, 33, 40] {
            assert_eq!(read_position(&text[..length]), None, "{length}");
        }
        text[0] += 1;
        assert_eq!(read_position(&text), None);
        let earlier = [&[VERSION][..], &[7_u64, 9, 3, 4].map(u64::to_be_bytes).concat()].concat();
        assert_eq!(read_position(&earlier), standings(&[3, 4], &[]));
        let member = |expiry: u32, since: u64| {
            [&[VERSION], &expiry.to_be_bytes()[..], &since.to_be_bytes()[..]].concat()
        };
        assert_eq!(read_member(&member(5, 0), 1_000), Some(6_000));
        assert_eq!(read_member(&member(5, 2_000), 1_000), Some(7_000));
        assert_eq!(read_member(&member(u32::MAX, 2_000), 1_000), Some(u64::MAX));
        assert_eq!(read_member(&member(5, 0)[1..], 1_000), None);
    }
}
