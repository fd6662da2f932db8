//! The life of one connection: feed the protocol one input, do everything it wants, wait.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use broker_core::{Class, CloseReason, Echo, Outbox, PublishError, unix_ms};
use bytes::BytesMut;
use link::{Event, Link};
use tokio::time::Sleep;

use super::goodbye::with_close_frame;
use super::input::{Control, Input};
use super::sessions::Hosted;
use crate::auth::{Exchange, Step};
use crate::codec::{DecodeError, Reason};
use crate::front::{Admission, Inner};
use crate::protocol::{Authenticating, Connection, End, Output, Publishing, Subscribing, Verdict};

/// One connection's task.
pub(crate) struct Driver {
    inner: Arc<Inner>,
    connection: Connection,
    hosted: Arc<Hosted>,
    /// The connection's number in its session.
    number: u64,
    outbox: Arc<Outbox>,
    /// Replies that leave together at the end of a batch.
    replies: BytesMut,
    /// A publish the broker was too busy for, and when to try again. Nothing is read meanwhile.
    refused: Option<Box<(Publishing, Instant)>>,
    /// A re-authentication under way.
    reauthentication: Option<Box<Reauthentication>>,
    _admission: Admission,
}

/// The exchange, and what the client said last. Nothing else is handled until it is answered.
struct Reauthentication {
    exchange: Box<dyn Exchange>,
    said: Option<Box<[u8]>>,
}

/// Packets handled before the host's other tasks get a turn.
const MAX_BATCH: usize = 64;

/// How soon a connection whose replies the client does not read is looked at again.
const CONGESTION_PAUSE: Duration = Duration::from_millis(20);

/// Whether there may be more whole packets in the input.
enum Progress {
    More,
    Starved,
    Blocked,
    Ended(End),
}

enum Wake {
    Event(Event),
    Due,
}

impl Driver {
    pub(crate) fn new(
        inner: Arc<Inner>,
        connection: Connection,
        hosted: Arc<Hosted>,
        number: u64,
        outbox: Arc<Outbox>,
        admission: Admission,
    ) -> Self {
        Self {
            inner,
            connection,
            hosted,
            number,
            outbox,
            replies: BytesMut::new(),
            refused: None,
            reauthentication: None,
            _admission: admission,
        }
    }

    pub(crate) async fn run(mut self, mut link: Link, mut input: Input) {
        let end = self.drive(&mut link, &mut input).await;
        drop(input);
        let Self { inner, hosted, number, _admission, connection, .. } = self;
        inner.counters.received.add(connection.received_publishes());
        drop(connection);
        inner.conclude(&hosted, number, end);
        let linger = inner.shared.config.linger;
        // The session may be over: its subscriptions must not wait for a client that lingers.
        drop((hosted, inner));
        link.finish(linger).await;
    }

    async fn drive(&mut self, link: &mut Link, input: &mut Input) -> End {
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            let progress = self.handle_input(input);
            self.send_replies();
            if self.is_authenticating() {
                // Boxed: few connections ever come here, and all pay for the size of this future.
                Box::pin(self.step()).await;
                if let Some(end) = self.perform() {
                    return end;
                }
                continue;
            }
            let blocked = match progress {
                Progress::Ended(end) => return end,
                _ if self.refused.is_some() => self.refused.as_ref().map(|refused| refused.1),
                _ if self.is_congested() => Some(Instant::now() + CONGESTION_PAUSE),
                Progress::More => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Progress::Starved | Progress::Blocked => None,
            };
            link.pause_reading(blocked.is_some());
            let due = blocked.or_else(|| self.connection.poll_timeout());
            match wait(link, input, timer.as_mut(), due).await {
                Wake::Event(Event::Read(_)) => self.connection.handle_sign_of_life(Instant::now()),
                Wake::Event(Event::Woken) => {}
                Wake::Event(Event::Eof | Event::Failed(_) | Event::Stalled) => return End::Lost,
                Wake::Event(Event::Closed(reason)) => return end_of(reason),
                Wake::Due => {
                    let now = Instant::now();
                    if blocked.is_some() {
                        // Silence while nothing was read is not the client's.
                        self.connection.handle_sign_of_life(now);
                        self.try_again(now);
                    } else {
                        self.connection.handle_timeout(now);
                    }
                    if let Some(end) = self.perform() {
                        self.send_replies();
                        return end;
                    }
                }
            }
        }
    }

    fn handle_input(&mut self, input: &mut Input) -> Progress {
        if self.refused.is_some() {
            return Progress::Blocked;
        }
        while let Some(control) = input.unframe() {
            match control {
                Control::Reply(frame) => self.replies.extend_from_slice(&frame),
                Control::Close(frame) => {
                    // Packets that came before the close frame still count.
                    let end = self.handle_packets(input, usize::MAX);
                    self.send_replies();
                    self.outbox.send_last(frame);
                    return match end {
                        Progress::Ended(end) => Progress::Ended(end),
                        _ => Progress::Ended(End::Lost),
                    };
                }
            }
        }
        self.handle_packets(input, MAX_BATCH)
    }

    fn handle_packets(&mut self, input: &mut Input, max: usize) -> Progress {
        let version = self.connection.dialect().version;
        let max_packet_bytes = self.inner.shared.config.max_packet_bytes;
        let mut now_ms = None;
        for _ in 0..max {
            let whole = match input.next(Some(version), max_packet_bytes) {
                Ok(Some(whole)) => whole,
                Ok(None) => return Progress::Starved,
                Err(error) => {
                    self.connection.handle_error(&error);
                    return self.perform().map_or(Progress::Starved, Progress::Ended);
                }
            };
            match input.parse(&whole, version) {
                Ok(packet) => {
                    let now_ms = *now_ms.get_or_insert_with(unix_ms);
                    self.connection.handle_packet(now_ms, packet, whole.buffer(), &mut &self.outbox);
                }
                Err(error) => self.connection.handle_error(&error),
            }
            input.done(&whole);
            if let Some(end) = self.perform() {
                return Progress::Ended(end);
            }
            if self.refused.is_some() || self.is_authenticating() {
                return Progress::Blocked;
            }
        }
        Progress::More
    }

    fn is_authenticating(&self) -> bool {
        self.reauthentication.as_ref().is_some_and(|again| again.said.is_some())
    }

    fn begin_step(&mut self, authenticating: Authenticating) {
        if authenticating.begins {
            let mechanism = self.connection.auth_method().and_then(|method| self.inner.mechanism(method));
            self.reauthentication = mechanism.map(|mechanism| {
                let exchange = mechanism.begin(self.hosted.session.client_id());
                Box::new(Reauthentication { exchange, said: None })
            });
        }
        match &mut self.reauthentication {
            Some(again) => again.said = Some(authenticating.data),
            None => {
                let error = DecodeError::protocol("AUTH continues an exchange that was not begun");
                self.connection.handle_error(&error);
            }
        }
    }

    async fn step(&mut self) {
        let Some(again) = &mut self.reauthentication else { return };
        let said = again.said.take().unwrap_or_default();
        let verdict = match again.exchange.step(&said).await {
            Step::Continue(data) => Verdict::Continue(data),
            Step::Done { principal, data } => {
                self.reauthentication = None;
                Verdict::Done(principal, data)
            }
            Step::Failed(_) => Verdict::Failed,
        };
        let gone = self.connection.handle_authenticated(verdict);
        self.inner.forget(&self.hosted, &gone);
    }

    /// Does what the protocol wants; `Some` when the connection is to end.
    fn perform(&mut self) -> Option<End> {
        while let Some(output) = self.connection.poll_output() {
            match output {
                Output::Reply(packet) => self.replies.extend_from_slice(&packet),
                Output::Publish(publishing) => self.publish(publishing),
                Output::Subscribe(subscribing) => self.subscribe(subscribing),
                Output::Unsubscribe(unsubscribing) => {
                    self.inner.forget(&self.hosted, &unsubscribing.gone);
                    self.replies.extend_from_slice(&unsubscribing.reply);
                }
                Output::Authenticate(authenticating) => self.begin_step(authenticating),
                Output::Close(last, end) => {
                    self.send_replies();
                    let framing = self.connection.dialect().framing;
                    let reason = match end {
                        End::Closed(reason) => reason,
                        End::Goodbye | End::Lost => Reason::Success,
                    };
                    self.outbox.send_last(with_close_frame(framing, last, reason, self.connection.why()));
                    return Some(end);
                }
            }
        }
        None
    }

    fn publish(&mut self, publishing: Publishing) {
        let publish = publishing.publish.clone().from(self.hosted.subscriber.key(), Echo::Deliver);
        let result = self.inner.broker.publish(publish);
        if let Err(PublishError::Busy { retry_after }) = result {
            self.refused = Some(Box::new((publishing, Instant::now() + retry_after)));
            return;
        }
        self.connection.handle_published(publishing.packet_id, publishing.qos, &result);
    }

    fn try_again(&mut self, now: Instant) {
        match self.refused.take() {
            Some(refused) if refused.1 <= now => self.publish(refused.0),
            refused => self.refused = refused,
        }
    }

    fn subscribe(&mut self, mut subscribing: Subscribing) {
        self.send_replies();
        for accepted in &mut subscribing.accepted {
            let subscriber = &self.hosted.subscriber;
            let target = &accepted.target;
            let result = match &target.group {
                Some(group) => subscriber.join_group(group, &target.filter, accepted.tag),
                None => subscriber.subscribe(&target.filter, accepted.tag, accepted.start),
            };
            match result {
                Ok(_) if target.group.is_some() => self.inner.groups.join(&accepted.name, &self.hosted),
                Ok(_) => {}
                Err(error) => accepted.failed = Some(error),
            }
        }
        self.connection.handle_subscribed(unix_ms(), subscribing, &mut &self.outbox);
    }

    fn send_replies(&mut self) {
        if !self.replies.is_empty() {
            let replies = std::mem::take(&mut self.replies).freeze();
            self.outbox.send(replies, Class::Control);
        }
    }

    /// The client sends but does not read: its replies must not pile up to the outbox's bound.
    fn is_congested(&self) -> bool {
        let queued = self.outbox.queued();
        let bounds = &self.inner.shared.config.outbox;
        queued.messages > bounds.max_messages / 2 || queued.bytes > bounds.max_bytes / 2
    }
}

/// Waits for the link or for `due`. The timer is only moved when it is late, or has run out and found
/// nothing to do: a busy connection does not touch it for each packet.
async fn wait(link: &mut Link, input: &mut Input, mut timer: Pin<&mut Sleep>, due: Option<Instant>) -> Wake {
    if let Some(due) = due {
        let due = due.into();
        if timer.is_elapsed() || due < timer.deadline() {
            timer.as_mut().reset(due);
        }
    }
    poll_fn(|cx| {
        if let Poll::Ready(event) = link.poll_next(input.buffer(), cx) {
            return Poll::Ready(Wake::Event(event));
        }
        if due.is_some() && timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Wake::Due);
        }
        Poll::Pending
    })
    .await
}

fn end_of(reason: CloseReason) -> End {
    match reason {
        CloseReason::Shutdown => End::Closed(Reason::ServerShuttingDown),
        CloseReason::Overflow => End::Closed(Reason::QuotaExceeded),
        CloseReason::Kicked => End::Closed(Reason::AdministrativeAction),
        CloseReason::TakenOver => End::Closed(Reason::SessionTakenOver),
        CloseReason::Finished | CloseReason::Failed => End::Lost,
    }
}
