//! A connection of HTTP/1, whose stream can be had back from hyper.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use link::NetStream;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::timeout;

use super::answering::{Answer, Answering, Busy};
use super::config::ServeConfig;
use super::events::{Notice, events};
use super::head::check_http1;
use super::io::WatchedIo;
use super::linger::{MAX_LINGER, linger};
use super::park::{self, Park, may_park};
use super::refuse::{Unread, refuse_unread};
use super::takeover::Takeover;
use super::watch::{Claim, Then, Watch};
use super::watchdog::{Verdict, Watchdog};
use crate::request::Response;

/// Not an `async fn`, whose future would have room for the arguments beside what is made of them.
pub(crate) fn serve_http1<S, F>(
    stream: NetStream,
    read: Bytes,
    service: S,
    config: ServeConfig,
    shutdown: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send
where
    S: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let raw_heads = config.raw_heads.clone();
    let watch = Arc::new(if raw_heads.is_any() { Watch::keeping_heads() } else { Watch::default() });
    let mut io = WatchedIo::new(stream, Arc::clone(&watch), config.hold.clone());
    io.put_back(read);
    let seen = Arc::clone(&watch);
    let holds = config.holds.clone();
    let refuse = config.refuse.clone();
    let mut handler = service_fn(move |mut request: Request<Incoming>| {
        seen.head_begun.store(false, Relaxed);
        let number = seen.requests.fetch_add(1, Relaxed) + 1;
        let closes = match check_http1(&mut request, || seen.lengths(number - 1)) {
            Ok(closes) => closes,
            Err(problem) => {
                let response = Box::new(refuse.answer(&problem, &request.into_parts().0));
                let answer = Answer::Refused { response: Some(response) };
                return Answering { answer, busy: Some(Busy::new(&seen)), closes: false };
            }
        };
        if raw_heads.ask(request.uri())
            && let Some(head) = seen.raw_head(number - 1)
        {
            request.extensions_mut().insert(head);
        }
        let is_held = holds.ask(request.uri());
        seen.patient.store(is_held == Some(false), Relaxed);
        if is_held == Some(true) && may_park(&request) {
            request.extensions_mut().insert(Park::new(Arc::clone(&seen), number));
        }
        let busy = Busy::new(&seen);
        if may_take_over(&request) {
            request.extensions_mut().insert(Takeover::new(Arc::clone(&seen), number));
        }
        Answering { answer: Answer::Coming { answer: service(request) }, busy: Some(busy), closes }
    });
    async move {
        let mut events = pin!(events(shutdown.clone(), config.header_read_timeout));
        loop {
            // Boxed, so that a request that waits without hyper has no room for it any more.
            let connection = http1::Builder::new()
                .max_header_size(config.max_header_bytes as usize)
                .max_buf_size(64 * 1024)
                // Whether a client is gone is found by `WatchedIo`.
                .half_close(true)
                // The timeouts are the watchdog's: hyper's also ends idle connections and costs a timer per request.
                .header_read_timeout(None)
                .serve_connection(io, handler)
                .with_upgrades();
            let mut connection = Box::new(connection);
            if *shutdown.borrow() {
                Pin::new(&mut *connection).graceful_shutdown();
            }
            let mut watchdog = Watchdog::new(&watch, &config);
            let outcome = poll_fn(|cx| {
                let mut period_over = false;
                while let Poll::Ready(event) = events.as_mut().poll(cx) {
                    match event {
                        Notice::Stop => Pin::new(&mut *connection).graceful_shutdown(),
                        Notice::PeriodOver => period_over = true,
                    }
                }
                // Twice at most: a claim made late in a poll of hyper is proven flushed only by the next one.
                for _ in 0..2 {
                    if Pin::new(&mut *connection).poll(cx).is_ready() {
                        return Poll::Ready(Outcome::Ended);
                    }
                    if !watch.claimed.load(Relaxed) {
                        break;
                    }
                    let mut slot = watch.claim.lock();
                    if slot.as_ref().is_some_and(|claim| watch.flushes.load(Relaxed) > claim.flushes)
                        && let Some(claim) = slot.take()
                    {
                        return Poll::Ready(Outcome::Claimed(claim));
                    }
                }
                if period_over && matches!(watchdog.look(), Verdict::Dead) {
                    return Poll::Ready(Outcome::Ended);
                }
                Poll::Pending
            })
            .await;
            let Some(http1::Parts { io: socket, read_buf, service, .. }) = connection.into_parts() else {
                return;
            };
            (io, handler) = (socket, service);
            let claim = match outcome {
                // An upgraded connection ends here too: its stream went to whoever awaits the upgrade.
                Outcome::Ended => {
                    if let Some(unread) = io.take_canned() {
                        let read = read_buf.to_vec();
                        drop((read_buf, handler));
                        // Boxed, so that connections do not have room for what is rare.
                        return Box::pin(refuse_and_linger(io, unread, read, &config)).await;
                    }
                    if watch.shut.load(Relaxed) && !*shutdown.borrow() {
                        let (stream, _hold) = io.into_parts();
                        drop((read_buf, handler));
                        let _ = timeout(MAX_LINGER, linger(&stream)).await;
                    }
                    return;
                }
                Outcome::Claimed(claim) => claim,
            };
            match claim.then {
                Then::TakeOver { head, then } => {
                    let (stream, hold) = io.into_parts();
                    // hyper's read buffer and the handler's future end here; only the socket goes on.
                    drop((read_buf, handler));
                    return hand_over(stream, head, then, hold, config.header_read_timeout).await;
                }
                Then::Answer(answer) => {
                    // A copy, as any piece of hyper's read buffer keeps all of it.
                    let read = Bytes::copy_from_slice(&read_buf);
                    drop(read_buf);
                    watch.claimed.store(false, Relaxed);
                    let Some(response) = park::wait(io.stream(), answer).await else { return };
                    let closes = *shutdown.borrow();
                    if !park::write(io.stream(), response, closes, config.header_read_timeout).await || closes
                    {
                        return;
                    }
                    io.put_back(read);
                }
            }
        }
    }
}

enum Outcome {
    Ended,
    Claimed(Claim),
}

async fn refuse_and_linger(io: WatchedIo, unread: Unread, read: Vec<u8>, config: &ServeConfig) {
    let (mut stream, _hold) = io.into_parts();
    let (refuse, max, limit) = (&config.refuse, config.max_header_bytes, config.header_read_timeout);
    if refuse_unread(&mut stream, unread, read, refuse, max, limit).await {
        let _ = timeout(MAX_LINGER, linger(&stream)).await;
    }
}

/// HEAD has no body to stream, and a request body would still stand between the head and the stream's end.
fn may_take_over(request: &Request<Incoming>) -> bool {
    request.method() == Method::GET
        && matches!(request.version(), Version::HTTP_11 | Version::HTTP_10)
        && request.body().is_end_stream()
}

async fn hand_over(
    mut stream: NetStream,
    head: Bytes,
    then: Box<dyn FnOnce(link::Socket) + Send>,
    hold: link::Hold,
    limit: Duration,
) {
    let written = async {
        stream.write_all(&head).await?;
        stream.flush().await
    };
    if let Ok(Ok(())) = timeout(limit, written).await {
        then(link::Socket::tcp(stream, Vec::new()).holding(hold));
    }
}
