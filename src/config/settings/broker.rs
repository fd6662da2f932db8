//! `[broker]`, `[log]`, `[[namespaces]]`.

use broker_core::{Config, LogConfig, NamespaceConfig};
use serde::{Deserialize, Serialize};

use settings::{Period, Setting, Size, Text};
use store::Durability;

use super::store::Bounds;

settings::section!(
    /// `[broker]`
    pub(in crate::config) Broker: Config {
        lanes: Option<usize>,
        max_message_bytes: Size,
        max_channel_bytes: Size,
        max_channel_levels: usize,
        max_channels: usize,
        max_retained_messages: usize,
        max_retained_bytes: Size,
        max_filter_bytes: Size,
        max_lane_deliveries: usize,
        max_lane_bytes: Size,
    }
);

settings::section!(
    /// `[log]`, and `log` of a namespace.
    pub(in crate::config) Log: LogConfig { enabled: bool, max_bytes: Size, max_age: Period }
);

/// One `[[namespaces]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Namespace {
    pub(super) name: String,
    #[serde(default)]
    log: Log,
    pub(super) durability: Option<Text<Durability>>,
    pub(super) store: Option<Bounds>,
}

impl Setting<NamespaceConfig> for Namespace {
    fn from_value(value: NamespaceConfig) -> Self {
        Namespace { name: value.name, log: Log::from_value(value.log), durability: None, store: None }
    }
    fn into_value(self) -> NamespaceConfig {
        NamespaceConfig::new(self.name, self.log.into_value())
    }
}
