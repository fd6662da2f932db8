//! One accepted connection: HTTP/1 whose stream can be taken back, or HTTP/2 by prior knowledge.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use pin_project_lite::pin_project;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, Sleep, interval_at, sleep, timeout};

use super::head::{check_http1, check_http2};
use super::held::{Bounds, Held, HeldBody, Spawner};
use super::holds::Holds;
use super::io::WatchedIo;
use super::park::{self, Park, may_park};
use super::refuse::{Refuser, Unread, refuse_unread};
use super::rewound::Rewound;
use super::seldom::Seldom;
use super::stalled::Stalled;
use super::takeover::Takeover;
use super::watch::{Claim, Then, Watch};
use crate::problem::Problem;
use crate::request::{Body, BoxError, Peer, Response};

/// Limits of one connection.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Time for the first request's head; also how long a later head may stay incomplete and a full socket may
    /// stay full, both measured in whole periods, so that they end after one to two of them. Default 10 s.
    pub header_read_timeout: Duration,
    /// How long a kept-alive connection may wait between requests. Default 75 s, above the 60 s of common proxies, so
    /// that it is the proxy that closes; 0 is for ever.
    pub idle_timeout: Duration,
    /// Longest request head (HTTP/2: header list), in bytes. Default 16 KiB; longer ones are answered 431, over HTTP/2 without
    /// a body if they are four times as long.
    pub max_header_bytes: u32,
    /// Requests at a time on one HTTP/2 connection, streams included. Default 4,096; more are refused by the protocol.
    pub max_concurrent_streams: u32,
    /// Which requests over HTTP/1 may be held for long, and which are answered at once. Default: nobody says.
    pub holds: Holds,
    /// Bytes that wait per HTTP/2 stream for the client's window. Default 64 KiB; then the stream's own queue grows.
    pub max_send_bytes: usize,
    /// Bytes that may wait on one HTTP/2 connection for streams whose client takes nothing: in the connection, in what fills their
    /// bodies, and in responses that are there already. Looked at four times a second; a stream counts that was not asked for its next
    /// frame from one look to the next. Beyond it the streams that have waited longest are reset. Default 64 MiB.
    pub max_stalled_bytes: usize,
    /// The same over all connections that share `stalled`. Beyond it the connection that holds most gives way at once, and responses
    /// of more than `max_send_bytes` that are ready are replaced by 503 until there is room. Default 256 MiB.
    pub max_stalled_total_bytes: usize,
    /// What waits on the HTTP/2 connections that share it. Default an account of its own for each `ServeConfig` that was not
    /// cloned from another.
    pub stalled: Stalled,
    /// How requests are answered that the service does not see. Default: with the problem alone.
    pub refuse: Refuser,
    /// What the connection holds on to until it ends, also after its stream was taken over. Default nothing.
    pub hold: link::Hold,
}

impl Default for ServeConfig {
    fn default() -> Self {
        ServeConfig {
            header_read_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            max_header_bytes: 16 * 1024,
            max_concurrent_streams: 4096,
            max_send_bytes: 64 * 1024,
            max_stalled_bytes: 64 << 20,
            max_stalled_total_bytes: 256 << 20,
            stalled: Stalled::default(),
            refuse: Refuser::default(),
            hold: link::Hold::default(),
            holds: Holds::default(),
        }
    }
}

/// Serves one connection until it ends, fails, or was taken over.
///
/// Every request carries a [`Peer`] extension, and a [`Takeover`] where the stream can be taken back. When
/// `shutdown` turns true (or its sender is gone) the connection ends after the responses that are under way; ending long ones is
/// up to the handler.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn serve<S, F>(
    stream: TcpStream,
    peer: SocketAddr,
    service: S,
    config: ServeConfig,
    shutdown: watch::Receiver<bool>,
) where
    S: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let service = move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        service(request)
    };
    serve_unnamed(stream, service, config, shutdown).await;
}

/// As [`serve`], without the [`Peer`] extension: for a service that knows the address, and gives it to those that want it. An
/// extension costs each request three allocations.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn serve_unnamed<S, F>(
    stream: TcpStream,
    service: S,
    config: ServeConfig,
    shutdown: watch::Receiver<bool>,
) where
    S: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    // Answers are single writes already; waiting for more only adds 40 ms to a pipelined one.
    let _ = stream.set_nodelay(true);
    match timeout(config.header_read_timeout, speaks_http2(&stream)).await {
        Ok(Ok((false, read))) => serve_http1(stream, read, service, config, shutdown).await,
        // Boxed, so that connections of HTTP/1 have no room for it.
        Ok(Ok((true, read))) => Box::pin(serve_http2(stream, read, service, config, shutdown)).await,
        Ok(Err(_)) | Err(_) => {}
    }
}

/// The preface of HTTP/2 (RFC 9113 §3.4) begins so, and no method of HTTP/1 does.
const PREFACE: &[u8; 3] = b"PRI";

/// Whether the client opens with the preface of HTTP/2, and what had to be read to know.
async fn speaks_http2(stream: &TcpStream) -> std::io::Result<(bool, Bytes)> {
    let mut start = [0; PREFACE.len()];
    let seen = stream.peek(&mut start).await?;
    match start.get(..seen) {
        Some(start) if start == PREFACE => Ok((true, Bytes::new())),
        Some(start) if seen > 0 && PREFACE.starts_with(start) => Box::pin(read_preface(stream)).await,
        _ => Ok((false, Bytes::new())),
    }
}

/// The same for a client that has sent a part of it. It is read: as long as it waits in the socket there would be no event to
/// wait for.
async fn read_preface(stream: &TcpStream) -> std::io::Result<(bool, Bytes)> {
    let mut start = [0; PREFACE.len()];
    let mut seen = 0;
    loop {
        stream.readable().await?;
        match stream.try_read(start.get_mut(seen..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(read) => seen += read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if seen == PREFACE.len() || start.get(..seen).is_none_or(|start| !PREFACE.starts_with(start)) {
            break;
        }
    }
    Ok((start == *PREFACE, Bytes::copy_from_slice(start.get(..seen).unwrap_or_default())))
}

enum Outcome {
    Ended,
    Claimed(Claim),
}

#[derive(Clone, Copy, PartialEq)]
enum Event {
    Stop,
    /// Time for the watchdog to look.
    PeriodOver,
}

/// A timer without a period would never let go of its thread.
const MIN_PERIOD: Duration = Duration::from_millis(1);

/// What a connection hears beside its socket: once that it is to stop, and every `period`.
fn events(mut shutdown: watch::Receiver<bool>, period: Duration) -> impl Future<Output = Event> {
    let mut stop = Some(Box::pin(async move { _ = shutdown.wait_for(|stop| *stop).await }));
    let period = period.max(MIN_PERIOD);
    let mut timer = interval_at(Instant::now() + period, period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Seldom::new(poll_fn(move |cx| {
        if stop.as_mut().is_some_and(|stop| stop.as_mut().poll(cx).is_ready()) {
            stop = None;
            return Poll::Ready(Event::Stop);
        }
        timer.poll_tick(cx).map(|_| Event::PeriodOver)
    }))
}

/// Not an `async fn`, whose future would have room for the arguments beside what is made of them.
fn serve_http1<S, F>(
    stream: TcpStream,
    read: Bytes,
    service: S,
    config: ServeConfig,
    shutdown: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send
where
    S: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let watch = Arc::new(Watch::default());
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
                        Event::Stop => Pin::new(&mut *connection).graceful_shutdown(),
                        Event::PeriodOver => period_over = true,
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

/// Longest time that a client is listened to after the last answer.
const MAX_LINGER: Duration = Duration::from_secs(10);

/// Longest silence while it is.
const MAX_LINGER_SILENCE: Duration = Duration::from_secs(2);

/// Reads what a client still sends after the last answer, and forgets it. Closing the socket over it would reset the
/// connection, and the client lose an answer that it has not read yet: the 413 to a body that it is still sending.
async fn linger(stream: &TcpStream) {
    while let Ok(Ok(())) = timeout(MAX_LINGER_SILENCE, stream.readable()).await {
        let mut forgotten = [0; 8 << 10];
        match stream.try_read(&mut forgotten) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
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
    mut stream: TcpStream,
    head: Bytes,
    then: Box<dyn FnOnce(link::Socket) + Send>,
    hold: link::Hold,
    limit: Duration,
) {
    if let Ok(Ok(())) = timeout(limit, stream.write_all(&head)).await {
        then(link::Socket::tcp(stream, Vec::new()).holding(hold));
    }
}

pin_project! {
    /// A request that is being answered. By hand, because an async block would hold the handler's future twice, and each
    /// connection has room for one of these.
    struct Answering<F> {
        #[pin]
        answer: Answer<F>,
        busy: Option<Busy>,
        // The connection ends after the answer.
        closes: bool,
    }
}

pin_project! {
    #[project = Which]
    enum Answer<F> {
        /// By the service.
        Coming {
            #[pin]
            answer: F,
        },
        /// There already: the service has not seen the request.
        Refused { response: Option<Box<Response>> },
    }
}

impl<F: Future<Output = Response>> Future for Answering<F> {
    type Output = Result<http::Response<BusyBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match this.answer.project() {
            Which::Coming { answer } => ready!(answer.poll(cx)),
            Which::Refused { response } => response.take().map(|response| *response).unwrap_or_default(),
        };
        if *this.closes {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let busy = this.busy.take();
        Poll::Ready(Ok(response.map(|body| BusyBody { body, _busy: busy })))
    }
}

/// Counts a request as under way until its response body was handed over, or it was given up.
struct Busy(Arc<Watch>);

impl Busy {
    fn new(watch: &Arc<Watch>) -> Self {
        watch.busy.fetch_add(1, Relaxed);
        Busy(Arc::clone(watch))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.handed_over.store(self.0.flushes.load(Relaxed), Relaxed);
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

struct BusyBody {
    body: Body,
    _busy: Option<Busy>,
}

impl HttpBody for BusyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Finds connections that go nowhere, by comparing what it saw a period ago: no clock is read per request.
struct Watchdog<'a> {
    watch: &'a Watch,
    idle_periods: u32,
    max_idle_periods: u32,
    requests: u64,
    progress: u64,
    blocked: bool,
    head_begun: bool,
}

enum Verdict {
    Fine,
    Dead,
}

impl<'a> Watchdog<'a> {
    fn new(watch: &'a Watch, config: &ServeConfig) -> Self {
        let period = config.header_read_timeout.as_millis().max(1);
        Watchdog {
            watch,
            idle_periods: 0,
            max_idle_periods: match u32::try_from(config.idle_timeout.as_millis().div_ceil(period)) {
                Ok(0) | Err(_) => u32::MAX,
                Ok(periods) => periods,
            },
            requests: 0,
            progress: 0,
            blocked: false,
            head_begun: false,
        }
    }

    fn look(&mut self) -> Verdict {
        let requests = self.watch.requests.load(Relaxed);
        let progress = self.watch.progress.load(Relaxed);
        let busy = self.watch.busy.load(Relaxed) > 0;
        let blocked = self.watch.blocked.load(Relaxed);
        let head_begun = !busy && self.watch.head_begun.load(Relaxed);

        let stuck = blocked && self.blocked && progress == self.progress;
        let slow_head = head_begun && self.head_begun && requests == self.requests;
        let silent = !busy && requests == 0;
        self.idle_periods = if busy || requests != self.requests || progress != self.progress {
            0
        } else {
            self.idle_periods.saturating_add(1)
        };
        let idle = self.idle_periods >= self.max_idle_periods;

        (self.requests, self.progress) = (requests, progress);
        (self.blocked, self.head_begun) = (blocked, head_begun);
        if stuck || slow_head || silent || idle { Verdict::Dead } else { Verdict::Fine }
    }
}

/// How often it is looked at what waits on an HTTP/2 connection, as long as anything does: a stream that was not asked from one look to
/// the next makes no progress.
const LOOK: Duration = Duration::from_millis(250);

async fn serve_http2<S, F>(
    stream: TcpStream,
    read: Bytes,
    service: S,
    config: ServeConfig,
    shutdown: watch::Receiver<bool>,
) where
    S: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let watch = Arc::new(Watch::default());
    let seen = Arc::clone(&watch);
    let bounds = Bounds {
        max_send_bytes: config.max_send_bytes,
        max_bytes: config.max_stalled_bytes,
        max_total_bytes: config.max_stalled_total_bytes,
    };
    let held = Held::new(bounds, config.stalled.clone());
    let holding = Arc::clone(&held);
    let (refuse, max_header_bytes) = (config.refuse.clone(), config.max_header_bytes);
    let handler = service_fn(move |mut request: Request<Incoming>| {
        seen.requests.fetch_add(1, Relaxed);
        let place = holding.begin();
        let busy = Busy::new(&seen);
        // A request that has changed something is answered: after a 503 it would be sent again.
        let is_safe = request.method().is_safe();
        let answer = match check_http2(&mut request, max_header_bytes) {
            Ok(()) => Ok(service(request)),
            Err(problem) => Err(Box::new(refuse.answer(&problem, &request.into_parts().0))),
        };
        async move {
            let response = match answer {
                Ok(answer) => answer.await,
                Err(refused) => *refused,
            };
            let ready = usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX);
            let response = if !is_safe || place.admits(ready) { response } else { no_room_for(response) };
            Ok::<_, Infallible>(response.map(|body| {
                let behind = body.behind();
                HeldBody::new(BusyBody { body, _busy: Some(busy) }, behind, place)
            }))
        }
    });
    let connection = http2::Builder::new(Spawner(Arc::clone(&held)))
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_concurrent_streams)
        // Beyond this hyper answers 431 without a body; up to it the handler does, with one.
        .max_header_list_size(config.max_header_bytes.saturating_mul(4))
        .max_send_buf_size(config.max_send_bytes)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        // A peer that is gone, or that stopped reading, leaves a ping unanswered.
        .keep_alive_interval(config.header_read_timeout)
        .keep_alive_timeout(config.header_read_timeout)
        .serve_connection(Rewound::new(stream, read), handler);
    let mut connection = pin!(connection);
    let mut events = pin!(events(shutdown, config.header_read_timeout));
    let mut stopping = false;
    let mut watchdog = Watchdog::new(&watch, &config);
    let mut looking: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if held.poll_filled(cx).is_ready() {
            looking.get_or_insert_with(|| Box::pin(sleep(LOOK)));
        }
        while let Some(timer) = &mut looking {
            if !held.is_urgent() && timer.as_mut().poll(cx).is_pending() {
                break;
            }
            match held.look() || held.poll_filled(cx).is_ready() {
                true => timer.as_mut().reset(Instant::now() + LOOK),
                false => looking = None,
            }
        }
        while let Poll::Ready(event) = events.as_mut().poll(cx) {
            let stop = match event {
                Event::Stop => true,
                Event::PeriodOver => {
                    held.look();
                    matches!(watchdog.look(), Verdict::Dead)
                }
            };
            if stop && !stopping {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            } else if stop && event == Event::PeriodOver {
                return Poll::Ready(());
            }
        }
        connection.as_mut().poll(cx).map(|_| ())
    })
    .await;
}

/// In place of an answer for which there is no room. Who may read it stays as it was.
fn no_room_for(answer: Response) -> Response {
    let mut response = Problem::no_room_for_answer(Duration::from_secs(1)).response();
    let kept = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("access-control-") || matches!(name, "vary" | "x-request-id")
    };
    let headers = answer.headers().iter().filter(|(name, _)| kept(name));
    response.headers_mut().extend(headers.map(|(name, value)| (name.clone(), value.clone())));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_client_that_has_sent_a_part_of_the_preface_is_asked_again_only_when_it_sends_more() {
        for (pieces, expected) in [
            (&["P", "R", "I * HTTP/2.0"][..], (true, "PRI")),
            (&["PR", "OPFIND /"], (false, "PRO")),
            (&["P", "UT /"], (false, "PUT")),
            (&["PRI * "], (true, "")),
            (&["GET /"], (false, "")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let polls = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&polls);
            let asked = tokio::spawn(async move {
                let mut asking = pin!(speaks_http2(&stream));
                poll_fn(|cx| {
                    count.fetch_add(1, Relaxed);
                    asking.as_mut().poll(cx)
                })
                .await
                .unwrap()
            });
            for piece in pieces {
                client.write_all(piece.as_bytes()).await.unwrap();
                // Time enough for a loop that waits for nothing.
                sleep(Duration::from_millis(200)).await;
            }
            let (is_http2, read) = timeout(Duration::from_secs(10), asked).await.unwrap().unwrap();
            assert_eq!((is_http2, &read[..]), (expected.0, expected.1.as_bytes()), "{pieces:?}");
            let polls = polls.load(Relaxed);
            assert!(polls <= 2 * pieces.len() + 2, "{polls} polls for {pieces:?}");
        }
    }
}
