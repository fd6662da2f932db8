//! A TCP socket that lanes write to directly, plain or with TLS around it.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use broker_core::{Outbox, OutboxEnd, Wire};
use bytes::BytesMut;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};

use crate::STALL_LIMIT;
use crate::net::NetStream;

/// What the kernel may hold unsent. With its defaults a reader that stopped hides one to two megabytes there, and no
/// outbox policy ever fires.
const NOTSENT_LOWAT: u32 = 16 << 10;

/// `SO_SNDBUF`; the kernel doubles it for its own overhead, so a socket holds at most 128 KiB.
const SEND_BUFFER: usize = 64 << 10;

/// How long sent bytes may stay unacknowledged: a peer that vanished without a word is found by this, the kernel's own
/// retransmissions would take a quarter of an hour.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Read at once. After a read that left no room twice as much, up to [`MAX_READ`]: by what has come and never by what a
/// peer announces, so that two bytes of a long packet are held in no more than those of a short one.
const READ: usize = 4 << 10;
const MAX_READ: usize = 64 << 10;

/// A quiet connection's input grows only with less room than this.
const MIN_ROOM: usize = 512;

/// How much is read at once, as the number of times that it was doubled.
#[derive(Clone, Copy, Default)]
pub(crate) struct ReadSize(u8);

impl ReadSize {
    fn make_room(self, input: &mut BytesMut) -> usize {
        let wanted = READ << self.0;
        let enough = if self.0 == 0 { MIN_ROOM } else { wanted };
        if input.capacity() - input.len() < enough {
            input.reserve(wanted);
        }
        input.capacity() - input.len()
    }

    fn note(&mut self, read: usize, room: usize) {
        let can_double = READ << self.0 < MAX_READ;
        self.0 = if read < room { 0 } else { self.0 + u8::from(can_double) };
    }
}

pub(crate) struct Tcp {
    wire: Arc<TcpWire>,
    stall: Option<Pin<Box<Sleep>>>,
}

struct TcpWire(NetStream);

/// Sets the options that accepted sockets inherit from their listener, so that [`Link::new`](crate::Link::new) need not
/// set them on each: `TCP_NODELAY`, `TCP_NOTSENT_LOWAT`, `TCP_USER_TIMEOUT`. A listener without them serves as well.
pub fn prepare_listener(listener: &TcpListener) {
    set_options(&SockRef::from(listener));
}

fn set_options(socket: &SockRef<'_>) {
    _ = socket.set_tcp_nodelay(true);
    _ = socket.set_tcp_notsent_lowat(NOTSENT_LOWAT);
    _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
}

/// Bounds what the kernel holds for a reader that stopped.
pub(crate) fn bound(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    // A listener that was prepared passes them on: one call instead of three for each connection.
    if !socket.tcp_notsent_lowat().is_ok_and(|bytes| bytes == NOTSENT_LOWAT) {
        set_options(&socket);
    }
    // Not on the listener: it would bound what connections of plain HTTP have under way, too.
    _ = socket.set_send_buffer_size(SEND_BUFFER);
}

impl Wire for TcpWire {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }
}

pub(crate) enum Flushed {
    Progress,
    Stalled,
    Failed(io::Error),
}

impl Tcp {
    pub(crate) fn new(stream: NetStream, outbox: &Outbox) -> Self {
        bound(stream.tcp());
        let wire = Arc::new(TcpWire(stream));
        outbox.attach_wire(Arc::<TcpWire>::clone(&wire));
        Self { wire, stall: None }
    }

    pub(crate) fn poll_flush(&mut self, outbox: &Outbox, cx: &mut Context<'_>) -> Poll<Flushed> {
        match self.wire.0.poll_write_ready(cx) {
            Poll::Ready(Ok(())) => {
                let left = || outbox.queued().bytes + self.wire.0.begun();
                let before = left();
                if outbox.flush() || left() < before {
                    self.stall = None;
                }
                Poll::Ready(Flushed::Progress)
            }
            Poll::Ready(Err(error)) => Poll::Ready(Flushed::Failed(error)),
            Poll::Pending => {
                let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(STALL_LIMIT)));
                stall.as_mut().poll(cx).map(|()| Flushed::Stalled)
            }
        }
    }

    pub(crate) fn poll_read(
        &mut self,
        input: &mut BytesMut,
        size: &mut ReadSize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.wire.0.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            let room = size.make_room(input);
            match self.wire.0.try_read_buf(input) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if input.is_empty() {
                        *input = BytesMut::new();
                    }
                }
                Ok(read) => {
                    size.note(read, room);
                    return Poll::Ready(Ok(read));
                }
                failed => return Poll::Ready(failed),
            }
        }
    }

    pub(crate) async fn finish(&mut self, outbox: &Outbox) {
        let stream = &self.wire.0;
        while !outbox.flush() {
            // A socket that failed is ready for ever, and what was not begun on it stays where it is.
            if outbox.closed() == Some(OutboxEnd::Failed) || stream.writable().await.is_err() {
                return;
            }
        }
        if stream.end().await.is_err() {
            return;
        }
        let mut ignored = [0; 1024];
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut ignored) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    /// Takes the socket out of the outbox, unless a newer connection has already put its own there.
    pub(crate) fn release(&self, outbox: &Outbox) {
        let mine: Arc<dyn Wire> = Arc::<TcpWire>::clone(&self.wire);
        outbox.detach_wire_if(&mine);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_grows_with_what_has_come() {
        let (mut size, mut input) = (ReadSize::default(), BytesMut::new());
        assert_eq!(size.make_room(&mut input), READ);
        // A byte at a time takes no more.
        for _ in 0..3000 {
            let room = size.make_room(&mut input);
            input.extend_from_slice(&[0]);
            size.note(1, room);
        }
        assert_eq!(input.capacity(), READ);
        for _ in 0..12 {
            let room = size.make_room(&mut input);
            assert!(input.capacity() <= 2 * input.len().max(READ) + MAX_READ, "{}", input.capacity());
            input.resize(input.len() + room, 0);
            size.note(room, room);
        }
        assert_eq!(READ << size.0, MAX_READ);
        size.note(1, 2);
        assert_eq!(size.0, 0);
    }
}
