//! Bytes from the socket into packets, past the WebSocket frames if there are any.

use std::task::Context;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use link::{Intake, Unfinished};
use websocket::{Conversation, Limits, Turn};

use crate::codec::{self, DecodeError, Frame, Framing, Packet, Reason, Version};

/// What was read and not yet handled. An idle connection holds no buffer.
pub(crate) struct Input {
    packets: BytesMut,
    websocket: Option<Box<Frames>>,
    /// The packet that is not whole yet.
    unfinished: Unfinished,
}

struct Frames {
    conversation: Conversation,
    /// The connection ends with this frame once what came before is handled; nothing after it counts.
    last: Option<Box<[u8]>>,
}

/// What the WebSocket layer wants done.
#[derive(Debug)]
pub(crate) enum Control {
    /// Send this frame.
    Reply(Bytes),
    /// Send this frame and end the connection.
    Close(Bytes),
}

/// A whole packet, still in its buffer or cut out of it.
pub(crate) enum Whole {
    /// Small: its body starts here and is read in place.
    InPlace(Frame),
    /// Large enough that its payload may keep the buffer.
    Cut(Frame, Bytes),
}

/// Packets from this size on are cut out of the read buffer instead of copied from it.
const CUT_FROM_BYTES: usize = 2048;

impl Input {
    pub(crate) fn new(framing: Framing, max_packet_bytes: usize) -> Self {
        // Frames are passed on as they come in and never held, so their bound only has to be sane; the
        // bound on packets is the one that clients should meet, because it has a reason code.
        let bound = max_packet_bytes.saturating_mul(4);
        let mut limits = Limits::default();
        limits.max_frame_bytes = bound;
        limits.max_message_bytes = bound;
        let websocket = (framing == Framing::WebSocket)
            .then(|| Box::new(Frames { conversation: Conversation::of_bytes(limits), last: None }));
        Self { packets: BytesMut::new(), websocket, unfinished: Unfinished::default() }
    }

    /// Where the link reads into.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        match &mut self.websocket {
            Some(frames) => frames.conversation.input(),
            None => &mut self.packets,
        }
    }

    /// Takes WebSocket frames apart until one of them needs an answer or no whole one is left.
    pub(crate) fn unframe(&mut self) -> Option<Control> {
        let frames = self.websocket.as_mut().filter(|frames| frames.last.is_none())?;
        loop {
            match frames.conversation.poll_turn()? {
                Turn::Binary(part) | Turn::Text(part) => self.packets.extend_from_slice(&part),
                Turn::Answer(frame) => return Some(Control::Reply(frame)),
                Turn::Pong(_) => {}
                Turn::Last { frame, .. } => return Some(Control::Close(frame)),
            }
        }
    }

    /// Takes nothing more out of frames: the connection is to end with this one.
    pub(crate) fn end_with(&mut self, last: &[u8]) {
        if let Some(frames) = &mut self.websocket {
            frames.last = Some(last.into());
        }
    }

    /// The frame to end with, if there is one.
    pub(crate) fn last(&self) -> Option<Bytes> {
        self.websocket.as_ref()?.last.as_deref().map(Bytes::copy_from_slice)
    }

    /// What the next packet begins with.
    pub(crate) fn first_byte(&self) -> Option<u8> {
        self.packets.first().copied()
    }

    /// The next whole packet.
    pub(crate) fn next(
        &mut self,
        version: Option<Version>,
        max_packet_bytes: usize,
    ) -> Result<Option<Whole>, DecodeError> {
        let Some(frame) = codec::split(&self.packets, version, max_packet_bytes)? else { return Ok(None) };
        if self.packets.len() < frame.total() {
            return Ok(None);
        }
        self.unfinished.finish();
        if frame.total() < CUT_FROM_BYTES {
            return Ok(Some(Whole::InPlace(frame)));
        }
        let packet = self.packets.split_to(frame.total()).freeze();
        Ok(Some(Whole::Cut(frame, packet)))
    }

    /// The body of a packet that is read in place.
    pub(crate) fn parse<'a>(&'a self, whole: &'a Whole, version: Version) -> Result<Packet<'a>, DecodeError> {
        let (frame, bytes) = match whole {
            Whole::InPlace(frame) => (frame, &self.packets[..]),
            Whole::Cut(frame, packet) => (frame, &packet[..]),
        };
        // `next` has seen that all of it is there.
        let body = bytes.get(frame.header..frame.total()).unwrap_or_default();
        codec::parse(frame, body, version)
    }

    /// Cuts a packet out, to keep it while more is read.
    pub(crate) fn take(&mut self, whole: &Whole) -> Bytes {
        match whole {
            Whole::InPlace(frame) => {
                let packet = Bytes::copy_from_slice(self.packets.get(..frame.total()).unwrap_or_default());
                self.done(whole);
                packet
            }
            Whole::Cut(_, packet) => packet.clone(),
        }
    }

    /// Waits for the rest of a packet that has begun: says when it will be too late.
    ///
    /// # Errors
    /// It is too late now, or all that is unfinished is too much and this makes the least progress.
    pub(crate) fn wait_for_rest(
        &mut self,
        intake: &Intake,
        last_read: Instant,
        cx: &mut Context<'_>,
    ) -> Result<Option<Instant>, DecodeError> {
        let framed = self.websocket.as_ref().and_then(|frames| frames.conversation.unfinished_bytes());
        let bytes = self.packets.len() + framed.unwrap_or(0);
        if bytes == 0 {
            self.unfinished.finish();
            return Ok(None);
        }
        self.unfinished.hold(intake, bytes, last_read);
        if self.unfinished.poll_shed(cx).is_ready() {
            return Err(DecodeError::new(Reason::QuotaExceeded, "no room for unfinished packets"));
        }
        if self.unfinished.is_late(intake, bytes, Instant::now()) {
            return Err(DecodeError::new(Reason::KeepAliveTimeout, "the packet came too slowly"));
        }
        Ok(self.unfinished.due(intake, bytes))
    }

    /// Nothing was read until now, which is not the client's fault.
    pub(crate) fn was_paused(&mut self, now: Instant) {
        self.unfinished.restart(now);
    }

    /// In which version's shape a CONNECT is answered that has not come as a whole, or cannot be accepted.
    pub(crate) fn announced_version(&self) -> Option<Version> {
        let is_connect = self.packets.first().is_some_and(|first| first >> 4 == 1);
        let length = self.packets.iter().skip(1).take(4).position(|byte| byte & 0x80 == 0)?;
        codec::shape_of_answer(self.packets.get(length + 2..)?).filter(|_| is_connect)
    }

    /// The packet was handled.
    pub(crate) fn done(&mut self, whole: &Whole) {
        if let Whole::InPlace(frame) = whole {
            bytes::Buf::advance(&mut self.packets, frame.total());
        }
        if self.packets.is_empty() {
            self.packets = BytesMut::new();
        }
    }
}

impl Whole {
    pub(crate) fn frame(&self) -> &Frame {
        match self {
            Self::InPlace(frame) | Self::Cut(frame, _) => frame,
        }
    }

    pub(crate) fn buffer(&self) -> Option<&Bytes> {
        match self {
            Self::InPlace(_) => None,
            Self::Cut(_, packet) => Some(packet),
        }
    }
}
