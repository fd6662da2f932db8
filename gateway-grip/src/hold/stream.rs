//! A stream that is held: what the origin sends itself, then what is published, in order and without a hole.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use broker_core::{Filter, LeaveReason, OutboxEnd, Position, Replay, steady_ms};
use bytes::BytesMut;
use grip::filter::{BuildId, Filter as ContentFilter};
use grip::instruct::{KeepAlive, KeepAliveMode};
use grip::publish::HttpStream;
use http_edge::{ChunkedAnswer, Response, X_REQUEST_ID};
use link::{Link, LinkEvent};
use tokio::time::{Instant, sleep_until};
use websocket_over_http::item_of;

use super::channels::Passing;
use super::follow::{self, follow};
use super::form::{Form, chunk};
use super::held::Held;
use super::position::{Begin, begin, filters};
use super::told::{Initial, Told};
use super::{Asking, Problem, say};
use crate::config::StreamFormat;
use crate::desk::GAP;

/// Bytes that wait in a response body where the socket cannot be taken back.
const MAX_PIPE_BYTES: usize = 16 << 10;
/// How long a client may take to read the end of its stream.
const LINGER: Duration = Duration::from_secs(2);
/// No timer is set further ahead: a year.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
/// What the stream begins anew with, if anything.
type Following = Pin<Box<dyn Future<Output = Option<Vec<Replay>>> + Send>>;

/// Begins a stream.
///
/// # Errors
/// What is wrong with the instruction, or why nobody can be held.
pub(crate) async fn hold(asking: Asking<'_>, told: Told) -> Result<Response, Problem> {
    let Told { instruction, status, headers, body } = told;
    let filters = filters(&asking.state.route.channel_prefix, &instruction).map_err(Problem::Malformed)?;
    let linking = asking.linking(&instruction)?;
    let has_next = instruction.next.is_some();
    // What the origin says itself may have in it what was published before it said it.
    let broker = &asking.holds.0.broker;
    let last_of = |channel: &str| asking.holds.0.desk.last_of(channel);
    let begun = begin(broker, &instruction, &filters, broker.position(), &last_of).await;
    let gaps = &asking.holds.0.gaps;
    let positions = match begun {
        // It goes on at its link at once.
        Begin::After { .. } if instruction.hold.is_none() => None,
        Begin::After { positions, is_behind } => {
            if is_behind {
                gaps.log.fetch_add(1, Relaxed);
            }
            Some(positions)
        }
        Begin::Lost { .. } if has_next => {
            gaps.link.fetch_add(1, Relaxed);
            None
        }
        Begin::Lost { .. } => {
            gaps.closed.fetch_add(1, Relaxed);
            let channel = instruction.without_link().map(|channel| channel.name.clone()).unwrap_or_default();
            return Err(Problem::Malformed(format!(
                "what follows the `prev-id` of channel {channel:?} is not in the log, and there is no next link"
            )));
        }
    };
    let has_ids = instruction.channels.iter().any(|channel| channel.prev_id.is_some());
    let form = match asking.state.route.stream_format {
        StreamFormat::Auto => Form::of(&headers, has_ids),
        StreamFormat::Off => Form::Items,
    };
    let id = asking.id.clone();
    let (first, rest) = match body {
        Initial::Whole(bytes) => (bytes, None),
        Initial::Streamed(body) => (bytes::Bytes::new(), Some(body)),
    };
    let parts = asking.parts;
    let (holds, from) = asking.client();
    let held = Held::new(&holds.0, from, &instruction, Some(form), linking);
    let building = held.channels.lock().build_id().transpose().map_err(Problem::Malformed)?;
    let first = match &building {
        Some(building) => building.whole(&first).map_err(Problem::Malformed)?,
        None => first,
    };
    let answer = ChunkedAnswer::to(parts, first);
    answer.begin(&held.outbox);
    held.join();
    let mut head = http::Response::new(());
    *head.status_mut() = status;
    *head.headers_mut() = headers;
    say(&mut head, instruction.reason.as_deref());
    head.headers_mut().entry(X_REQUEST_ID).or_insert(id);
    let outbox = Arc::clone(&held.outbox);
    let keep_alive = instruction.keep_alive.map(Box::new);
    let beginning: Work = Box::pin(catch_up(Arc::clone(&held), rest, building, filters, positions));
    Ok(answer.open(head, outbox, MAX_PIPE_BYTES, move |link| keep(link, held, keep_alive, beginning)).await)
}

/// What the origin sends itself, then what was published since, until the stream is live.
async fn catch_up(
    held: Arc<Held>,
    body: Option<outgoing::Body>,
    mut building: Option<BuildId>,
    filters: Vec<Filter>,
    positions: Option<Vec<Position>>,
) {
    if let Some(mut body) = body {
        loop {
            held.outbox.drained().await;
            let piece = match body.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                // A stream that was cut must not look whole.
                Err(_) => return held.outbox.close(OutboxEnd::Failed),
            };
            let piece = match &mut building {
                Some(building) => match building.feed(&piece) {
                    Ok(piece) => piece,
                    Err(_) => return held.outbox.close(OutboxEnd::Failed),
                },
                None => piece,
            };
            held.send(chunk(&piece));
        }
    }
    let Some(positions) = positions else { return held.want_link() };
    let Ok(replays) = held.subscribe(&filters, &positions).await else {
        return held.end(LeaveReason::Closed);
    };
    if let Some(linking) = &held.linking {
        linking.way.lock().filters = filters;
    }
    replay(held, replays).await;
}

async fn replay(held: Arc<Held>, replays: Vec<Replay>) {
    let has_gap = AtomicBool::new(false);
    for replay in replays {
        replay
            .run(|_| {
                // Whoever reads on would have a hole: the stream ends before it, and its client comes again.
                if !has_gap.swap(true, Relaxed) {
                    held.holds.gaps.closed.fetch_add(1, Relaxed);
                    held.end(LeaveReason::Closed);
                }
            })
            .await;
    }
}

/// Keeps a stream until it ends. A plain function, as an `async fn` keeps its arguments twice.
#[expect(clippy::manual_async_fn, reason = "it would be larger")]
fn keep(
    mut link: Link,
    held: Arc<Held>,
    mut keep_alive: Option<Box<KeepAlive>>,
    beginning: Work,
) -> impl Future<Output = ()> + Send {
    async move {
        let mut beginning = Some(beginning);
        let mut work: Option<Following> = None;
        let now = Instant::now();
        let mut keep_alive_at = now + keep_alive.as_ref().map_or(NEVER, |kept| kept.timeout);
        let mut link_at = now + NEVER;
        let mut heads = Vec::new();
        let mut timer = pin!(sleep_until(keep_alive_at));
        let mut input = BytesMut::new();
        let why = loop {
            if held.inbox.backlog().has_overflowed() && !held.is_over() {
                held.holds.filtered.count("overflow");
                held.end(LeaveReason::TooSlow);
            }
            if work.is_none() && beginning.is_none() && held.is_link_wanted() {
                let held = Arc::clone(&held);
                link_at = Instant::now() + NEVER;
                work = Some(Box::pin(async move { follow(&held).await }));
            } else if work.is_none() && !held.inbox.backlog().is_empty() {
                let held = Arc::clone(&held);
                work = Some(Box::pin(async move {
                    work_off(&held).await;
                    None
                }));
            }
            tokio::select! {
                event = link.next(&mut input) => match event {
                    // A client has nothing more to say here.
                    LinkEvent::Read(_) => input = BytesMut::new(),
                    LinkEvent::Woken => {}
                    LinkEvent::Eof => break LeaveReason::Client,
                    LinkEvent::Failed(_) | LinkEvent::Closed(OutboxEnd::Failed) => break LeaveReason::Lost,
                    LinkEvent::Stalled | LinkEvent::Closed(OutboxEnd::Overflow) => {
                        held.holds.filtered.count("overflow");
                        break LeaveReason::TooSlow;
                    }
                    LinkEvent::Closed(_) => {
                        held.leave(LeaveReason::Closed);
                        tokio::spawn(link.finish(LINGER));
                        return;
                    }
                },
                () = timer.as_mut() => {
                    let now = Instant::now();
                    if keep_alive_at <= now {
                        keep_alive_at = now + due(&held, keep_alive.as_deref());
                    }
                    if link_at <= now {
                        let before = std::mem::replace(&mut heads, follow::heads(&held));
                        match held.linking.as_ref().and_then(|linking| linking.patience()) {
                            // Whoever hears something from everywhere needs no link.
                            Some(patience) if follow::all_moved(&before, &heads) => link_at = now + patience,
                            _ => {
                                link_at = now + NEVER;
                                held.want_link();
                            }
                        }
                    }
                    timer.as_mut().reset(keep_alive_at.min(link_at));
                }
                () = run(&mut beginning) => {
                    beginning = None;
                    let patience = held.linking.as_ref().and_then(|linking| linking.patience());
                    if let Some(patience) = patience {
                        heads = follow::heads(&held);
                        link_at = Instant::now() + patience;
                        timer.as_mut().reset(keep_alive_at.min(link_at));
                    }
                }
                replays = run(&mut work) => {
                    work = None;
                    if let Some(renewed) = held.linking.as_ref().and_then(|linking| linking.way.lock().keep_alive.take()) {
                        keep_alive_at = Instant::now() + renewed.timeout;
                        keep_alive = Some(renewed);
                        timer.as_mut().reset(keep_alive_at.min(link_at));
                    }
                    if let Some(replays) = replays {
                        beginning = Some(Box::pin(replay(Arc::clone(&held), replays)));
                    }
                }
            }
        };
        held.leave(why);
    }
}

async fn run<T>(work: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// Keeps a quiet stream alive; when to come again.
fn due(held: &Held, keep_alive: Option<&KeepAlive>) -> Duration {
    let Some(kept) = keep_alive else { return NEVER };
    if kept.mode == KeepAliveMode::Idle {
        let idle = Duration::from_millis(steady_ms().saturating_sub(held.inbox.last_sent_ms()));
        let left = kept.timeout.saturating_sub(idle);
        if !left.is_zero() {
            return left;
        }
    }
    // What waits to be written keeps it alive as well.
    if held.outbox.queued().messages == 0 {
        held.send(chunk(&kept.content));
    }
    kept.timeout
}

/// What needs more than to be written, in its order.
pub(super) async fn work_off(held: &Arc<Held>) {
    while let Some((message, tag)) = held.inbox.backlog().take() {
        if held.has_gap() {
            // It comes again from the log, behind what is missing.
            continue;
        }
        held.inbox.note(&message);
        let (known, form) = {
            let mut channels = held.channels.lock();
            let tag = channels.tag_of(&message, tag, &held.from.backend.route().channel_prefix);
            channels.note(&message, tag);
            (channels.filters(tag).to_vec(), held.inbox.form())
        };
        let (content, meta) = match item_of(&message) {
            None => {
                // Written as it is where nothing goes through it, as what is written has a form of its own.
                held.send(
                    form.map_or_else(bytes::Bytes::new, |form| form.chunk(&message, broker_core::Kind::Live)),
                );
                continue;
            }
            Some(item) => match item.stream {
                None => continue,
                Some(HttpStream::Close) => return held.end(LeaveReason::Closed),
                Some(HttpStream::Hint) if item.meta.get(GAP).is_some() => {
                    held.fill_gap();
                    continue;
                }
                Some(HttpStream::Hint) => {
                    held.want_link();
                    continue;
                }
                Some(HttpStream::Send { filters: wanted, .. })
                    if !ContentFilter::fit(&known, wanted.as_deref()) =>
                {
                    held.holds.filtered.count("content");
                    continue;
                }
                Some(HttpStream::Send { content, .. }) => (content, item.meta),
            },
        };
        if known.is_empty() {
            held.send(chunk(&content));
            continue;
        }
        match held.filtered(Passing::new(&known, content, meta)).await {
            Ok(content) => held.send(chunk(&content)),
            Err(dropped) => held.holds.filtered.count(dropped.reason()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_stream_costs_a_small_task() {
        fn bytes<L, H, K, B, F>(_: fn(L, H, K, B) -> F) -> usize {
            size_of::<F>()
        }
        let (task, held) = (bytes(keep), size_of::<Held>() + size_of::<super::super::inbox::Inbox>());
        assert!(task <= 640, "{task} bytes");
        assert!(held <= 1_024, "{held} bytes");
    }
}
