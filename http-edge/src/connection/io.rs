//! The stream that hyper sees, of which a connection's driver learns what goes on.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use link::{Hold, NetStream};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::refuse::{Unread, canned};
use super::scan::{HEAD, HeadScan, LastRead};
use super::watch::Watch;

/// A connection's stream under watch. A concrete type, so that an upgraded connection can be cast back to it.
pub(crate) struct WatchedIo {
    io: TokioIo<NetStream>,
    watch: Arc<Watch>,
    hold: Hold,
    /// What was read already.
    prefix: Bytes,
    /// A head that comes in pieces.
    head: HeadScan,
    /// What hyper says of a head that it cannot read; somebody else says it better.
    canned: Option<Box<[u8]>>,
    /// Runs from when the client was found to have ended its side.
    grace: Option<Pin<Box<Sleep>>>,
}

/// Head and body of an answer up to here are copied together for one `send`: to the kernel that is less work than
/// gathering two pieces.
const JOINED_BYTES: usize = 1024;

fn join<'a>(slices: &[IoSlice<'_>], joined: &'a mut [u8; JOINED_BYTES]) -> Option<&'a [u8]> {
    let mut rest = &mut joined[..];
    for slice in slices {
        let (place, after) = rest.split_at_mut_checked(slice.len())?;
        place.copy_from_slice(slice);
        rest = after;
    }
    let free = rest.len();
    Some(&joined[..JOINED_BYTES - free])
}

/// How long hyper does not hear that a client has ended its side.
const HALF_CLOSED_GRACE: Duration = Duration::from_secs(1);

impl WatchedIo {
    pub(crate) fn new(stream: NetStream, watch: Arc<Watch>, hold: Hold) -> Self {
        let io = TokioIo::new(stream);
        let (prefix, head) = (Bytes::new(), HeadScan::default());
        WatchedIo { io, watch, hold, prefix, head, canned: None, grace: None }
    }

    pub(crate) fn into_parts(self) -> (NetStream, Hold) {
        (self.io.into_inner(), self.hold)
    }

    pub(crate) fn stream(&mut self) -> &mut NetStream {
        self.io.inner_mut()
    }

    /// What hyper would have said of a head that it could not read, and what is known of that.
    pub(crate) fn take_canned(&mut self) -> Option<Unread> {
        let canned = self.canned.take()?;
        let is_head = self.watch.head_begun.load(Relaxed);
        Some(Unread { canned, is_head, origin: self.head.take_origin() })
    }

    /// Takes from hyper what it says of a head that it cannot read: how many of these bytes are to be written, if not
    /// all.
    fn intercept(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.watch.busy.load(Relaxed) > 0 || !bytes.ends_with(b"\r\n\r\n") {
            return None;
        }
        let at = canned(bytes)?;
        if at == 0 {
            HEAD.with_borrow_mut(|last| self.look_again(last));
            self.canned = Some(bytes.into());
        }
        Some(at)
    }

    /// Looks at what was read, if it is of a head.
    fn scan(&mut self, bytes: &[u8]) {
        let number = self.watch.requests.load(Relaxed) + 1;
        let is_first = self.watch.scanned.swap(number, Relaxed) != number;
        if is_first {
            self.head = HeadScan::default();
        }
        self.watch.keep_piece(bytes, is_first);
        self.head.feed(bytes);
        self.watch.two_lengths.store(self.head.has_two_lengths(), Relaxed);
    }

    /// Whether the head that comes is looked at piece by piece.
    fn scans(&self) -> bool {
        self.watch.scanned.load(Relaxed) == self.watch.requests.load(Relaxed) + 1
    }

    /// Looks at what was read last if it is of the head that is still coming.
    fn look_again(&mut self, last: &mut LastRead) {
        if last.of == (self.watch.id, self.watch.requests.load(Relaxed)) {
            last.of = (0, 0);
            self.scan(last.bytes());
        }
    }

    /// Reads what may be a head. It is copied once more on its way, as hyper's buffer is no place to look into.
    fn poll_read_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        HEAD.with_borrow_mut(|last| {
            // hyper asks for more: the head has not come whole.
            self.look_again(last);
            let length = last.space.len().min(buf.remaining());
            let mut read = ReadBuf::new(last.space.get_mut(..length).unwrap_or_default());
            ready!(Pin::new(self.io.inner_mut()).poll_read(cx, &mut read))?;
            buf.put_slice(read.filled());
            last.length = read.filled().len();
            if self.scans() {
                last.of = (0, 0);
                self.scan(last.bytes());
            } else {
                last.of = (self.watch.id, self.watch.requests.load(Relaxed));
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Has `bytes` read before what the socket has.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        self.prefix = bytes;
    }

    /// Ready when hyper may read. To hyper a client that has ended its side is gone, and its request given up; but it
    /// may well be waiting for the answer.
    fn poll_grace(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut byte = [0; 1];
        let ended = ready!(self.io.inner().poll_peek(cx, &mut ReadBuf::new(&mut byte)));
        if !matches!(ended, Ok(0)) {
            return Poll::Ready(());
        }
        let grace = self.grace.get_or_insert_with(|| Box::pin(sleep(HALF_CLOSED_GRACE)));
        ready!(grace.as_mut().poll(cx));
        if self.watch.busy.load(Relaxed) > 0 {
            return Poll::Ready(());
        }
        // The answer is being written. A client that does not take it is the watchdog's.
        grace.as_mut().reset(Instant::now() + HALF_CLOSED_GRACE);
        grace.as_mut().poll(cx)
    }

    /// Whether the client of the request under way has hung up. Asked here, because hyper can ask only by reading, into
    /// a buffer of 8 KiB that each connection would hold for as long as its request is held.
    fn is_abandoned(&mut self, cx: &mut Context<'_>) -> bool {
        if self.watch.busy.load(Relaxed) == 0 {
            return false;
        }
        let mut byte = [0; 1];
        match self.io.inner().poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0)) => !self.is_patient() || self.poll_grace(cx).is_ready(),
            // Pipelined requests wait where they are.
            Poll::Ready(Ok(_)) | Poll::Pending => false,
            Poll::Ready(Err(_)) => true,
        }
    }

    /// Whether a request is under way whose client need not be there any more, or its answer not yet written.
    fn is_patient(&self) -> bool {
        let Watch { patient, busy, handed_over, flushes, .. } = &*self.watch;
        patient.load(Relaxed)
            && (busy.load(Relaxed) > 0 || handed_over.load(Relaxed) == flushes.load(Relaxed))
    }

    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        match outcome {
            Poll::Pending => self.watch.blocked.store(true, Relaxed),
            Poll::Ready(_) => {
                self.watch.blocked.store(false, Relaxed);
                self.watch.progress.fetch_add(1, Relaxed);
            }
        }
    }
}

impl Read for WatchedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let length = self.prefix.len().min(buf.remaining());
            let prefix = self.prefix.split_to(length);
            buf.put_slice(&prefix);
            self.scan(&prefix);
            self.watch.head_begun.store(true, Relaxed);
            return Poll::Ready(Ok(()));
        }
        if self.is_patient() {
            ready!(self.poll_grace(cx));
        }
        let outcome = if self.watch.busy.load(Relaxed) == 0 {
            self.poll_read_head(cx, &mut buf)
        } else {
            Pin::new(&mut self.io).poll_read(cx, buf)
        };
        if outcome.is_ready() {
            self.watch.head_begun.store(true, Relaxed);
            self.watch.progress.fetch_add(1, Relaxed);
        }
        outcome
    }
}

impl Write for WatchedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let bytes = match self.intercept(bytes) {
            None => bytes,
            Some(0) => return Poll::Ready(Ok(bytes.len())),
            Some(before) => bytes.get(..before).unwrap_or_default(),
        };
        let outcome = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut joined = [0; JOINED_BYTES];
        let outcome = match join(slices, &mut joined) {
            Some(bytes) => return self.poll_write(cx, bytes),
            None => Pin::new(&mut self.io).poll_write_vectored(cx, slices),
        };
        self.wrote(&outcome);
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        if outcome.is_ready() {
            self.watch.flushes.fetch_add(1, Relaxed);
        }
        // hyper flushes whenever it has nothing to write, so also each time that it is polled while a request is held.
        if self.is_abandoned(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.canned.is_some() {
            // There is an answer yet to be written.
            return Poll::Ready(Ok(()));
        }
        let outcome = Pin::new(&mut self.io).poll_shutdown(cx);
        if matches!(outcome, Poll::Ready(Ok(()))) {
            self.watch.shut.store(true, Relaxed);
        }
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
