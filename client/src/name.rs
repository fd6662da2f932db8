//! Names in the path of a request.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What of a channel is not itself in a path. The slash is: it joins segments there too.
const CHANNEL: &AsciiSet = &SEGMENT.remove(b'/');

/// What of one segment is not itself in a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A channel or a filter, as a path has it.
pub(crate) fn channel(name: &str) -> String {
    utf8_percent_encode(name, CHANNEL).to_string()
}

/// An id, as one segment of a path.
pub(crate) fn segment(id: &str) -> String {
    utf8_percent_encode(id, SEGMENT).to_string()
}
