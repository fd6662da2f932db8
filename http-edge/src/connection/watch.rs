//! What the driver of an HTTP/1 connection, its stream and its handlers let each other know.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::Mutex;

use super::raw_head::{MAX_BYTES, RawHead};
use super::scan::{HEAD, HeadScan, Lengths};
use crate::request::Response;

/// One HTTP/1 connection as seen from outside hyper. Everything happens on the connection's own task; the atomics
/// are there because handlers must be `Send`.
pub(crate) struct Watch {
    /// Which connection it is.
    pub(super) id: u64,
    /// Flushes that reached the socket. hyper flushes its stream only once its own buffer is empty, so a flush
    /// after a claim proves that every earlier response byte was written.
    pub(crate) flushes: AtomicU64,
    /// Reads and writes that moved a byte.
    pub(crate) progress: AtomicU64,
    /// Whether the last write found the socket full.
    pub(crate) blocked: AtomicBool,
    /// Bytes came since the last request's head was complete.
    pub(crate) head_begun: AtomicBool,
    /// The server has ended its side, after all that it had to say.
    pub(crate) shut: AtomicBool,
    /// The request under way is answered even if its client has ended its side.
    pub(crate) patient: AtomicBool,
    /// The head that comes has `Content-Length` and `Transfer-Encoding`, as far as it was looked at.
    pub(super) two_lengths: AtomicBool,
    /// Which head is looked at piece by piece: one more than the requests that had begun before it.
    pub(super) scanned: AtomicU64,
    /// Requests begun: the number of the one that may claim.
    pub(crate) requests: AtomicU64,
    /// Requests whose response is not yet handed over whole.
    pub(crate) busy: AtomicU32,
    /// `flushes` when the last response was handed over whole: as long as it is that, some of it may be unwritten.
    pub(crate) handed_over: AtomicU64,
    /// Whether `claim` holds one.
    pub(crate) claimed: AtomicBool,
    pub(crate) claim: Mutex<Option<Claim>>,
    /// The head that comes in pieces, where heads are asked for.
    pieces: Option<Box<Mutex<Vec<u8>>>>,
}

impl Default for Watch {
    fn default() -> Self {
        Watch {
            id: next_id(),
            flushes: AtomicU64::default(),
            progress: AtomicU64::default(),
            blocked: AtomicBool::default(),
            head_begun: AtomicBool::default(),
            shut: AtomicBool::default(),
            patient: AtomicBool::default(),
            two_lengths: AtomicBool::default(),
            scanned: AtomicU64::default(),
            requests: AtomicU64::default(),
            busy: AtomicU32::default(),
            handed_over: AtomicU64::default(),
            claimed: AtomicBool::default(),
            claim: Mutex::default(),
            pieces: None,
        }
    }
}

impl Watch {
    /// Of a connection of which some heads are asked for as they came.
    pub(super) fn keeping_heads() -> Self {
        Watch { pieces: Some(Box::default()), ..Watch::default() }
    }

    /// Keeps a piece of a head that comes in several, if heads are asked for.
    pub(super) fn keep_piece(&self, bytes: &[u8], is_first: bool) {
        let Some(pieces) = &self.pieces else { return };
        let mut pieces = pieces.lock();
        if is_first {
            pieces.clear();
        }
        let room = MAX_BYTES.saturating_sub(pieces.len());
        pieces.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    /// The head as it came, named as in [`lengths`](Self::lengths) and to be asked for as soon.
    pub(super) fn raw_head(&self, requests: u64) -> Option<RawHead> {
        if self.scanned.load(Relaxed) == requests + 1 {
            let pieces = std::mem::take(&mut *self.pieces.as_ref()?.lock());
            return Some(RawHead::of(&pieces));
        }
        HEAD.with_borrow(|last| (last.of == (self.id, requests)).then(|| RawHead::of(last.bytes())))
    }

    /// What is known of the length fields of a head, named by the number of `requests` that had begun before it. Must
    /// be asked as soon as hyper has read the head.
    pub(crate) fn lengths(&self, requests: u64) -> Lengths {
        let two = |two| if two { Lengths::Two } else { Lengths::One };
        if self.scanned.load(Relaxed) == requests + 1 {
            return two(self.two_lengths.load(Relaxed));
        }
        HEAD.with_borrow(|last| {
            if last.of != (self.id, requests) {
                return Lengths::Unknown;
            }
            let mut head = HeadScan::default();
            head.feed(last.bytes());
            two(head.has_two_lengths())
        })
    }
}

/// What a handler asked for instead of answering.
pub(crate) struct Claim {
    pub(crate) then: Then,
    /// `flushes` when it was made.
    pub(crate) flushes: u64,
}

/// An answer that takes its time.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

pub(crate) enum Then {
    /// This head is written, and somebody else has the socket.
    TakeOver { head: Bytes, then: Box<dyn FnOnce(link::Socket) + Send> },
    /// The connection waits for this, writes it, and goes on.
    Answer(Answer),
}

/// A number for each connection, from 1.
fn next_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Relaxed) + 1
}
