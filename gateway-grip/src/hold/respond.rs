//! A response that waits: the first message is it, or in the end what the origin has said itself.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use broker_core::{Filter, LeaveReason, Message, Position, Replay, Signal};
use bytes::Bytes;
use grip::filter::Filter as ContentFilter;
use grip::instruct::{Hold, strip};
use grip::publish::{Answer, Body as ItemBody, HttpResponse};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, header};
use http_edge::{Body, Park, Response, X_REQUEST_ID};
use tokio::time::{Instant, sleep_until};
use websocket_over_http::{item_of, owned};

use super::channels::Passing;
use super::follow::last_ids;
use super::held::Held;
use super::position::{Begin, begin, filters};
use super::told::{self, Initial, Told};
use super::{Asking, Problem, say};

/// Longest body that a patch may make, in bytes.
const MAX_PATCHED_BYTES: usize = 1 << 20;

/// The origin's own answer.
struct Own {
    status: StatusCode,
    reason: Option<String>,
    headers: HeaderMap,
    body: Bytes,
}

/// A shorter body is copied, so that nothing else of what it was read into is kept.
const MIN_SHARED: usize = 2_048;

impl Own {
    fn new(status: StatusCode, reason: Option<String>, headers: &HeaderMap, body: Bytes) -> Self {
        let body = if body.len() < MIN_SHARED { Bytes::copy_from_slice(&body) } else { body };
        Self { status, reason, headers: owned(headers), body }
    }

    fn response(self, id: HeaderValue) -> Response {
        made(self.status, self.reason.as_deref(), self.headers, self.body, id)
    }
}

/// Answers when something is published, or the time is over.
///
/// # Errors
/// What is wrong with the instruction, or why nobody can be held.
pub(crate) async fn hold(asking: Asking<'_>, told: Told) -> Result<Response, Problem> {
    let Told { instruction, status, headers, body } = told;
    let prefix = &asking.state.route.channel_prefix;
    let filters = filters(prefix, &instruction).map_err(Problem::Malformed)?;
    let body = body.collect(asking.state.route.timeout).await.map_err(Problem::Malformed)?;
    let own = Own::new(status, instruction.reason.clone(), &headers, body);
    let last_of = |channel: &str| asking.holds.0.desk.last_of(channel);
    let begun = begin(&asking.holds.0.broker, &instruction, &filters, asking.since, &last_of).await;
    let Begin::After { positions, is_behind } = begun else {
        // The client comes again, and its origin then knows more than is here.
        asking.holds.0.gaps.closed.fetch_add(1, Relaxed);
        return Ok(own.response(asking.id.clone()));
    };
    if is_behind {
        asking.holds.0.gaps.log.fetch_add(1, Relaxed);
    }
    let timeout = instruction.timeout;
    let id = asking.id.clone();
    // What is to be read from the connection first cannot wait without it.
    let has_body = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING]
        .iter()
        .any(|name| asking.parts.headers.contains_key(name));
    let park = asking.parts.extensions.get::<Park>().cloned();
    let park = park.filter(|_| asking.parts.method == Method::GET && !has_body);
    // A hint has the origin asked again, which a body could not come with.
    let linking = Some(asking.again(Vec::new(), None, None)).filter(|_| asking.parts.method == Method::GET);
    let (holds, from) = asking.client();
    let held = Held::new(&holds.0, from, &instruction, None, linking);
    let replays = held.subscribe(&filters, &positions).await.map_err(Problem::Later)?;
    held.join();
    let waiting = wait(Waiting(held), replays, own, (timeout, filters), id);
    Ok(match park {
        Some(park) => park.wait(waiting).await,
        None => waiting.await,
    })
}

/// A client that leaves while it waits.
struct Waiting(Arc<Held>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.leave(LeaveReason::Client);
    }
}

async fn wait(
    waiting: Waiting,
    replays: Vec<Replay>,
    mut own: Own,
    (timeout, mut filters): (Duration, Vec<Filter>),
    id: HeaderValue,
) -> Response {
    let held = &waiting.0;
    let mut until = Instant::now() + timeout;
    let has_gap = Arc::new(AtomicBool::new(false));
    let mut replaying = Some(replay(replays, &has_gap));
    'waits: loop {
        if has_gap.load(Relaxed) {
            held.holds.gaps.closed.fetch_add(1, Relaxed);
            return own.response(id);
        }
        while let Some((message, tag)) = held.inbox.backlog().take() {
            held.inbox.note(&message);
            match heard(held, &own, &message, tag).await {
                Heard::Answer(response) => return with_id(response, id),
                Heard::Own => return own.response(id),
                Heard::Nothing => {}
                Heard::Hint => {
                    let Ok((told, since)) = again(held, &filters).await else { return own.response(id) };
                    let is_held = told.instruction.hold == Some(Hold::Response);
                    let timeout = told.instruction.timeout;
                    let Ok(begun) = anew(held, told, since).await else { return own.response(id) };
                    let (replays, now_on);
                    (own, replays, now_on) = begun;
                    if !is_held {
                        return own.response(id);
                    }
                    filters = now_on;
                    (until, replaying) = (Instant::now() + timeout, Some(replay(replays, &has_gap)));
                    continue 'waits;
                }
            }
        }
        if held.is_over() {
            return own.response(id);
        }
        if held.inbox.backlog().has_overflowed() {
            held.holds.filtered.count("overflow");
            return own.response(id);
        }
        tokio::select! {
            signal = std::future::poll_fn(|cx| held.outbox.poll_signal(cx)) => {
                // Chunks are never sent to it.
                if matches!(signal, Signal::Closed(_)) {
                    return own.response(id);
                }
            }
            () = async { match replaying.as_mut() { Some(replay) => replay.await, None => std::future::pending().await } } => {
                replaying = None;
            }
            () = sleep_until(until) => return own.response(id),
        }
    }
}

type Replaying = Pin<Box<dyn Future<Output = ()> + Send>>;

fn replay(replays: Vec<Replay>, has_gap: &Arc<AtomicBool>) -> Replaying {
    let gap = Arc::clone(has_gap);
    Box::pin(async move {
        for replay in replays {
            replay.run(|_| gap.store(true, Relaxed)).await;
        }
    })
}

/// Asks the origin of a client again, which is on nothing meanwhile.
async fn again(held: &Arc<Held>, filters: &[Filter]) -> Result<(Told, Position), String> {
    let linking = held.linking.as_deref().ok_or("it is not asked again")?;
    let since = held.holds.broker.position();
    held.pause(filters).await;
    // What was there before the hint, or behind it, the origin knows of.
    while held.inbox.backlog().take().is_some() {}
    let (backend, last) = (&held.from.backend, last_ids(held).await);
    let route = backend.route();
    let answer = held.holds.links.ask(&route.id, backend, backend.path(), &linking.headers, last).await?;
    let status = StatusCode::from_u16(answer.status).map_err(|error| error.to_string())?;
    let body = Initial::Whole(answer.body.clone());
    let told = told::of(route, &linking.headers, status, answer.headers.clone(), body)?;
    Ok((told, since))
}

/// Holds the client anew, if its origin says so again: its own answer, and on what.
async fn anew(
    held: &Arc<Held>,
    told: Told,
    since: Position,
) -> Result<(Own, Vec<Replay>, Vec<Filter>), String> {
    let Told { instruction, status, headers, body } = told;
    let route = held.from.backend.route();
    let body = body.collect(route.timeout).await?;
    let own = Own::new(status, instruction.reason.clone(), &headers, body);
    if instruction.hold != Some(Hold::Response) {
        return Ok((own, Vec::new(), Vec::new()));
    }
    let filters = filters(&route.channel_prefix, &instruction)?;
    let broker = &held.holds.broker;
    let last_of = |channel: &str| held.holds.desk.last_of(channel);
    let begun = begin(broker, &instruction, &filters, since, &last_of).await;
    let Begin::After { positions, .. } = begun else { return Err("it is not in the log".to_owned()) };
    held.channels.lock().renew(&instruction);
    let replays = held.subscribe(&filters, &positions).await?;
    Ok((own, replays, filters))
}

/// What a message is to a response that waits.
enum Heard {
    Answer(Response),
    /// The origin is asked again.
    Hint,
    /// The origin's own answer.
    Own,
    Nothing,
}

async fn heard(held: &Held, own: &Own, message: &Message, tag: u32) -> Heard {
    let known: Vec<ContentFilter> = {
        let mut channels = held.channels.lock();
        let tag = channels.tag_of(message, tag, &held.from.backend.route().channel_prefix);
        channels.note(message, tag);
        channels.filters(tag).to_vec()
    };
    let Some(item) = item_of(message) else {
        let Ok(content) = through(held, &known, message.payload().clone(), grip::Meta::default()).await
        else {
            return Heard::Nothing;
        };
        let mut headers = own.headers.clone();
        if let Some(kind) = message.content_type().and_then(|kind| HeaderValue::from_str(kind.as_str()).ok())
        {
            headers.insert(CONTENT_TYPE, kind);
        }
        return Heard::Answer(bare(StatusCode::OK, None, headers, content));
    };
    let answer = match item.response {
        None => return Heard::Nothing,
        Some(HttpResponse::Hint) => return Heard::Hint,
        Some(HttpResponse::Send(answer)) => answer,
    };
    if !ContentFilter::fit(&known, answer.filters.as_deref()) {
        held.holds.filtered.count("content");
        return Heard::Nothing;
    }
    let content = match &answer.body {
        ItemBody::Whole(body) => body.clone(),
        ItemBody::Patch(patch) => match patch.apply(&own.body, MAX_PATCHED_BYTES) {
            Ok(body) => body,
            Err(error) => {
                tracing::debug!(target: "fanwire::gateway", %error, "a held answer could not be patched");
                held.holds.filtered.count("patch");
                return Heard::Own;
            }
        },
    };
    match through(held, &known, content, item.meta).await {
        Ok(content) => Heard::Answer(answered(own, &answer, content)),
        Err(()) => Heard::Nothing,
    }
}

async fn through(
    held: &Held,
    known: &[ContentFilter],
    content: Bytes,
    meta: grip::Meta,
) -> Result<Bytes, ()> {
    if known.is_empty() {
        return Ok(content);
    }
    held.filtered(Passing::new(known, content, meta)).await.map_err(|dropped| {
        held.holds.filtered.count(dropped.reason());
    })
}

/// What an item says, over what the origin has said.
fn answered(own: &Own, answer: &Answer, content: Bytes) -> Response {
    let mut headers = own.headers.clone();
    answer.head(&mut headers);
    // What says how a body is framed is this server's business, and so is what is of one connection.
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TRAILER, header::TE]
    {
        headers.remove(name);
    }
    headers.remove(HeaderName::from_static("keep-alive"));
    strip(&mut headers);
    bare(answer.status, answer.reason.as_deref(), headers, content)
}

fn bare(status: StatusCode, reason: Option<&str>, headers: HeaderMap, body: Bytes) -> Response {
    let mut response = http::Response::new(Body::full(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    say(&mut response, reason);
    response
}

fn with_id(mut response: Response, id: HeaderValue) -> Response {
    response.headers_mut().entry(X_REQUEST_ID).or_insert(id);
    response
}

fn made(
    status: StatusCode,
    reason: Option<&str>,
    headers: HeaderMap,
    body: Bytes,
    id: HeaderValue,
) -> Response {
    with_id(bare(status, reason, headers, body), id)
}
