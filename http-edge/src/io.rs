//! The stream that hyper sees, and what the driver of a connection learns from watching it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use link::Hold;
use parking_lot::Mutex;
use tokio::net::TcpStream;

/// One HTTP/1 connection as seen from outside hyper. Everything happens on the connection's own task; the atomics
/// are there because handlers must be `Send`.
#[derive(Default)]
pub(crate) struct Watch {
    /// Flushes that reached the socket. hyper flushes its stream only once its own buffer is empty, so a flush
    /// after a claim proves that every earlier response byte was written.
    pub(crate) flushes: AtomicU64,
    /// Reads and writes that moved a byte.
    pub(crate) progress: AtomicU64,
    /// Whether the last write found the socket full.
    pub(crate) blocked: AtomicBool,
    /// Bytes came since the last request's head was complete.
    pub(crate) head_begun: AtomicBool,
    /// The server has ended its side, after all that it had to say.
    pub(crate) shut: AtomicBool,
    /// Requests begun: the number of the one that may claim.
    pub(crate) requests: AtomicU64,
    /// Requests whose response is not yet handed over whole.
    pub(crate) busy: AtomicU32,
    /// Whether `claim` holds one.
    pub(crate) claimed: AtomicBool,
    pub(crate) claim: Mutex<Option<Claim>>,
}

/// What a handler asked for instead of answering.
pub(crate) struct Claim {
    pub(crate) head: Bytes,
    pub(crate) then: Box<dyn FnOnce(link::Socket) + Send>,
    /// `flushes` when it was made.
    pub(crate) flushes: u64,
}

/// A TcpStream under watch. A concrete type, so that an upgraded connection can be cast back to it.
pub(crate) struct WatchedIo {
    io: TokioIo<TcpStream>,
    watch: Arc<Watch>,
    hold: Hold,
}

impl WatchedIo {
    pub(crate) fn new(stream: TcpStream, watch: Arc<Watch>, hold: Hold) -> Self {
        WatchedIo { io: TokioIo::new(stream), watch, hold }
    }

    pub(crate) fn into_parts(self) -> (TcpStream, Hold) {
        (self.io.into_inner(), self.hold)
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
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_read(cx, buf);
        if outcome.is_ready() {
            self.watch.head_begun.store(true, Relaxed);
            self.watch.progress.fetch_add(1, Relaxed);
        }
        outcome
    }
}

impl Write for WatchedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.wrote(&outcome);
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        if outcome.is_ready() {
            self.watch.flushes.fetch_add(1, Relaxed);
        }
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
