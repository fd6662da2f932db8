//! What people are told on standard error.

use std::fmt::Display;
use std::io::Write as _;

/// One line. Where nobody can be told (`2>/dev/full`, a pipe whose reader has gone) the exit code has to do.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
