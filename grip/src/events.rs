//! Events of WebSocket over HTTP: the bodies of `application/websocket-events`.
//!
//! ```text
//! OPEN\r\n
//! TEXT 5\r\nhello\r\n          the length is hexadecimal
//! CLOSE 2\r\n\x03\xE8\r\n
//! ```

use bytes::{Buf, Bytes, BytesMut};

/// The type of such a body.
pub const CONTENT_TYPE: &str = "application/websocket-events";
/// Longest first line of an event, without its end.
const MAX_LINE_BYTES: usize = 32;
/// Longest reason of a close (RFC 6455 §5.5.1).
const MAX_REASON_BYTES: usize = 123;

/// Something that happened on one of the two sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The WebSocket begins.
    Open,
    /// A message of text; from an origin it is valid UTF-8.
    Text(Bytes),
    /// A message of bytes.
    Binary(Bytes),
    /// A ping.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// The end, with its code, if there is one.
    Close(Option<Close>),
    /// The connection is gone, or is to be, without a word.
    Disconnect,
}

/// How a WebSocket was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Close {
    /// The code, as it was written.
    pub code: u16,
    /// The reason.
    pub reason: String,
}

/// Why a body is no list of events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventsError {
    /// There is no such event.
    #[error("{0:?} is not an event")]
    Unknown(String),
    /// The length is not hexadecimal.
    #[error("{0:?} is not the length of an event")]
    Length(String),
    /// More than there may be.
    #[error("an event of {0} bytes is too long")]
    TooLong(usize),
    /// A line does not end where it should.
    #[error("a line does not end with CR LF")]
    End,
    /// The body ends in the middle of an event.
    #[error("the last event is not whole")]
    Part,
    /// A text that is none.
    #[error("a text is not UTF-8")]
    Utf8,
    /// A close with half a code.
    #[error("a close has one byte")]
    Close,
}

impl Close {
    /// With a code and a reason.
    pub fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// The code, if a close frame may have it (RFC 6455 §7.4): 0 and what is reserved may not be sent, and stand for a
    /// close without a code.
    pub fn sendable(&self) -> Option<u16> {
        matches!(self.code, 1000..=1003 | 1007..=1014 | 3000..=4999).then_some(self.code)
    }
}

impl Event {
    /// The word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Text(_) => "TEXT",
            Self::Binary(_) => "BINARY",
            Self::Ping(_) => "PING",
            Self::Pong(_) => "PONG",
            Self::Close(_) => "CLOSE",
            Self::Disconnect => "DISCONNECT",
        }
    }

    /// The content of a message, a ping or a pong.
    pub fn content(&self) -> Option<&Bytes> {
        match self {
            Self::Text(content) | Self::Binary(content) | Self::Ping(content) | Self::Pong(content) => {
                Some(content)
            }
            Self::Open | Self::Close(_) | Self::Disconnect => None,
        }
    }

    /// How long that is.
    pub fn len(&self) -> usize {
        self.content().map_or(0, Bytes::len)
    }

    /// Whether it has no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes bytes away from the beginning of the content.
    pub(crate) fn advance(&mut self, bytes: usize) {
        match self {
            Self::Text(content) | Self::Binary(content) | Self::Ping(content) | Self::Pong(content) => {
                content.advance(bytes.min(content.len()));
            }
            Self::Open | Self::Close(_) | Self::Disconnect => {}
        }
    }

    /// Appends it to a body.
    pub fn encode(&self, body: &mut Vec<u8>) {
        let write = |body: &mut Vec<u8>, parts: &[&[u8]]| {
            let length: usize = parts.iter().map(|part| part.len()).sum();
            body.extend_from_slice(format!(" {length:x}\r\n").as_bytes());
            parts.iter().for_each(|part| body.extend_from_slice(part));
        };
        body.extend_from_slice(self.name().as_bytes());
        match self {
            Self::Text(content) | Self::Binary(content) => write(body, &[content]),
            Self::Ping(content) | Self::Pong(content) if !content.is_empty() => write(body, &[content]),
            Self::Close(Some(close)) => write(body, &[&close.code.to_be_bytes(), close.reason.as_bytes()]),
            Self::Open | Self::Ping(_) | Self::Pong(_) | Self::Close(None) | Self::Disconnect => {}
        }
        body.extend_from_slice(b"\r\n");
    }
}

/// Reads events out of a body that comes in parts.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    max_bytes: usize,
}

impl Decoder {
    /// For contents of at most `max_bytes` each; no more than such an event is kept.
    pub fn new(max_bytes: usize) -> Self {
        Self { buffer: BytesMut::new(), max_bytes }
    }

    /// The next part of the body; take all events out of it before the next one.
    pub fn feed(&mut self, part: &[u8]) {
        self.buffer.extend_from_slice(part);
    }

    /// The next event, if all of it has come.
    ///
    /// # Errors
    /// The body is no list of events; nothing after it can be read.
    pub fn poll(&mut self) -> Result<Option<Event>, EventsError> {
        let line = self.buffer.get(..self.buffer.len().min(MAX_LINE_BYTES + 2)).unwrap_or_default();
        let Some(end) = line.windows(2).position(|two| two == b"\r\n") else {
            let is_long = self.buffer.len() > MAX_LINE_BYTES + 1;
            return if is_long { Err(EventsError::End) } else { Ok(None) };
        };
        let line = String::from_utf8_lossy(line.get(..end).unwrap_or_default());
        let (name, length) = match line.split_once(' ') {
            None => (&*line, None),
            Some((name, length)) => (name, Some(length)),
        };
        let kind = Kind::parse(name)?;
        let Some(length) = length else {
            self.buffer.advance(end + 2);
            return kind.event(Bytes::new()).map(Some);
        };
        let digits = (1..=8).contains(&length.len()) && length.bytes().all(|byte| byte.is_ascii_hexdigit());
        let length = usize::from_str_radix(length, 16).ok().filter(|_| digits);
        let wrong =
            || EventsError::Length(line.split_once(' ').map_or_else(String::new, |(_, wrong)| wrong.into()));
        let length = length.ok_or_else(wrong)?;
        if length > self.max_bytes {
            return Err(EventsError::TooLong(length));
        }
        let start = end + 2;
        let Some(after) = self.buffer.get(start + length..start + length + 2) else { return Ok(None) };
        if after != b"\r\n" {
            return Err(EventsError::End);
        }
        self.buffer.advance(start);
        let content = self.buffer.split_to(length).freeze();
        self.buffer.advance(2);
        kind.event(content).map(Some)
    }

    /// The body is over.
    ///
    /// # Errors
    /// It ended in the middle of an event.
    pub fn finish(self) -> Result<(), EventsError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(EventsError::Part) }
    }
}

/// All events of a body.
///
/// # Errors
/// The body is no list of events.
pub fn decode(body: &[u8], max_bytes: usize) -> Result<Vec<Event>, EventsError> {
    let mut decoder = Decoder::new(max_bytes);
    decoder.feed(body);
    let mut events = Vec::new();
    while let Some(event) = decoder.poll()? {
        events.push(event);
    }
    decoder.finish()?;
    Ok(events)
}

/// A body with these events.
pub fn encode<'a>(events: impl IntoIterator<Item = &'a Event>) -> Bytes {
    let mut body = Vec::new();
    events.into_iter().for_each(|event| event.encode(&mut body));
    body.into()
}

#[derive(Clone, Copy)]
enum Kind {
    Open,
    Text,
    Binary,
    Ping,
    Pong,
    Close,
    Disconnect,
}

impl Kind {
    fn parse(name: &str) -> Result<Self, EventsError> {
        Ok(match name {
            "OPEN" => Self::Open,
            "TEXT" => Self::Text,
            "BINARY" => Self::Binary,
            "PING" => Self::Ping,
            "PONG" => Self::Pong,
            "CLOSE" => Self::Close,
            "DISCONNECT" => Self::Disconnect,
            _ => return Err(EventsError::Unknown(name.to_owned())),
        })
    }

    fn event(self, content: Bytes) -> Result<Event, EventsError> {
        Ok(match self {
            Self::Open => Event::Open,
            Self::Text if std::str::from_utf8(&content).is_err() => return Err(EventsError::Utf8),
            Self::Text => Event::Text(content),
            Self::Binary => Event::Binary(content),
            Self::Ping => Event::Ping(content),
            Self::Pong => Event::Pong(content),
            Self::Close => Event::Close(match content.first_chunk() {
                Some(code) => {
                    let reason = String::from_utf8_lossy(content.get(2..).unwrap_or_default());
                    Some(Close::new(u16::from_be_bytes(*code), at_most(&reason, MAX_REASON_BYTES)))
                }
                None if content.is_empty() => None,
                None => return Err(EventsError::Close),
            }),
            Self::Disconnect => Event::Disconnect,
        })
    }
}

/// So much of a text as fits, in whole characters.
fn at_most(text: &str, max_bytes: usize) -> &str {
    let end = (0..=max_bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &[u8]) -> Result<Vec<Event>, EventsError> {
        decode(body, 1 << 20)
    }

    #[test]
    fn events_are_read_as_they_are_written() {
        for (event, text) in [
            (Event::Open, &b"OPEN\r\n"[..]),
            (Event::Text("hello".into()), b"TEXT 5\r\nhello\r\n"),
            (Event::Text("".into()), b"TEXT 0\r\n\r\n"),
            (Event::Binary(vec![b'\r', b'\n', 0xff].into()), b"BINARY 3\r\n\r\n\xff\r\n"),
            (Event::Text("x".repeat(26).into()), b"TEXT 1a\r\nxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n"),
            (Event::Ping("".into()), b"PING\r\n"),
            (Event::Pong("a".into()), b"PONG 1\r\na\r\n"),
            (Event::Close(None), b"CLOSE\r\n"),
            (Event::Close(Some(Close::new(1000, ""))), b"CLOSE 2\r\n\x03\xe8\r\n"),
            (Event::Close(Some(Close::new(4001, "bye"))), b"CLOSE 5\r\n\x0f\xa1bye\r\n"),
            (Event::Disconnect, b"DISCONNECT\r\n"),
        ] {
            assert_eq!(encode([&event]), text);
            assert_eq!(read(text), Ok(vec![event]));
        }
        assert_eq!(read(b""), Ok(vec![]));
        let two = read(b"OPEN\r\nTEXT A\r\n0123456789\r\n").unwrap();
        assert_eq!(two, [Event::Open, Event::Text("0123456789".into())]);
        assert_eq!(read(b"TEXT\r\nPING 0\r\n\r\nCLOSE 0\r\n\r\n").unwrap().len(), 3, "without a length");
    }

    #[test]
    fn what_js_grip_writes_is_read() {
        // `WebSocketContext` of @fanoutio/grip 4.3.0 after accept, subscribe, send and close.
        let body = b"OPEN\r\nTEXT 27\r\nc:{\"channel\":\"room\",\"type\":\"subscribe\"}\r\nTEXT 4\r\nm:hi\r\nCLOSE 2\r\n\0\0\r\n";
        let events = read(body).unwrap();
        assert_eq!(events.len(), 4);
        assert_eq!(events[2], Event::Text("m:hi".into()));
        assert_eq!(events[3], Event::Close(Some(Close::new(0, ""))));
        assert_eq!(encode(&events), &body[..], "and written in the same way");
    }

    #[test]
    fn what_is_no_list_of_events_is_refused() {
        for (body, why) in [
            (&b"HELLO\r\n"[..], EventsError::Unknown("HELLO".into())),
            (b"open\r\n", EventsError::Unknown("open".into())),
            (b"\r\n", EventsError::Unknown(String::new())),
            (b"TEXT x\r\n", EventsError::Length("x".into())),
            (b"TEXT -1\r\n", EventsError::Length("-1".into())),
            (b"TEXT +1\r\na\r\n", EventsError::Length("+1".into())),
            (b"TEXT \r\n", EventsError::Length(String::new())),
            (b"TEXT 000000001\r\na\r\n", EventsError::Length("000000001".into())),
            (b"TEXT ffffffff\r\n", EventsError::TooLong(0xffff_ffff)),
            (b"TEXT 1\r\nab\r\n", EventsError::End),
            (b"TEXT 5\r\nhell", EventsError::Part),
            (b"TEXT 5\r\nhello", EventsError::Part),
            (b"OPEN", EventsError::Part),
            (b"OPEN\n", EventsError::Part),
            (b"a line without an end that is longer than any", EventsError::End),
            (b"TEXT 1\r\n\xff\r\n", EventsError::Utf8),
            (b"CLOSE 1\r\n\x03\r\n", EventsError::Close),
        ] {
            assert_eq!(read(body), Err(why), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_close_has_a_code_that_may_be_sent_or_none() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            assert_eq!(Close::new(code, "").sendable(), None, "{code}");
        }
        for code in [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999] {
            assert_eq!(Close::new(code, "").sendable(), Some(code));
        }
        let zero = read(b"CLOSE 2\r\n\0\0\r\n").unwrap();
        assert_eq!(zero, [Event::Close(Some(Close::new(0, "")))], "what libraries write");
        let long = [&b"CLOSE 7e\r\n\x03\xe8"[..], &[b'x'; 122], "é\r\n".as_bytes()].concat();
        let Ok([Event::Close(Some(close))]) = read(&long).as_deref().map(|events| [events[0].clone()]) else {
            panic!("it is a close")
        };
        assert_eq!(close.reason.len(), 122, "whole characters that a frame has room for");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_in_any_parts(
            contents in prop::collection::vec((0..7_u8, "[a-zé\r\n]{0,40}"), 0..8),
            size in 1..9_usize,
        ) {
            let events: Vec<Event> = contents.into_iter().map(|(kind, text)| match kind {
                0 => Event::Open,
                1 => Event::Text(text.into()),
                2 => Event::Binary(text.into()),
                3 => Event::Ping(text.into()),
                4 => Event::Pong(text.into()),
                5 => Event::Close(Some(Close::new(1000, text))),
                _ => Event::Disconnect,
            }).collect();
            let body = encode(&events);
            prop_assert_eq!(decode(&body, 1 << 10), Ok(events.clone()));
            let mut decoder = Decoder::new(1 << 10);
            let mut found = Vec::new();
            for part in body.chunks(size) {
                decoder.feed(part);
                while let Some(event) = decoder.poll().unwrap() {
                    found.push(event);
                }
            }
            prop_assert_eq!(decoder.finish(), Ok(()));
            prop_assert_eq!(found, events);
        }
    }
}
