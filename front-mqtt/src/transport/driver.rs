//! The life of one connection: feed the protocol one input, do everything it wants, wait.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use broker_core::{Class, Client, Outbox, OutboxEnd, steady_ms, unix_ms};
use bytes::Bytes;
use link::{Link, LinkEvent};
use tokio::time::Sleep;

use super::acks::{Ack, Acks};
use super::goodbye::with_close_frame;
use super::input::{Control, Input};
use super::keeping;
use super::sessions::Hosted;
use super::waiting::{Left, Waiting};
use crate::auth::{Exchange, Step};
use crate::codec::{DecodeError, Reason};
use crate::front::{Admission, Inner};
use crate::protocol::{Authenticating, Backlog, Connection, End, Output, Unsubscribing, Verdict};

/// One connection: all its task holds while it is idle, so every byte counts.
pub(crate) struct Driver {
    pub(super) inner: Arc<Inner>,
    pub(super) connection: Connection,
    pub(super) hosted: Arc<Hosted>,
    pub(super) outbox: Arc<Outbox>,
    link: Link,
    pub(super) input: Input,
    /// Replies that leave together at the end of a batch.
    pub(super) replies: Vec<u8>,
    /// How many those are, and SUBACKs that went before them.
    pub(super) answers: u32,
    /// What has to be done before more is handled. Nothing is read meanwhile.
    pub(super) waiting: Option<Box<Waiting>>,
    /// What is answered once those before it are.
    pub(super) acks: Acks,
    /// A re-authentication under way.
    reauthentication: Option<Box<Reauthentication>>,
    /// The session has a backlog, which is sent as the client reads.
    has_backlog: bool,
    /// Somebody called [`Outbox::notify`], perhaps to have all input handled.
    is_woken: bool,
    /// The client sends nothing more.
    pub(super) has_ended: bool,
    admission: Admission,
}

/// What a new connection's task is made of.
pub(crate) struct Parts {
    pub(crate) connection: Connection,
    pub(crate) hosted: Arc<Hosted>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) admission: Admission,
}

/// The exchange, between steps or in one. Nothing else is handled during a step.
enum Reauthentication {
    Waiting(Box<dyn Exchange>),
    Stepping(Stepping),
}

type Stepping = Pin<Box<dyn Future<Output = (Box<dyn Exchange>, Step)> + Send>>;

/// Packets, control frames and filters of one packet handled before the host's other tasks get a turn, however they
/// arrive.
pub(super) const MAX_BATCH: usize = 64;

/// How soon a connection whose replies the client does not read is looked at again.
const CONGESTION_PAUSE: Duration = Duration::from_millis(20);

/// Whether there may be more whole packets in the input.
enum Progress {
    More,
    Starved,
    Blocked,
    Ended(End),
}

impl Driver {
    pub(crate) fn new(inner: Arc<Inner>, parts: Parts, link: Link, input: Input) -> Self {
        let Parts { connection, hosted, outbox, admission } = parts;
        hosted.received_bytes.store(0, Ordering::Relaxed);
        Self {
            inner,
            connection,
            hosted,
            outbox,
            link,
            input,
            replies: Vec::new(),
            answers: 0,
            waiting: None,
            acks: None,
            reauthentication: None,
            has_backlog: false,
            is_woken: false,
            has_ended: false,
            admission,
        }
    }

    /// The connection's life, its end included.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
    pub(crate) fn run(mut self) -> impl Future<Output = ()> + Send {
        async move {
            let end = {
                let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
                poll_fn(|cx| self.poll(timer.as_mut(), cx)).await
            };
            // Boxed, so that nobody pays for it before the end.
            self.finish(end).await;
        }
    }

    fn finish(self, end: End) -> Pin<Box<impl Future<Output = ()> + Send>> {
        let Self { inner, hosted, admission, connection, link, outbox, acks, waiting, .. } = self;
        let number = connection.number();
        let leaving = inner
            .conclude(&hosted, number, end)
            .then(|| keeping::leave(inner.clone(), hosted.clone(), number));
        // A QoS 2 publish was taken when it came: its repeat would be answered and not published.
        let left = acks.into_iter().flat_map(|acks| acks.into_iter().filter_map(Ack::left));
        let last = waiting.and_then(|waiting| waiting.left(&inner.broker));
        for Left { packet_id, outcome } in left.chain(last) {
            inner.publish_left(&hosted, packet_id, outcome);
        }
        let linger = inner.shared.config.linger;
        // The session may be over: its subscriptions must not wait for a client that lingers.
        drop((hosted, connection, inner));
        Box::pin(async move {
            if let Some(leaving) = leaving {
                leaving.await;
            }
            link.finish(linger).await;
            admission.conclude(outbox.passed().bytes);
        })
    }

    fn poll(&mut self, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<End> {
        let mut budget = MAX_BATCH;
        loop {
            if self.poll_step(cx).is_pending() {
                return Poll::Pending;
            }
            let progress = match self.perform() {
                Some(end) => Progress::Ended(end),
                None if self.connection.has_output() => Progress::More,
                None => self.handle_input(&mut budget),
            };
            self.send_replies();
            let backlog = if self.has_backlog { self.send_backlog() } else { Backlog::Empty };
            let progress = match progress {
                Progress::Ended(end) => Progress::Ended(end),
                _ if backlog == Backlog::Overrun => self.overrun(),
                other => other,
            };
            let blocked = match progress {
                Progress::Ended(end) => return Poll::Ready(end),
                _ if self.is_stepping() => continue,
                _ if self.poll_acks(cx) => continue,
                _ if self.waiting.is_some() => {
                    if self.poll_answer(cx) {
                        continue;
                    }
                    Some(self.waiting.as_ref().and_then(|waiting| waiting.due()))
                }
                _ if self.is_held() => Some(None),
                _ if self.is_congested() => Some(Some(Instant::now() + CONGESTION_PAUSE)),
                Progress::More => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Progress::Starved | Progress::Blocked if backlog == Backlog::More => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Progress::Starved | Progress::Blocked => None,
            };
            self.link.pause_reading(blocked.is_some());
            if let Poll::Ready(event) = self.link.poll_next(self.input.buffer(), cx) {
                match event {
                    LinkEvent::Read(bytes) => {
                        self.inner.traffic.of(&self.hosted).bytes_received.add(bytes as u64);
                        self.hosted.note_bytes(bytes);
                        self.connection.handle_sign_of_life(Instant::now());
                    }
                    LinkEvent::Woken => {
                        self.has_backlog = true;
                        self.is_woken = true;
                    }
                    // It may still read what it waits for.
                    LinkEvent::Eof if self.acks.is_some() => self.has_ended = true,
                    LinkEvent::Eof | LinkEvent::Failed(_) | LinkEvent::Stalled => {
                        return Poll::Ready(End::Lost);
                    }
                    LinkEvent::Closed(reason) => return Poll::Ready(end_of(reason)),
                }
                continue;
            }
            if std::mem::take(&mut self.is_woken) {
                self.hosted.session.note_drained(self.connection.number());
            }
            let late = match blocked {
                Some(_) => None,
                None => match self.wait_for_rest(cx) {
                    Ok(late) => late,
                    Err(error) => {
                        self.connection.handle_error(&error);
                        continue;
                    }
                },
            };
            let mut due = match blocked {
                Some(due) => due,
                None => self.connection.poll_timeout().into_iter().chain(late).min(),
            };
            if backlog == Backlog::NoRoom {
                let soon = Instant::now() + CONGESTION_PAUSE;
                due = Some(due.map_or(soon, |due| due.min(soon)));
            }
            let Some(due) = due else { return Poll::Pending };
            // The timer is only moved when it is late, or has run out and found nothing to do: a busy
            // connection does not touch it for each packet.
            if timer.is_elapsed() || tokio::time::Instant::from(due) < timer.deadline() {
                timer.as_mut().reset(due.into());
            }
            ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            if blocked.is_some() {
                self.note_pause(now);
                self.try_again(now);
            } else {
                self.connection.handle_timeout(now);
            }
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.link.is_paused()
    }

    /// Silence while nothing was read is not the client's.
    pub(super) fn note_pause(&mut self, now: Instant) {
        self.connection.handle_sign_of_life(now);
        self.input.was_paused(now);
    }

    fn wait_for_rest(&mut self, cx: &mut Context<'_>) -> Result<Option<Instant>, DecodeError> {
        self.input.wait_for_rest(&self.inner.shared.config.intake, self.connection.last_heard(), cx)
    }

    /// Handles what has come, as far as the budget goes.
    fn handle_input(&mut self, budget: &mut usize) -> Progress {
        if self.waiting.is_some() || self.is_held() {
            return Progress::Blocked;
        }
        while *budget > 0
            && let Some(control) = self.input.unframe()
        {
            *budget -= 1;
            match control {
                Control::Reply(frame) => self.replies.extend_from_slice(&frame),
                Control::Close(frame) => self.input.end_with(&frame),
            }
        }
        let before = *budget;
        let progress = self.handle_packets(budget);
        let handled = before - *budget;
        if handled > 0 {
            self.inner.traffic.of(&self.hosted).packets_received.add(handled as u64);
        }
        // Packets that came before the close frame still count.
        if let (Progress::Starved, Some(last)) = (&progress, self.input.last()) {
            self.send_replies();
            self.outbox.send_last(last);
            return Progress::Ended(End::Lost);
        }
        progress
    }

    fn handle_packets(&mut self, budget: &mut usize) -> Progress {
        let version = self.connection.dialect().version;
        let max_packet_bytes = self.inner.shared.config.max_packet_bytes;
        let mut now_ms = None;
        while *budget > 0 {
            if self.is_held() {
                return Progress::Blocked;
            }
            let whole = match self.input.next(Some(version), max_packet_bytes) {
                Ok(Some(whole)) => whole,
                Ok(None) => return Progress::Starved,
                Err(error) => {
                    self.connection.handle_error(&error);
                    return self.perform().map_or(Progress::Starved, Progress::Ended);
                }
            };
            *budget -= 1;
            match self.input.parse(&whole, version) {
                Ok(packet) => {
                    let now_ms = *now_ms.get_or_insert_with(steady_ms);
                    self.connection.handle_packet(now_ms, packet, whole.buffer(), &mut &self.outbox);
                }
                Err(error) => self.connection.handle_error(&error),
            }
            self.input.done(&whole);
            if let Some(end) = self.perform() {
                return Progress::Ended(end);
            }
            if self.waiting.is_some() || self.is_stepping() {
                return Progress::Blocked;
            }
            if self.connection.has_output() {
                return Progress::More;
            }
        }
        Progress::More
    }

    fn send_backlog(&mut self) -> Backlog {
        let left = self.connection.handle_backlog(steady_ms(), &mut &self.outbox);
        self.has_backlog = left != Backlog::Empty;
        left
    }

    /// The client reads so slowly that it is told to come back.
    fn overrun(&mut self) -> Progress {
        if let Some(queued) = self.connection.handle_overrun(Instant::now()) {
            tracing::warn!(
                client_id = self.hosted.session.client_id(),
                messages = queued.messages,
                bytes = queued.bytes,
                "an MQTT client reads too slowly and is disconnected; more waits for it than mqtt.max_live_queued_messages or _bytes",
            );
        }
        self.perform().map_or(Progress::Starved, Progress::Ended)
    }

    fn is_stepping(&self) -> bool {
        matches!(self.reauthentication.as_deref(), Some(Reauthentication::Stepping(_)))
    }

    fn begin_step(&mut self, authenticating: Authenticating) {
        let known = match self.reauthentication.take().map(|again| *again) {
            Some(Reauthentication::Waiting(exchange)) if !authenticating.begins => Some(exchange),
            _ if authenticating.begins => self
                .connection
                .auth_method()
                .and_then(|method| self.inner.mechanism(method))
                .map(|mechanism| mechanism.begin(self.hosted.session.client_id())),
            _ => None,
        };
        let Some(mut exchange) = known else {
            let error = DecodeError::protocol("AUTH continues an exchange that was not begun");
            return self.connection.handle_error(&error);
        };
        let (hosted, connection) = (self.hosted.clone(), self.connection.number());
        let step = async move {
            let step = exchange.step(&authenticating.data).await;
            if let Step::Done { principal, .. } = &step
                && hosted.renew_rights(connection, principal)
            {
                // What the old rights allowed comes before the answer, and nothing of it afterwards.
                hosted.subscriber.heard().await;
            }
            (exchange, step)
        };
        self.reauthentication = Some(Box::new(Reauthentication::Stepping(Box::pin(step))));
    }

    /// Ready once no step is under way.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(Reauthentication::Stepping(step)) = self.reauthentication.as_deref_mut() else {
            return Poll::Ready(());
        };
        let (exchange, step) = ready!(step.as_mut().poll(cx));
        self.reauthentication = None;
        let verdict = match step {
            Step::Continue(data) => {
                self.reauthentication = Some(Box::new(Reauthentication::Waiting(exchange)));
                Verdict::Continue(data)
            }
            Step::Done { principal, data } => Verdict::Done(principal, data),
            Step::Failed(_) => Verdict::Failed,
        };
        let gone = self.connection.handle_authenticated(verdict);
        self.connection.expire(Instant::now(), unix_ms());
        self.inner.forget(&self.hosted, &gone);
        Poll::Ready(())
    }

    /// Does what the protocol wants; `Some` when the connection is to end.
    fn perform(&mut self) -> Option<End> {
        while let Some(output) = self.connection.poll_output() {
            match output {
                Output::Reply(packet) => self.reply(packet),
                Output::Publish(publishing) => self.publish(publishing),
                Output::Free(packet_id) => self.free(packet_id),
                Output::Subscribe(subscribing) => {
                    if !self.subscribe(subscribing) {
                        return None;
                    }
                }
                Output::Unsubscribe(unsubscribing) => {
                    if !self.unsubscribe(unsubscribing) {
                        return None;
                    }
                }
                Output::Authenticate(authenticating) => self.begin_step(authenticating),
                // What was accepted is acknowledged first.
                Output::Close(..) if self.acks.is_some() => {
                    self.connection.put_back(output);
                    return None;
                }
                Output::Close(last, end) => {
                    self.answers += u32::from(!last.is_empty());
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

    /// Who is asked about.
    pub(super) fn client(&self, remote: Option<IpAddr>) -> Client<'_> {
        let mut given = Client::new(self.connection.principal(), "mqtt");
        given.client_id = Some(self.hosted.session.client_id());
        given.key = Some(self.hosted.subscriber.key());
        given.remote = remote;
        given
    }

    pub(super) fn remote(&self) -> Option<IpAddr> {
        let state = self.hosted.session.lock_as(self.connection.number())?;
        state.online.as_ref()?.caller.remote
    }

    /// Tells the broker a turn's worth; false if there is more.
    fn unsubscribe(&mut self, mut unsubscribing: Unsubscribing) -> bool {
        if unsubscribing.done == 0 {
            self.hosted.subscriber.begin_request();
        }
        let rest = unsubscribing.gone.get(unsubscribing.done..).unwrap_or_default();
        let turn = rest.get(..MAX_BATCH).unwrap_or(rest);
        self.inner.forget(&self.hosted, turn);
        unsubscribing.done += turn.len();
        if unsubscribing.done < unsubscribing.gone.len() {
            self.connection.put_back(Output::Unsubscribe(unsubscribing));
            return false;
        }
        self.hosted.subscriber.end_request();
        if let Some((_, recorded)) = keeping::record(&self.inner, &self.hosted) {
            let unsuback = unsubscribing.reply;
            self.waiting = Some(Box::new(Waiting::Unsubscribed { recorded, unsuback }));
            return false;
        }
        self.answers += 1;
        self.replies.extend_from_slice(&unsubscribing.reply);
        true
    }

    pub(super) fn send_replies(&mut self) {
        if self.answers > 0 {
            let answers = std::mem::take(&mut self.answers);
            self.inner.traffic.of(&self.hosted).answers.add(u64::from(answers));
        }
        if !self.replies.is_empty() {
            let replies = Bytes::from(std::mem::take(&mut self.replies));
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

fn end_of(reason: OutboxEnd) -> End {
    match reason {
        OutboxEnd::Shutdown => End::Closed(Reason::ServerShuttingDown),
        OutboxEnd::Overflow => End::Closed(Reason::QuotaExceeded),
        OutboxEnd::Kicked => End::Closed(Reason::AdministrativeAction),
        OutboxEnd::TakenOver => End::Closed(Reason::SessionTakenOver),
        OutboxEnd::Broken => End::Closed(Reason::ImplementationSpecific),
        // `Finished`, `Failed`, and what is not known here.
        _ => End::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of<F>(_: fn(Driver) -> F) -> usize {
        size_of::<F>()
    }

    /// Ten thousand idle connections pay ten thousand times for what is added here.
    #[test]
    fn an_idle_connection_is_small() {
        let task = bytes_of(Driver::run);
        assert!(task <= 464, "{task}");
        let session = size_of::<crate::protocol::Session>();
        assert!(session <= 240, "{session}");
    }
}
