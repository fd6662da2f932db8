//! A connection of HTTP/2 by prior knowledge.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, Request};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use link::NetStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep};

use super::answering::{Busy, BusyBody};
use super::config::ServeConfig;
use super::events::{Notice, events};
use super::head::check_http2;
use super::held::{Bounds, Held, HeldBody, Spawner};
use super::rewound::Rewound;
use super::tunnel::Tunnel;
use super::watch::Watch;
use super::watchdog::{Verdict, Watchdog};
use crate::problem::Problem;
use crate::request::Response;

/// How often it is looked at what waits on an HTTP/2 connection, as long as anything does: a stream that was not asked
/// from one look to the next makes no progress.
const LOOK: Duration = Duration::from_millis(250);

/// What a client may send of one stream before somebody reads it.
const STREAM_WINDOW: u32 = 256 << 10;

/// So many streams of which nobody reads, WebSockets whose messages cannot be taken now, leave the others their window.
const UNREAD_STREAMS: u32 = 32;

pub(crate) async fn serve_http2<S, F>(
    stream: NetStream,
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
        if request.method() == Method::CONNECT {
            request.extensions_mut().insert(Tunnel::new(place.share(), Busy::new(&seen)));
        }
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
                HeldBody::new(BusyBody::new(body, Some(busy)), behind, place)
            }))
        }
    });
    let mut builder = http2::Builder::new(Spawner(Arc::clone(&held)));
    if cfg!(feature = "websocket") {
        builder.enable_connect_protocol();
    }
    let connection = builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_concurrent_streams)
        // Beyond this hyper answers 431 without a body; up to it the handler does, with one.
        .max_header_list_size(config.max_header_bytes.saturating_mul(4))
        .max_send_buf_size(config.max_send_bytes)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * UNREAD_STREAMS)
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
                Notice::Stop => true,
                Notice::PeriodOver => {
                    held.look();
                    matches!(watchdog.look(), Verdict::Dead)
                }
            };
            if stop && !stopping {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            } else if stop && event == Notice::PeriodOver {
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
