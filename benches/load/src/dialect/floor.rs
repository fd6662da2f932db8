//! The bare server's control connection: frames that name a channel and carry a payload, without answers.

use super::{Event, Session, Violation};

/// First bytes of a control connection; an HTTP request cannot start so.
pub(crate) const CONTROL_MAGIC: &[u8] = b"FWCT";

/// One control frame: `u16` channel length, `u32` payload length (big endian), channel, payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ControlFrame<'a> {
    pub(crate) channel: &'a str,
    pub(crate) payload: &'a [u8],
    /// Length of the whole frame.
    pub(crate) bytes: usize,
}

impl<'a> ControlFrame<'a> {
    /// Reads the frame that `input` starts with, if it is whole and its channel is UTF-8.
    pub(crate) fn read(input: &'a [u8]) -> Option<Self> {
        let channel_bytes = usize::from(u16::from_be_bytes(*input.first_chunk()?));
        let payload_bytes = u32::from_be_bytes(*input.get(2..)?.first_chunk()?) as usize;
        let body = input.get(6..)?;
        let channel = std::str::from_utf8(body.get(..channel_bytes)?).ok()?;
        let payload = body.get(channel_bytes..channel_bytes + payload_bytes)?;
        Some(Self { channel, payload, bytes: 6 + channel_bytes + payload_bytes })
    }

    fn write(channel: &str, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&(channel.len() as u16).to_be_bytes());
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        out.extend_from_slice(channel.as_bytes());
        out.extend_from_slice(payload);
    }
}

pub(super) struct Publisher;

impl Session for Publisher {
    fn start(&mut self, out: &mut Vec<u8>, on: &mut dyn FnMut(Event<'_>)) {
        out.extend_from_slice(CONTROL_MAGIC);
        on(Event::Ready);
    }

    fn receive(
        &mut self,
        _input: &[u8],
        _out: &mut Vec<u8>,
        _on: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, Violation> {
        Err(Violation("the bare server answered a control frame".to_owned()))
    }

    fn publish(&mut self, channel: &str, payload: &[u8], out: &mut Vec<u8>, on: &mut dyn FnMut(Event<'_>)) {
        ControlFrame::write(channel, payload, out);
        on(Event::Accepted);
    }

    fn window(&self) -> usize {
        1_024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_frame_reads_back_and_waits_for_its_end() {
        let mut bytes = Vec::new();
        ControlFrame::write("load/0", b"payload", &mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(ControlFrame::read(&bytes[..cut]), None, "cut at {cut}");
        }
        let frame = ControlFrame { channel: "load/0", payload: b"payload", bytes: bytes.len() };
        assert_eq!(ControlFrame::read(&bytes), Some(frame));
    }
}
