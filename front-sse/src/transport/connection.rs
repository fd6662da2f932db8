//! One stream's task. It is spawned anew once the stream is handed over, and holds nothing it does not need: there is
//! one for every idle connection.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use broker_core::{Class, CloseCause, Connection, Filter, LeaveReason, OutboxEnd, Position, Replay};
use bytes::{Bytes, BytesMut};
use link::{Link, LinkEvent};
use tokio::time::sleep_until;

use super::{Attached, Open};
use crate::codec::event;
use crate::protocol::{Output, Stream};
use crate::stats::Counters;

/// What belongs to one open stream.
pub(crate) struct Opened {
    pub(crate) attached: Arc<Attached>,
    pub(crate) stream: Stream,
    /// Its place among the open streams, until it ends.
    pub(crate) _open: Open,
}

/// How long a client may take to read the end of a stream that is closed.
const LINGER: Duration = Duration::from_secs(2);

/// How long a goodbye may wait before it is said again, in vain.
const GOODBYE_LIMIT: Duration = Duration::from_secs(60);

/// Keeps a stream until it ends. `replay` is polled beside it until the subscriber is live.
///
/// A plain function that returns its future: an `async fn` keeps its arguments twice, once as passed and once as used.
#[expect(clippy::manual_async_fn, reason = "it would be larger")]
pub(crate) fn keep(
    mut link: Link,
    mut opened: Opened,
    mut replay: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
) -> impl Future<Output = ()> + Send {
    async move {
        // Named whole, or only the fields used below would move in and the stream leave the registry at once.
        let _ = &opened;
        let mut timer = pin!(sleep_until(opened.stream.poll_timeout().into()));
        let mut input = BytesMut::new();
        loop {
            tokio::select! {
                event = link.next(&mut input) => match event {
                    // A client has nothing more to say here.
                    LinkEvent::Read(_) => input = BytesMut::new(),
                    LinkEvent::Woken => {}
                    LinkEvent::Eof => return opened.attached.leave(LeaveReason::Client),
                    LinkEvent::Failed(_) | LinkEvent::Closed(OutboxEnd::Failed) => {
                        return opened.attached.leave(LeaveReason::Lost);
                    }
                    LinkEvent::Stalled | LinkEvent::Closed(OutboxEnd::Overflow) => {
                        Counters::add(&opened.attached.front.counters.closed_slow);
                        return opened.attached.leave(LeaveReason::TooSlow);
                    }
                    LinkEvent::Closed(_) => break,
                },
                () = timer.as_mut() => {
                    let now = timer.deadline();
                    let outbox = opened.attached.subscriber.outbox();
                    let keep_alive = opened.attached.front.config.keep_alive;
                    match opened.stream.handle_timeout(now.into_std(), keep_alive) {
                        Some(Output::KeepAlive) if outbox.queued().messages == 0 => {
                            opened.attached.note_alive();
                            outbox.send(Bytes::from_static(event::COMMENT), Class::Droppable);
                        }
                        Some(Output::Expired) => {
                            opened.attached.close(&CloseCause::Expired);
                            // The goodbye ends the stream; a reader that never takes it is found stalled before this.
                            timer.as_mut().reset(now + GOODBYE_LIMIT);
                            continue;
                        }
                        Some(Output::KeepAlive) | None => {}
                    }
                    timer.as_mut().reset(opened.stream.poll_timeout().into());
                }
                () = async { match replay.as_mut() { Some(replay) => replay.await, None => std::future::pending().await } } => {
                    replay = None;
                }
            }
        }
        // If something else closed it, the reason is already recorded; otherwise the server stops.
        opened.attached.leave(LeaveReason::Shutdown);
        tokio::spawn(link.finish(LINGER));
    }
}

/// Brings a stream from its last id to the present, telling it of gaps.
pub(crate) fn catch_up(
    replay: Replay,
    opened: &Opened,
    filters: Vec<Filter>,
    requested: String,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let outbox = opened.attached.subscriber.outbox();
    let front = Arc::clone(&opened.attached.front);
    let is_over_both = front.broker().position_of(&filters).only().is_none();
    let asked: Option<Position> = requested.parse().ok();
    Box::pin(replay.run(move |gap| {
        Counters::add(&front.counters.gaps);
        // The first gap is told in the client's own words, which may be no id of ours.
        let later = asked
            .is_some_and(|asked| asked.ids().all(|asked| asked != gap.requested))
            .then(|| gap.requested.to_string());
        let requested = later.as_deref().unwrap_or(&requested);
        // Only the last one has an id: whoever is cut before it is told all of them again. None has where messages that
        // are kept, of another namespace, lie before it: their own ids follow.
        // Nor where the stream has a position in two logs: one alone would forget the other.
        let position = gap.next.is_none_or(|next| next.offset() > gap.first.offset()).then_some(gap.first);
        let position = position.filter(|_| !is_over_both);
        for (at, filter) in filters.iter().enumerate() {
            let position = position.filter(|_| at + 1 == filters.len());
            outbox.send(event::gap(filter, requested, gap, position), Class::Control);
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_stream_costs_a_small_task() {
        fn bytes<L, O, R, F>(_: fn(L, O, R) -> F) -> usize {
            size_of::<F>()
        }
        let task = bytes(keep);
        assert!(task <= 512, "{task} bytes");
    }
}
