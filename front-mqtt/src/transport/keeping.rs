//! Sessions whose messages an engine keeps: claimed before CONNACK, recorded as they go, and in no list while their
//! clients are away.
//!
//! ```text
//! CONNECT ─▶ claim ─▶ record ─▶ CONNACK ─▶ restart: catch up from the position ─▶ live
//!                                             ▲ SUBSCRIBE while it catches up
//! the end ─▶ leave: out of the lists, the position as far as all has come, record
//! ```
//!
//! A replay is the queue of a client that was away: it reads as the client acknowledges.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use broker_core::{
    Answer, Claim, Ends, Fence, Filter, GRANTED_TAG, Gap, MessageId, Owner, Principal, RecordError, Replay,
    SessionRecord, Start, SubscribeError, unix_ms,
};

use super::gap;
use super::group_work;
use super::groups;
use super::idle;
use super::kept_groups;
use super::left_wills::{self, Returning};
use super::sessions::Hosted;
use crate::codec::{DecodeError, Reason};
use crate::config::ClientIdScope;
use crate::front::Inner;
use crate::protocol::{Accepted, Kept, KeptWill, Negotiated, News, PendingWill, Record, owner, target_of};

/// What an engine has given to a connection that is about to have its session.
pub(crate) struct Claimed {
    pub(crate) fence: Fence,
    /// Where its log stands.
    pub(crate) head: MessageId,
    /// What an earlier life of the server knew, and up to where it was served.
    pub(crate) record: Option<(Record, MessageId)>,
    /// The client's QoS 2 publishes that are kept and not released.
    pub(crate) taken: Vec<u16>,
    pub(super) news: Arc<News>,
    /// Retention has passed its position.
    pub(super) gap: Option<Gap>,
    /// Until the client has its session.
    returns: Option<(Weak<Inner>, Arc<str>)>,
    /// What it left in an earlier life.
    will: Option<Returning>,
}

impl Claimed {
    /// The client has its session.
    pub(super) fn settle(&mut self) {
        self.returns = None;
        if let Some(will) = &mut self.will {
            will.forget();
        }
    }

    /// Nothing of what is recorded is its client's any more.
    pub(super) fn forget(&mut self) {
        (self.record, self.taken) = (None, Vec::new());
    }
}

impl Drop for Claimed {
    /// The client was not let in, or is gone: it is as if nobody had come.
    fn drop(&mut self) {
        let Some((inner, key)) = self.returns.take() else { return };
        let Some(inner) = inner.upgrade() else { return };
        let record = self.record.as_ref();
        let record = record.map(|(record, position)| kept(record, *position, Client::Away));
        drop(inner.broker.record_session(&key, self.fence, record));
    }
}

/// Whether somebody is connected.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Client {
    Here,
    Away,
}

fn ends(expiry_secs: u32, client: Client) -> Ends {
    let lasts = Duration::from_secs(u64::from(expiry_secs));
    match client {
        _ if expiry_secs == u32::MAX => Ends::Never,
        Client::Here => Ends::After(lasts),
        Client::Away => Ends::At(unix_ms().saturating_add(u64::from(expiry_secs) * 1_000)),
    }
}

fn kept(record: &Record, position: MessageId, client: Client) -> SessionRecord {
    SessionRecord::new(record.encode(), Some(position))
        .ending(ends(record.expiry_secs, client))
        .with_will(record.will.as_ref().map(|will| will.due(record.expiry_secs)))
}

fn unavailable() -> DecodeError {
    DecodeError::new(Reason::ServerUnavailable, "whoever keeps sessions does not answer")
}

/// Before the client is told whether it has a session: nobody else has it from now on, and what CONNECT says of it is
/// safe. `None`: nothing is kept of it beyond the memory.
pub(super) async fn claim(
    inner: &Arc<Inner>,
    key: &Arc<str>,
    terms: &Negotiated,
    principal: &Principal,
    will: Option<&PendingWill>,
) -> Result<Option<Claimed>, DecodeError> {
    if terms.assigned && terms.session_expiry_secs == 0 {
        // Nobody else has it, and nobody will.
        return Ok(None);
    }
    let config = &inner.shared.config;
    let not_yours =
        || DecodeError::new(Reason::ClientIdentifierNotValid, "another user has this client identifier");
    if config.client_id_scope == ClientIdScope::Exclusive
        && let Some(hosted) = inner.sessions.get(key)
        && hosted.session.lock().principal.as_ref().is_some_and(|held| owner(held) != owner(principal))
    {
        // A claim would take it from its owner.
        return Err(not_yours());
    }
    if config.client_id_scope == ClientIdScope::Exclusive && inner.elsewhere.are_there() {
        let looked = inner.broker.claim_session(key, Claim::Look).await.map_err(|_| unavailable())?;
        let known = looked.record.and_then(|record| Record::decode(&record.state));
        if known.is_some_and(|record| record.owner != owner(principal)) {
            return Err(not_yours());
        }
    }
    let mut left = left_wills::take(inner, key).await;
    if let Some(of_before) = &mut left
        && (terms.clean_start || of_before.due_ms() <= unix_ms())
    {
        // The session that left it ends, or its client is too late.
        if !left_wills::publish(inner, key).await {
            return Err(unavailable());
        }
        of_before.forget();
    }
    // One that ends with the connection that it is taken from is nobody's any more.
    let is_over = inner.sessions.get(key).is_some_and(|hosted| {
        let state = hosted.session.lock();
        state.online.is_some() && state.expiry_secs == 0
    });
    let claim = match (terms.clean_start || is_over, terms.session_expiry_secs) {
        (true, 0) => Claim::End,
        (true, _) => Claim::Clean,
        (false, _) => Claim::Resume,
    };
    let mut claimed = inner.broker.claim_session(key, claim).await.map_err(|_| unavailable())?;
    if claimed.owner != Owner::This {
        if let Some(hosted) = inner.sessions.get(key).filter(|hosted| hosted.session.lock().kept().is_some())
        {
            inner.give_up(&hosted);
        }
        left_wills::take_over(inner, &mut claimed);
    }
    let Some(head) = inner.broker.kept_head().filter(|_| claimed.fence != Fence::default()) else {
        return Ok(None);
    };
    let record = claimed.record.and_then(|record| {
        let position = record.position.filter(|position| position.epoch() == head.epoch());
        let known = Record::decode(&record.state).zip(position);
        if known.is_none() {
            tracing::error!(
                session = &**key,
                "the record of an MQTT session is not understood; it begins anew"
            );
        }
        known
    });
    let returns = Some((Arc::downgrade(inner), key.clone()));
    let news = inner.shared.news.clone();
    let mut claimed = Claimed {
        fence: claimed.fence,
        head,
        record,
        taken: claimed.taken,
        news,
        gap: None,
        returns,
        will: left,
    };
    let of_another = |record: &Record| record.owner != owner(principal);
    if config.client_id_scope == ClientIdScope::Exclusive
        && claimed.record.as_ref().is_some_and(|(record, _)| of_another(record))
    {
        return Err(not_yours());
    }
    let here = inner.sessions.get(key).filter(|_| !terms.clean_start && !is_over);
    let of_here = here.as_ref().and_then(|hosted| hosted.session.lock().record());
    let known = of_here.or_else(|| claimed.record.clone());
    if known.is_none() && inner.sessions.get(key).is_none() {
        inner.kept_groups.forget(key);
    }
    if known.is_none() && terms.session_expiry_secs == 0 {
        return Ok(None);
    }
    let is_restored = here.is_none();
    let (mut record, position) = known.unwrap_or_else(|| (Record::default(), head));
    let after = if is_restored { record.begins_behind(position) } else { position };
    claimed.gap = gap::behind(inner, &record, after).await;
    (record.expiry_secs, record.owner) = (terms.session_expiry_secs, owner(principal));
    record.will = will.map(|will| KeptWill::of(will, principal));
    let record = kept(&record, position, Client::Here);
    match inner.broker.record_session(key, claimed.fence, Some(record)).await {
        Ok(()) => Ok(Some(claimed)),
        Err(_) => {
            if let Some(here) = here {
                here.session.note_unrecorded();
            }
            Err(unavailable())
        }
    }
}

/// What is to be recorded of a session goes on its way, in the order in which it changes. As soon as it is safe, what
/// waited for it leaves; what could not be recorded is tried again.
pub(super) fn record(
    inner: &Inner,
    hosted: &Arc<Hosted>,
) -> Option<(Fence, Answer<'static, Result<(), RecordError>>)> {
    let mut state = hosted.session.lock();
    if state.ended {
        return None;
    }
    let client = if state.online.is_some() { Client::Here } else { Client::Away };
    let fence = state.kept()?.fence;
    let (record, position) = state.record()?;
    let number = state.kept()?.records;
    let record = kept(&record, position, client);
    let recorded = inner.broker.record_session(hosted.session.key(), fence, Some(record));
    drop(state);
    let hosted = hosted.clone();
    let recorded = recorded.map(move |recorded| {
        match recorded {
            Ok(()) => hosted.session.note_recorded(fence, number),
            Err(RecordError::Fenced) => {}
            Err(_) => hosted.session.note_unrecorded(),
        }
        recorded
    });
    Some((fence, recorded))
}

/// The client has its session: what its subscriptions have missed follows, and then they are live.
pub(super) fn arrive(inner: &Arc<Inner>, hosted: &Arc<Hosted>, number: u32, is_restored: bool) {
    let (held, behind): (Vec<(Box<str>, u32)>, MessageId) = {
        let Some(state) = hosted.session.lock_as(number) else { return };
        let Some(behind) = state.kept().map(Kept::cursor) else { return };
        (state.subscriptions.iter().map(|held| (held.filter.clone(), held.tag)).collect(), behind)
    };
    // Those that were left while the client was away.
    let left = if is_restored {
        Vec::new()
    } else {
        let named = || held.iter().map(|(name, tag)| (&**name, *tag));
        let kept = inner.kept_groups.among(named()).into_iter().map(|(kept, tag)| (kept.named(), tag));
        kept.chain(group_work::among(&inner.broker, named())).collect()
    };
    if !left.is_empty() {
        tokio::spawn(groups::come_back(inner.clone(), hosted.clone(), number, left, behind));
    }
    let mut is_behind = false;
    for (name, tag) in held {
        let Some(target) = target_of(&name) else { continue };
        let subscribed = match &target.group {
            Some(group) if is_restored => {
                let named = (group.clone(), target.filter.clone());
                groups::join(inner, hosted, (group, &target.filter), tag)
                    .inspect(|()| group_work::go_on(inner, hosted, number, named, tag, behind))
            }
            None if tag >= GRANTED_TAG => Ok(()),
            None if inner.broker.reach_of(&target.filter).kept => {
                is_behind = true;
                Ok(())
            }
            None if is_restored => hosted.subscriber.subscribe(&target.filter, tag, Start::Live).map(drop),
            _ => Ok(()),
        };
        give_up_on(hosted, subscribed);
    }
    if is_behind {
        let (inner, hosted) = (inner.clone(), hosted.clone());
        tokio::spawn(async move { restart(&inner, &hosted, number).await });
    } else if let Some(head) = inner.broker.kept_head() {
        if let Some(mut state) = hosted.session.lock_as(number)
            && let Some(kept) = state.kept_mut()
        {
            kept.open(head.offset(), &[]);
        }
        hosted.session.note_live(number);
    }
}

/// A session that has not all of its subscriptions must not look as if it had.
pub(super) fn give_up_on(hosted: &Hosted, subscribed: Result<(), SubscribeError>) {
    if subscribed.is_err() {
        hosted.kick(Reason::QuotaExceeded, Some("the session's subscriptions have no place"));
    }
}

/// Those of a session's subscriptions that can be read again.
fn kept_filters(inner: &Inner, names: Vec<(Box<str>, u32)>) -> Vec<(Filter, u32)> {
    // What an operator has subscribed a client to is there and then alone.
    let own = names.into_iter().filter(|(_, tag)| *tag < GRANTED_TAG);
    let targets = own.filter_map(|(name, tag)| Some((target_of(&name)?, tag)));
    let plain =
        targets.filter(|(target, _)| target.group.is_none()).map(|(target, tag)| (target.filter, tag));
    plain.filter(|(filter, _)| inner.broker.reach_of(filter).kept).collect()
}

/// Brings all subscriptions from the position to the present, together, whatever was on its way to do so. `None`: the
/// connection is over.
async fn restart(inner: &Arc<Inner>, hosted: &Arc<Hosted>, number: u32) -> Option<()> {
    let turn = hosted.session.lock_as(number)?.kept()?.turn.clone();
    let _turn = turn.lock().await;
    let before = hosted.session.lock_as(number)?.kept_mut()?.replay.take();
    if let Some(before) = before {
        before.abort();
        _ = before.await;
    }
    let (names, after) = {
        let state = hosted.session.lock_as(number)?;
        let names = state.subscriptions.iter().map(|held| (held.filter.clone(), held.tag)).collect();
        (names, state.kept()?.cursor())
    };
    let filters = kept_filters(inner, names);
    let tags: Vec<u32> = filters.iter().map(|(_, tag)| *tag).collect();
    let replay = match hosted.subscriber.catch_up(&filters, after) {
        Ok(replay) => replay,
        Err(error) => {
            give_up_on(hosted, Err(error));
            return None;
        }
    };
    // What the lane still had from before is over then: of the log it brings nothing but the replay's pages.
    hosted.subscriber.heard().await;
    let head = inner.broker.kept_head()?.offset();
    let mut state = hosted.session.lock_as(number)?;
    let kept = state.kept_mut()?;
    kept.open(head, &tags);
    kept.replay = Some(tokio::spawn(follow(Arc::downgrade(hosted), number, replay)));
    Some(())
}

async fn follow(hosted: Weak<Hosted>, number: u32, replay: Replay) {
    let Some(outbox) = hosted.upgrade().map(|hosted| hosted.subscriber.outbox()) else { return };
    let on_gap = |gap: &Gap| {
        if let Some(hosted) = hosted.upgrade() {
            hosted.session.shared().gaps.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                client_id = hosted.session.client_id(),
                requested = %gap.requested,
                first = %gap.first,
                "messages of an MQTT session were dropped from the store before its client came",
            );
        }
    };
    replay.run(on_gap).await;
    if outbox.closed().is_none()
        && let Some(hosted) = hosted.upgrade()
    {
        hosted.subscriber.heard().await;
        hosted.session.note_live(number);
    }
}

/// Subscribes a session whose messages are kept, or any other; where it begins is noted.
pub(super) fn subscribe(
    inner: &Inner,
    hosted: &Hosted,
    number: u32,
    accepted: &Accepted,
) -> Result<(), SubscribeError> {
    let subscriber = &hosted.subscriber;
    let (filter, tag) = (&accepted.target.filter, accepted.tag);
    let standing = match inner.shared.kept_epoch {
        Some(_) if inner.broker.reach_of(filter).kept => hosted
            .session
            .lock_as(number)
            .and_then(|state| state.kept().map(|kept| (kept.is_live(), kept.cursor()))),
        _ => None,
    };
    let start = match accepted.start {
        // One that waited would come behind others of its log, and look as if it had come before.
        Start::Retained if standing.is_some() => Start::RetainedBeside,
        start => start,
    };
    match standing.filter(|_| accepted.new) {
        None => subscriber.subscribe(filter, tag, start).map(drop),
        Some((true, cursor)) => {
            let (_, head) = subscriber.subscribe_at_head(filter, tag, start)?;
            if let Some(kept) = hosted.session.lock_as(number).as_mut().and_then(|state| state.kept_mut()) {
                kept.begin(tag, Some(head.in_epoch(cursor.epoch()).unwrap_or_default()));
            }
            Ok(())
        }
        Some((false, cursor)) => {
            if let Some(kept) = hosted.session.lock_as(number).as_mut().and_then(|state| state.kept_mut()) {
                kept.begin(tag, None);
            }
            // Nothing comes for it until all begin again together.
            drop(subscriber.catch_up(&[(filter.clone(), tag)], cursor)?);
            if start != Start::Live {
                subscriber.subscribe(filter, tag, start)?;
            }
            Ok(())
        }
    }
}

/// The broker knows the subscriptions of a SUBSCRIBE: once this is answered they are safe. `None`: nothing is kept.
pub(super) fn subscribed(
    inner: &Arc<Inner>,
    hosted: &Arc<Hosted>,
    number: u32,
) -> Option<Answer<'static, Result<(), RecordError>>> {
    inner.shared.kept_epoch?;
    let is_behind = hosted.session.lock_as(number)?.kept()?.is_waiting_for_a_start();
    if !is_behind && inner.kept_groups.are_safe() {
        return record(inner, hosted).map(|(_, recorded)| recorded);
    }
    let (inner, hosted) = (inner.clone(), hosted.clone());
    Some(Answer::later(async move {
        if is_behind {
            restart(&inner, &hosted, number).await;
        }
        if let Some((_, recorded)) = record(&inner, &hosted) {
            recorded.await?;
        }
        if !inner.kept_groups.are_safe() {
            inner.kept_groups.settled().await?;
        }
        Ok(())
    }))
}

/// The connection is over, and the session stays: nothing is delivered to it of what can be read later.
pub(super) async fn leave(inner: Arc<Inner>, hosted: Arc<Hosted>, number: u32) {
    let gone = || {
        let state = hosted.session.lock();
        (state.connection == number && state.online.is_none() && !state.ended).then_some(state)
    };
    let Some(turn) = gone().and_then(|state| state.kept().map(|kept| kept.turn.clone())) else { return };
    let _turn = turn.lock().await;
    let replay = gone().and_then(|mut state| state.kept_mut().and_then(|kept| kept.replay.take()));
    if let Some(replay) = replay {
        replay.abort();
        _ = replay.await;
    }
    groups::step_out_of_all(&inner, &hosted, gone).await;
    let Some(head) = inner.broker.kept_head() else { return };
    // All up to there has come, or was missed.
    hosted.subscriber.heard().await;
    let names = {
        let Some(mut state) = gone() else { return };
        let names = state.subscriptions.iter().map(|held| (held.filter.clone(), held.tag)).collect();
        let Some(kept) = state.kept_mut() else { return };
        kept.settle(head.offset());
        names
    };
    for (filter, tag) in kept_filters(&inner, names) {
        // What is in memory as well still comes, to wait in the session.
        if !inner.broker.reach_of(&filter).in_memory {
            hosted.subscriber.unsubscribe(&filter, tag);
        }
        hosted.subscriber.abandon_replay(tag);
    }
    if let Some((fence, recorded)) = record(&inner, &hosted) {
        note_recorded(&inner, &hosted, fence, recorded.await);
    }
}

/// How soon a change is recorded that nobody waits for.
const RECORD_EVERY: Duration = Duration::from_secs(1);

/// Records what has changed for as long as the front lives: at once where something waits for it, else a second later.
pub(crate) async fn keep_recording(front: Weak<Inner>) {
    let mut due = Instant::now() + RECORD_EVERY;
    while let Some(news) = front.upgrade().map(|inner| inner.shared.news.clone()) {
        _ = tokio::time::timeout_at(due.into(), news.is_urgent.notified()).await;
        let Some(inner) = front.upgrade() else { return };
        let urgent = std::mem::take(&mut *news.urgent.lock());
        let mut recorded = record_all(&inner, urgent, true);
        if news.take_groups() {
            inner.kept_groups.write_all(&inner.broker);
        }
        if due <= Instant::now() {
            due = Instant::now() + RECORD_EVERY;
            let changed = std::mem::take(&mut *news.changed.lock());
            recorded.extend(record_all(&inner, changed, false));
            tokio::spawn(kept_groups::look(inner.clone()));
            tokio::spawn(idle::look(inner.clone()));
            inner.left_wills.look(&inner.broker);
            if inner.left_wills.is_due() {
                tokio::spawn(left_wills::publish_due(inner.clone()));
            }
        }
        drop(inner);
        for (hosted, (fence, recorded)) in recorded {
            let recorded = recorded.await;
            let Some(inner) = front.upgrade() else { return };
            note_recorded(&inner, &hosted, fence, recorded);
        }
    }
}

type Recording = (Fence, Answer<'static, Result<(), RecordError>>);

/// Records those of these sessions that have changed.
fn record_all(inner: &Inner, keys: Vec<Arc<str>>, is_urgent: bool) -> Vec<(Arc<Hosted>, Recording)> {
    let sessions = keys.iter().filter_map(|key| inner.sessions.get(key));
    let changed = sessions.filter(|hosted| {
        hosted.session.lock().kept_mut().is_some_and(|kept| kept.is_to_be_recorded(is_urgent))
    });
    changed.filter_map(|hosted| record(inner, &hosted).map(|recording| (hosted, recording))).collect()
}

/// A session that another connection has claimed, perhaps at another server, is that one's.
fn note_recorded(inner: &Inner, hosted: &Arc<Hosted>, fence: Fence, recorded: Result<(), RecordError>) {
    if recorded == Err(RecordError::Fenced)
        && hosted.session.lock().kept().is_some_and(|kept| kept.fence == fence)
    {
        if inner.elsewhere.are_there() {
            inner.give_up(hosted);
        } else {
            hosted.kick(Reason::SessionTakenOver, None);
        }
    }
}
