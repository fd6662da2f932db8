use std::io::Cursor;

use bytes::{Buf, Bytes, BytesMut};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::deflate::{DeflateParams, inflate_frames};
use crate::error::Violation;
use crate::mask::unmask;

/// What one connection may make the server hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Largest payload of one data frame, in bytes, judged by its header, and of a compressed one once
    /// more by what it inflates to; default 4 MiB. Beyond it the connection is closed with 1009.
    pub max_frame_bytes: usize,
    /// Largest message, in bytes, over all its fragments and once inflated; default 4 MiB, the
    /// broker's own limit. Beyond it the connection is closed with 1009.
    pub max_message_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_frame_bytes: 4 * 1024 * 1024, max_message_bytes: 4 * 1024 * 1024 }
    }
}

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A whole text message; valid UTF-8.
    Text(Bytes),
    /// A whole binary message.
    Binary(Bytes),
    /// Some bytes of a binary message, in order; only from [`Assembler::binary_stream`].
    BinaryPart(Bytes),
    /// Answer with [`encode::pong`](crate::encode::pong).
    Ping(Bytes),
    /// Only a sign of life, with what the ping had.
    Pong(Bytes),
    /// The peer closes; answer with [`encode::close`](crate::encode::close) and the same code, then
    /// end the connection. Nothing comes after it.
    Close {
        /// `None` if the frame was empty.
        code: Option<CloseCode>,
        /// May be empty.
        reason: String,
    },
}

/// What is done with data messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Both kinds, whole.
    Messages,
    /// Binary only, as it comes.
    BinaryStream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

/// The message whose first frame was seen and whose last frame is not yet complete.
#[derive(Debug, Clone, Copy)]
struct Open {
    kind: Kind,
    compressed: bool,
    /// Payload announced so far, over all fragments.
    announced: u64,
}

/// A frame's header, complete and legal by itself.
struct Header {
    frame: FrameHeader,
    mask: [u8; 4],
    length: u64,
    bytes: usize,
}

/// The data frame that is being read.
#[derive(Debug, Clone, Copy)]
struct Frame {
    is_final: bool,
    mask: [u8; 4],
    length: u64,
    read: u64,
}

/// Turns a client's bytes into messages (RFC 6455 §5, RFC 7692).
///
/// Fragments are joined, control frames between them come out at once. Sizes are judged by the
/// frame's header; memory grows with the bytes that really came.
#[derive(Debug)]
pub struct Assembler {
    limits: Limits,
    mode: Mode,
    deflate: Option<DeflateParams>,
    frame: Option<Frame>,
    open: Option<Open>,
    message: BytesMut,
    finished: bool,
}

impl Assembler {
    /// An assembler that hands out whole messages of both kinds. `deflate` is what the handshake
    /// negotiated.
    pub fn new(limits: Limits, deflate: Option<DeflateParams>) -> Self {
        Self::with_mode(limits, deflate, Mode::Messages)
    }

    /// An assembler for protocols that use a WebSocket as a stream of bytes (MQTT): binary data
    /// comes out as [`Incoming::BinaryPart`] as soon as it is there, so no message is ever held
    /// (except a compressed one, which is inflated whole). `max_message_bytes` still bounds each
    /// message. A text frame is a violation, 1003.
    pub fn binary_stream(limits: Limits, deflate: Option<DeflateParams>) -> Self {
        Self::with_mode(limits, deflate, Mode::BinaryStream)
    }

    fn with_mode(limits: Limits, deflate: Option<DeflateParams>, mode: Mode) -> Self {
        Self { limits, mode, deflate, frame: None, open: None, message: BytesMut::new(), finished: false }
    }

    /// Takes the next thing out of `input`; `None` means that more bytes are needed. Call it until
    /// then. An `input` that is used up gives its allocation back.
    ///
    /// Payloads may share `input`'s allocation: copy what is kept for long.
    ///
    /// # Errors
    /// The peer broke a rule or a limit; nothing is read from this connection afterwards: later
    /// calls discard their input and give `None`, as they do after a close frame.
    pub fn feed(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, Violation> {
        let result = self.advance(input);
        if matches!(result, Err(_) | Ok(Some(Incoming::Close { .. }))) {
            self.finish();
        }
        if self.finished || input.is_empty() {
            *input = BytesMut::new();
        }
        result
    }

    /// What came of the message that is not whole yet; `None` if none has begun.
    pub fn unfinished_bytes(&self) -> Option<usize> {
        (self.frame.is_some() || self.open.is_some()).then_some(self.message.len())
    }

    /// Gives up what is not whole and reads nothing more.
    pub fn finish(&mut self) {
        self.finished = true;
        (self.frame, self.open) = (None, None);
        self.message = BytesMut::new();
    }

    /// Whether a close frame or a violation ended the reading side.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    fn advance(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, Violation> {
        loop {
            if self.finished {
                return Ok(None);
            }
            if self.frame.is_some() {
                match self.read_payload(input)? {
                    Step::Out(incoming) => return Ok(Some(incoming)),
                    Step::Next => continue,
                    Step::Starved => return Ok(None),
                }
            }
            let Some(header) = self.read_header(input)? else {
                return Ok(None);
            };
            match header.frame.opcode {
                OpCode::Control(control) => {
                    // Bounded by the check of the header: at most 125.
                    let length = header.length as usize;
                    if input.len() < header.bytes + length {
                        return Ok(None);
                    }
                    input.advance(header.bytes);
                    let mut payload = input.split_to(length);
                    unmask(&mut payload, header.mask, 0);
                    return control_frame(control, payload.freeze()).map(Some);
                }
                OpCode::Data(data) => {
                    self.begin_data(&header.frame, data, header.length)?;
                    input.advance(header.bytes);
                    let Header { frame: FrameHeader { is_final, .. }, mask, length, .. } = header;
                    self.frame = Some(Frame { is_final, mask, length, read: 0 });
                }
            }
        }
    }

    /// The next frame's header if it is complete, checked for all that does not depend on what came
    /// before. Consumes nothing.
    fn read_header(&self, input: &BytesMut) -> Result<Option<Header>, Violation> {
        // Judged before the length is there, so that a plain HTTP client is told at once.
        if let Some(second) = input.get(1)
            && second & 0x80 == 0
        {
            return Err(Violation::protocol("client frame without a mask"));
        }
        let mut cursor = Cursor::new(&input[..]);
        let (header, length) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Ok(None),
            Err(_) => return Err(Violation::protocol("reserved opcode")),
        };
        let Some(mask) = header.mask else {
            return Err(Violation::protocol("client frame without a mask"));
        };
        if header.rsv2 || header.rsv3 {
            return Err(Violation::protocol("reserved bit set"));
        }
        if length > i64::MAX as u64 {
            return Err(Violation::protocol("frame length with its top bit set"));
        }
        let header_bytes = header.len(length);
        if u64::try_from(header_bytes) != Ok(cursor.position()) {
            return Err(Violation::protocol("frame length not in its shortest form"));
        }
        if let OpCode::Control(_) = header.opcode {
            if !header.is_final {
                return Err(Violation::protocol("fragmented control frame"));
            }
            if header.rsv1 {
                return Err(Violation::protocol("reserved bit set"));
            }
            if length > 125 {
                return Err(Violation::protocol("control frame longer than 125 bytes"));
            }
        }
        Ok(Some(Header { frame: header, mask, length, bytes: header_bytes }))
    }

    /// Judges a data frame by its header and opens its message.
    fn begin_data(&mut self, header: &FrameHeader, data: Data, length: u64) -> Result<(), Violation> {
        let kind = match data {
            Data::Continue => None,
            Data::Text => Some(Kind::Text),
            Data::Binary => Some(Kind::Binary),
            Data::Reserved(_) => return Err(Violation::protocol("reserved opcode")),
        };
        match (kind, self.open) {
            (None, None) => return Err(Violation::protocol("continuation without a message")),
            (Some(_), Some(_)) => return Err(Violation::protocol("new message inside a fragmented one")),
            (None, Some(_)) if header.rsv1 => return Err(Violation::protocol("reserved bit set")),
            (None, Some(_)) => {}
            (Some(kind), None) => {
                if header.rsv1 && self.deflate.is_none() {
                    return Err(Violation::protocol("compressed frame, but compression was not negotiated"));
                }
                if kind == Kind::Text && self.mode == Mode::BinaryStream {
                    return Err(Violation::unsupported("only binary messages are taken here"));
                }
                self.open = Some(Open { kind, compressed: header.rsv1, announced: 0 });
            }
        }
        if length > self.limits.max_frame_bytes as u64 {
            return Err(Violation::too_big("frame too big"));
        }
        if let Some(open) = &mut self.open {
            open.announced = open.announced.saturating_add(length);
            // The length of a compressed frame is kept in 32 bits.
            let most = if open.compressed { u64::from(u32::MAX) } else { u64::MAX };
            if open.announced > most.min(self.limits.max_message_bytes as u64) {
                return Err(Violation::too_big("message too big"));
            }
        }
        Ok(())
    }

    /// Takes what `input` has of the current data frame.
    fn read_payload(&mut self, input: &mut BytesMut) -> Result<Step, Violation> {
        let (Some(frame), Some(open)) = (self.frame.as_mut(), self.open) else {
            return Ok(Step::Next);
        };
        let missing = frame.length - frame.read;
        let available = usize::try_from(missing).unwrap_or(usize::MAX).min(input.len());
        if available == 0 && missing > 0 {
            return Ok(Step::Starved);
        }
        let mut part = input.split_to(available);
        unmask(&mut part, frame.mask, frame.read);
        frame.read += available as u64;
        let frame = *frame;
        let complete = frame.read == frame.length;
        let last = complete && frame.is_final;
        if complete {
            self.frame = None;
        }
        if self.mode == Mode::BinaryStream && !open.compressed {
            return self.stream_part(part, last);
        }
        if !last {
            self.keep(frame, open, &part);
            return Ok(if complete { Step::Next } else { Step::Starved });
        }
        let whole = if self.message.is_empty() {
            Whole::Frame(part.freeze())
        } else {
            self.keep(frame, open, &part);
            // Not `split`: it would leave the allocation behind.
            Whole::Kept(std::mem::take(&mut self.message).freeze())
        };
        self.open = None;
        self.finish_message(open, whole).map(Step::Out)
    }

    /// Keeps a part of a message that is not whole. In a compressed one the length of each frame stands before it, since
    /// frames are bounded by what they inflate to.
    fn keep(&mut self, frame: Frame, open: Open, part: &[u8]) {
        if part.is_empty() {
            return;
        }
        let is_first = frame.read == part.len() as u64;
        if open.compressed && is_first {
            // `begin_data` lets nothing longer through.
            let length = u32::try_from(frame.length).unwrap_or(u32::MAX);
            self.message.extend_from_slice(&length.to_be_bytes());
        }
        self.message.extend_from_slice(part);
    }

    fn stream_part(&mut self, part: BytesMut, last: bool) -> Result<Step, Violation> {
        if last {
            self.open = None;
        }
        if part.is_empty() {
            return Ok(Step::Next);
        }
        Ok(Step::Out(Incoming::BinaryPart(part.freeze())))
    }

    fn finish_message(&self, open: Open, whole: Whole) -> Result<Incoming, Violation> {
        let Limits { max_frame_bytes, max_message_bytes } = self.limits;
        let payload = match whole {
            Whole::Frame(payload) | Whole::Kept(payload) if !open.compressed => payload,
            Whole::Frame(frame) => {
                inflate_frames(std::iter::once(&frame[..]), max_frame_bytes, max_message_bytes)?.into()
            }
            Whole::Kept(frames) => {
                inflate_frames(KeptFrames(&frames), max_frame_bytes, max_message_bytes)?.into()
            }
        };
        match open.kind {
            Kind::Text if std::str::from_utf8(&payload).is_err() => {
                Err(Violation::invalid("text message is not UTF-8"))
            }
            Kind::Text => Ok(Incoming::Text(payload)),
            Kind::Binary if self.mode == Mode::BinaryStream => Ok(Incoming::BinaryPart(payload)),
            Kind::Binary => Ok(Incoming::Binary(payload)),
        }
    }
}

/// A message of which nothing is missing.
enum Whole {
    /// It came at once, in one frame.
    Frame(Bytes),
    /// As [`Assembler::keep`] has kept it.
    Kept(Bytes),
}

/// The frames of a compressed message that was kept.
#[derive(Clone)]
struct KeptFrames<'m>(&'m [u8]);

impl<'m> Iterator for KeptFrames<'m> {
    type Item = &'m [u8];

    fn next(&mut self) -> Option<&'m [u8]> {
        let (length, rest) = self.0.split_first_chunk()?;
        let (frame, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        self.0 = rest;
        Some(frame)
    }
}

enum Step {
    Out(Incoming),
    Next,
    Starved,
}

fn control_frame(control: Control, payload: Bytes) -> Result<Incoming, Violation> {
    match control {
        Control::Ping => Ok(Incoming::Ping(payload)),
        Control::Pong => Ok(Incoming::Pong(payload)),
        Control::Close => close_frame(&payload),
        Control::Reserved(_) => Err(Violation::protocol("reserved opcode")),
    }
}

fn close_frame(payload: &[u8]) -> Result<Incoming, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(Incoming::Close { code: None, reason: String::new() }),
        [_] => return Err(Violation::protocol("close frame with half a code")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    // 1014 (bad gateway) was registered after the frame types were written.
    let code = if code == 1014 { CloseCode::Iana(1014) } else { CloseCode::from(code) };
    if !code.is_allowed() {
        return Err(Violation::protocol("close code that must not be sent"));
    }
    match std::str::from_utf8(reason) {
        Ok(reason) => Ok(Incoming::Close { code: Some(code), reason: reason.to_owned() }),
        Err(_) => Err(Violation::invalid("close reason is not UTF-8")),
    }
}

#[cfg(test)]
mod tests;
