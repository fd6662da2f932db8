//! What a handshake leaves: a stream, and bytes that were read too far.

use std::fmt;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection whose handshake is over.
pub struct Socket {
    pub(crate) io: Io,
    pub(crate) leftover: Vec<u8>,
}

pub(crate) enum Io {
    Tcp(TcpStream),
    Other(Pin<Box<dyn Stream>>),
}

/// Any byte stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

impl Socket {
    /// A plain TCP connection. `leftover` is what the handshake read beyond its end; an exact copy, because a slice of
    /// the handshake's buffer would keep all of it alive.
    pub fn tcp(stream: TcpStream, leftover: Vec<u8>) -> Self {
        Self { io: Io::Tcp(stream), leftover }
    }

    /// Any other byte stream: TLS, an upgraded connection of another server.
    pub fn other(stream: impl AsyncRead + AsyncWrite + Send + 'static, leftover: Vec<u8>) -> Self {
        Self { io: Io::Other(Box::pin(stream)), leftover }
    }

    /// Whether lanes will write to it directly.
    pub fn is_direct(&self) -> bool {
        matches!(self.io, Io::Tcp(_))
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("direct", &self.is_direct()).finish_non_exhaustive()
    }
}
