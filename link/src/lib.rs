//! A connection after its handshake: it reads bytes and keeps its outbox flowing.
//!
//! A TCP socket, plain or with TLS of ours around it ([`NetStream`]), is given to the outbox as its
//! [`Wire`](broker_core::Wire), so that lanes write to it directly; the connection's task only finishes what a full
//! socket left. Anything else (an HTTP/2 stream, an upgraded connection of somebody else's server) is written by the
//! task itself, which pulls frames from the outbox.
//!
//! ```no_run
//! # async fn connection(socket: link::Socket, outbox: std::sync::Arc<broker_core::Outbox>) {
//! use std::time::Duration;
//! use link::{LinkEvent, Link};
//!
//! let mut link = Link::new(socket, outbox);
//! let mut input = bytes::BytesMut::new();
//! loop {
//!     match link.next(&mut input).await {
//!         LinkEvent::Read(_) => { /* decode and handle; drop `input`'s memory when it is empty */ input.clear() }
//!         LinkEvent::Woken => { /* the session has something to do */ }
//!         LinkEvent::Closed(_) | LinkEvent::Stalled | LinkEvent::Eof | LinkEvent::Failed(_) => break,
//!     }
//! }
//! link.finish(Duration::from_secs(1)).await;
//! # }
//! ```
//!
//! What a peer has begun to send and not finished is counted here too, whatever carries it: [`Intake`].

mod intake;
mod net;
mod pull;
mod socket;
mod stream;
mod tcp;
#[cfg(feature = "tls")]
mod tls;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use broker_core::{Outbox, OutboxEnd, Signal};
use bytes::BytesMut;

pub use self::intake::{FREE_BYTES, Intake, IntakeConfig, IntakeStats, Unfinished};
pub use self::net::NetStream;
use self::pull::Pull;
use self::socket::Io;
pub use self::socket::{Hold, Socket};
pub use self::stream::SocketStream;
pub use self::tcp::prepare_listener;
use self::tcp::{Flushed, ReadSize, Tcp};
#[cfg(all(any(test, fuzzing), feature = "tls"))]
#[doc(hidden)]
pub use self::tls::fuzzing;
#[cfg(feature = "tls")]
pub use self::tls::{Handshake, HandshakeError, HandshakeStats, Handshakes, TlsStream, handshake};

/// What happened on a connection.
#[derive(Debug)]
pub enum LinkEvent {
    /// So many bytes were appended to the input.
    Read(usize),
    /// The peer will send nothing more.
    Eof,
    /// The socket failed; nobody is there.
    Failed(io::Error),
    /// Somebody called [`Outbox::notify`]: the session has something to do.
    Woken,
    /// The outbox takes nothing more.
    Closed(OutboxEnd),
    /// The socket was full and took nothing for [`STALL_LIMIT`].
    Stalled,
}

/// How long a full socket may take nothing before the connection counts as dead.
pub const STALL_LIMIT: Duration = Duration::from_secs(10);

/// What is left of the input is copied up to here: what one read brings.
const MAX_COPIED: usize = 64 << 10;

/// One connection; owned by its task.
pub struct Link {
    outbox: Arc<Outbox>,
    io: Side,
    leftover: Box<[u8]>,
    paused: bool,
    read_size: ReadSize,
    /// Whether something was taken out of the input since it was last copied.
    consumed: bool,
    /// Bytes in the input when it was last seen.
    seen: u32,
    _hold: Hold,
}

enum Side {
    Tcp(Tcp),
    Pull(Box<Pull>),
}

impl Link {
    /// Takes a socket over. TCP sockets get `TCP_NODELAY` and small send buffers and become the outbox's wire.
    pub fn new(socket: Socket, outbox: Arc<Outbox>) -> Self {
        let Socket { io, leftover, hold, on_outbox } = socket;
        if let Some(told) = on_outbox {
            told(&outbox);
        }
        let io = match io {
            Io::Net(stream) => Side::Tcp(Tcp::new(stream, &outbox)),
            Io::Other(stream) => Side::Pull(Box::new(Pull::new(stream))),
        };
        Self {
            outbox,
            io,
            leftover: leftover.into(),
            paused: false,
            read_size: ReadSize::default(),
            consumed: false,
            seen: 0,
            _hold: hold,
        }
    }

    /// Where what is sent waits.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Waits for the next thing to happen, writing meanwhile what the outbox holds. Memory is added to `input` only
    /// when bytes have arrived: an idle connection whose caller drops an empty `input` holds no buffer.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is read that is not returned.
    pub async fn next(&mut self, input: &mut BytesMut) -> LinkEvent {
        poll_fn(|cx| self.poll_next(input, cx)).await
    }

    /// As [`Link::next`], for a caller that polls by hand.
    pub fn poll_next(&mut self, input: &mut BytesMut, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        self.consumed |= input.len() < self.seen as usize;
        let event = self.poll_event(input, cx);
        if event.is_pending() && std::mem::take(&mut self.consumed) && input.len() <= MAX_COPIED {
            // The beginning of the next packet would keep all that was read with it, for as long as its peer pleases.
            *input = BytesMut::from(&input[..]);
        }
        self.seen = u32::try_from(input.len()).unwrap_or(u32::MAX);
        event
    }

    fn poll_event(&mut self, input: &mut BytesMut, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        if !self.leftover.is_empty() && !self.paused {
            let leftover = std::mem::take(&mut self.leftover);
            input.extend_from_slice(&leftover);
            return Poll::Ready(LinkEvent::Read(leftover.len()));
        }
        if let Poll::Ready(event) = self.poll_outbox(cx) {
            return Poll::Ready(event);
        }
        if self.paused {
            return Poll::Pending;
        }
        let read = match &mut self.io {
            Side::Tcp(tcp) => ready!(tcp.poll_read(input, &mut self.read_size, cx)),
            Side::Pull(pull) => ready!(pull.poll_read(input, cx)),
        };
        Poll::Ready(match read {
            Ok(0) => LinkEvent::Eof,
            Ok(bytes) => LinkEvent::Read(bytes),
            Err(error) => LinkEvent::Failed(error),
        })
    }

    /// Stops or resumes reading; writing goes on. The kernel then holds the peer back.
    pub fn pause_reading(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Whether reading is paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Writes what still waits, says that nothing more comes, and reads what the peer still sends, because closing with
    /// unread input would reset the connection and the peer would never see the last bytes. All of it within `linger`.
    pub async fn finish(mut self, linger: Duration) {
        let outbox = Arc::clone(&self.outbox);
        let goodbye = async {
            match &mut self.io {
                Side::Tcp(tcp) => tcp.finish(&outbox).await,
                Side::Pull(pull) => pull.finish(&outbox).await,
            }
        };
        _ = tokio::time::timeout(linger, goodbye).await;
    }

    fn poll_outbox(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        loop {
            // Frames that the task took itself go first: they are older than what the outbox holds.
            if let Side::Pull(pull) = &mut self.io
                && pull.is_writing()
            {
                match pull.poll_write(cx) {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(error)) => return Poll::Ready(LinkEvent::Failed(error)),
                    Poll::Pending => {}
                }
            }
            match self.outbox.poll_signal(cx) {
                Poll::Ready(Signal::Woken) => return Poll::Ready(LinkEvent::Woken),
                Poll::Ready(Signal::Closed(reason)) => return Poll::Ready(LinkEvent::Closed(reason)),
                Poll::Ready(Signal::Flush) => {
                    let Side::Tcp(tcp) = &mut self.io else { return Poll::Pending };
                    match ready_or(tcp.poll_flush(&self.outbox, cx)) {
                        Some(Flushed::Progress) => {}
                        Some(Flushed::Stalled) => return Poll::Ready(LinkEvent::Stalled),
                        Some(Flushed::Failed(error)) => return Poll::Ready(LinkEvent::Failed(error)),
                        None => return Poll::Pending,
                    }
                }
                Poll::Ready(Signal::Frames) => {
                    let Side::Pull(pull) = &mut self.io else { return Poll::Pending };
                    if pull.is_writing() {
                        return pull.poll_stalled(cx).map(|()| LinkEvent::Stalled);
                    }
                    pull.take(&self.outbox);
                }
                Poll::Pending => {
                    return match &mut self.io {
                        Side::Pull(pull) if pull.is_writing() => {
                            pull.poll_stalled(cx).map(|()| LinkEvent::Stalled)
                        }
                        _ => Poll::Pending,
                    };
                }
            }
        }
    }
}

fn ready_or<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Side::Tcp(tcp) = &self.io {
            tcp.release(&self.outbox);
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("outbox", &self.outbox).finish_non_exhaustive()
    }
}
