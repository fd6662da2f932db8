//! `[sse]`

use super::broker::Outbox;
use super::section::section;
use crate::config::units::{Size, Span};

section!(
    /// `[sse]`
    Sse: front_sse::Config {
        keep_alive: Span,
        outbox: Outbox,
        max_filters: usize,
        max_request_bytes: Size,
        max_streams: usize,
        max_pipe_bytes: Size,
        announce_position: bool,
    }
);
