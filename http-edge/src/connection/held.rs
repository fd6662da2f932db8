//! Response bodies of one HTTP/2 connection that the client's windows hold up.
//!
//! hyper asks a body for its next frame only when the client's windows have room for it. One that is not asked is held
//! up, with all that is queued behind it, until the client reads or resets the stream: ending the body frees nothing.
//! So what waits behind such bodies is bounded, on each connection and over all of them, and beyond a bound the streams
//! that have waited longest are reset from here: of one connection those that made no progress, over all those of the
//! connection that holds most.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use slab::Slab;
use tokio::task::AbortHandle;

use super::stalled::{Holder, Stalled};
use crate::request::{Behind, BoxError, Filled};

/// The largest frame that is given at once; what is larger waits here, where it is counted, and not in the connection.
const MAX_FRAME_BYTES: usize = 16 << 10;

/// The streams of one connection, and what waits behind them.
pub(crate) struct Held {
    bounds: Bounds,
    /// Over all connections.
    stalled: Stalled,
    /// This one's part of it.
    counted: AtomicUsize,
    streams: Mutex<Streams>,
    /// A stream has more than its share waiting: somebody should look. By itself, as pipes know no more of the
    /// connection.
    filled: Arc<Filled>,
    /// More waits over all connections than may, or would, and most of it here.
    gives_way: AtomicBool,
    /// Bytes that the largest of the answers refused since the last look would have needed.
    needed: AtomicUsize,
}

/// How much may wait, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes that the connection itself holds of each body that gave a frame.
    pub(crate) max_send_bytes: usize,
    /// Bytes that may wait behind all bodies of the connection that make no progress.
    pub(crate) max_bytes: usize,
    /// Bytes that may wait over all connections.
    pub(crate) max_total_bytes: usize,
}

#[derive(Default)]
struct Streams {
    all: Slab<Stream>,
    /// The one whose task hyper is about to spawn.
    called: Option<usize>,
    /// Counts the looks.
    look: u64,
    /// Bytes that the last look found behind the bodies; they are in the account.
    behind: usize,
}

struct Stream {
    task: Option<AbortHandle>,
    /// It was given up before its task was spawned.
    is_over: bool,
    /// Places in hand.
    places: u8,
    /// The look after which its body was asked last.
    asked_at: u64,
    /// What waits in the body and in the connection.
    waiting: usize,
    behind: Option<Behind>,
}

impl Stream {
    fn bytes(&self) -> usize {
        self.waiting + self.behind.as_ref().map_or(0, Behind::bytes)
    }
}

impl Held {
    pub(crate) fn new(bounds: Bounds, stalled: Stalled) -> Arc<Self> {
        let held = Arc::new(Held {
            bounds,
            stalled,
            counted: AtomicUsize::new(0),
            streams: Mutex::default(),
            filled: Arc::default(),
            gives_way: AtomicBool::new(false),
            needed: AtomicUsize::new(0),
        });
        let weak = Arc::downgrade(&held);
        held.stalled.enter(weak);
        held
    }

    /// Whether it is in the account: less the connection takes at once.
    fn is_counted(&self, bytes: usize) -> bool {
        bytes > self.bounds.max_send_bytes
    }

    /// Whether a response that is ready may be given to the connection. If not, somebody is told to make room.
    pub(crate) fn admits(&self, bytes: usize) -> bool {
        let fits = !self.is_counted(bytes)
            || self.stalled.bytes().saturating_add(bytes) <= self.bounds.max_total_bytes;
        if !fits {
            self.stalled.count_refused();
            // The next one is to find room, however long those who hold it would.
            self.stalled.relieve(bytes);
        }
        fits
    }

    /// Puts what was `before` in the account as `now`.
    fn account(&self, before: usize, now: usize) {
        if let Some(more) = now.checked_sub(before) {
            self.counted.fetch_add(more, Ordering::Relaxed);
            self.stalled.add(more);
            if more > 0 && self.stalled.bytes() > self.bounds.max_total_bytes {
                self.stalled.relieve(0);
            }
        } else {
            self.counted.fetch_sub(before - now, Ordering::Relaxed);
            self.stalled.take_off(before - now);
        }
    }

    /// Whether a look should not wait for its time.
    pub(crate) fn is_urgent(&self) -> bool {
        self.gives_way.load(Ordering::Acquire)
    }

    /// A stream has begun: hyper has called the service, and spawns next what is called.
    pub(crate) fn begin(self: &Arc<Self>) -> Place {
        let mut streams = self.streams.lock();
        let asked_at = streams.look;
        let stream = Stream { task: None, is_over: false, places: 1, asked_at, waiting: 0, behind: None };
        let key = streams.all.insert(stream);
        streams.called = Some(key);
        Place { held: Arc::clone(self), key }
    }

    /// Ready once something has waited since the last time.
    pub(crate) fn poll_filled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.filled.poll(cx)
    }

    /// Looks at the streams that were not asked since the last look, and resets the ones that have waited longest until
    /// the others hold no more than they may; if the connection is to give way, of all streams, until all connections
    /// hold no more than they may. Whether any waits still.
    pub(crate) fn look(&self) -> bool {
        let mut reset = Vec::new();
        let gives_way = self.gives_way.swap(false, Ordering::AcqRel);
        let needed = if gives_way { self.needed.swap(0, Ordering::Relaxed) } else { 0 };
        let waits = {
            let mut streams = self.streams.lock();
            let last = streams.look;
            streams.look += 1;
            let mut waiting: Vec<_> = streams
                .all
                .iter()
                // One whose task was ended goes as soon as that is noticed.
                .filter(|(_, stream)| stream.task.is_some())
                .filter_map(|(key, stream)| {
                    let bytes = stream.bytes();
                    (bytes > 0).then_some((stream.asked_at, bytes, key))
                })
                .collect();
            let any = !waiting.is_empty();
            let behind = streams.all.iter().filter_map(|(_, stream)| stream.behind.as_ref());
            let behind = behind.map(Behind::bytes).sum();
            self.account(std::mem::replace(&mut streams.behind, behind), behind);
            // Those that were reset leave the account when their tasks are dropped: nobody else is reset for them.
            let is_leaving = |stream: &&Stream| stream.task.is_none() && self.is_counted(stream.waiting);
            let leaving = streams.all.iter().map(|(_, stream)| stream).filter(is_leaving);
            let leaving: usize = leaving.map(Stream::bytes).sum();
            let wanted = self.stalled.bytes().saturating_add(needed).saturating_sub(leaving);
            let excess = wanted.saturating_sub(self.bounds.max_total_bytes);
            if !gives_way || excess == 0 {
                waiting.retain(|(asked_at, ..)| *asked_at < last);
            }
            let mut total: usize = waiting.iter().map(|(_, bytes, _)| bytes).sum();
            let max_bytes = if gives_way {
                self.bounds.max_bytes.min(total.saturating_sub(excess))
            } else {
                self.bounds.max_bytes
            };
            if total > max_bytes {
                waiting.sort_unstable_by_key(|(asked_at, bytes, _)| (*asked_at, std::cmp::Reverse(*bytes)));
            }
            for (_, bytes, key) in waiting {
                if total <= max_bytes {
                    break;
                }
                total -= bytes;
                reset.extend(streams.all.get_mut(key).and_then(|stream| stream.task.take()));
            }
            any
        };
        if !reset.is_empty() {
            self.stalled.count_reset(reset.len());
            tracing::debug!(
                streams = reset.len(),
                "reset HTTP/2 streams whose client does not take what waits for it"
            );
        }
        reset.iter().for_each(AbortHandle::abort);
        waits
    }
}

impl Holder for Held {
    fn counted(&self) -> usize {
        self.counted.load(Ordering::Relaxed)
    }

    fn give_way(&self, needed: usize) {
        self.needed.fetch_max(needed, Ordering::Relaxed);
        self.gives_way.store(true, Ordering::Release);
        self.filled.set();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.stalled.take_off(self.counted.load(Ordering::Relaxed));
    }
}

/// Spawns what hyper wants to run for a stream, and remembers it: to reset a stream is to drop its task.
#[derive(Clone)]
pub(crate) struct Spawner(pub(crate) Arc<Held>);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let mut streams = self.0.streams.lock();
        // What a stream's task spawns goes on for it: its answer was a 200 to CONNECT.
        let goes_on = RUNNING.get();
        let Some(key) = goes_on.or_else(|| streams.called.take()) else {
            drop(streams);
            tokio::spawn(future);
            return;
        };
        // The key is taken before the task can end and give it back.
        match streams.all.get_mut(key) {
            Some(stream) if !stream.is_over => {
                let place = goes_on.map(|key| {
                    stream.places += 1;
                    Place { held: Arc::clone(&self.0), key }
                });
                stream.task = Some(tokio::spawn(Running { key, _place: place, future }).abort_handle());
            }
            _ => {
                drop(streams);
                drop(future);
            }
        }
    }
}

thread_local! {
    /// The stream whose task runs on this thread, by its key.
    static RUNNING: Cell<Option<usize>> = const { Cell::new(None) };
}

pin_project! {
    /// The task of a stream.
    struct Running<F> {
        key: usize,
        // Of one that goes on after its answer was handed over.
        _place: Option<Place>,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Running<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        /// Also when the task panics.
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                RUNNING.set(None);
            }
        }
        let this = self.project();
        RUNNING.set(Some(*this.key));
        let _leave = Leave;
        this.future.poll(cx).map(drop)
    }
}

/// A stream's place among those of its connection; given back when dropped.
pub(crate) struct Place {
    held: Arc<Held>,
    key: usize,
}

impl Place {
    /// See [`Held::admits`].
    pub(crate) fn admits(&self, bytes: usize) -> bool {
        self.held.admits(bytes)
    }

    /// The same place, given back when all who have it have dropped it.
    pub(crate) fn share(&self) -> Self {
        self.with(|stream, _| stream.places += 1);
        Place { held: Arc::clone(&self.held), key: self.key }
    }

    /// The client takes what comes, but for so much.
    pub(crate) fn asked(&self, waiting: usize) {
        self.with(|stream, look| (stream.asked_at, stream.waiting) = (look, waiting));
    }

    /// So much waits beside what is behind the stream.
    pub(crate) fn blocked(&self, waiting: usize) {
        self.with(|stream, _| stream.waiting = waiting);
        self.held.filled.set();
    }

    /// Nothing more comes behind the so much that may wait.
    pub(crate) fn left(&self, waiting: usize) {
        let mut behind = None;
        self.with(|stream, _| {
            stream.waiting = waiting;
            behind = stream.behind.take();
        });
        self.held.filled.set();
    }

    /// Counts what fills the stream.
    pub(crate) fn fed_by(&self, behind: Behind) {
        self.with(|stream, _| stream.behind = Some(behind));
    }

    /// Resets the stream.
    pub(crate) fn reset(&self) {
        let mut task = None;
        self.with(|stream, _| {
            stream.is_over = true;
            task = stream.task.take();
        });
        if let Some(task) = task {
            task.abort();
        }
    }

    fn with(&self, change: impl FnOnce(&mut Stream, u64)) {
        let mut streams = self.held.streams.lock();
        let look = streams.look;
        if let Some(stream) = streams.all.get_mut(self.key) {
            change(stream, look);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut streams = self.held.streams.lock();
        let Some(stream) = streams.all.get_mut(self.key) else { return };
        stream.places -= 1;
        let removed = (stream.places == 0).then(|| streams.all.try_remove(self.key));
        drop(streams);
        drop(removed);
    }
}

/// A body that is counted while it is held up.
pub(crate) struct HeldBody<B> {
    body: B,
    /// The part of the body's last frame that was not given yet.
    rest: Bytes,
    /// Bytes of it that are in the account of all connections.
    counted: usize,
    place: Place,
}

impl<B> Drop for HeldBody<B> {
    fn drop(&mut self) {
        self.place.held.account(self.counted, 0);
    }
}

impl<B: HttpBody> HeldBody<B> {
    /// `behind` is what fills the body.
    pub(crate) fn new(body: B, behind: Option<Behind>, place: Place) -> Self {
        let known = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if let Some(behind) = &behind {
            behind.watched_by(&place.held.filled);
        }
        place.with(|stream, look| {
            (stream.asked_at, stream.waiting, stream.behind) = (look, known, behind);
        });
        let mut held = HeldBody { body, rest: Bytes::new(), counted: 0, place };
        held.fill(known);
        held
    }

    fn fill(&mut self, waiting: usize) {
        let held = &self.place.held;
        let counted = if held.is_counted(waiting) { waiting } else { 0 };
        if counted != self.counted {
            held.account(std::mem::replace(&mut self.counted, counted), counted);
        }
        if counted > 0 {
            held.filled.set();
        }
    }

    /// It was asked, and has so much more, or nothing to wait for.
    fn asked(&mut self, waiting: usize) {
        self.place.asked(waiting);
        self.fill(waiting);
    }

    fn piece(&mut self) -> Frame<Bytes> {
        let piece = self.rest.split_to(self.rest.len().min(MAX_FRAME_BYTES));
        self.asked(self.place.held.bounds.max_send_bytes.saturating_add(self.rest.len()));
        Frame::data(piece)
    }
}

impl<B: HttpBody<Data = Bytes, Error = BoxError> + Unpin> HttpBody for HeldBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(Some(Ok(frame))) = polled else {
            self.asked(0);
            return polled;
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => {
                self.rest = data;
                self.piece()
            }
            Err(trailers) => trailers,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        // The upper bound first: it must not be below the lower one.
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::request::Body;

    fn next(body: &mut HeldBody<Body>) -> usize {
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap().len(),
            Poll::Ready(None) => 0,
            other => panic!("{other:?}"),
        }
    }

    fn held(bytes: usize) -> Arc<Held> {
        held_of(bytes, usize::MAX, &Stalled::default())
    }

    fn held_of(max_bytes: usize, max_total_bytes: usize, stalled: &Stalled) -> Arc<Held> {
        Held::new(Bounds { max_send_bytes: 10, max_bytes, max_total_bytes }, stalled.clone())
    }

    fn body(held: &Arc<Held>, bytes: usize) -> HeldBody<Body> {
        let place = held.begin();
        // What hyper would spawn.
        hyper::rt::Executor::execute(&Spawner(Arc::clone(held)), std::future::pending::<()>());
        HeldBody::new(Body::full(vec![7; bytes]), None, place)
    }

    fn tasks(held: &Held) -> usize {
        held.streams.lock().all.iter().filter(|(_, stream)| stream.task.is_some()).count()
    }

    #[tokio::test]
    async fn the_streams_that_waited_longest_are_reset_until_the_others_fit() {
        let held = held(3_000);
        let mut bodies: Vec<_> = (0..4).map(|_| body(&held, 1_000)).collect();
        assert!(held.look(), "they wait");
        assert_eq!(tasks(&held), 4, "and may still go on");
        // One goes on; the others are beyond the bound with a new one that waits for longer than a look.
        assert_eq!(next(&mut bodies[0]), 1_000);
        bodies.push(body(&held, 500));
        assert!(held.look());
        assert_eq!(tasks(&held), 5, "three thousand bytes made no progress");
        bodies.push(body(&held, 1_000));
        assert!(held.look());
        assert!(held.look());
        let left: Vec<_> = held.streams.lock().all.iter().map(|(_, stream)| stream.task.is_some()).collect();
        assert_eq!(left, [true, false, false, true, true, true]);
        assert_eq!(next(&mut bodies[0]), 0, "its end");
        drop(bodies);
        assert!(!held.look(), "nothing waits");
        assert!(held.streams.lock().all.is_empty());
    }

    #[tokio::test]
    async fn a_large_frame_is_given_in_pieces_and_its_rest_counts() {
        let held = held(1 << 20);
        let mut body = body(&held, MAX_FRAME_BYTES * 2 + 5);
        assert_eq!(body.size_hint().exact(), Some(MAX_FRAME_BYTES as u64 * 2 + 5));
        assert_eq!(next(&mut body), MAX_FRAME_BYTES);
        assert_eq!(body.size_hint().exact(), Some(MAX_FRAME_BYTES as u64 + 5));
        assert!(!body.is_end_stream());
        let waiting = held.streams.lock().all.iter().map(|(_, stream)| stream.bytes()).sum::<usize>();
        assert_eq!(waiting, 10 + MAX_FRAME_BYTES + 5);
        assert_eq!((next(&mut body), next(&mut body)), (MAX_FRAME_BYTES, 5));
        assert!(body.is_end_stream());
        assert_eq!(next(&mut body), 0);
        assert!(!held.look());
    }

    #[tokio::test]
    async fn what_all_connections_hold_is_bounded_and_the_largest_gives_way() {
        let stalled = Stalled::default();
        let [large, small] = [(); 2].map(|()| held_of(usize::MAX, 10_000, &stalled));
        let mut many: Vec<_> = (0..8).map(|_| body(&large, 1_000)).collect();
        let few = body(&small, 1_500);
        assert_eq!((stalled.bytes(), large.counted(), small.counted()), (9_500, 8_000, 1_500));
        assert!(small.admits(500) && small.admits(10) && !large.is_urgent());
        // What is ready and does not fit is refused, and somebody makes room.
        assert!(!small.admits(501) && large.is_urgent() && !small.is_urgent());
        assert_eq!(stalled.refused(), 1);
        assert!(large.look());
        assert_eq!((tasks(&large), stalled.reset()), (7, 1), "as much as would have been needed");
        // A body that grows is in the account at once, and the look that follows does not ask for how long others have
        // waited.
        let more = body(&small, 2_500);
        assert!(large.is_urgent());
        assert!(large.look());
        assert_eq!((tasks(&large), tasks(&small), stalled.reset()), (6, 2, 2));
        // Until those that were reset are gone they hold what they hold, and nobody else is reset for it.
        large.give_way(0);
        assert!(large.look());
        assert_eq!((tasks(&large), tasks(&small), stalled.reset()), (6, 2, 2));
        // What is given or gone leaves the account.
        assert_eq!(next(&mut many[7]), 1_000);
        drop((many, few, more));
        assert_eq!((stalled.bytes(), large.counted(), small.counted()), (0, 0, 0));
        let left = body(&large, 1_000);
        std::mem::forget(left);
        assert_eq!(stalled.bytes(), 1_000);
    }
}
