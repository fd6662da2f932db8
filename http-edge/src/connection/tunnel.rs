//! A stream of HTTP/2 that was taken over by an extended CONNECT (RFC 8441).

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answering::Busy;
use super::held::Place;
use crate::request::Behind;

/// What a stream has of its connection, as an extension of a request that may take it over: its place among the others,
/// and that the connection is not idle.
#[derive(Clone)]
pub(crate) struct Tunnel(Arc<Mutex<Option<(Place, Busy)>>>);

impl Tunnel {
    pub(crate) fn new(place: Place, busy: Busy) -> Self {
        Tunnel(Arc::new(Mutex::new(Some((place, busy)))))
    }

    /// The stream, as a socket that its own task writes to.
    pub(crate) fn socket(&self, stream: Upgraded) -> link::Socket {
        let stream = TokioIo::new(stream);
        let Some((place, busy)) = self.0.lock().take() else {
            return link::Socket::other(stream, Vec::new());
        };
        let shared = place.share();
        let io = TunnelIo { stream, place, is_blocked: false, gathered: Vec::new(), _busy: busy };
        link::Socket::other(io, Vec::new()).on_outbox(move |outbox| {
            shared.fed_by(Behind::Outbox(Arc::clone(outbox)));
        })
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel")
    }
}

/// Written at once. hyper takes three such pieces before it says that the client's window is full, and of that nobody
/// can know: so much may wait uncounted on each stream.
const PIECE: usize = 4 << 10;

/// What may wait in hyper.
const MAX_IN_HYPER: usize = 4 * PIECE;

struct TunnelIo {
    stream: TokioIo<Upgraded>,
    place: Place,
    /// The last write found no room.
    is_blocked: bool,
    /// Short frames that make one piece; empty between two writes.
    gathered: Vec<u8>,
    _busy: Busy,
}

impl TunnelIo {
    /// Ready when hyper takes more. Whoever writes has so much for it.
    fn poll_room(&mut self, written: usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        match (outcome.is_pending(), std::mem::replace(&mut self.is_blocked, outcome.is_pending())) {
            (true, false) => self.place.blocked(MAX_IN_HYPER + written),
            (true, true) => {}
            (false, _) => self.place.asked(0),
        }
        outcome
    }
}

impl AsyncRead for TunnelIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, out)
    }
}

impl AsyncWrite for TunnelIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(bytes.len(), cx))?;
        Pin::new(&mut self.stream).poll_write(cx, bytes.get(..PIECE).unwrap_or(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [slice] = slices {
            return self.poll_write(cx, slice);
        }
        ready!(self.poll_room(slices.iter().map(|slice| slice.len()).sum(), cx))?;
        let this = &mut *self;
        for slice in slices {
            let room = PIECE - this.gathered.len();
            this.gathered.extend_from_slice(slice.get(..room).unwrap_or(slice));
        }
        let outcome = Pin::new(&mut this.stream).poll_write(cx, &this.gathered);
        this.gathered = Vec::new();
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_room(0, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for TunnelIo {
    fn drop(&mut self) {
        if self.is_blocked {
            // What its client does not take would stay for as long as the connection does.
            self.place.reset();
        } else {
            // Its task ends the stream, and has the place until then.
            self.place.left(MAX_IN_HYPER);
        }
    }
}
