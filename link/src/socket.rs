//! What a handshake leaves: a stream, and bytes that were read too far.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use broker_core::Outbox;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::net::NetStream;
use crate::tcp;

/// A connection whose handshake is over.
pub struct Socket {
    pub(crate) io: Io,
    pub(crate) leftover: Vec<u8>,
    pub(crate) hold: Hold,
    /// Hears of the outbox whose frames it will carry.
    pub(crate) on_outbox: Option<Box<OnOutbox>>,
}

pub(crate) type OnOutbox = dyn FnOnce(&Arc<Outbox>) + Send;

/// Something that lives exactly as long as a connection, whatever becomes of it: a place among those of its address.
#[derive(Clone, Default)]
pub struct Hold(Option<Arc<dyn Any + Send + Sync>>);

impl Hold {
    /// Keeps `it` until the last clone is gone.
    pub fn new(it: impl Any + Send + Sync) -> Self {
        Self(Some(Arc::new(it)))
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").field(&self.0.is_some()).finish()
    }
}

pub(crate) enum Io {
    Net(NetStream),
    Other(Pin<Box<dyn Stream>>),
}

/// Any byte stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

impl Socket {
    /// A TCP connection, plain or with TLS of ours. `leftover` is what the handshake read beyond its end; an exact
    /// copy, because a slice of the handshake's buffer would keep all of it alive.
    pub fn tcp(stream: impl Into<NetStream>, leftover: Vec<u8>) -> Self {
        Self { io: Io::Net(stream.into()), leftover, hold: Hold::default(), on_outbox: None }
    }

    /// Any other byte stream: TLS of others, an upgraded connection of another server.
    pub fn other(stream: impl AsyncRead + AsyncWrite + Send + 'static, leftover: Vec<u8>) -> Self {
        Self { io: Io::Other(Box::pin(stream)), leftover, hold: Hold::default(), on_outbox: None }
    }

    /// The same connection, holding something until it ends.
    #[must_use]
    pub fn holding(self, hold: Hold) -> Self {
        Self { hold, ..self }
    }

    /// The same connection, whose [`Link`](crate::Link) says first whose frames it will carry: for a stream that is one
    /// of several on a connection, whose bounds are over all of them.
    #[must_use]
    pub fn on_outbox(self, told: impl FnOnce(&Arc<Outbox>) + Send + 'static) -> Self {
        Self { on_outbox: Some(Box::new(told)), ..self }
    }

    /// The same connection with something between it and the outbox, for bytes that must not go out as they lie there.
    /// Its own task writes it then. A stream that is not a TCP connection of ours stays as it is.
    #[must_use]
    pub fn through<S>(self, layer: impl FnOnce(NetStream) -> S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let Io::Net(stream) = self.io else { return self };
        tcp::bound(stream.tcp());
        Self { io: Io::Other(Box::pin(layer(stream))), ..self }
    }

    /// This side's address, of a TCP connection.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.io {
            Io::Net(stream) => stream.tcp().local_addr().ok(),
            Io::Other(_) => None,
        }
    }

    /// Whether lanes will write to it directly.
    pub fn is_direct(&self) -> bool {
        matches!(self.io, Io::Net(_))
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("direct", &self.is_direct()).finish_non_exhaustive()
    }
}
