//! What a connection has to wait for before it handles more: room in the broker, a policy's decision, whoever keeps
//! sessions. Its client's next packets wait, so that their order stays; nobody else's do.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use broker_core::{
    Answer, Broker, Denied, Echo, Publish, PublishError, Qos, Receipt, RecordError, Refused, SubscribeError,
    Taken, steady_ms,
};
use bytes::Bytes;

use super::acks::Ack;
use super::driver::{Driver, MAX_BATCH};
use super::group_work;
use super::groups;
use super::keeping;
use crate::codec::Reason;
use crate::protocol::{Accepted, Output, Publishing, Subscribing};

/// What a connection waits for.
pub(super) enum Waiting {
    /// The broker was too busy for this publish, and when to try again.
    Busy(Publishing, Instant),
    /// This publish is delivered as soon as it is taken, and those before it are not yet.
    Behind(Publishing),
    /// A policy decides on a publish, which whoever keeps the channel may be to know by its number.
    Publish {
        decision: Answer<'static, Result<Publish, Denied>>,
        packet_id: u16,
        qos: Qos,
        taken: Option<Taken>,
    },
    /// Whoever keeps the channel was too busy for a publish at QoS 2 of a session that is kept, and when to try again.
    TakeBusy { publish: Publish, taken: Taken, at: Instant },
    /// Whoever keeps a publish lets go of its number.
    Free { freed: Answer<'static, Result<(), RecordError>>, packet_id: u16 },
    /// A policy decides on the next of these filters.
    Subscribe { decision: Answer<'static, Result<(), Denied>>, subscribing: Subscribing },
    /// Publishers elsewhere are told of the next of these filters.
    Settle { settled: Answer<'static, Result<(), SubscribeError>>, subscribing: Subscribing },
    /// Whoever keeps the session takes the subscriptions down.
    Subscribed { recorded: Answer<'static, Result<(), RecordError>>, subscribing: Subscribing },
    /// The same, and then this is sent.
    Unsubscribed { recorded: Answer<'static, Result<(), RecordError>>, unsuback: Bytes },
}

/// What has been waited for.
enum Answered {
    Publish(Result<Publish, Denied>),
    Subscribe(Result<(), Denied>),
    Settle(Result<(), SubscribeError>),
    Record(Result<(), RecordError>),
}

/// A QoS 2 publish that its connection has not seen to its end.
pub(super) struct Left {
    /// By which the session knows it. `None`: it knows only what is kept.
    pub(super) packet_id: Option<u16>,
    /// Whether it is published in the end.
    pub(super) outcome: Answer<'static, bool>,
}

impl Waiting {
    /// When it is to be looked at again, if nobody wakes the connection for it.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Busy(_, at) | Self::TakeBusy { at, .. } => Some(*at),
            _ => None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answered> {
        match self {
            Self::Publish { decision, .. } => Pin::new(decision).poll(cx).map(Answered::Publish),
            Self::Subscribe { decision, .. } => Pin::new(decision).poll(cx).map(Answered::Subscribe),
            Self::Settle { settled, .. } => Pin::new(settled).poll(cx).map(Answered::Settle),
            Self::Subscribed { recorded, .. }
            | Self::Unsubscribed { recorded, .. }
            | Self::Free { freed: recorded, .. } => Pin::new(recorded).poll(cx).map(Answered::Record),
            Self::Busy(..) | Self::Behind(_) | Self::TakeBusy { .. } => Poll::Pending,
        }
    }

    /// The connection ends. A QoS 2 publish was taken when it came: its repeat would be answered and not published.
    pub(super) fn left(self, broker: &Broker) -> Option<Left> {
        let broker = broker.clone();
        match self {
            Self::Busy(Publishing { publish, packet_id, qos: Qos::ExactlyOnce }, _)
            | Self::Behind(Publishing { publish, packet_id, qos: Qos::ExactlyOnce }) => {
                let outcome = Answer::later(async move { broker.publish_wait(publish).await.is_ok() });
                Some(Left { packet_id: Some(packet_id), outcome })
            }
            Self::TakeBusy { publish, taken, .. } => {
                let outcome =
                    Answer::later(async move { broker.publish_taken_wait(publish, taken).await.is_ok() });
                Some(Left { packet_id: None, outcome })
            }
            Self::Publish { decision, taken: Some(taken), .. } => {
                let outcome = Answer::later(async move {
                    match decision.await {
                        Ok(publish) if broker.is_kept(publish.channel()) => {
                            broker.publish_taken_wait(publish, taken).await.is_ok()
                        }
                        // The client has no answer, and says it again: then it must not be there.
                        _ => false,
                    }
                });
                Some(Left { packet_id: None, outcome })
            }
            // A policy that denies it has answered it: a repeat is not to be asked about again.
            Self::Publish { decision, packet_id, qos: Qos::ExactlyOnce, .. } => {
                let outcome = Answer::later(async move {
                    match decision.await {
                        Ok(publish) => broker.publish_wait(publish).await.is_ok(),
                        Err(_) => true,
                    }
                });
                Some(Left { packet_id: Some(packet_id), outcome })
            }
            _ => None,
        }
    }
}

impl Driver {
    /// Publishes what the client sent, if the policy lets it.
    pub(super) fn publish(&mut self, publishing: Publishing) {
        let Publishing { publish, packet_id, qos } = publishing;
        let publish = publish.from(self.hosted.subscriber.key(), Echo::Deliver);
        let Some(policy) = self.inner.broker.policy() else {
            return self.publish_allowed(Publishing { publish, packet_id, qos });
        };
        let decision = policy.publish(&self.client(self.remote()), publish);
        match decision.if_now() {
            Ok(decided) => self.handle_decided(packet_id, qos, decided),
            Err(decision) => {
                let taken = self.name_begun(packet_id, qos);
                self.waiting = Some(Box::new(Waiting::Publish { decision, packet_id, qos, taken }));
            }
        }
    }

    fn handle_decided(&mut self, packet_id: u16, qos: Qos, decided: Result<Publish, Denied>) {
        match decided {
            Ok(publish) => self.publish_allowed(Publishing { publish, packet_id, qos }),
            Err(denied) => self.connection.handle_denied(packet_id, qos, &denied.into()),
        }
    }

    fn publish_allowed(&mut self, publishing: Publishing) {
        if self.acks.is_some() && self.overtakes(&publishing) {
            if publishing.qos == Qos::ExactlyOnce {
                self.hosted.session.take_in_memory(self.connection.number(), publishing.packet_id);
            }
            self.waiting = Some(Box::new(Waiting::Behind(publishing)));
            return;
        }
        let Publishing { publish, packet_id, qos } = publishing;
        if publish.channel().is_the_brokers_own() {
            if qos == Qos::ExactlyOnce {
                self.hosted.session.take_in_memory(self.connection.number(), packet_id);
            }
            let asked = self.inner.broker.ask_service(&self.client(self.remote()), &publish);
            let is_busy = matches!(asked, Err(PublishError::Busy { .. }));
            let asked = asked.map_err(|error| Refused::new(error, is_busy.then_some(publish)));
            return self.handle_accepted(packet_id, qos, asked);
        }
        if qos == Qos::AtMostOnce {
            if let Err(refused) = self.inner.broker.post(publish) {
                self.handle_accepted(packet_id, qos, Err(refused));
            }
            return;
        }
        if qos == Qos::ExactlyOnce && self.inner.shared.kept_epoch.is_some() {
            let taken = self.name_begun(packet_id, qos);
            return self.publish_exactly(publish, packet_id, taken);
        }
        self.submit(publish, packet_id, qos);
    }

    /// Whether a publish would be delivered before those that are under way.
    fn overtakes(&self, publishing: &Publishing) -> bool {
        publishing.qos == Qos::AtMostOnce || !self.inner.broker.is_kept(publishing.publish.channel())
    }

    /// All publishes are answered that were under way.
    pub(super) fn go_on(&mut self) {
        match self.waiting.take().map(|waiting| *waiting) {
            Some(Waiting::Behind(publishing)) => self.publish_allowed(publishing),
            other => self.waiting = other.map(Box::new),
        }
    }

    fn submit(&mut self, publish: Publish, packet_id: u16, qos: Qos) {
        match self.inner.broker.submit(publish).if_now() {
            Ok(outcome) => self.handle_accepted(packet_id, qos, outcome),
            Err(outcome) => self.answer_later(Ack::Accept { outcome, packet_id, qos }),
        }
    }

    /// What whoever keeps channels is to know a QoS 2 publish by.
    fn name_begun(&self, packet_id: u16, qos: Qos) -> Option<Taken> {
        let session = &self.hosted.session;
        (qos == Qos::ExactlyOnce).then(|| session.name_begun(self.connection.number(), packet_id)).flatten()
    }

    /// Publishes at QoS 2 where somebody may keep the channel.
    fn publish_exactly(&mut self, publish: Publish, packet_id: u16, taken: Option<Taken>) {
        match taken {
            Some(taken) if self.inner.broker.is_kept(publish.channel()) => {
                match self.inner.broker.submit_taken(publish, taken.clone()).if_now() {
                    Ok(outcome) => self.handle_taken(taken, outcome),
                    Err(outcome) => self.answer_later(Ack::Take { outcome, taken }),
                }
            }
            _ => {
                self.hosted.session.take_in_memory(self.connection.number(), packet_id);
                self.submit(publish, packet_id, Qos::ExactlyOnce);
            }
        }
    }

    pub(super) fn handle_taken(&mut self, taken: Taken, outcome: Result<Receipt, Refused>) {
        if let Err(Refused { error: PublishError::Busy { retry_after }, publish: Some(publish), .. }) =
            outcome
        {
            let at = Instant::now() + retry_after;
            self.waiting = Some(Box::new(Waiting::TakeBusy { publish: *publish, taken, at }));
            return;
        }
        let result = outcome.map_err(|refused| refused.error);
        self.connection.handle_published(taken.number, Qos::ExactlyOnce, &result);
    }

    /// The client has released a QoS 2 publish that is kept.
    pub(super) fn free(&mut self, packet_id: u16) {
        match self.hosted.session.name_taken(self.connection.number(), packet_id) {
            Some(taken) => {
                let freed = self.inner.broker.free_taken(taken);
                self.waiting = Some(Box::new(Waiting::Free { freed, packet_id }));
            }
            // Another connection has the session.
            None => self.connection.handle_freed(packet_id),
        }
    }

    pub(super) fn handle_accepted(&mut self, packet_id: u16, qos: Qos, outcome: Result<Receipt, Refused>) {
        let result = match outcome {
            Err(Refused { error: PublishError::Busy { retry_after }, publish: Some(publish), .. }) => {
                let publishing = Publishing { publish: *publish, packet_id, qos };
                self.waiting = Some(Box::new(Waiting::Busy(publishing, Instant::now() + retry_after)));
                return;
            }
            result => result.map_err(|refused| refused.error),
        };
        self.connection.handle_published(packet_id, qos, &result);
    }

    /// Tries a publish again that found the broker busy, once it is time.
    pub(super) fn try_again(&mut self, now: Instant) {
        if self.waiting.as_ref().and_then(|waiting| waiting.due()).is_none_or(|at| at > now) {
            return;
        }
        match self.waiting.take().map(|waiting| *waiting) {
            Some(Waiting::Busy(publishing, _)) => self.publish_allowed(publishing),
            Some(Waiting::TakeBusy { publish, taken, .. }) => {
                self.publish_exactly(publish, taken.number, Some(taken));
            }
            other => self.waiting = other.map(Box::new),
        }
    }

    /// Goes on with what has been answered by now; false if nothing was.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Poll::Ready(answered)) = self.waiting.as_deref_mut().map(|waiting| waiting.poll(cx)) else {
            return false;
        };
        self.note_pause(Instant::now());
        match (answered, self.waiting.take().map(|waiting| *waiting)) {
            (Answered::Publish(Ok(publish)), Some(Waiting::Publish { taken: Some(taken), .. }))
                if !publish.channel().is_the_brokers_own() =>
            {
                self.publish_exactly(publish, taken.number, Some(taken));
            }
            (Answered::Publish(decided), Some(Waiting::Publish { packet_id, qos, .. })) => {
                self.handle_decided(packet_id, qos, decided);
            }
            (Answered::Record(freed), Some(Waiting::Free { packet_id, .. })) => match freed {
                Ok(()) => self.connection.handle_freed(packet_id),
                Err(error) => {
                    self.connection.close(unrecorded(&error), Some("the release was not recorded"));
                }
            },
            (Answered::Subscribe(decided), Some(Waiting::Subscribe { mut subscribing, .. })) => {
                if let Some(accepted) = subscribing.accepted.get_mut(subscribing.done) {
                    self.enter(accepted, decided);
                }
                if let Some(subscribing) = self.settle(subscribing) {
                    self.connection.put_back(Output::Subscribe(subscribing));
                }
            }
            (Answered::Settle(settled), Some(Waiting::Settle { mut subscribing, .. })) => {
                if let Some(accepted) = subscribing.accepted.get_mut(subscribing.done) {
                    self.note_settled(accepted, settled);
                }
                subscribing.done += 1;
                self.connection.put_back(Output::Subscribe(subscribing));
            }
            (Answered::Record(recorded), Some(Waiting::Subscribed { subscribing, .. })) => {
                self.handle_recorded(subscribing, recorded);
            }
            (Answered::Record(recorded), Some(Waiting::Unsubscribed { unsuback, .. })) => match recorded {
                Ok(()) => {
                    self.answers += 1;
                    self.replies.extend_from_slice(&unsuback);
                }
                Err(error) => self.connection.close(unrecorded(&error), Some("the session was not recorded")),
            },
            _ => {}
        }
        true
    }

    /// The subscriptions of a SUBSCRIBE are recorded, or they are none.
    fn handle_recorded(&mut self, mut subscribing: Subscribing, recorded: Result<(), RecordError>) {
        match recorded {
            Ok(()) => {}
            Err(RecordError::Fenced) => {
                return self
                    .connection
                    .close(Reason::SessionTakenOver, Some("the session was claimed elsewhere"));
            }
            Err(_) => {
                for accepted in subscribing.accepted.iter_mut().filter(|accepted| accepted.failed.is_none()) {
                    let retry_after = std::time::Duration::from_secs(5);
                    self.note_settled(
                        accepted,
                        Err(SubscribeError::Unavailable { what: "store", retry_after }),
                    );
                }
            }
        }
        self.answer_subscribe(subscribing);
    }

    fn answer_subscribe(&mut self, subscribing: Subscribing) {
        self.hosted.subscriber.end_request();
        self.answers += 1;
        self.connection.handle_subscribed(steady_ms(), subscribing, &mut &self.outbox);
    }

    /// Tells the broker a turn's worth; false if there is more.
    pub(super) fn subscribe(&mut self, mut subscribing: Subscribing) -> bool {
        self.send_replies();
        if subscribing.done == 0 {
            self.hosted.subscriber.begin_request();
        }
        let remote = self.inner.broker.policy().and_then(|_| self.remote());
        let end = subscribing.accepted.len().min(subscribing.done + MAX_BATCH);
        while subscribing.done < end
            && let Some(accepted) = subscribing.accepted.get_mut(subscribing.done)
        {
            let decided = match self.inner.broker.policy() {
                None => Ok(()),
                Some(policy) => {
                    match policy.subscribe(&self.client(remote), &accepted.target.filter).if_now() {
                        Ok(decided) => decided,
                        Err(decision) => {
                            self.waiting = Some(Box::new(Waiting::Subscribe { decision, subscribing }));
                            return false;
                        }
                    }
                }
            };
            self.enter(accepted, decided);
            match self.settle(subscribing) {
                Some(settled) => subscribing = settled,
                None => return false,
            }
        }
        if subscribing.done < subscribing.accepted.len() {
            self.connection.put_back(Output::Subscribe(subscribing));
            return false;
        }
        let number = self.connection.number();
        if let Some(recorded) = keeping::subscribed(&self.inner, &self.hosted, number) {
            self.waiting = Some(Box::new(Waiting::Subscribed { recorded, subscribing }));
            return false;
        }
        self.answer_subscribe(subscribing);
        true
    }

    /// Tells the broker of a filter, unless a policy denies it.
    fn enter(&self, accepted: &mut Accepted, decided: Result<(), Denied>) {
        if let Err(denied) = decided {
            accepted.failed = Some(denied.into());
            return;
        }
        let target = &accepted.target;
        let result = match &target.group {
            Some(group) => groups::join(&self.inner, &self.hosted, (group, &target.filter), accepted.tag),
            None => keeping::subscribe(&self.inner, &self.hosted, self.connection.number(), accepted),
        };
        accepted.failed = result.err();
    }

    /// Goes on to the next filter once publishers everywhere reach this one; `None` while they do not yet.
    fn settle(&mut self, mut subscribing: Subscribing) -> Option<Subscribing> {
        if let Some(accepted) = subscribing.accepted.get_mut(subscribing.done)
            && accepted.failed.is_none()
        {
            match self.settled(accepted).if_now() {
                Ok(settled) => self.note_settled(accepted, settled),
                Err(settled) => {
                    self.waiting = Some(Box::new(Waiting::Settle { settled, subscribing }));
                    return None;
                }
            }
        }
        subscribing.done += 1;
        Some(subscribing)
    }

    /// Resolves once publishers everywhere reach a subscription, or its group.
    fn settled(&self, accepted: &Accepted) -> Answer<'static, Result<(), SubscribeError>> {
        let settled = self.inner.broker.settled(&accepted.target.filter);
        let Some(group) = accepted.target.group.as_ref() else { return settled };
        if !self.inner.broker.shares(&accepted.target.filter) {
            return settled;
        }
        let (inner, hosted) = (self.inner.clone(), self.hosted.clone());
        let named = (group.clone(), accepted.target.filter.clone());
        Answer::later(async move {
            settled.await?;
            group_work::begin(&inner, &hosted, &named, None).await
        })
    }

    /// A new subscription that others do not reach is none; one that was there stays as it was.
    fn note_settled(&self, accepted: &mut Accepted, settled: Result<(), SubscribeError>) {
        let Err(error) = settled else { return };
        if accepted.new {
            let gone = (accepted.target.clone(), accepted.tag);
            self.inner.forget(&self.hosted, std::slice::from_ref(&gone));
        }
        accepted.failed = Some(error);
    }
}

/// What a client is told whose session was not recorded.
fn unrecorded(error: &RecordError) -> Reason {
    if *error == RecordError::Fenced { Reason::SessionTakenOver } else { Reason::ImplementationSpecific }
}
