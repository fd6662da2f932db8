//! The task that puts frames into the stream, each until it is known that it is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::publish::PublishAck;
use broker_core::{Channel, KeyedReceipt, MessageId, PublishError, PublishOnceError, Receipt, Unavailable};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::frame::{self, Content};
use super::queue::{Answers, Outgoing, Queue, Released, size_of};
use super::stream::{ATTEMPT, SOON, Streams};
use crate::stats::one_more;
use crate::subject::MAX_BYTES;

/// How long a publish is tried: choosing another leader takes some seconds.
const TRY_FOR: Duration = Duration::from_secs(20);

const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// How long what is stored may take to come back before its publisher is answered.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// How often a message is looked for that is stored already, at a copy that does not have it yet.
const LOOKS: u32 = 40;

/// Sends for all channels that have something.
pub(crate) async fn run(
    streams: Arc<Streams>,
    queue: Arc<Queue>,
    mut woken: mpsc::UnboundedReceiver<Channel>,
) {
    let mut channels = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            channel = woken.recv() => {
                let Some(channel) = channel else { return };
                channels.push(send_all(&streams, &queue, channel));
            }
            Some(()) = channels.next(), if !channels.is_empty() => {}
        }
    }
}

/// Sends what a channel has, a frame at a time.
async fn send_all(streams: &Streams, queue: &Queue, channel: Channel) {
    while let Some(group) = queue.next(&channel) {
        let (operations, bytes) = size_of(&group);
        match queue.pack(&channel, group) {
            Ok(outgoing) => send(streams, queue, outgoing).await,
            Err(answers) => {
                // Each byte takes three in a subject at most.
                let (bytes, max) = (channel.as_str().len(), MAX_BYTES / 3 - 64);
                answers.refuse(&PublishError::ChannelTooLong { bytes, max });
            }
        }
        queue.answered(operations, bytes);
    }
}

/// What is known of a frame in the end.
enum Outcome {
    /// It is in the stream; `true`: something under its name was there before.
    Stored(u64, bool),
    /// It came back, though nobody said that it was stored.
    CameBack(Released),
    /// It is not in the stream.
    Refused(PublishError),
    Unknown,
}

async fn send(streams: &Streams, queue: &Queue, mut outgoing: Outgoing) {
    let outcome = try_to_store(streams, queue, &mut outgoing).await;
    let counters = &streams.node.counters;
    match outcome {
        Outcome::Stored(sequence, is_known) => {
            queue.note_acknowledged(sequence);
            one_more(&counters.kept_sent);
            answer(streams, queue, outgoing, sequence, is_known).await;
        }
        Outcome::CameBack(released) => {
            one_more(&counters.kept_sent);
            conclude(outgoing.answers, Some(released), None);
        }
        Outcome::Refused(error) => {
            queue.land(outgoing.number);
            one_more(&counters.kept_refused);
            outgoing.answers.refuse(&error);
        }
        Outcome::Unknown => {
            queue.land(outgoing.number);
            one_more(&counters.kept_refused);
            // Whoever drops an answer says that.
            outgoing.answers.refuse(&PublishError::Unknown);
        }
    }
}

/// Sends a frame, again and again under one name, until it is known what became of it.
async fn try_to_store(streams: &Streams, queue: &Queue, outgoing: &mut Outgoing) -> Outcome {
    let node = &streams.node;
    let end = Instant::now() + TRY_FOR;
    let mut connected = node.events.connected.subscribe();
    let (mut was_sent, [mut pause, max_pause]) = (false, PAUSES);
    loop {
        if queue.is_lost() {
            return if was_sent { Outcome::Unknown } else { Outcome::Refused(SOON.into()) };
        }
        connected.mark_unchanged();
        if node.is_linked() {
            let tried = tokio::select! {
                tried = timeout(ATTEMPT, publish(streams, outgoing)) => tried.ok(),
                // What was on its way to another server is lost, or there under its name.
                _ = connected.changed() => None,
            };
            match tried {
                Some(Ok(ack)) => return Outcome::Stored(ack.sequence, ack.duplicate),
                Some(Err(PublishErrorKind::MaxPayloadExceeded)) => {
                    let (bytes, max) =
                        (outgoing.frame.len(), node.client.max_payload().saturating_sub(4_096));
                    return Outcome::Refused(PublishError::TooLarge { bytes, max });
                }
                // It had nowhere to go.
                Some(Err(PublishErrorKind::StreamNotFound)) => queue.doubt.notify_one(),
                // It was refused.
                Some(Err(PublishErrorKind::Other)) => {}
                Some(Err(_)) | None => was_sent = true,
            }
        }
        if let Ok(released) = outgoing.released.try_recv() {
            return Outcome::CameBack(released);
        }
        if Instant::now() >= end {
            node.tell("durable messages are not stored: JetStream does not answer or refuses them");
            return if was_sent { Outcome::Unknown } else { Outcome::Refused(SOON.into()) };
        }
        one_more(&node.counters.kept_retries);
        sleep(pause).await;
        pause = (pause * 2).min(max_pause);
    }
}

async fn publish(streams: &Streams, outgoing: &Outgoing) -> Result<PublishAck, PublishErrorKind> {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", outgoing.name.as_str());
    let sent =
        streams.context.publish_with_headers(outgoing.subject.clone(), headers, outgoing.frame.clone());
    let stored = async { sent.await?.await };
    stored.await.map_err(|error| error.kind())
}

/// Answers whoever waits for a frame that is in the stream, once it has come back from there.
async fn answer(streams: &Streams, queue: &Queue, outgoing: Outgoing, sequence: u64, is_known: bool) {
    let Outgoing { number, answers, mut released, is_numbered, .. } = outgoing;
    if is_known && let Answers::Keyed(print, time_ms, done) = answers {
        match first_of_key(streams, sequence, number).await {
            // This node has sent it before, without an answer.
            Ok(None) => {
                let released = timeout(BACK_WITHIN, &mut released).await.ok().and_then(Result::ok);
                return conclude(
                    Answers::Keyed(print, time_ms, done),
                    released,
                    Some((streams.epoch, sequence)),
                );
            }
            first => {
                queue.land(number);
                return done.complete(again(first, print, sequence, streams.epoch));
            }
        }
    }
    let released = timeout(BACK_WITHIN, released).await.ok().and_then(Result::ok);
    if released.is_none() && (queue.is_lost() || is_known && is_numbered) {
        // It is in a stream, and not in the one that anybody reads; or it may be another's under its name.
        return answers.refuse(&PublishError::Unknown);
    }
    conclude(answers, released, Some((streams.epoch, sequence)));
}

/// What whoever publishes under a key that is known is told.
fn again(
    first: Result<Option<(frame::Print, u64)>, Unavailable>,
    print: frame::Print,
    sequence: u64,
    epoch: u64,
) -> Result<KeyedReceipt, PublishOnceError> {
    match first {
        Ok(Some((known, time_ms))) if known == print => {
            let id = MessageId::new(epoch, frame::offset(sequence, 0));
            Ok(KeyedReceipt::again(Receipt::new(Some(id), time_ms, 0)))
        }
        Ok(Some(_)) => Err(PublishOnceError::Conflict),
        Ok(None) | Err(_) => Err(PublishError::Unknown.into()),
    }
}

/// The first message under a key; `None`: it is the one with this number.
async fn first_of_key(
    streams: &Streams,
    sequence: u64,
    number: u64,
) -> Result<Option<(frame::Print, u64)>, Unavailable> {
    for _ in 0..LOOKS {
        if let Ok(Some(stored)) = streams.one(sequence).await {
            let frame = frame::read(&stored, sequence).map_err(|_| SOON)?;
            let is_own = frame.origin.life == streams.node.life && frame.origin.number == number;
            return match frame.content {
                _ if is_own => Ok(None),
                Content::Keyed(print, time_ms, _) => Ok(Some((print, time_ms))),
                _ => Err(SOON),
            };
        }
        sleep(PAUSES[0]).await;
    }
    Err(SOON)
}

/// Answers with the receipts of the release, or by the place in the stream where there are none.
fn conclude(answers: Answers, released: Option<Released>, place: Option<(u64, u64)>) {
    if matches!(released, Some(Released::Nothing)) {
        // Its session is another node's.
        return answers.refuse(&PublishError::Fenced);
    }
    let id = |at: usize| place.map(|(epoch, sequence)| MessageId::new(epoch, frame::offset(sequence, at)));
    let receipts = match &released {
        Some(Released::Messages(receipts)) => &receipts[..],
        _ => &[],
    };
    let receipt = |at: usize, time_ms: u64| {
        receipts.get(at).copied().flatten().unwrap_or_else(|| Receipt::new(id(at), time_ms, 0))
    };
    match answers {
        Answers::Publishes(publishes) => {
            for (at, (time_ms, done)) in publishes.into_iter().enumerate() {
                done.complete(Ok(KeyedReceipt::first(receipt(at, time_ms))));
            }
        }
        Answers::Keyed(_, time_ms, done) => done.complete(Ok(KeyedReceipt::first(receipt(0, time_ms)))),
        Answers::Clear(done) => done.complete(match released {
            Some(Released::Cleared(was_there)) => Ok(was_there),
            // It is in the stream, and done as soon as it comes.
            _ => Ok(true),
        }),
    }
}
