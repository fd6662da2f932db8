//! A one-way pipe: what is written into one end is the body of a response.
//!
//! It lets a front drive every stream alike: where the TcpStream cannot be had (HTTP/2, TLS, somebody else's server)
//! a `link::Link` writes into the pipe instead of a socket, and back-pressure comes from the bytes not yet taken.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use broker_core::Outbox;
use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::BoxError;
use super::filled::Filled;

/// The writing end. Shutting it down ends the body; dropping it before cuts the body off, so that its reader does not
/// take what it has for all. Reading from it never yields a byte: it waits, and ends when the client is gone.
#[derive(Debug)]
pub struct PipeIo(Arc<Shared>);

pub(crate) struct PipeBody(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    capacity: usize,
    /// What the writer takes from.
    outbox: Option<Arc<Outbox>>,
    state: Mutex<State>,
}

/// What waits behind a stream that a client may not take.
pub(crate) enum Behind {
    /// What a pipe holds, and the outbox that fills it.
    Pipe(BehindPipe),
    /// An outbox whose frames go into the stream without one.
    Outbox(Arc<Outbox>),
}

pub(crate) struct BehindPipe(Arc<Shared>);

impl Behind {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Behind::Pipe(BehindPipe(pipe)) => {
                let waiting = pipe.state.lock().waiting.len();
                waiting + pipe.outbox.as_ref().map_or(0, |outbox| outbox.queued().bytes)
            }
            Behind::Outbox(outbox) => outbox.queued().bytes,
        }
    }

    /// Has `watcher` set when the pipe is full, if it is one.
    pub(crate) fn watched_by(&self, watcher: &Arc<Filled>) {
        if let Behind::Pipe(BehindPipe(pipe)) = self {
            pipe.state.lock().watcher = Arc::downgrade(watcher);
        }
    }
}

impl PipeBody {
    pub(crate) fn behind(&self) -> Behind {
        Behind::Pipe(BehindPipe(Arc::clone(&self.0)))
    }
}

#[derive(Default)]
struct State {
    waiting: BytesMut,
    writer: Writer,
    reader_gone: bool,
    /// Set when it is full.
    watcher: Weak<Filled>,
    /// The body's task, waiting for bytes.
    on_data: Option<Waker>,
    /// The writer's task, waiting for room.
    on_room: Option<Waker>,
    /// The writer's task, waiting for the client to go.
    on_gone: Option<Waker>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Writer {
    #[default]
    Writing,
    /// It has said that this is all.
    Ended,
    /// It went away without.
    Cut,
}

/// Both ends. What the writer takes from, if it is known, counts in [`Behind::bytes`].
pub(super) fn ends(capacity_bytes: usize, outbox: Option<Arc<Outbox>>) -> (PipeIo, PipeBody) {
    let shared = Arc::new(Shared { capacity: capacity_bytes.max(1), outbox, state: Mutex::default() });
    (PipeIo(Arc::clone(&shared)), PipeBody(shared))
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("waiting", &self.waiting.len())
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}

impl PipeIo {
    /// Bytes that the client has not taken yet.
    pub fn waiting_bytes(&self) -> usize {
        self.0.state.lock().waiting.len()
    }

    /// Forgets them, before the pipe is dropped and so cut off.
    pub fn discard(&self) {
        self.0.state.lock().waiting = BytesMut::new();
    }
}

fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

fn wake(slot: Option<Waker>) {
    if let Some(waker) = slot {
        waker.wake();
    }
}

impl AsyncWrite for PipeIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.state.lock();
        if state.reader_gone || state.writer != Writer::Writing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = self.0.capacity.saturating_sub(state.waiting.len());
        if room == 0 {
            register(&mut state.on_room, cx);
            let watcher = state.watcher.clone();
            drop(state);
            if let Some(filled) = watcher.upgrade() {
                filled.set();
            }
            return Poll::Pending;
        }
        let taken = bytes.len().min(room);
        state.waiting.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        let reader = state.on_data.take();
        drop(state);
        wake(reader);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.end(Writer::Ended);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for PipeIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state.lock();
        if state.reader_gone {
            return Poll::Ready(Ok(()));
        }
        register(&mut state.on_gone, cx);
        Poll::Pending
    }
}

impl Shared {
    fn end(&self, how: Writer) {
        let mut state = self.state.lock();
        if state.writer == Writer::Writing {
            state.writer = how;
        }
        let reader = state.on_data.take();
        drop(state);
        wake(reader);
    }
}

impl Drop for PipeIo {
    fn drop(&mut self) {
        self.0.end(Writer::Cut);
    }
}

impl HttpBody for PipeBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.0.state.lock();
        if state.waiting.is_empty() {
            match state.writer {
                Writer::Writing => {}
                Writer::Ended => return Poll::Ready(None),
                Writer::Cut => {
                    state.writer = Writer::Ended;
                    return Poll::Ready(Some(Err("the body was cut off".into())));
                }
            }
            register(&mut state.on_data, cx);
            return Poll::Pending;
        }
        // Taken whole, so that an idle stream keeps no buffer.
        let bytes = std::mem::take(&mut state.waiting).freeze();
        let writer = state.on_room.take();
        drop(state);
        wake(writer);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl Drop for PipeBody {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.reader_gone = true;
        let (room, gone) = (state.on_room.take(), state.on_gone.take());
        drop(state);
        wake(room);
        wake(gone);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::request::{Body, pipe};

    async fn next(body: &mut Body) -> Option<Bytes> {
        std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx))
            .await
            .map(|frame| frame.unwrap().into_data().unwrap())
    }

    #[tokio::test]
    async fn what_is_written_arrives_and_the_end_too() {
        let (mut io, mut body) = pipe(4);
        let writer = tokio::spawn(async move {
            io.write_all(b"abcdefghij").await.unwrap();
            io.shutdown().await.unwrap();
        });
        let mut all = Vec::new();
        while let Some(piece) = next(&mut body).await {
            assert!(piece.len() <= 4);
            all.extend_from_slice(&piece);
        }
        assert_eq!(all, b"abcdefghij");
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn a_body_whose_writer_vanishes_does_not_look_whole() {
        for is_ended in [true, false] {
            let (mut io, mut body) = pipe(4);
            io.write_all(b"ab").await.unwrap();
            if is_ended {
                io.shutdown().await.unwrap();
            }
            drop(io);
            assert_eq!(next(&mut body).await.as_deref(), Some(&b"ab"[..]));
            let end = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            assert_eq!(end.is_none(), is_ended);
            assert!(end.is_none_or(|cut| cut.is_err()));
        }
    }

    #[tokio::test]
    async fn a_vanished_client_ends_reading_and_breaks_writing() {
        let (mut io, body) = pipe(4);
        io.write_all(b"abcd").await.unwrap();
        let reading = tokio::spawn(async move {
            let read = io.read(&mut [0; 1]).await.unwrap();
            let written = io.write(b"x").await.unwrap_err();
            (read, written.kind())
        });
        tokio::task::yield_now().await;
        drop(body);
        assert_eq!(reading.await.unwrap(), (0, io::ErrorKind::BrokenPipe));
    }
}
