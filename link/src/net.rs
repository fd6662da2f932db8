//! An accepted connection, plain or with TLS around it, by the same calls.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[cfg(feature = "tls")]
use crate::tls::TlsStream;

/// A TCP connection as everything here reads and writes it. What is plain costs what a [`TcpStream`] costs: TLS is
/// behind a pointer.
pub struct NetStream(Kind);

enum Kind {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
}

/// One expression for both kinds, as their calls have the same names.
macro_rules! either {
    ($kind:expr, $stream:ident => $call:expr) => {
        match $kind {
            Kind::Plain($stream) => $call,
            #[cfg(feature = "tls")]
            Kind::Tls($stream) => $call,
        }
    };
}

impl From<TcpStream> for NetStream {
    fn from(stream: TcpStream) -> Self {
        Self(Kind::Plain(stream))
    }
}

#[cfg(feature = "tls")]
impl From<TlsStream> for NetStream {
    fn from(stream: TlsStream) -> Self {
        Self(Kind::Tls(Box::new(stream)))
    }
}

impl NetStream {
    /// The socket itself, for its options. Bytes that are read from or written to it by others break what is around it.
    pub fn tcp(&self) -> &TcpStream {
        match &self.0 {
            Kind::Plain(stream) => stream,
            #[cfg(feature = "tls")]
            Kind::Tls(stream) => stream.tcp(),
        }
    }

    /// Whether what is sent is encrypted.
    pub fn is_tls(&self) -> bool {
        !matches!(self.0, Kind::Plain(_))
    }

    /// Ready when [`try_read`](Self::try_read) is worth a try.
    ///
    /// # Errors
    /// The socket failed.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&self.0, stream => stream.poll_read_ready(cx))
    }

    /// Ready when a write is worth a try.
    ///
    /// # Errors
    /// The socket failed.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp().poll_write_ready(cx)
    }

    /// As [`poll_read_ready`](Self::poll_read_ready).
    ///
    /// # Errors
    /// The socket failed.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_read_ready(cx)).await
    }

    /// As [`poll_write_ready`](Self::poll_write_ready).
    ///
    /// # Errors
    /// The socket failed.
    pub async fn writable(&self) -> io::Result<()> {
        self.tcp().writable().await
    }

    /// Reads what is there; 0 at the end.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing now; anything else ends the connection.
    pub fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        either!(&self.0, stream => stream.try_read(bytes))
    }

    /// The same, appended to `input`.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    pub fn try_read_buf(&self, input: &mut BytesMut) -> io::Result<usize> {
        either!(&self.0, stream => stream.try_read_buf(input))
    }

    /// Looks at what will be read next; 0 at the end.
    ///
    /// # Errors
    /// The connection failed.
    pub fn poll_peek(&self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        either!(&self.0, stream => stream.poll_peek(cx, out))
    }

    /// As [`poll_peek`](Self::poll_peek).
    ///
    /// # Errors
    /// As there.
    pub async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_peek(cx, &mut ReadBuf::new(bytes))).await
    }

    /// Writes what the socket takes now, for an outbox: what was not taken comes again, beginning with the same byte.
    #[inline]
    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (&self.0, slices) {
            (Kind::Plain(stream), [slice]) => stream.try_write(slice),
            (Kind::Plain(stream), slices) => stream.try_write_vectored(slices),
            #[cfg(feature = "tls")]
            (Kind::Tls(stream), slices) => stream.try_write_vectored(slices),
        }
    }

    /// Bytes that were begun and are not in the socket yet, beside what the caller still has.
    pub(crate) fn begun(&self) -> usize {
        match &self.0 {
            Kind::Plain(_) => 0,
            #[cfg(feature = "tls")]
            Kind::Tls(stream) => stream.begun(),
        }
    }

    /// Says that nothing more comes, once what was begun is written.
    pub(crate) async fn end(&self) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Kind::Tls(stream) = &self.0 {
            poll_fn(|cx| stream.poll_goodbye(cx)).await?;
        }
        socket2::SockRef::from(self.tcp()).shutdown(std::net::Shutdown::Write)
    }
}

impl AsyncRead for NetStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(&mut self.0, stream => Pin::new(stream).poll_read(cx, out))
    }
}

impl AsyncWrite for NetStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(&mut self.0, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(&mut self.0, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.0, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.0, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl fmt::Debug for NetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetStream").field("tcp", self.tcp()).field("tls", &self.is_tls()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_plain_is_no_larger_for_what_is_not() {
        assert_eq!(size_of::<NetStream>(), size_of::<TcpStream>());
    }
}
