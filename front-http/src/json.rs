//! What the answers' JSON has in common.

use envelope::write_string;

/// A string, or `null`.
pub(crate) fn write_optional(text: Option<&str>, out: &mut Vec<u8>) {
    match text {
        Some(text) => write_string(text, out),
        None => out.extend_from_slice(b"null"),
    }
}

/// An array of strings.
pub(crate) fn write_strings(texts: &[String], out: &mut Vec<u8>) {
    out.push(b'[');
    for (number, text) in texts.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write_string(text, out);
    }
    out.push(b']');
}
