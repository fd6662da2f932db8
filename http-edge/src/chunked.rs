//! A body whose end nobody knows yet, as chunks (RFC 9112 §7.1): how it begins, and its pieces.
//!
//! Everything that an outbox holds is a whole chunk, so that the bytes of an event are made once for all its readers,
//! frame and all, and a stream that was cut does not look like one that ended. Where somebody else frames the body,
//! [`Unframed`] takes the frames off again.

use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use broker_core::{Class, Outbox, Position};
use bytes::{Buf, Bytes};
use http::request::Parts;
use http::{HeaderValue, Version, header, response};
use link::{Link, Socket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::{Takeover, response_head};
use crate::request::{Response, pipe_from};

/// The chunk that ends a body. Without it a reader knows that the stream was cut.
const LAST: &[u8] = b"0\r\n\r\n";

/// Room for a chunk's size line: as many digits as a length has, and a line end.
const SIZE_ROOM: usize = 2 * size_of::<usize>() + 2;

/// A chunk that is being written. The size line stands before it in the same buffer, so nothing is copied at the end.
#[derive(Debug)]
pub struct Chunk(Vec<u8>);

impl Chunk {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(SIZE_ROOM + bytes + 2);
        buffer.resize(SIZE_ROOM, 0);
        Chunk(buffer)
    }

    /// A whole chunk of these bytes, which must not be none: that would be the last chunk.
    pub fn of(bytes: &[u8]) -> Bytes {
        let mut chunk = Self::with_capacity(bytes.len());
        chunk.push(bytes);
        chunk.finish()
    }

    /// The end of the body.
    pub fn end() -> Bytes {
        Bytes::from_static(LAST)
    }

    /// A chunk of these bytes and the end of the body.
    pub fn last(bytes: &[u8]) -> Bytes {
        let mut chunk = Self::with_capacity(bytes.len() + LAST.len());
        chunk.push(bytes);
        chunk.finish_with(LAST)
    }

    /// More of it.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// All of it, which must not be none.
    pub fn finish(self) -> Bytes {
        self.finish_with(b"")
    }

    fn finish_with(self, rest: &[u8]) -> Bytes {
        let Chunk(mut buffer) = self;
        let mut size = buffer.len() - SIZE_ROOM;
        // By hand, as this is done for each event: formatting takes several times as long. The room is for all digits
        // of a length.
        buffer[SIZE_ROOM - 2] = b'\r';
        buffer[SIZE_ROOM - 1] = b'\n';
        let mut at = SIZE_ROOM - 2;
        loop {
            at -= 1;
            buffer[at] = b"0123456789abcdef"[size % 16];
            size /= 16;
            if size == 0 {
                break;
            }
        }
        buffer.extend_from_slice(b"\r\n");
        buffer.extend_from_slice(rest);
        let mut bytes = Bytes::from(buffer);
        bytes.advance(at);
        bytes
    }
}

/// An event of Server-Sent Events, as a chunk. `data` is split at CR, LF and CRLF alike, as a reader does: otherwise a bare CR in a payload could forge a field.
pub fn event_chunk(id: Option<Position>, name: Option<&str>, data: &[u8]) -> Bytes {
    let mut out = Chunk::with_capacity(64 + data.len() + name.map_or(0, str::len));
    if let Some(id) = id {
        out.push(b"id: ");
        out.push(id.to_string().as_bytes());
        out.push(b"\n");
    }
    if let Some(name) = name {
        out.push(b"event: ");
        out.push(name.as_bytes());
        out.push(b"\n");
    }
    if data.is_empty() {
        out.push(b"data:\n\n");
        return out.finish();
    }
    let mut rest = data;
    loop {
        // One space always: the reader takes one away, and a payload's own leading space must survive.
        out.push(b"data: ");
        let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else {
            out.push(rest);
            break;
        };
        let (line, tail) = rest.split_at(end);
        out.push(line);
        out.push(b"\n");
        rest = tail.strip_prefix(b"\r\n").or_else(|| tail.get(1..)).unwrap_or_default();
    }
    out.push(b"\n\n");
    out.finish()
}

/// An answer that begins and goes on with what an outbox holds, which are chunks.
#[derive(Debug)]
pub struct ChunkedAnswer {
    takeover: Option<Takeover>,
    version: Version,
    first: Bytes,
}

impl ChunkedAnswer {
    /// To a request, with what stands at its beginning.
    pub fn to(request: &Parts, first: impl Into<Bytes>) -> Self {
        let takeover = request.extensions.get::<Takeover>().cloned();
        Self { takeover, version: request.version, first: first.into() }
    }

    /// Puts what stands at the beginning before anything else that `outbox` will hold, unless it goes out with the head.
    pub fn begin(&self, outbox: &Outbox) {
        if self.takeover.is_none() && !self.first.is_empty() {
            outbox.send(Chunk::of(&self.first), Class::Control);
        }
    }

    /// Answers: `keep` is the task that keeps the stream, on the socket itself where it can be had, else on a pipe that
    /// holds `max_pipe_bytes`.
    ///
    /// Where the socket can be had the future does not resolve: it is dropped with the hyper connection.
    pub async fn open<F>(
        self,
        head: http::Response<()>,
        outbox: Arc<Outbox>,
        max_pipe_bytes: usize,
        keep: impl FnOnce(Link) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (mut head, ()) = head.into_parts();
        if self.version == Version::HTTP_10 {
            // Not on HTTP/1.1: of a response that says so, Node's `fetch` takes whatever has come by the end of the
            // connection for all.
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let Some(takeover) = self.takeover else {
            let (io, body) = pipe_from(Arc::clone(&outbox), max_pipe_bytes);
            let socket = Socket::other(Unframed::new(io), Vec::new());
            tokio::spawn(keep(Link::new(socket, outbox)));
            return http::Response::from_parts(head, body);
        };
        // A reader of HTTP/1.0 knows no chunks; all others can tell by them an end from a cut.
        let is_framed = self.version == Version::HTTP_11;
        let first = begun(&mut head, &self.first, is_framed);
        takeover.claim(response_head(&head, &first), move |socket| {
            let socket = if is_framed { socket } else { socket.through(Unframed::new) };
            tokio::spawn(keep(Link::new(socket, outbox)));
        });
        pending().await
    }
}

fn begun(head: &mut response::Parts, first: &Bytes, is_framed: bool) -> Bytes {
    if !is_framed {
        return first.clone();
    }
    head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    if first.is_empty() { Bytes::new() } else { Chunk::of(first) }
}

/// Takes whole chunks and writes what is in them, for a body that is framed by somebody else or, in HTTP/1.0, not at
/// all.
///
/// Shutting it down is an error before the last chunk has come: an end that was not meant must not look like one.
#[derive(Debug)]
pub struct Unframed<W> {
    inner: W,
    next: Next,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The size line; its digits so far say this.
    Size(usize),
    /// So many bytes of data are left.
    Data(usize),
    /// So many bytes of the line end behind the data are left.
    LineEnd(u8),
    /// Nothing: the last chunk has come, or is as good as here.
    Over,
}

impl<W> Unframed<W> {
    /// In front of a writer.
    pub fn new(inner: W) -> Self {
        Unframed { inner, next: Next::Size(0) }
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Unframed<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        while let Some((&byte, _)) = bytes.get(taken..).and_then(<[u8]>::split_first) {
            let mut step = 1;
            self.next = match self.next {
                Next::Size(0) if byte == b'\n' => Next::Over,
                Next::Size(size) if byte == b'\n' => Next::Data(size),
                Next::Size(size) => match char::from(byte).to_digit(16) {
                    Some(digit) => Next::Size(size.saturating_mul(16).saturating_add(digit as usize)),
                    None => Next::Size(size),
                },
                Next::Data(left) => {
                    let rest = bytes.get(taken..).unwrap_or_default();
                    let data = rest.get(..left).unwrap_or(rest);
                    step = match Pin::new(&mut self.inner).poll_write(cx, data) {
                        Poll::Ready(Ok(written)) if written > 0 => written,
                        // First the caller is told of the bytes that were taken; its next call meets the error again.
                        _ if taken > 0 => return Poll::Ready(Ok(taken)),
                        refused => return refused,
                    };
                    match left.saturating_sub(step) {
                        0 => Next::LineEnd(2),
                        left => Next::Data(left),
                    }
                }
                Next::LineEnd(1) => Next::Size(0),
                Next::LineEnd(left) => Next::LineEnd(left.saturating_sub(1)),
                Next::Over => return Poll::Ready(Ok(bytes.len())),
            };
            taken += step;
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.next {
            Next::Over => Pin::new(&mut self.inner).poll_shutdown(cx),
            _ => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
        }
    }
}

impl<W: AsyncRead + Unpin> AsyncRead for Unframed<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    #[test]
    fn a_chunk_says_its_size_in_as_many_digits_as_it_needs() {
        assert_eq!(Chunk::of(b":\n"), "2\r\n:\n\r\n");
        assert_eq!(Chunk::of(&[b'x'; 16]), "10\r\nxxxxxxxxxxxxxxxx\r\n");
        assert!(Chunk::of(&vec![b'x'; 0xab_cdef]).starts_with(b"abcdef\r\nx"));
        assert_eq!(Chunk::last(b"retry: 1\n"), "9\r\nretry: 1\n\r\n0\r\n\r\n");
    }

    /// Takes few bytes at a time, and every other time none.
    #[derive(Default)]
    struct Narrow {
        taken: Vec<u8>,
        turn: bool,
        shut: bool,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.turn = !self.turn;
            if self.turn {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let some = bytes.len().min(3);
            self.taken.extend_from_slice(&bytes[..some]);
            Poll::Ready(Ok(some))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.shut = true;
            Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn what_was_framed_comes_out_as_it_was(
            pieces in proptest::collection::vec("[a\r\n0]{1,40}", 0..6),
            split in 1_usize..9,
            is_ended: bool,
        ) {
            let mut framed = Vec::new();
            for piece in &pieces {
                framed.extend_from_slice(&Chunk::of(piece.as_bytes()));
            }
            if is_ended {
                framed.extend_from_slice(&Chunk::last(b"bye"));
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut io = Unframed::new(Narrow::default());
            let shut = runtime.block_on(async {
                for part in framed.chunks(split) {
                    io.write_all(part).await.unwrap();
                }
                io.shutdown().await
            });
            let expected = pieces.concat() + if is_ended { "bye" } else { "" };
            prop_assert_eq!(std::str::from_utf8(&io.inner.taken).unwrap(), expected);
            prop_assert_eq!((shut.is_ok(), io.inner.shut), (is_ended, is_ended));
        }
    }
}
