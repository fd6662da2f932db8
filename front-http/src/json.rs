//! What the answers' JSON has in common.

use envelope::write_string;

/// A string, or `null`.
pub(crate) fn write_optional(text: Option<&str>, out: &mut Vec<u8>) {
    match text {
        Some(text) => write_string(text, out),
        None => out.extend_from_slice(b"null"),
    }
}
