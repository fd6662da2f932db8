//! Wills of clients that were here, or away, when an earlier life of the server ended: published when they are due, unless
//! their clients come back first. What is published and what is recorded of it are two steps; the key of a will makes
//! that it is published once whatever comes between them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use broker_core::{
    Action, Answer, Broker, Claim, Claimed, Ends, IdempotencyKey, KeyedReceipt, Owner, Publish, PublishError,
    PublishOnceError, SessionRecord, unix_ms,
};
use parking_lot::Mutex;

use crate::front::Inner;
use crate::protocol::{Record, Will};

/// Those that are not published yet.
#[derive(Default)]
pub(crate) struct LeftWills {
    due: Mutex<Due>,
    /// Held by whoever publishes some, so that no client comes back in the middle.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Due {
    by_key: HashMap<Arc<str>, u64>,
    in_order: BTreeSet<(u64, Arc<str>)>,
}

impl Due {
    fn put(&mut self, key: Arc<str>, at_ms: u64) {
        if let Some(before) = self.by_key.insert(key.clone(), at_ms) {
            self.in_order.remove(&(before, key.clone()));
        }
        self.in_order.insert((at_ms, key));
    }

    fn take(&mut self, key: &str) -> Option<(Arc<str>, u64)> {
        let (key, at_ms) = self.by_key.remove_entry(key)?;
        self.in_order.remove(&(at_ms, key.clone()));
        Some((key, at_ms))
    }
}

/// A client comes back, and its will with it, unless it is [gone](Self::forget) by then.
pub(super) struct Returning {
    inner: Weak<Inner>,
    left: Option<(Arc<str>, u64)>,
}

impl Returning {
    /// When it would have been published.
    pub(super) fn due_ms(&self) -> u64 {
        self.left.as_ref().map_or(0, |(_, at_ms)| *at_ms)
    }

    pub(super) fn forget(&mut self) {
        self.left = None;
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        if let Some((inner, (key, at_ms))) = self.inner.upgrade().zip(self.left.take()) {
            inner.left_wills.due.lock().put(key, at_ms);
        }
    }
}

/// Published in one go.
const MANY: usize = 256;

/// When one is tried again that could not be published.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

impl LeftWills {
    pub(crate) fn of(broker: &Broker) -> Self {
        let mut due = Due::default();
        broker.wills().into_iter().for_each(|(key, at_ms)| due.put(key.into(), at_ms));
        Self { due: Mutex::new(due), turn: tokio::sync::Mutex::default() }
    }

    /// Takes up what others have left.
    pub(super) fn look(&self, broker: &Broker) {
        let left = broker.left_wills();
        if !left.is_empty() {
            let mut due = self.due.lock();
            left.into_iter().for_each(|(key, at_ms)| due.put(key.into(), at_ms));
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.due.lock().in_order.first().is_some_and(|(at_ms, _)| *at_ms <= unix_ms())
    }

    fn take_due(&self) -> Option<Arc<str>> {
        let mut due = self.due.lock();
        let key = due.in_order.first().filter(|(at_ms, _)| *at_ms <= unix_ms())?.1.clone();
        due.take(&key).map(|(key, _)| key)
    }
}

/// The client of a session comes back: nobody else publishes its will from now on. `None`: it left none.
pub(super) async fn take(inner: &Arc<Inner>, key: &str) -> Option<Returning> {
    let wills = &inner.left_wills;
    if wills.due.lock().by_key.is_empty() {
        return None;
    }
    let _turn = wills.turn.lock().await;
    let left = Some(wills.due.lock().take(key)?);
    Some(Returning { inner: Arc::downgrade(inner), left })
}

/// Publishes those that are due.
pub(super) async fn publish_due(inner: Arc<Inner>) {
    let _turn = inner.left_wills.turn.lock().await;
    for _ in 0..MANY {
        let Some(key) = inner.left_wills.take_due() else { return };
        if !publish(&inner, &key).await {
            let again = unix_ms() + u64::try_from(AGAIN_AFTER.as_millis()).unwrap_or_default();
            inner.left_wills.due.lock().put(key, again);
        }
    }
}

/// Publishes what a session has left and is nobody's now; false if that cannot be done yet.
pub(super) async fn publish(inner: &Inner, key: &str) -> bool {
    if inner.sessions.get(key).is_some() {
        return true;
    }
    let Ok(claimed) = inner.broker.claim_session(key, Claim::Left).await else { return false };
    let Some(mut kept) = claimed.record else { return true };
    let Some(mut record) = Record::decode(&kept.state) else { return true };
    if let Some(will) = record.will.take().and_then(|will| will.read())
        && let Some((publish, key)) = inner.allowed(will)
        && let Err(Some(_)) = told(once(&inner.broker, publish, &key).await)
    {
        return false;
    }
    // Its client was here when the life before ended, and the session lasts from the start of this one.
    if let Ends::After(lasts) = kept.ends {
        let lasts = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        kept.ends = Ends::At(inner.shared.began_ms().saturating_add(lasts));
    }
    let is_over = matches!(kept.ends, Ends::At(at_ms) if at_ms <= unix_ms());
    let record = SessionRecord::new(record.encode(), kept.position).ending(kept.ends);
    let record = Some(record).filter(|_| !is_over);
    inner.broker.record_session(key, claimed.fence, record).await.is_ok()
}

/// A session comes from another node, or one that was there is forgotten: what its last connection left is published where a
/// takeover on one node would (MQTT 5.0 §3.1.2.5, §3.1.4). The other node does nothing more for it.
pub(super) fn take_over(inner: &Inner, claimed: &mut Claimed) {
    let ended = claimed.ended.take();
    let Some(kept) = ended.as_ref().or(claimed.record.as_ref()) else { return };
    let Some(will) = Record::decode(&kept.state).and_then(|record| record.will) else { return };
    let now_ms = unix_ms();
    let is_published = ended.is_some()
        || matches!(kept.will, Some(Ends::At(at_ms)) if at_ms <= now_ms)
        || will.is_published_at(now_ms, claimed.owner == Owner::Another);
    if is_published && let Some((publish, key)) = will.read().and_then(|will| inner.allowed(will)) {
        publish_once(&inner.broker, publish, key);
    }
}

type Once = Answer<'static, Result<KeyedReceipt, PublishOnceError>>;

fn once(broker: &Broker, publish: Publish, key: &str) -> Once {
    broker.submit_once(publish, &IdempotencyKey::new(key))
}

/// # Errors
/// It was not published: when to try again, or never.
fn told(outcome: Result<KeyedReceipt, PublishOnceError>) -> Result<(), Option<Duration>> {
    match outcome {
        Ok(_) => Ok(()),
        Err(PublishOnceError::Publish(
            PublishError::Busy { retry_after } | PublishError::Unavailable { retry_after, .. },
        )) => Err(Some(retry_after)),
        Err(PublishOnceError::Publish(PublishError::Unknown) | PublishOnceError::Full) => {
            Err(Some(Duration::from_secs(1)))
        }
        Err(_) => Err(None),
    }
}

/// So often a will is tried in the end.
const MAX_TRIES: usize = 1_000;

/// Publishes a will whose time has come; of a `session` that other nodes could have, once it is known that none has.
pub(crate) fn publish_in_time(broker: &Broker, session: Option<Arc<str>>, publish: Publish, key: String) {
    let Some(session) = session else { return publish_once(broker, publish, key) };
    let looked = broker.claim_session(&session, Claim::Look);
    let broker = broker.clone();
    tokio::spawn(async move {
        let mut looked = looked.await;
        for _ in 0..MAX_TRIES {
            match &looked {
                Ok(known) if known.owner == Owner::This => return publish_once(&broker, publish, key),
                Ok(_) => return,
                Err(unavailable) => tokio::time::sleep(unavailable.retry_after).await,
            }
            looked = broker.claim_session(&session, Claim::Look).await;
        }
    });
}

/// Publishes a will once; what is refused for now is tried again.
fn publish_once(broker: &Broker, publish: Publish, key: String) {
    let mut answer = once(broker, publish.clone(), &key);
    let broker = broker.clone();
    tokio::spawn(async move {
        for _ in 0..MAX_TRIES {
            let Err(Some(retry_after)) = told(answer.await) else { return };
            tokio::time::sleep(retry_after).await;
            answer = once(&broker, publish.clone(), &key);
        }
    });
}

impl Inner {
    /// A will with its key, if its client may publish it now.
    fn allowed(&self, will: Will) -> Option<(Publish, String)> {
        let Will { publish, principal, key, .. } = will;
        let now = self.authenticator.renewed(&principal);
        if now.is_some_and(|now| now.allows(Action::Publish, publish.channel())) {
            return Some((publish, key?));
        }
        self.note_refused();
        None
    }
}
