//! `[api]`

use super::section::section;
use crate::config::units::{Size, Span};

section!(
    /// `[api]`
    Api: front_http::Config {
        max_request_bytes: Size,
        max_result_bytes: Size,
        max_batch: usize,
        max_page: usize,
        max_page_bytes: Size,
        max_wait: Span,
        idempotency_window: Span,
        max_idempotency_keys: usize,
        max_idempotency_bytes: Size,
        max_idempotency_keys_per_holder: usize,
        max_idempotency_bytes_per_holder: Size,
    }
);
