//! The client's side of WebSocket around another session: RFC 6455 without extensions.

use super::{Event, Session, Violation};

/// Longest upgrade response.
const MAX_HEAD_BYTES: usize = 16 * 1_024;
/// Longest frame or fragmented message.
const MAX_MESSAGE_BYTES: usize = 16 * 1_024 * 1_024;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What the inner session's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Every message stands for itself.
    Text,
    /// A stream of bytes, however it is cut into messages.
    Binary,
}

pub(super) struct WebSocket<S> {
    inner: S,
    path: &'static str,
    protocol: Option<&'static str>,
    content: Content,
    open: bool,
    /// Message bytes that the inner session has not taken.
    unread: Vec<u8>,
    scratch: Vec<u8>,
}

impl<S: Session> WebSocket<S> {
    pub(super) fn new(
        inner: S,
        path: &'static str,
        protocol: Option<&'static str>,
        content: Content,
    ) -> Self {
        Self { inner, path, protocol, content, open: false, unread: Vec::new(), scratch: Vec::new() }
    }

    fn wrap(&mut self, out: &mut Vec<u8>) {
        if !self.scratch.is_empty() {
            let opcode = if self.content == Content::Text { TEXT } else { BINARY };
            write_frame(opcode, &self.scratch, out);
            self.scratch.clear();
        }
    }

    fn upgraded(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, Violation> {
        let Some(end) = memchr::memmem::find(input, b"\r\n\r\n") else {
            return if input.len() > MAX_HEAD_BYTES {
                Err(Violation("upgrade is too long".to_owned()))
            } else {
                Ok(0)
            };
        };
        if !input.starts_with(b"HTTP/1.1 101") {
            let line = input.split(|byte| *byte == b'\r').next().unwrap_or_default();
            return Err(Violation(format!("upgrade answered {}", String::from_utf8_lossy(line))));
        }
        self.open = true;
        self.inner.start(&mut self.scratch, on);
        self.wrap(out);
        Ok(end + 4)
    }

    fn take(
        &mut self,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        match frame.opcode {
            CLOSE => return Err(Violation("closed with a close frame".to_owned())),
            PING => write_frame(PONG, frame.payload, out),
            PONG => {}
            _ if self.unread.len() + frame.payload.len() > MAX_MESSAGE_BYTES => {
                return Err(Violation("message does not end".to_owned()));
            }
            _ if self.content == Content::Text && !frame.last => self.unread.extend_from_slice(frame.payload),
            _ if self.unread.is_empty() => {
                let taken = self.inner.receive(frame.payload, &mut self.scratch, on)?;
                self.unread.extend_from_slice(&frame.payload[taken..]);
            }
            _ => {
                self.unread.extend_from_slice(frame.payload);
                let unread = std::mem::take(&mut self.unread);
                let taken = self.inner.receive(&unread, &mut self.scratch, on)?;
                if taken < unread.len() {
                    self.unread.extend_from_slice(&unread[taken..]);
                }
            }
        }
        self.wrap(out);
        Ok(())
    }
}

impl<S: Session> Session for WebSocket<S> {
    fn start(&mut self, out: &mut Vec<u8>, _on: &mut dyn FnMut(Event<'_>)) {
        let protocol =
            self.protocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
        let head = format!(
            "GET {} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ZmFud2lyZS1sb2FkLTAwMQ==\r\n{protocol}\r\n",
            self.path
        );
        out.extend_from_slice(head.as_bytes());
    }

    fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, Violation> {
        let mut taken = if self.open { 0 } else { self.upgraded(input, out, on)? };
        while self.open
            && let Some(frame) = Frame::read(&input[taken..])?
        {
            taken += frame.bytes;
            self.take(&frame, out, on)?;
        }
        Ok(taken)
    }

    fn publish(&mut self, channel: &str, payload: &[u8], out: &mut Vec<u8>, on: &mut dyn FnMut(Event<'_>)) {
        self.inner.publish(channel, payload, &mut self.scratch, on);
        self.wrap(out);
    }

    fn window(&self) -> usize {
        self.inner.window()
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Frame<'a> {
    opcode: u8,
    last: bool,
    payload: &'a [u8],
    /// Length of the whole frame.
    bytes: usize,
}

impl<'a> Frame<'a> {
    fn read(input: &'a [u8]) -> Result<Option<Self>, Violation> {
        let [first, second, ..] = *input else { return Ok(None) };
        if first & 0x70 != 0 || second & 0x80 != 0 {
            return Err(Violation("frame with an extension or a mask from the server".to_owned()));
        }
        let (head, length) = match second {
            126 => match input.get(2..4) {
                Some(&[high, low]) => (4, usize::from(u16::from_be_bytes([high, low]))),
                _ => return Ok(None),
            },
            127 => match input.get(2..).and_then(|rest| rest.first_chunk()) {
                Some(length) => (10, usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX)),
                None => return Ok(None),
            },
            length => (2, usize::from(length)),
        };
        if length > MAX_MESSAGE_BYTES {
            return Err(Violation(format!("frame of {length} bytes")));
        }
        let payload = input.get(head..head + length);
        Ok(payload.map(|payload| Self {
            opcode: first & 0x0f,
            last: first & 0x80 != 0,
            payload,
            bytes: head + length,
        }))
    }
}

/// A client must mask; a key of zeros does, and leaves the bytes as they are.
fn write_frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Echo(Vec<u8>);

    impl Session for Echo {
        fn start(&mut self, out: &mut Vec<u8>, on: &mut dyn FnMut(Event<'_>)) {
            out.extend_from_slice(b"hello");
            on(Event::Ready);
        }

        fn receive(
            &mut self,
            input: &[u8],
            _: &mut Vec<u8>,
            on: &mut dyn FnMut(Event<'_>),
        ) -> Result<usize, Violation> {
            self.0.extend_from_slice(input);
            on(Event::Payload(input));
            Ok(input.len())
        }
    }

    #[test]
    fn frames_reach_the_inner_session_however_the_bytes_arrive() {
        let mut stream = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n".to_vec();
        stream.extend_from_slice(&[0x81, 3]);
        stream.extend_from_slice(b"one");
        stream.extend_from_slice(&[0x89, 1, b'p', 0x81, 126, 0, 130]);
        stream.extend_from_slice(&[b'x'; 130]);
        stream.extend_from_slice(&[0x01, 2, b'a', b'b', 0x80, 1, b'c']);
        for step in [1, 5, stream.len()] {
            let mut session = WebSocket::new(Echo::default(), "/x", None, Content::Text);
            let (mut buffer, mut out, mut found) = (Vec::new(), Vec::new(), Vec::new());
            for chunk in stream.chunks(step) {
                buffer.extend_from_slice(chunk);
                let mut on = |event: Event<'_>| {
                    if let Event::Payload(payload) = event {
                        found.push(payload.len());
                    }
                };
                let taken = session.receive(&buffer, &mut out, &mut on).expect("valid frames");
                buffer.drain(..taken);
            }
            assert_eq!(found, [3, 130, 3], "in steps of {step}");
            let mut expected = vec![0x81, 0x85, 0, 0, 0, 0];
            expected.extend_from_slice(b"hello");
            expected.extend_from_slice(&[0x8a, 0x81, 0, 0, 0, 0, b'p']);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn a_refused_upgrade_or_a_close_is_a_violation() {
        for stream in [
            &b"HTTP/1.1 400 Bad\r\n\r\n"[..],
            b"HTTP/1.1 101 S\r\n\r\n\x88\x00",
            b"HTTP/1.1 101 S\r\n\r\n\xc1\x00",
        ] {
            let mut session = WebSocket::new(Echo::default(), "/x", None, Content::Text);
            assert!(session.receive(stream, &mut Vec::new(), &mut |_| {}).is_err(), "{stream:?}");
        }
    }
}
