//! What is answered now by this process' memory, and later by an engine that keeps what it is asked for.

use std::sync::{Arc, Weak};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::Broker;
use crate::answer::Answer;
use crate::channel::Channel;
use crate::engine::{
    Claim, Claimed, Done, Engine, Fence, Ingest, Op, RecordError, Reject, Rejected, SessionRecord, Taken,
};
use crate::engine::{Terms, Work, WorkError};
use crate::error::{PublishError, PublishOnceError, Refused, SubscribeError, Unavailable};
use crate::filter::Filter;
use crate::message::{Accepted, KeyedReceipt, Message, Publish, Receipt};
use crate::shared::Shared;
use crate::store::history::{History, HistoryQuery, Next};
use crate::store::idempotency::IdempotencyKey;

/// How soon a publish that found the broker busy is tried again.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// What an engine answers a publisher.
type Published = Result<KeyedReceipt, PublishOnceError>;

impl Broker {
    /// Publishes a message, whoever keeps its channel: answered at once by this process' memory, later by an
    /// [`Engine`]. Several may be submitted before the first is answered; they keep their order.
    ///
    /// Dropping the answer does not take the message back.
    ///
    /// # Errors
    /// See [`Refused`] and [`PublishError`]; nothing was stored or delivered, but for [`PublishError::Unknown`].
    pub fn submit(&self, publish: Publish) -> Answer<'static, Result<Receipt, Refused>> {
        match self.engine_of(publish.channel()) {
            None => Answer::now(self.try_publish(publish)),
            Some(engine) => self.submit_to(engine, publish, None),
        }
    }

    /// As [`Broker::submit`], for a session that was claimed. Where an [`Engine`] keeps the channel, the number is kept
    /// with the message, for the [next claim](Claimed::taken) of the session; elsewhere it means nothing.
    ///
    /// # Errors
    /// Those of [`Broker::submit`], and [`PublishError::Fenced`].
    pub fn submit_taken(&self, publish: Publish, taken: Taken) -> Answer<'static, Result<Receipt, Refused>> {
        match self.engine_of(publish.channel()) {
            None => Answer::now(self.try_publish(publish)),
            Some(engine) => self.submit_to(engine, publish, Some(Box::new(taken))),
        }
    }

    fn submit_to(
        &self,
        engine: &Arc<dyn Engine>,
        publish: Publish,
        taken: Option<Box<Taken>>,
    ) -> Answer<'static, Result<Receipt, Refused>> {
        let shared = self.shared();
        match shared.submit_kept(engine, publish, None, taken) {
            Err(refused) => {
                shared.count_refused(&refused.error);
                Answer::now(Err(refused))
            }
            Ok(outcome) => {
                let shared = Arc::clone(shared);
                Answer::later(async move {
                    let result = match outcome.await {
                        Ok(Ok(keyed)) => Ok(keyed.receipt),
                        Ok(Err(PublishOnceError::Publish(error))) => Err(error),
                        // It had no key, so nothing is known of what became of it.
                        Ok(Err(PublishOnceError::Conflict | PublishOnceError::Full)) | Err(_) => {
                            Err(PublishError::Unknown)
                        }
                    };
                    result.inspect_err(|error| shared.count_refused(error)).map_err(Refused::from)
                })
            }
        }
    }

    /// As [`Broker::submit`], once for each key: see [`Broker::publish_once`].
    ///
    /// # Errors
    /// See [`PublishOnceError`]; nothing was stored or delivered, but for [`PublishError::Unknown`]: then the same may
    /// be sent again under the same key.
    pub fn submit_once(
        &self,
        publish: Publish,
        key: &IdempotencyKey<'_>,
    ) -> Answer<'static, Result<KeyedReceipt, PublishOnceError>> {
        let Some(engine) = self.engine_of(publish.channel()) else {
            return Answer::now(self.publish_once(publish, key));
        };
        let shared = self.shared();
        match shared.submit_kept(engine, publish, Some(key), None) {
            Err(Refused { error, .. }) => {
                shared.count_refused(&error);
                Answer::now(Err(error.into()))
            }
            Ok(outcome) => {
                let shared = Arc::clone(shared);
                Answer::later(async move {
                    let result = outcome.await.unwrap_or(Err(PublishError::Unknown.into()));
                    if let Err(PublishOnceError::Publish(error)) = &result {
                        shared.count_refused(error);
                    }
                    result
                })
            }
        }
    }

    /// Publishes a message whose publisher wants no answer: it waits for nothing, and where an [`Engine`] keeps the
    /// channel it need not be kept yet when it is delivered, so a crash may forget it. On its channel it comes after all
    /// that was submitted there before. What is retained is delivered once it is kept, as any other.
    ///
    /// # Errors
    /// See [`Refused`] and [`PublishError`]; nothing was stored or delivered.
    pub fn post(&self, publish: Publish) -> Result<(), Refused> {
        let shared = self.shared();
        let posted = match self.engine_of(publish.channel()) {
            None => shared.publish(publish).map(drop),
            Some(engine) => match shared.check_submitted(publish) {
                Ok(publish) => engine.post(publish).map_err(Refused::from),
                Err(refused) => Err(refused),
            },
        };
        posted.inspect_err(|refused| shared.count_refused(&refused.error))
    }

    /// As [`Broker::submit`], but waits while the broker is busy.
    ///
    /// # Errors
    /// See [`PublishError`], without `Busy`; `Closed` as soon as the broker is closed, also while this waits for room.
    ///
    /// # Cancel safety
    /// Cancelled while it waits for room, it has published nothing; where an engine keeps the channel, it may have.
    pub async fn publish_wait(&self, mut publish: Publish) -> Result<Receipt, PublishError> {
        loop {
            match self.submit(publish).await {
                Err(Refused { publish: Some(again), .. }) => publish = *again,
                result => return result.map_err(|refused| refused.error),
            }
            tokio::time::sleep(BUSY_PAUSE).await;
        }
    }

    /// As [`Broker::submit_taken`], but waits while the broker is busy.
    ///
    /// # Errors
    /// Those of [`Broker::publish_wait`], and [`PublishError::Fenced`].
    pub async fn publish_taken_wait(
        &self,
        mut publish: Publish,
        taken: Taken,
    ) -> Result<Receipt, PublishError> {
        loop {
            match self.submit_taken(publish, taken.clone()).await {
                Err(Refused { publish: Some(again), .. }) => publish = *again,
                result => return result.map_err(|refused| refused.error),
            }
            tokio::time::sleep(BUSY_PAUSE).await;
        }
    }

    /// Forgets a channel's retained message without telling anybody; false if there was none.
    ///
    /// # Errors
    /// Where an engine keeps the channel: [`PublishError::Unavailable`], `Busy`, and `Unknown`.
    pub fn clear_retained(&self, channel: &Channel) -> Answer<'static, Result<bool, PublishError>> {
        let Some(engine) = self.engine_of(channel) else {
            let cleared = self.shared().retained.clear(channel).is_some();
            if let Some(relay) = &self.shared().relay {
                relay.relay_cleared(channel);
            }
            return Answer::now(Ok(cleared));
        };
        let (done, cleared) = Done::new();
        match engine.submit(Op::ClearRetained { channel: channel.clone(), done }) {
            Err(Rejected { why, .. }) => Answer::now(Err(why.into())),
            Ok(()) => Answer::later(async move {
                match cleared.await {
                    Ok(result) => result.map_err(PublishError::from),
                    Err(_) => Err(PublishError::Unknown),
                }
            }),
        }
    }

    /// A channel's retained message, wherever it is kept. [`Broker::retained`] looks in memory alone, where all that
    /// subscribers are sent is.
    ///
    /// # Errors
    /// An engine keeps it and cannot read now.
    pub fn read_retained(
        &self,
        channel: &Channel,
    ) -> Answer<'static, Result<Option<Arc<Message>>, Unavailable>> {
        let in_memory = self.retained(channel);
        let Some(engine) = self.engine_of(channel) else { return Answer::now(Ok(in_memory)) };
        engine.retained(channel).map(|kept| kept.map(|kept| kept.or(in_memory)))
    }

    /// As [`Broker::history`], wherever it is kept, and letting other tasks run between every few thousand messages.
    ///
    /// # Errors
    /// An engine keeps it and cannot read now.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn read_history(&self, filter: &Filter, query: HistoryQuery) -> Result<History, Unavailable> {
        let mut parts = SmallVec::<[History; 2]>::new();
        for mut asking in self.ask(filter, query) {
            while let Some(read) = asking.next() {
                match (read, &self.shared().engine) {
                    (Next::Kept(read), Some(engine)) => asking.take(engine.read(read).await?),
                    (Next::Kept(_), None) => asking.miss(),
                    (Next::Memory, _) => {}
                }
                tokio::task::yield_now().await;
            }
            parts.push(asking.answer());
        }
        Ok(History::of(parts, query))
    }

    /// Resolves once publishers everywhere reach the subscriptions to `filter` that were made here: at once, unless an
    /// [`Engine`] brings messages of other nodes. Fronts ask for it before they tell a client that it is subscribed.
    ///
    /// # Errors
    /// [`SubscribeError::Unavailable`]. The subscription is there and may miss messages of other nodes: whoever made it
    /// ends it.
    pub fn settled(&self, filter: &Filter) -> Answer<'static, Result<(), SubscribeError>> {
        let Some(engine) = &self.shared().engine else { return Answer::now(Ok(())) };
        engine.settled(filter).map(|settled| settled.map_err(SubscribeError::from))
    }

    /// Opens the work of the group of this name on `filter`, where an [`Engine`] shares what it keeps among the groups of
    /// several nodes: members do not get that from the group. `None` where it does not, or keeps nothing that the filter
    /// matches.
    ///
    /// # Errors
    /// See [`WorkError`].
    pub fn work(
        &self,
        group: &str,
        filter: &Filter,
        terms: Terms,
    ) -> Option<Answer<'static, Result<Arc<dyn Work>, WorkError>>> {
        let engine = self.shared().relay.as_ref().filter(|_| self.shares(filter))?;
        Some(engine.work(group, filter, terms))
    }

    /// Whether groups on `filter` have [work](Self::work).
    pub fn shares(&self, filter: &Filter) -> bool {
        self.shared().relay.is_some() && self.reach_of(filter).kept
    }

    /// Claims a client's session, with what is recorded of it: for fronts whose sessions outlive their connections,
    /// before they tell the client whether it has one. Without an engine nothing is, and the answer is there at once.
    ///
    /// # Errors
    /// It cannot be told now.
    pub fn claim_session(
        &self,
        session: &str,
        claim: Claim,
    ) -> Answer<'static, Result<Claimed, Unavailable>> {
        match &self.shared().engine {
            Some(engine) => engine.claim(session, claim),
            None => Answer::now(Ok(Claimed::default())),
        }
    }

    /// Sessions of earlier lives that left something to do, and when. See [`Engine::wills`].
    pub fn wills(&self) -> Vec<(Box<str>, u64)> {
        self.shared().engine.as_ref().map_or_else(Vec::new, |engine| engine.wills())
    }

    /// The same of sessions of other processes that are gone, found since this was asked last. See
    /// [`Engine::left_wills`].
    pub fn left_wills(&self) -> Vec<(Box<str>, u64)> {
        self.shared().engine.as_ref().map_or_else(Vec::new, |engine| engine.left_wills())
    }

    /// Records a session that was claimed with `fence`, or that it is over (`None`). Without an engine it is kept
    /// nowhere.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn record_session(
        &self,
        session: &str,
        fence: Fence,
        record: Option<SessionRecord>,
    ) -> Answer<'static, Result<(), RecordError>> {
        let Some(engine) = &self.shared().engine else { return Answer::now(Ok(())) };
        let (done, recorded) = Done::new();
        let record = record.map(Box::new);
        match engine.submit(Op::Session { session: session.into(), fence, record, done }) {
            Err(Rejected { why: Reject::Busy(when) | Reject::Unavailable(when), .. }) => {
                Answer::now(Err(when.into()))
            }
            Ok(()) => Answer::later(async move { recorded.await.unwrap_or(Err(RecordError::Unknown)) }),
        }
    }

    /// Frees the number of a message that was [taken](Broker::submit_taken): from then on it may stand for another one.
    /// Without an engine nothing is kept of it.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn free_taken(&self, taken: Taken) -> Answer<'static, Result<(), RecordError>> {
        let Some(engine) = &self.shared().engine else { return Answer::now(Ok(())) };
        let (done, freed) = Done::new();
        match engine.submit(Op::Free { taken: Box::new(taken), done }) {
            Err(Rejected { why: Reject::Busy(when) | Reject::Unavailable(when), .. }) => {
                Answer::now(Err(when.into()))
            }
            Ok(()) => Answer::later(async move { freed.await.unwrap_or(Err(RecordError::Unknown)) }),
        }
    }

    /// Whether an [`Engine`] keeps this channel's messages.
    pub fn is_kept(&self, channel: &Channel) -> bool {
        self.engine_of(channel).is_some()
    }

    /// The engine, if it keeps this channel's messages.
    fn engine_of(&self, channel: &Channel) -> Option<&Arc<dyn Engine>> {
        self.shared().engine_of(channel)
    }

    /// Resolves once the engine is done with all that it was given.
    pub(super) async fn engine_is_done(&self) {
        let Some(engine) = &self.shared().engine else { return };
        let (done, is_done) = Done::new();
        if engine.submit(Op::Barrier(done)).is_ok() {
            _ = is_done.await;
        }
    }
}

impl Shared {
    pub(super) fn engine_of(&self, channel: &Channel) -> Option<&Arc<dyn Engine>> {
        self.engine.as_ref().filter(|_| self.log.home_of(channel.namespace()).kept)
    }

    /// Gives a message to the engine; whoever will have its answer.
    fn submit_kept(
        &self,
        engine: &Arc<dyn Engine>,
        publish: Publish,
        key: Option<&IdempotencyKey<'_>>,
        taken: Option<Box<Taken>>,
    ) -> Result<oneshot::Receiver<Published>, Refused> {
        let publish = self.check_submitted(publish)?;
        let (done, outcome) = Done::new();
        let op = Op::Publish { publish: Box::new(publish), key: key.map(Into::into), taken, done };
        engine.submit(op)?;
        Ok(outcome)
    }

    /// The same message, if it may be given to the engine.
    fn check_submitted(&self, publish: Publish) -> Result<Publish, Refused> {
        match self.check_kept(&publish) {
            Ok(()) => Ok(publish),
            Err(error) => {
                let again = matches!(error, PublishError::Busy { .. }).then(|| Box::new(publish));
                Err(Refused { error, publish: again })
            }
        }
    }
}

impl From<Rejected> for Refused {
    fn from(Rejected { why, op }: Rejected) -> Self {
        let publish = match (why, op) {
            (Reject::Busy(_), Op::Publish { publish, .. }) => Some(publish),
            _ => None,
        };
        Self { error: why.into(), publish }
    }
}

impl From<Reject> for PublishError {
    fn from(why: Reject) -> Self {
        match why {
            Reject::Busy(Unavailable { retry_after }) => Self::Busy { retry_after },
            Reject::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

/// Where an engine releases what it has accepted. It does not keep the broker.
pub(super) struct Entrance(pub(super) Weak<Shared>);

impl Ingest for Entrance {
    fn restore(&self, retained: Vec<Accepted>) {
        let Some(shared) = self.0.upgrade() else { return };
        let Some(kept) = &shared.kept else { return };
        for accepted in retained {
            shared.retained.set(Arc::new(accepted.into_message(kept.epoch())));
        }
    }

    fn release(&self, batch: Vec<Accepted>) -> Vec<Receipt> {
        match self.0.upgrade() {
            Some(shared) => shared.release_kept(batch),
            None => batch
                .iter()
                .map(|accepted| Receipt { id: None, time_ms: accepted.time_ms, receivers: 0 })
                .collect(),
        }
    }

    fn relayed(&self, publish: Publish, time_ms: u64) -> Result<Receipt, Refused> {
        let Some(shared) = self.0.upgrade() else { return Err(PublishError::Closed.into()) };
        shared.publish_relayed(publish, time_ms)
    }

    fn relayed_to_group(
        &self,
        publish: Publish,
        time_ms: u64,
        group: &str,
        filter: &Filter,
    ) -> Result<bool, Refused> {
        let Some(shared) = self.0.upgrade() else { return Err(PublishError::Closed.into()) };
        shared.relay_to_group(publish, time_ms, group, filter)
    }

    fn clear_retained(&self, channel: &Channel) -> bool {
        self.0.upgrade().is_some_and(|shared| shared.retained.clear(channel).is_some())
    }
}
