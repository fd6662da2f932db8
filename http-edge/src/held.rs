//! Response bodies of one HTTP/2 connection that the client's windows hold up.
//!
//! hyper takes one frame of a body and asks for the next once the client's windows had room for it. A body that is not asked is held
//! up, with all that is queued behind it, until the client reads or resets the stream: ending the body frees nothing. So what waits is
//! bounded, on each connection and over all of them. Beyond its own bound a connection's streams are reset that made no progress for
//! some time; beyond the bound of all, at once, those of the connection that holds most. Of several those go first that have waited
//! longest.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use slab::Slab;
use tokio::task::AbortHandle;

use crate::held_body::Place;
use crate::pipe::Behind;
use crate::stalled::Stalled;

/// The largest frame that is given at once; what is larger waits here, where it is counted, and not in the connection.
pub(crate) const MAX_FRAME_BYTES: usize = 16 << 10;

/// Frames up to this are not counted by themselves: their stream costs as much.
pub(crate) const MIN_COUNTED_BYTES: usize = 1 << 10;

/// The streams of one connection, and what waits behind them.
pub(crate) struct Held {
    me: Weak<Held>,
    pub(crate) bounds: Bounds,
    /// Over all connections.
    stalled: Stalled,
    /// This one's part of it.
    counted: AtomicUsize,
    /// Whether `stalled` finds it.
    is_listed: AtomicBool,
    streams: Mutex<Streams>,
    /// Something waits: somebody should look.
    filled: AtomicBool,
    task: Mutex<Option<Waker>>,
}

/// How much may wait, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// What the connection itself holds of each that gave a frame.
    pub(crate) max_send_bytes: usize,
    /// What may wait behind all that make no progress.
    pub(crate) max_bytes: usize,
    /// What may wait over all connections.
    pub(crate) max_total_bytes: usize,
}

impl Bounds {
    /// Whether pieces of such a buffer are copies. A slice keeps all of it as long as one piece is not taken, which is right for what the
    /// connection may hold anyway, and would be a page of megabytes for its last kilobytes.
    fn copies(&self, buffer: usize) -> bool {
        buffer > self.max_send_bytes
    }

    /// What is to be in the account for a response that is ready: it, and the copy of a piece that is with the connection.
    pub(crate) fn weight(&self, bytes: usize) -> usize {
        if self.copies(bytes) { bytes.saturating_add(MAX_FRAME_BYTES) } else { bytes }
    }
}

#[derive(Default)]
struct Streams {
    all: Slab<Stream>,
    /// The one whose task hyper is about to spawn.
    called: Option<usize>,
    /// Counts what was asked of bodies, and so says which has waited longest.
    asks: u64,
    /// What it was at the last look.
    looked_at: u64,
}

/// Which streams may be reset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Which {
    /// Those that made no progress from one look to the next.
    Stalled,
    Any,
}

#[derive(Default)]
pub(crate) struct Stream {
    task: Option<AbortHandle>,
    asked: u64,
    /// What is there to be given, with the size of the buffer that it is in.
    ready: Bytes,
    buffer: usize,
    /// What the frame keeps that was given, or what a body that was never asked says that it has.
    given: usize,
    /// It is the client's turn: it was given something, or was not asked yet.
    waits: bool,
    /// And that was so at the last look.
    stalled: bool,
    behind: Option<Behind>,
    /// What it has in the account of all connections.
    counted: usize,
    /// It was reset from here.
    ended: bool,
}

impl Stream {
    /// All that may wait for the client.
    fn bytes(&self, bounds: &Bounds) -> usize {
        if !self.waits {
            return 0;
        }
        let connection = if self.given > 0 { bounds.max_send_bytes.max(self.given) } else { 0 };
        connection + self.buffer + self.behind.as_ref().map_or(0, Behind::bytes)
    }

    /// What should be in the account. A pipe's writer is held up by its reader: what waits there grows to its bound only when
    /// the stream is stalled.
    fn countable(&self, bounds: &Bounds) -> usize {
        let ready = if self.buffer > 0 { bounds.weight(self.buffer) } else { self.given };
        if self.stalled {
            self.bytes(bounds).max(ready)
        } else if self.behind.is_some() || ready <= MIN_COUNTED_BYTES {
            0
        } else {
            ready
        }
    }

    pub(crate) fn put(&mut self, bytes: Bytes) {
        (self.buffer, self.ready) = (bytes.len(), bytes);
    }

    /// A piece of what is ready, which the client is to take.
    pub(crate) fn piece(&mut self, bounds: &Bounds) -> Bytes {
        let piece = self.ready.split_to(self.ready.len().min(MAX_FRAME_BYTES));
        let (piece, keeps) = if bounds.copies(self.buffer) && self.behind.is_none() {
            (Bytes::copy_from_slice(&piece), piece.len())
        } else {
            (piece, self.buffer)
        };
        self.wait(keeps);
        if self.ready.is_empty() {
            (self.buffer, self.ready) = (0, Bytes::new());
        }
        piece
    }

    pub(crate) fn wait(&mut self, given: usize) {
        (self.waits, self.given) = (true, given);
    }

    pub(crate) fn watch(&mut self, behind: Option<Behind>) {
        self.behind = behind;
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }
}

impl Held {
    pub(crate) fn new(bounds: Bounds, stalled: Stalled) -> Arc<Self> {
        Arc::new_cyclic(|me| Held {
            me: Weak::clone(me),
            bounds,
            stalled,
            counted: AtomicUsize::new(0),
            is_listed: AtomicBool::new(false),
            streams: Mutex::default(),
            filled: AtomicBool::new(false),
            task: Mutex::default(),
        })
    }

    /// What it has in the account of all connections.
    pub(crate) fn counted(&self) -> usize {
        self.counted.load(Ordering::SeqCst)
    }

    /// Whether that is worth a look when room is needed.
    pub(crate) fn matters(&self) -> bool {
        self.counted() > MIN_COUNTED_BYTES
    }

    /// Whether it was listed before.
    pub(crate) fn mark_listed(&self, is_listed: bool) -> bool {
        self.is_listed.swap(is_listed, Ordering::SeqCst)
    }

    /// Reserves room in the account for a response that is ready. Without it, the response must not be given.
    pub(crate) fn admits(&self, bytes: usize) -> bool {
        self.stalled.admit(self, bytes, self.bounds.max_total_bytes)
    }

    pub(crate) fn give_back(&self, reserved: usize) {
        self.stalled.take_off(reserved);
    }

    /// Brings the account up to what the stream holds now.
    fn count(&self, stream: &mut Stream) {
        let now = stream.countable(&self.bounds);
        let before = std::mem::replace(&mut stream.counted, now);
        if let Some(less) = before.checked_sub(now) {
            if less > 0 {
                self.counted.fetch_sub(less, Ordering::SeqCst);
                self.stalled.take_off(less);
            }
        } else {
            self.stalled.add(now - before);
            self.grow(now - before);
        }
    }

    fn grow(&self, more: usize) {
        self.counted.fetch_add(more, Ordering::SeqCst);
        if self.matters()
            && !self.is_listed.load(Ordering::SeqCst)
            && let Some(me) = self.me.upgrade()
        {
            self.stalled.list(&me);
        }
    }

    /// To be called without the lock after what may have been too much.
    pub(crate) fn relieve(&self) {
        if self.stalled.bytes() > self.bounds.max_total_bytes {
            self.stalled.relieve(self.bounds.max_total_bytes);
        }
    }

    /// A stream has begun: hyper has called the service, and spawns next what is called.
    pub(crate) fn begin(self: &Arc<Self>) -> Place {
        let mut streams = self.streams.lock();
        let key = streams.all.insert(Stream::default());
        streams.called = Some(key);
        Place::new(Arc::clone(self), key)
    }

    /// What happens to a stream because its body was asked, or is there. `reserved` is what it has in the account already.
    pub(crate) fn ask<T>(
        &self,
        key: usize,
        reserved: usize,
        change: impl FnOnce(&mut Stream) -> T,
    ) -> Option<T> {
        let mut streams = self.streams.lock();
        streams.asks += 1;
        let asks = streams.asks;
        let stream = streams.all.get_mut(key)?;
        (stream.asked, stream.stalled, stream.waits, stream.given) = (asks, false, false, 0);
        if reserved > 0 {
            stream.counted += reserved;
            self.grow(reserved);
        }
        let changed = change(stream);
        self.count(stream);
        Some(changed)
    }

    pub(crate) fn end(&self, key: usize) {
        let mut streams = self.streams.lock();
        let removed = streams.all.try_remove(key).map(|mut stream| {
            let task = stream.task.take();
            let ready = stream.clear();
            self.count(&mut stream);
            (task, ready, stream)
        });
        drop(streams);
        drop(removed);
    }

    /// Says that something waits that the client does not take.
    pub(crate) fn fill(&self) {
        if !self.filled.load(Ordering::Acquire)
            && !self.filled.swap(true, Ordering::AcqRel)
            && let Some(task) = self.task.lock().take()
        {
            task.wake();
        }
    }

    /// Ready once something has waited since the last time.
    pub(crate) fn poll_filled(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.filled.load(Ordering::Acquire) {
            let mut task = self.task.lock();
            if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
        }
        if self.filled.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Looks which streams were not asked since the last look, and resets those of them that have waited longest until the others hold
    /// no more than they may. Whether any waits still.
    pub(crate) fn look(&self) -> bool {
        let mut streams = self.streams.lock();
        let last = streams.looked_at;
        streams.looked_at = streams.asks;
        let (mut waits, mut stalled) = (false, 0_usize);
        for (_, stream) in &mut streams.all {
            stream.stalled = stream.waits && stream.asked <= last;
            waits |= stream.waits && !stream.ended;
            self.count(stream);
            if stream.stalled {
                stalled = stalled.saturating_add(stream.counted);
            }
        }
        let excess = stalled.saturating_sub(self.bounds.max_bytes);
        if excess > 0 {
            self.reset(&mut streams, excess, Which::Stalled).finish(&self.stalled, streams);
        } else {
            drop(streams);
        }
        self.relieve();
        waits
    }

    /// Resets streams that have waited longest until they held as much, if there are so many. What they held.
    pub(crate) fn give_up(&self, bytes: usize, which: Which) -> usize {
        let mut streams = self.streams.lock();
        let reset = self.reset(&mut streams, bytes, which);
        let freed = reset.freed;
        reset.finish(&self.stalled, streams);
        freed
    }

    fn reset(&self, streams: &mut Streams, bytes: usize, which: Which) -> Reset {
        let mut waiting: Vec<_> = streams
            .all
            .iter()
            .filter(|(_, stream)| stream.task.is_some() && stream.counted > 0)
            .filter(|(_, stream)| stream.stalled || which == Which::Any)
            .map(|(key, stream)| (stream.asked, key))
            .collect();
        waiting.sort_unstable();
        let mut reset = Reset::default();
        for (_, key) in waiting {
            if reset.freed >= bytes {
                break;
            }
            let Some(stream) = streams.all.get_mut(key) else { continue };
            reset.freed = reset.freed.saturating_add(stream.counted);
            reset.tasks.extend(stream.task.take());
            reset.ready.push(stream.clear());
            stream.ended = true;
            self.count(stream);
        }
        reset
    }
}

impl Stream {
    /// Forgets what is there, and gives it, to be dropped without the lock.
    fn clear(&mut self) -> (Bytes, Option<Behind>) {
        (self.buffer, self.given, self.waits, self.stalled) = (0, 0, false, false);
        (std::mem::take(&mut self.ready), self.behind.take())
    }
}

/// What is to be done about streams once the lock is given back: to reset one is to drop its task.
#[derive(Default)]
struct Reset {
    freed: usize,
    tasks: Vec<AbortHandle>,
    ready: Vec<(Bytes, Option<Behind>)>,
}

impl Reset {
    fn finish<G>(self, stalled: &Stalled, streams: G) {
        drop(streams);
        if self.tasks.is_empty() {
            return;
        }
        stalled.count_reset(self.tasks.len());
        tracing::debug!(
            streams = self.tasks.len(),
            "reset HTTP/2 streams whose client does not take what waits for it"
        );
        self.tasks.iter().for_each(AbortHandle::abort);
        // Here and now: the tasks may have to wait for their turn behind others that make more.
        drop(self.ready);
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("counted", &self.counted()).finish_non_exhaustive()
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
        let called = self.0.streams.lock().called.take();
        // Not under the lock: a runtime that stops drops the future, and so its place, at once.
        let task = tokio::spawn(future).abort_handle();
        // The key is no other stream's yet: those begin in this task, too.
        if let Some(key) = called
            && let Some(stream) = self.0.streams.lock().all.get_mut(key)
        {
            stream.task = Some(task);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use http_body::Body as _;

    use super::*;
    use crate::Body;
    use crate::held_body::HeldBody;

    const KIB: usize = 1 << 10;
    const SEND: usize = 64 * KIB;
    /// A hundred KiB in the account.
    const PAGE: usize = 100 * KIB - MAX_FRAME_BYTES;

    fn next(body: &mut HeldBody<Body>) -> Option<usize> {
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => Some(frame.into_data().unwrap().len()),
            Poll::Ready(None) => Some(0),
            Poll::Ready(Some(Err(error))) => panic!("{error}"),
            Poll::Pending => None,
        }
    }

    fn held(max_bytes: usize, max_total_bytes: usize, stalled: &Stalled) -> Arc<Held> {
        Held::new(Bounds { max_send_bytes: SEND, max_bytes, max_total_bytes }, stalled.clone())
    }

    fn place(held: &Arc<Held>) -> Place {
        let place = held.begin();
        // What hyper would spawn.
        hyper::rt::Executor::execute(&Spawner(Arc::clone(held)), std::future::pending::<()>());
        place
    }

    fn ready(place: Place, bytes: impl Into<Bytes>) -> HeldBody<Body> {
        HeldBody::new(bytes.into(), Body::empty(), None, place)
    }

    /// A body, if there is room for it.
    fn admitted(held: &Arc<Held>, bytes: usize) -> Option<HeldBody<Body>> {
        let mut place = place(held);
        place.admits(bytes).then(|| ready(place, vec![7; bytes]))
    }

    fn body(held: &Arc<Held>, bytes: usize) -> HeldBody<Body> {
        ready(place(held), vec![7; bytes])
    }

    /// Of each stream, whether it goes on.
    fn tasks(held: &Held) -> Vec<bool> {
        held.streams.lock().all.iter().map(|(_, stream)| stream.task.is_some()).collect()
    }

    #[tokio::test]
    async fn the_streams_that_waited_longest_are_reset_until_the_others_fit() {
        let held = held(300 * KIB, usize::MAX, &Stalled::default());
        let mut bodies: Vec<_> = (0..4).map(|_| body(&held, PAGE)).collect();
        assert!(held.look(), "they wait");
        assert_eq!(tasks(&held), [true; 4], "and may still go on");
        // One goes on; the others are just within the bound with a new one that has not waited for long.
        assert_eq!(next(&mut bodies[0]), Some(MAX_FRAME_BYTES));
        bodies.push(body(&held, PAGE));
        assert!(held.look());
        assert_eq!(tasks(&held), [true; 5], "three hundred KiB made no progress");
        assert_eq!(next(&mut bodies[0]), Some(MAX_FRAME_BYTES));
        assert!(held.look());
        assert_eq!(tasks(&held), [true, false, true, true, true]);
        assert_eq!(next(&mut bodies[1]), None, "it does not end as if it were whole");
        assert!(!bodies[1].is_end_stream());
        drop(bodies);
        assert!(!held.look(), "nothing waits");
        assert!(held.streams.lock().all.is_empty());
    }

    #[tokio::test]
    async fn looks_that_follow_at_once_do_not_make_a_stream_late_that_had_nothing_to_give() {
        let held = held(KIB, usize::MAX, &Stalled::default());
        let (io, pipe) = crate::pipe(SEND);
        let behind = pipe.behind();
        let mut idle = HeldBody::new(Bytes::new(), pipe, behind, place(&held));
        assert_eq!(next(&mut idle), None);
        let mut io = io;
        tokio::io::AsyncWriteExt::write_all(&mut io, &[7; 4 * KIB]).await.unwrap();
        held.look();
        held.look();
        assert_eq!(tasks(&held), [true], "it is not the client that was waited for");
        assert_eq!(next(&mut idle), Some(4 * KIB));
        held.look();
        held.look();
        assert_eq!(tasks(&held), [false], "now it is");
    }

    /// What is with the connection must not keep what was not given yet.
    #[tokio::test]
    async fn a_large_body_is_given_in_copies_and_counts_whole_until_its_last() {
        struct Told(Vec<u8>, Arc<AtomicBool>);
        impl AsRef<[u8]> for Told {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        impl Drop for Told {
            fn drop(&mut self) {
                self.1.store(true, Ordering::SeqCst);
            }
        }
        let stalled = Stalled::default();
        let held = held(usize::MAX, usize::MAX, &stalled);
        let (length, gone) = (SEND + MAX_FRAME_BYTES + 5, Arc::new(AtomicBool::new(false)));
        let bytes = Bytes::from_owner(Told(vec![7; length], Arc::clone(&gone)));
        let mut body = ready(place(&held), bytes);
        assert_eq!(
            (body.size_hint().exact(), stalled.bytes()),
            (Some(length as u64), held.bounds.weight(length))
        );
        let mut pieces = Vec::new();
        for left in [5, 4, 3, 2, 1] {
            assert!(!gone.load(Ordering::SeqCst) && !body.is_end_stream());
            let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Some(Ok(frame))) = polled else { panic!("{left} left") };
            pieces.push(frame.into_data().unwrap());
            assert_eq!(stalled.bytes(), held.bounds.weight(length), "the buffer, and the piece");
        }
        assert_eq!(next(&mut body), Some(5));
        assert!(gone.load(Ordering::SeqCst) && body.is_end_stream());
        assert_eq!((stalled.bytes(), pieces.concat().len()), (0, length - 5));
    }

    #[tokio::test]
    async fn one_that_holds_little_is_served_and_one_that_holds_most_gives_way() {
        let stalled = Stalled::default();
        let [large, small] = [(); 2].map(|()| held(usize::MAX, 1_000 * KIB, &stalled));
        let many: Vec<_> = (0..10).filter_map(|_| admitted(&large, PAGE)).collect();
        assert_eq!((many.len(), stalled.bytes()), (10, 1_000 * KIB), "up to the bound");
        // There is no excess, and no room.
        assert!(admitted(&large, 2 * KIB).is_none(), "nobody gives way to the one that holds most");
        assert_eq!((stalled.refused(), stalled.reset()), (1, 0));
        let few: Vec<_> = (0..3).filter_map(|_| admitted(&small, PAGE)).collect();
        assert_eq!((few.len(), stalled.refused()), (3, 1), "its answers are not refused");
        assert_eq!(stalled.reset(), 3);
        assert_eq!((large.counted(), small.counted()), (700 * KIB, 300 * KIB), "at once, without a look");
        assert_eq!(tasks(&large)[..4], [false, false, false, true], "those that waited longest");
        assert_eq!(tasks(&small), [true; 3]);
        assert_eq!(stalled.bytes(), 1_000 * KIB);
        drop((many, few));
        assert_eq!((stalled.bytes(), large.counted(), small.counted()), (0, 0, 0));
    }

    #[tokio::test]
    async fn what_makes_no_progress_gives_way_to_one_that_holds_less_now() {
        let stalled = Stalled::default();
        let connections: Vec<_> = (0..4).map(|_| held(usize::MAX, 400 * KIB, &stalled)).collect();
        let mut bodies: Vec<_> = connections.iter().map(|held| body(held, PAGE)).collect();
        let newcomer = held(usize::MAX, 400 * KIB, &stalled);
        assert!(admitted(&newcomer, PAGE).is_none(), "none would hold more than it would");
        connections.iter().for_each(|held| assert!(held.look()));
        assert_eq!(next(&mut bodies[0]), Some(MAX_FRAME_BYTES));
        connections.iter().for_each(|held| assert!(held.look()));
        assert_eq!(stalled.reset(), 0);
        assert!(admitted(&newcomer, PAGE).is_some());
        assert!(tasks(&connections[0])[0], "one that is read goes on");
        assert!(stalled.bytes() <= 400 * KIB);
    }

    /// An answer to what has happened must not say that it has not: it is given, and others make room.
    #[tokio::test]
    async fn an_answer_that_must_be_given_makes_the_largest_give_way() {
        let stalled = Stalled::default();
        let [large, small] = [(); 2].map(|()| held(usize::MAX, 500 * KIB, &stalled));
        let _many: Vec<_> = (0..5).map(|_| body(&large, PAGE)).collect();
        let _one = body(&small, PAGE + 50 * KIB);
        assert_eq!((stalled.reset(), stalled.refused()), (2, 0));
        assert_eq!((tasks(&large), tasks(&small)), (vec![false, false, true, true, true], vec![true]));
        assert_eq!(stalled.bytes(), 450 * KIB);
    }

    #[tokio::test]
    async fn many_small_answers_are_in_the_account_and_what_was_reserved_is_given_back() {
        let stalled = Stalled::default();
        let one = held(usize::MAX, 100 * KIB, &stalled);
        let bodies: Vec<_> = (0..60).filter_map(|_| admitted(&one, 2 * KIB)).collect();
        assert_eq!((bodies.len(), stalled.bytes()), (50, 100 * KIB));
        drop(bodies);
        let mut unused = place(&one);
        assert!(unused.admits(PAGE) && stalled.bytes() == 100 * KIB);
        drop(unused);
        assert!(!place(&one).admits(PAGE + 1), "one that could never fit makes nobody give way");
        assert_eq!((stalled.bytes(), stalled.reset()), (0, 0));
    }
}
