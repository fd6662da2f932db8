//! A server's own frames, read back: for whoever must know what a dead socket did not take.

use std::io::Cursor;

use bytes::Bytes;
use tungstenite::protocol::frame::FrameHeader;

use crate::deflate::inflate;
use crate::encode::TEXT;

/// The text in one of our own whole, final text frames; inflated if it is compressed, up to
/// `max_bytes`. `None` for anything else, as for a frame whose beginning is missing.
pub fn text_of(frame: &Bytes, max_bytes: usize) -> Option<Bytes> {
    let mut cursor = Cursor::new(&frame[..]);
    let (header, length) = FrameHeader::parse(&mut cursor).ok()??;
    let start = usize::try_from(cursor.position()).ok()?;
    let ours =
        header.is_final && header.opcode == TEXT && header.mask.is_none() && !header.rsv2 && !header.rsv3;
    if !ours || usize::try_from(length).ok()?.checked_add(start)? != frame.len() {
        return None;
    }
    let payload = frame.slice(start..);
    if header.rsv1 { inflate(&payload, max_bytes).ok().map(Bytes::from) } else { Some(payload) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;

    #[test]
    fn whole_text_frames_are_read_back() {
        let long = "abc".repeat(1000);
        for frame in [encode::frame(TEXT, long.as_bytes()), encode::deflated(long.as_bytes())] {
            assert_eq!(text_of(&frame, 10_000).unwrap(), long);
            assert_eq!(text_of(&frame.slice(1..), 10_000), None);
            assert_eq!(text_of(&frame.slice(..frame.len() - 1), 10_000), None);
        }
        assert_eq!(text_of(&encode::frame(encode::BINARY, b"x"), 10), None);
        assert_eq!(text_of(&encode::pong(b"x"), 10), None);
        assert_eq!(text_of(&Bytes::new(), 10), None);
    }
}
