//! TLS around a TCP connection that lanes write to directly.
//!
//! The handshake is a future of its own ([`handshake`]). What it leaves is a [`TlsStream`]: rustls' state without its
//! buffers, and the socket, behind one mutex that the lane's write and the task's read share. A message costs its
//! encryption, in a buffer of the thread's, and one write. A record that was begun is never dropped: what the socket
//! did not take of it is kept, and goes first.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod handshake;
mod session;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub use self::handshake::{Handshake, HandshakeError, HandshakeStats, Handshakes, handshake};
use self::session::{Session, Take};

/// The longest record: 2^14 bytes and what encryption may add (RFC 5246 §6.2.3).
const MAX_RECORD: usize = (16 << 10) + 2048 + 5;

/// Plain bytes in one record.
const MAX_PLAIN: usize = 16 << 10;

/// Room for one record and a message of the protocol before it.
const RECORD_ROOM: usize = MAX_RECORD + (2 << 10);

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        read: vec![0; MAX_RECORD].into(),
        gathered: Vec::new(),
        record: vec![0; RECORD_ROOM].into(),
    });
}

/// What every connection needs for a moment, and none while it is idle.
struct Scratch {
    read: Box<[u8]>,
    gathered: Vec<u8>,
    record: Box<[u8]>,
}

/// One connection after its handshake.
pub struct TlsStream {
    tcp: TcpStream,
    session: Mutex<Session>,
}

/// What became of a record.
enum Written {
    Whole,
    /// Some of it is kept.
    Begun,
}

impl TlsStream {
    fn new(tcp: TcpStream, session: Session) -> Self {
        Self { tcp, session: Mutex::new(session) }
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        {
            let mut session = self.session.lock();
            if !session.outgoing().is_empty() && self.tcp.poll_write_ready(cx)?.is_ready() {
                // An answer to the protocol's own messages, which no outbox flushes.
                self.try_flush(&mut session)?;
            }
            if session.ended || !session.plain().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        self.tcp.poll_read_ready(cx)
    }

    pub(crate) fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        self.read(&mut |new| {
            let (room, taken) = (bytes.get_mut(filled..).unwrap_or_default(), new.len());
            let taken = taken.min(room.len());
            room.get_mut(..taken).unwrap_or_default().copy_from_slice(new.get(..taken).unwrap_or_default());
            filled += taken;
            taken
        })?;
        Ok(filled)
    }

    pub(crate) fn try_read_buf(&self, input: &mut BytesMut) -> io::Result<usize> {
        let before = input.len();
        self.read(&mut |new| {
            input.extend_from_slice(new);
            new.len()
        })?;
        Ok(input.len() - before)
    }

    /// Gives `take` what is there. Returns with nothing only at the end.
    fn read(&self, take: Take<'_>) -> io::Result<()> {
        let mut session = self.session.lock();
        if !session.plain().is_empty() {
            let taken = take(session.plain());
            session.consume(taken);
            return Ok(());
        }
        self.fill(&mut session, take)
    }

    /// Reads from the socket until there is something, or the end.
    fn fill(&self, session: &mut Session, take: Take<'_>) -> io::Result<()> {
        SCRATCH.with_borrow_mut(|scratch| {
            while !session.ended {
                let read = self.tcp.try_read(&mut scratch.read)?;
                if read == 0 {
                    session.ended = true;
                    break;
                }
                let outcome = session.receive(scratch.read.get_mut(..read).unwrap_or_default(), take);
                // An answer of the protocol's own, or the alert that says what is wrong.
                let flushed = self.try_flush(session);
                if outcome? > 0 {
                    break;
                }
                flushed?;
            }
            Ok(())
        })
    }

    pub(crate) fn poll_peek(&self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            let mut session = self.session.lock();
            if session.plain().is_empty() {
                match self.fill(&mut session, &mut |_| 0) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    outcome => outcome?,
                }
            }
            let seen = session.plain().len().min(out.remaining());
            out.put_slice(session.plain().get(..seen).unwrap_or_default());
            return Poll::Ready(Ok(seen));
        }
    }

    /// Writes for an outbox, which knows that what was not taken waits in it, and nothing of records. So the last
    /// byte of a record that is begun counts as not taken until all of the record is: the outbox then keeps its
    /// frame, which a policy may not drop any more, and comes again. (A frame of one byte that may be dropped would
    /// be an exception; no protocol here has one.)
    // Within the plain write it would cost that its registers.
    #[inline(never)]
    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut session = self.session.lock();
        if !self.try_flush(&mut session)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut taken = usize::from(std::mem::take(&mut session.owes)).min(total);
        SCRATCH.with_borrow_mut(|Scratch { gathered, record, .. }| {
            while taken < total {
                let piece = piece(slices, taken, gathered);
                taken += piece.len();
                if let Written::Begun = self.write_record(&mut session, piece, record)? {
                    session.owes = true;
                    taken -= 1;
                    break;
                }
            }
            if taken == 0 && total > 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
        })
    }

    /// Encrypts and writes. What the socket does not take is kept.
    fn write_record(&self, session: &mut Session, plain: &[u8], record: &mut [u8]) -> io::Result<Written> {
        let length = session.encrypt(plain, record)?;
        let record = record.get(..length).unwrap_or_default();
        let written = match self.tcp.try_write(record) {
            Err(error) if is_retry(&error) => 0,
            outcome => outcome?,
        };
        if written == length {
            return Ok(Written::Whole);
        }
        session.keep(record.get(written..).unwrap_or_default());
        Ok(Written::Begun)
    }

    /// Writes what was begun; whether nothing of it is left.
    fn try_flush(&self, session: &mut Session) -> io::Result<bool> {
        while !session.outgoing().is_empty() {
            match self.tcp.try_write(session.outgoing()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => session.advance(written),
                Err(error) if is_retry(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Bytes of records that were begun.
    pub(crate) fn begun(&self) -> usize {
        self.session.lock().outgoing().len()
    }

    /// Ready once what was begun is written.
    fn poll_begun(&self, session: &mut Session, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.try_flush(session)? {
            ready!(self.tcp.poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more comes; ready once that is written.
    pub(crate) fn poll_goodbye(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session.lock();
        session.say_goodbye()?;
        self.poll_begun(&mut session, cx)
    }

    fn poll_write_slices(&self, slices: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut session = self.session.lock();
        ready!(self.poll_begun(&mut session, cx))?;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut taken = 0;
        SCRATCH.with_borrow_mut(|Scratch { gathered, record, .. }| {
            while taken < total {
                let piece = piece(slices, taken, gathered);
                taken += piece.len();
                if let Written::Begun = self.write_record(&mut session, piece, record)? {
                    break;
                }
            }
            Poll::Ready(Ok(taken))
        })
    }
}

/// What goes into the next record, behind the first `from` bytes: a part of one slice, or of several together.
fn piece<'a>(slices: &'a [IoSlice<'_>], from: usize, gathered: &'a mut Vec<u8>) -> &'a [u8] {
    let mut skip = from;
    let mut rest = slices.iter().filter_map(|slice| {
        let left = slice.get(skip.min(slice.len())..).unwrap_or_default();
        skip -= skip.min(slice.len());
        (!left.is_empty()).then_some(left)
    });
    let first = rest.next().unwrap_or_default();
    let Some(second) = rest.next() else { return first.get(..MAX_PLAIN).unwrap_or(first) };
    if first.len() >= MAX_PLAIN {
        return first.get(..MAX_PLAIN).unwrap_or(first);
    }
    gathered.clear();
    for slice in [first, second].into_iter().chain(rest) {
        let room = MAX_PLAIN - gathered.len();
        gathered.extend_from_slice(slice.get(..room).unwrap_or(slice));
        if gathered.len() == MAX_PLAIN {
            break;
        }
    }
    gathered
}

fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            let read = self.read(&mut |new| {
                let taken = new.len().min(out.remaining());
                out.put_slice(new.get(..taken).unwrap_or_default());
                taken
            });
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_slices(&[IoSlice::new(bytes)], cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_slices(slices, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_begun(&mut self.session.lock(), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_goodbye(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
