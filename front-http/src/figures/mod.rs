//! `GET /v1/figures`: what the broker is doing, once a second, for those who look on.
//!
//! One task makes the figures, once for all who watch, and ends when nobody does: then nothing is computed.
//! `measure.rs` makes them; `busiest.rs` and `slow.rs` are the parts of them that look at more than counters, each with
//! a bound on what it looks at in one second.

mod busiest;
mod measure;
mod slow;

use std::sync::{Arc, Weak};
use std::time::Duration;

use ::front::{Metric, MetricSource};
use broker_core::{Authenticator, Broker, Principal};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use http_edge::{Body, Response, pipe};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use self::measure::Measuring;
use self::watcher::Watcher;
use crate::answer::json;
use crate::connections::may_manage_all;
use crate::error::Error;
use crate::query::no_parameters;

mod watcher;

/// How often figures are made.
const PERIOD: Duration = Duration::from_secs(1);
/// What may wait for one who watches; more than one set of figures.
const PIPE_BYTES: usize = 64 << 10;

/// The numbers that others count.
pub(crate) type Sources = RwLock<Vec<Arc<dyn MetricSource>>>;

/// The figures of one broker, and those who watch them.
pub(crate) struct Figures {
    broker: Broker,
    authenticator: Arc<dyn Authenticator>,
    sources: Arc<Sources>,
    /// The newest figures as JSON; `None` as long as nobody has asked for any.
    latest: watch::Sender<Option<Bytes>>,
    /// The task that makes them, while somebody watches.
    ticking: Mutex<Option<JoinHandle<()>>>,
    places: Arc<Semaphore>,
    max_watchers: usize,
    /// True once the front shuts down.
    closing: watch::Sender<bool>,
}

impl Figures {
    pub(crate) fn new(
        broker: Broker,
        authenticator: Arc<dyn Authenticator>,
        sources: Arc<Sources>,
        max_watchers: usize,
    ) -> Arc<Self> {
        let max_watchers = max_watchers.min(Semaphore::MAX_PERMITS);
        let figures = Arc::new(Figures {
            broker,
            authenticator,
            sources,
            latest: watch::Sender::new(None),
            ticking: Mutex::new(None),
            places: Arc::new(Semaphore::new(max_watchers)),
            max_watchers,
            closing: watch::Sender::new(false),
        });
        let counted = Arc::downgrade(&figures);
        figures.sources.write().push(Arc::new(move |out: &mut Vec<Metric>| {
            let watchers = counted.upgrade().map_or(0, |figures| figures.watchers());
            out.push(Metric::gauge("http_watchers", "Streams of figures open now", watchers as u64));
        }));
        figures
    }

    /// The figures as they are now, or, for who accepts events, from now on.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        principal: &Principal,
        method: &Method,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Result<Response, Error> {
        no_parameters(query)?;
        may_manage_all(principal)?;
        let streams = accepts_events(headers);
        if streams && method == Method::HEAD {
            return Ok(stream(Body::empty()));
        }
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Error::TooManyWatchers { max: self.max_watchers })?;
        let mut closing = self.closing.subscribe();
        if *closing.borrow_and_update() {
            return Err(Error::Closing);
        }
        let mut latest = self.watch();
        if !streams {
            let first = latest.wait_for(Option::is_some);
            let first = first.await.map_err(|_| Error::Closing)?.clone();
            return Ok(json(first.unwrap_or_default().into()));
        }
        let (io, body) = pipe(PIPE_BYTES);
        let watcher = Watcher {
            latest,
            closing,
            authenticator: Arc::clone(&self.authenticator),
            principal: principal.clone(),
            _place: place,
        };
        tokio::spawn(async move {
            // It fails once the client is gone, or takes nothing; there is nobody to tell.
            let _ = watcher.run(io).await;
        });
        Ok(stream(body))
    }

    /// Ends all streams and lets nobody watch any more.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }

    fn watchers(&self) -> usize {
        self.max_watchers - self.places.available_permits()
    }

    /// The newest figures from now on; they are made as long as the receiver lives.
    fn watch(self: &Arc<Self>) -> watch::Receiver<Option<Bytes>> {
        let mut ticking = self.ticking.lock();
        let latest = self.latest.subscribe();
        // One that is finished although it is here has panicked, or its runtime is gone.
        if ticking.as_ref().is_none_or(JoinHandle::is_finished) {
            *ticking = Some(tokio::spawn(tick(Arc::downgrade(self))));
        }
        latest
    }

    /// Whether nobody watches any more: then the task that asks is to end.
    fn stop_if_unwatched(&self) -> bool {
        let mut ticking = self.ticking.lock();
        let is_over = self.latest.receiver_count() == 0;
        if is_over {
            *ticking = None;
            // Whoever comes next wants none of yesterday's.
            self.latest.send_replace(None);
        }
        is_over
    }
}

/// Makes figures until nobody watches, or the front is gone: it keeps no broker.
async fn tick(figures: Weak<Figures>) {
    let mut measuring = Measuring::default();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(figures) = figures.upgrade() else { return };
        if figures.stop_if_unwatched() {
            return;
        }
        let json = measuring.take(&figures.broker, &figures.sources).await;
        figures.latest.send_replace(Some(json.into()));
    }
}

/// Whether a client says that it takes events; one that takes anything gets one document.
fn accepts_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter();
    let mut ranges = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    ranges.any(|range| {
        let kind = range.split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    })
}

fn stream(body: Body) -> Response {
    let mut response = http::Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // nginx would otherwise wait until it has a buffer full.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_names_events_gets_them() {
        for (accept, expected) in [
            (None, false),
            (Some("*/*"), false),
            (Some("application/json"), false),
            (Some("text/event-stream"), true),
            (Some("application/json, Text/Event-Stream;q=0.9"), true),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(accepts_events(&headers), expected, "{accept:?}");
        }
    }
}
