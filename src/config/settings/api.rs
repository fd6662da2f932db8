//! `[api]`

use broker_core::IdempotencyConfig;

use settings::{Setting, Size, Span};

settings::section!(
    /// `[api]`
    pub(in crate::config) Api: front_http::Config {
        max_request_bytes: Size,
        max_result_bytes: Size,
        max_batch: usize,
        max_page: usize,
        max_page_bytes: Size,
        max_wait: Span,
    } beside {
        // The broker's, named for where keys come from.
        idempotency_window: Span = Span(IdempotencyConfig::default().window),
        max_idempotency_keys: usize = IdempotencyConfig::default().max_keys,
        max_idempotency_bytes: Size = Size::from_value(IdempotencyConfig::default().max_bytes),
        max_idempotency_keys_per_holder: usize = IdempotencyConfig::default().max_keys_per_holder,
        max_idempotency_bytes_per_holder: Size = Size::from_value(IdempotencyConfig::default().max_bytes_per_holder),
    }
);

impl Api {
    /// What the broker remembers of publishes with a key.
    pub(super) fn idempotency(&self) -> IdempotencyConfig {
        IdempotencyConfig {
            window: self.idempotency_window.into_value(),
            max_keys: self.max_idempotency_keys,
            max_bytes: self.max_idempotency_bytes.into_value(),
            max_keys_per_holder: self.max_idempotency_keys_per_holder,
            max_bytes_per_holder: self.max_idempotency_bytes_per_holder.into_value(),
        }
    }
}
