//! permessage-deflate (RFC 7692) without context takeover: every message stands alone, so one
//! compressor and one decompressor per thread serve all connections, and a compressed frame can be
//! shared by all its receivers.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::error::Violation;

/// That permessage-deflate was negotiated; always without context takeover on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeflateParams;

/// The end of a flushed deflate block that RFC 7692 §7.2.1 takes off the wire.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// How much the output grows at a time; a bomb is noticed at the limit, a small message does not
/// take much.
const STEP_BYTES: usize = 16 * 1024;

thread_local! {
    // Levels above 1 cost time per message and gain little on payloads of a few hundred bytes.
    static COMPRESS: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
    static DECOMPRESS: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// Appends `payload`, deflated and without its [`TAIL`], to `out`. False means that the compressor
/// failed and `out` holds what it held before.
pub(crate) fn deflate(payload: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    // Room for the worst case (stored blocks), because a flush that fills its output does not say
    // whether it is complete.
    out.reserve(payload.len() + payload.len() / 1024 + 128);
    let done = COMPRESS.with_borrow_mut(|compress| {
        compress.reset();
        let status = compress.compress_vec(payload, out, FlushCompress::Sync);
        matches!(status, Ok(Status::Ok)) && compress.total_in() == payload.len() as u64
    });
    if done && out.len() < out.capacity() && out.ends_with(&TAIL) {
        out.truncate(out.len() - TAIL.len());
        return true;
    }
    out.truncate(start);
    false
}

/// Inflates one message whose wire form is `payload`.
///
/// # Errors
/// 1009 as soon as the output passes `max_bytes`, 1007 for data that is not deflate.
pub(crate) fn inflate(payload: &[u8], max_bytes: usize) -> Result<Vec<u8>, Violation> {
    inflate_frames([payload].into_iter(), max_bytes, max_bytes)
}

/// Inflates one message of which each frame has its part.
///
/// # Errors
/// 1009 as soon as the output of one of them passes `max_frame_bytes`, or that of all `max_bytes`; 1007 for data that is
/// not deflate.
pub(crate) fn inflate_frames<'m>(
    frames: impl Iterator<Item = &'m [u8]> + Clone,
    max_frame_bytes: usize,
    max_bytes: usize,
) -> Result<Vec<u8>, Violation> {
    DECOMPRESS.with_borrow_mut(|decompress| {
        decompress.reset(false);
        let length: usize = frames.clone().map(<[u8]>::len).sum();
        let mut out = Vec::with_capacity(length.saturating_mul(2).clamp(64, max_bytes.clamp(64, STEP_BYTES)));
        let mut frames = frames.peekable();
        while let Some(frame) = frames.next() {
            let end = Bound::of_frame(out.len(), max_frame_bytes, max_bytes);
            append(decompress, frame, &mut out, end)?;
            if frames.peek().is_none() {
                append(decompress, &TAIL, &mut out, end)?;
            }
        }
        Ok(out)
    })
}

/// How long the output may become.
#[derive(Clone, Copy)]
struct Bound {
    bytes: usize,
    /// What whoever passes it is told.
    violation: Violation,
}

impl Bound {
    /// While a frame is inflated that comes behind `before` bytes.
    fn of_frame(before: usize, max_frame_bytes: usize, max_bytes: usize) -> Self {
        let end = before.saturating_add(max_frame_bytes);
        if end < max_bytes {
            Self { bytes: end, violation: Violation::too_big("frame too big once inflated") }
        } else {
            Self { bytes: max_bytes, violation: Violation::too_big("message too big once inflated") }
        }
    }

    fn holds(self, out: &[u8]) -> Result<(), Violation> {
        if out.len() > self.bytes { Err(self.violation) } else { Ok(()) }
    }
}

/// Appends all that `rest` inflates to.
fn append(
    decompress: &mut Decompress,
    mut rest: &[u8],
    out: &mut Vec<u8>,
    bound: Bound,
) -> Result<(), Violation> {
    const BROKEN: Violation = Violation::invalid("compressed message does not inflate");
    while !rest.is_empty() {
        if out.len() == out.capacity() {
            out.reserve(STEP_BYTES.max(out.len()).min(bound.bytes.saturating_add(1)));
        }
        let (read, length) = (decompress.total_in(), out.len());
        let status = decompress.decompress_vec(rest, out, FlushDecompress::Sync).map_err(|_| BROKEN)?;
        let consumed = usize::try_from(decompress.total_in() - read).unwrap_or(usize::MAX);
        rest = rest.get(consumed..).unwrap_or_default();
        bound.holds(out)?;
        match status {
            // A block marked as the last is followed by a new stream (RFC 7692 §7.2.3.4).
            Status::StreamEnd => decompress.reset(false),
            _ if consumed == 0 && out.len() == length && out.len() < out.capacity() => return Err(BROKEN),
            _ => {}
        }
    }
    // What the window still holds when the input ends exactly as the output filled up.
    while out.len() == out.capacity() {
        out.reserve(STEP_BYTES);
        let length = out.len();
        let status = decompress.decompress_vec(&[], out, FlushDecompress::Sync);
        bound.holds(out)?;
        if status.is_err() || out.len() == length {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::CloseCode;

    fn deflated(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(deflate(payload, &mut out));
        out
    }

    #[test]
    fn the_standards_examples_inflate() {
        let cases: [(&[u8], &str); 4] = [
            (&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], "Hello"),
            (&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00], "Hello"),
            (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], "Hello"),
            (&[0x00], ""),
        ];
        for (wire, text) in cases {
            assert_eq!(inflate(wire, 100).as_deref(), Ok(text.as_bytes()), "{wire:x?}");
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let wire = deflated(&vec![0; 50_000_000]);
        assert!(wire.len() < 300_000);
        assert_eq!(inflate(&wire, 1_000_000).unwrap_err().close_code, CloseCode::Size);
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        for length in [0, 1, 63, 64, 65, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 1_000_000] {
            let wire = deflated(&vec![7; length]);
            assert_eq!(inflate(&wire, length).map(|out| out.len()), Ok(length));
            if length > 0 {
                assert_eq!(inflate(&wire, length - 1).unwrap_err().close_code, CloseCode::Size, "{length}");
            }
        }
    }

    #[test]
    fn each_frame_is_bounded_by_what_it_inflates_to() {
        let mut wire = Vec::new();
        assert!(deflate(&[7; 3_000], &mut wire));
        let flushed = [&wire[..], &TAIL].concat();
        let inflated = |frames: &[&[u8]], max_frame_bytes, max_bytes| {
            let all = inflate_frames(frames.iter().copied(), max_frame_bytes, max_bytes);
            all.map(|out| out.len()).map_err(|violation| violation.to_string())
        };
        // Two frames that end where a block does.
        let two: [&[u8]; 2] = [&flushed, &wire];
        assert_eq!(inflated(&two, 3_000, 6_000), Ok(6_000));
        let (frame, message) =
            (Err("frame too big once inflated (1009)"), Err("message too big once inflated (1009)"));
        assert_eq!(inflated(&two, 2_999, 6_000), frame.map_err(str::to_owned));
        assert_eq!(inflated(&two, 3_000, 5_999), message.map_err(str::to_owned));
        assert_eq!(inflated(&[&wire, &[]], 2_999, 6_000), frame.map_err(str::to_owned));
        assert_eq!(inflated(&[&flushed, &[0]], 3_000, 3_000), Ok(3_000));
    }

    #[test]
    fn garbage_is_invalid_data() {
        assert_eq!(inflate(&[0xff; 40], 1000).unwrap_err().close_code, CloseCode::Invalid);
    }

    #[test]
    fn what_cannot_be_compressed_still_makes_the_trip() {
        let mut state = 12_345_u64;
        for length in (0..200_000).step_by(1_777) {
            let mut random = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as u8
            };
            let payload: Vec<u8> = (0..length).map(|_| random()).collect();
            assert_eq!(inflate(&deflated(&payload), length).unwrap(), payload, "{length}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn inflate_undoes_deflate(payload in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            prop_assert_eq!(inflate(&deflated(&payload), 70_000).unwrap(), payload);
        }

        #[test]
        fn inflate_never_panics(wire in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = inflate(&wire, 10_000);
        }
    }
}
