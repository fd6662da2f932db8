//! Publishing: a raw body, JSON items, or a stream of them.

mod gate;
mod items;
mod lines;
mod options;
mod raw;

use bytes::Bytes;
use envelope::{write_string, write_timestamp};

pub(crate) use gate::{Gate, Publication, Published, Publisher};
pub(crate) use items::{Answer, BASE64, Batch, parse_array, publish_items};
pub(crate) use lines::publish_lines;
pub(crate) use options::{Options, key_of};
pub(crate) use raw::{Retain, content_type, publish_raw};

/// Lets others have a turn after so many messages of one request: one body may hold a million.
#[derive(Debug)]
pub(crate) struct Turn {
    left: u32,
}

/// Messages published in one turn.
const TURN: u32 = 64;

impl Turn {
    pub(crate) fn new() -> Self {
        Turn { left: TURN }
    }

    /// To be awaited before each message.
    pub(crate) async fn take(&mut self) {
        if self.left == 0 {
            self.left = TURN;
            tokio::task::yield_now().await;
        }
        self.left -= 1;
    }
}

impl Published {
    /// Appends `{"channel","id","time","receivers","duplicate"}`.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"channel\":");
        write_string(self.channel.as_str(), out);
        out.extend_from_slice(b",\"id\":");
        match self.receipt.id {
            // Neither an id nor a time has anything to escape.
            Some(id) => {
                out.push(b'"');
                id.write_to(out);
                out.push(b'"');
            }
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"time\":\"");
        write_timestamp(self.receipt.time_ms, out);
        out.extend_from_slice(b"\",\"receivers\":");
        out.extend_from_slice(itoa::Buffer::new().format(self.receipt.receivers).as_bytes());
        out.extend_from_slice(if self.duplicate {
            b",\"duplicate\":true}"
        } else {
            b",\"duplicate\":false}"
        });
    }
}

/// Payloads up to here are always copied out of the buffer they came in.
const ALWAYS_COPIED: usize = 2 * 1024;

/// A payload that may live as long as the log: a slice of its request's buffer if it is most of that buffer, else a
/// copy, so that a small message never keeps a large buffer alive.
pub(crate) fn own(payload: &[u8], buffer: &Bytes, buffer_bytes: usize) -> Bytes {
    if payload.len() < ALWAYS_COPIED || payload.len() < buffer_bytes / 2 {
        Bytes::copy_from_slice(payload)
    } else {
        buffer.slice_ref(payload)
    }
}
