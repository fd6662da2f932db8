//! Payloads out of the buffers they came in.

use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

/// Payloads up to here are always copied out of the buffer they came in.
const ALWAYS_COPIED: usize = 2 * 1024;

/// A payload that may live as long as the log: a slice of its request's buffer if it is most of that buffer, else a
/// copy, so that a small message never keeps a large buffer alive. `payload` is a part of `buffer`, whose memory may be
/// larger than it: `buffer_bytes`.
pub fn own(payload: &[u8], buffer: &Bytes, buffer_bytes: usize) -> Bytes {
    if payload.len() < ALWAYS_COPIED || payload.len() < buffer_bytes / 2 {
        Bytes::copy_from_slice(payload)
    } else {
        buffer.slice_ref(payload)
    }
}

/// Base64 (RFC 4648 §4) that takes what encoders differ in: padding or none, and loose bits at the end.
pub const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
