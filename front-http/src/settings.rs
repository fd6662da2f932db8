//! `[api]`

use broker_core::IdempotencyConfig;
use front::{Common, MetricsReaders, Section};
use settings::{Setting, Size, Span};

use crate::config::{Config, MetricsAccess};

settings::section!(
    /// `[api]`: what of the front can be set in a configuration.
    pub Api: Config {
        max_request_bytes: Size,
        max_result_bytes: Size,
        max_batch: usize,
        max_page: usize,
        max_page_bytes: Size,
        max_wait: Span,
        max_watchers: usize,
    } beside {
        // The broker's, named for where keys come from.
        idempotency_window: Span = Span(IdempotencyConfig::default().window),
        max_idempotency_keys: usize = IdempotencyConfig::default().max_keys,
        max_idempotency_bytes: Size = Size::from_value(IdempotencyConfig::default().max_bytes),
        max_idempotency_keys_per_holder: usize = IdempotencyConfig::default().max_keys_per_holder,
        max_idempotency_bytes_per_holder: Size = Size::from_value(IdempotencyConfig::default().max_bytes_per_holder),
    }
);

impl Section for Api {
    type Config = Config;
    const NAME: &'static str = "api";

    fn set_broker(&self, broker: &mut broker_core::Config) {
        let mut config = IdempotencyConfig::default();
        config.window = self.idempotency_window.into_value();
        config.max_keys = self.max_idempotency_keys;
        config.max_bytes = self.max_idempotency_bytes.into_value();
        config.max_keys_per_holder = self.max_idempotency_keys_per_holder;
        config.max_bytes_per_holder = self.max_idempotency_bytes_per_holder.into_value();
        broker.idempotency = config;
    }

    fn into_config(self, common: &Common) -> Config {
        Config {
            origins: common.origins.clone(),
            token_sources: common.token_sources.clone(),
            intake: common.intake.clone(),
            metrics: metrics_access(common),
            ..self.into_value()
        }
    }
}

/// Who may read `/metrics`. Unless it is said, everybody as long as no other machine reaches the address: where
/// everybody may do everything, everybody may manage, too.
fn metrics_access(common: &Common) -> MetricsAccess {
    let is_local = common.http.is_none_or(|address| address.ip().is_loopback());
    match common.metrics {
        Some(MetricsReaders::Open) => MetricsAccess::Open,
        None if is_local => MetricsAccess::Open,
        _ => MetricsAccess::Manage,
    }
}
