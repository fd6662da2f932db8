//! `[sse]`

use super::broker::Outbox;
use settings::{Size, Span};

settings::section!(
    /// `[sse]`
    pub(in crate::config) Sse: front_sse::Config {
        keep_alive: Span,
        outbox: Outbox,
        max_filters: usize,
        max_request_bytes: Size,
        max_streams: usize,
        max_pipe_bytes: Size,
        announce_position: bool,
    }
);
