//! A socket for a protocol that reads and writes by itself.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::socket::{Hold, Io, Socket};

/// The bytes of a [`Socket`] both ways, what was read too far first. It holds what the socket holds.
///
/// Frames of an outbox go through a [`Link`](crate::Link) instead: lanes cannot write to this.
pub struct SocketStream {
    io: Io,
    leftover: Vec<u8>,
    /// Bytes of it that were read.
    read: usize,
    _hold: Hold,
}

impl Socket {
    /// Gives the stream up to whoever reads and writes it by itself.
    pub fn into_stream(self) -> SocketStream {
        SocketStream { io: self.io, leftover: self.leftover, read: 0, _hold: self.hold }
    }
}

impl AsyncRead for SocketStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let rest = this.leftover.get(this.read..).unwrap_or_default();
        if !rest.is_empty() {
            let taken = rest.len().min(out.remaining());
            out.put_slice(rest.get(..taken).unwrap_or_default());
            this.read += taken;
            return Poll::Ready(Ok(()));
        }
        match &mut this.io {
            Io::Net(stream) => Pin::new(stream).poll_read(cx, out),
            Io::Other(stream) => stream.as_mut().poll_read(cx, out),
        }
    }
}

impl AsyncWrite for SocketStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Net(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::Other(stream) => stream.as_mut().poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Net(stream) => Pin::new(stream).poll_flush(cx),
            Io::Other(stream) => stream.as_mut().poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Net(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Other(stream) => stream.as_mut().poll_shutdown(cx),
        }
    }
}

impl fmt::Debug for SocketStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketStream").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_was_read_too_far_comes_first() {
        let (mut peer, ours) = duplex(64);
        let mut stream = Socket::other(ours, b"abc".to_vec()).into_stream();
        peer.write_all(b"def").await.unwrap();
        let mut read = [0; 6];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"abcdef");
        stream.write_all(b"ghi").await.unwrap();
        drop(stream);
        let mut said = Vec::new();
        peer.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"ghi");
    }
}
