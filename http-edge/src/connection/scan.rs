//! What the bytes of a head tell beside what hyper makes of them.

use std::cell::RefCell;

use memchr::memchr;

thread_local! {
    /// The memory into which heads are read. One for each thread is enough: a thread reads one connection at a time.
    pub(super) static HEAD: RefCell<LastRead> =
        RefCell::new(LastRead { space: vec![0; 8 << 10], length: 0, of: (0, 0) });
}

/// The bytes that were read last, if they may be a head. Nearly all heads come whole, hyper takes them as soon as they
/// are read, and few have to be looked at: so they stay here until it is known whether this one has to be.
pub(super) struct LastRead {
    pub(super) space: Vec<u8>,
    pub(super) length: usize,
    /// The connection, and how many requests it had begun.
    pub(super) of: (u64, u64),
}

impl LastRead {
    pub(super) fn bytes(&self) -> &[u8] {
        self.space.get(..self.length).unwrap_or_default()
    }
}

/// The lengths that a head says its body has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lengths {
    /// Both `Content-Length` and `Transfer-Encoding`.
    Two,
    /// At most one of them.
    One,
    /// The head came behind another one and was not looked at.
    Unknown,
}

/// Looks at the bytes of a head for what hyper takes away: of `Transfer-Encoding` and `Content-Length` it leaves one.
#[derive(Default)]
pub(crate) struct HeadScan {
    /// How the line begins that is not whole yet.
    line: [u8; LONGEST],
    length: u8,
    /// A line that is not empty came: empty ones before the request line count for nothing.
    begun: bool,
    ended: bool,
    transfer_encoding: bool,
    content_length: bool,
    /// The page that asks, for an answer to what hyper cannot read: it keeps no more of a head than it has understood.
    origin: Option<Box<[u8]>>,
}

const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";
const CONTENT_LENGTH: &[u8] = b"content-length:";
const ORIGIN: &[u8] = b"origin:";
/// The longest line with an origin that is kept: 253 bytes of a host, a scheme and a port.
const MAX_ORIGIN_LINE_BYTES: usize = 512;
const LONGEST: usize = TRANSFER_ENCODING.len();

impl HeadScan {
    /// The next bytes of the connection, from the head's first one on; what follows the head is not looked at.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !self.ended && !bytes.is_empty() {
            let end = memchr(b'\n', bytes);
            let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            bytes = rest.get(1..).unwrap_or_default();
            if end.is_some() && self.length == 0 {
                self.note(line);
                continue;
            }
            let free = self.line.get_mut(usize::from(self.length)..).unwrap_or_default();
            let kept = line.len().min(free.len());
            free.iter_mut().zip(line).for_each(|(place, byte)| *place = *byte);
            self.length += kept as u8;
            if end.is_some() {
                let (line, length) = (self.line, usize::from(std::mem::take(&mut self.length)));
                self.note(line.get(..length).unwrap_or_default());
            }
        }
    }

    /// Whether the head had both lengths.
    pub(crate) fn has_two_lengths(&self) -> bool {
        self.transfer_encoding && self.content_length
    }

    /// The origin of the page that asks, if that line came whole.
    pub(crate) fn take_origin(&mut self) -> Option<Box<[u8]>> {
        self.origin.take()
    }

    fn note(&mut self, line: &[u8]) {
        // Most lines are known to be others by where their colon stands.
        let begins_with = |name: &[u8]| {
            line.get(..name.len())
                .is_some_and(|begin| begin.last() == Some(&b':') && begin.eq_ignore_ascii_case(name))
        };
        match line.first() {
            Some(b't' | b'T') => self.transfer_encoding |= begins_with(TRANSFER_ENCODING),
            Some(b'c' | b'C') => self.content_length |= begins_with(CONTENT_LENGTH),
            Some(b'o' | b'O') if line.len() > LONGEST && line.len() <= MAX_ORIGIN_LINE_BYTES => {
                if begins_with(ORIGIN) {
                    self.origin = line.get(ORIGIN.len()..).map(|value| value.trim_ascii().into());
                }
            }
            None | Some(b'\r') => {
                self.ended = self.begun;
                return;
            }
            Some(_) => {}
        }
        self.begun = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lengths_are_found_in_any_order_case_and_pieces_and_in_the_head_only() {
        for (bytes, found) in [
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", true),
            ("POST / HTTP/1.1\r\ncontent-length:3\r\nHost: x\r\ntransfer-ENCODING:chunked\r\n\r\n", true),
            ("\r\n\r\nPOST / HTTP/1.1\nContent-Length: 3\nTransfer-Encoding: chunked\n\n", true),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n\nTransfer-Encoding: x\n", false),
            ("POST / HTTP/1.1\r\nContent-Lengths: 3\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nX: Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nContent-Length: 3\r\n", false),
            ("GET / HTTP/1.1\r\n\r\n", false),
        ] {
            for piece in [1, 2, 5, 17, 18, 19, 1000] {
                let mut scan = HeadScan::default();
                bytes.as_bytes().chunks(piece).for_each(|piece| scan.feed(piece));
                assert_eq!(scan.has_two_lengths(), found, "{bytes:?} {piece}");
            }
        }
    }
}
