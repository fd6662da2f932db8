//! What a broker counts.

use crate::histogram::Durations;

/// A snapshot of a broker's counters and gauges. Counters only grow while the broker lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages taken.
    pub published: u64,
    /// Their payload bytes.
    pub published_bytes: u64,
    /// Messages refused with [`PublishError::Busy`](crate::PublishError::Busy).
    pub refused_busy: u64,
    /// Messages refused for any other reason.
    pub refused: u64,
    /// Of those, messages on channels with too many levels; and subscriptions and questions whose filter has too many.
    pub refused_levels: u64,
    /// Subscriptions refused because all filters weigh as much as they may.
    pub refused_filters: u64,
    /// Deliveries handed to subscribers.
    pub delivered: u64,
    /// Frames thrown away by an outbox's policy.
    pub dropped: u64,
    /// Subscribers that were ended because delivering to them panicked.
    pub panicked: u64,
    /// Channels with a subscriber or something in the log.
    pub channels: usize,
    /// Distinct filters with wildcards.
    pub wildcard_filters: usize,
    /// What all subscriptions hold, in bytes.
    pub filter_bytes: usize,
    /// Subscribers: sessions, streams and in-process subscriptions.
    pub subscribers: usize,
    /// Subscriptions of all subscribers.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained_messages: usize,
    /// Their bytes with names, properties and overhead.
    pub retained_bytes: usize,
    /// Messages in the log.
    pub log_messages: usize,
    /// Their bytes with names, properties and overhead.
    pub log_bytes: usize,
    /// The newest offset.
    pub log_head: u64,
    /// The newest offset in the log of what an [`Engine`](crate::Engine) keeps; `None` without one.
    pub kept_head: Option<u64>,
    /// Keys of publishes that are remembered ([`Broker::publish_once`](crate::Broker::publish_once)).
    pub idempotency_keys: usize,
    /// Keys that were forgotten before their time, of whoever held most.
    pub idempotency_forgotten_early: u64,
    /// How long messages took from their publisher to the last write to a subscriber's socket, or into its outbox where
    /// the socket was full. At most one message in ten milliseconds is timed.
    pub delivery_times: Durations,
    /// The log by namespace: those that are configured and recorded, then `*` for all others.
    pub namespaces: Vec<NamespaceStats>,
    /// One for each lane.
    pub lanes: Vec<LaneStats>,
}

/// What the log holds of one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceStats {
    /// Its name; `*` for all that are not configured by name.
    pub name: Box<str>,
    /// Messages in the log.
    pub log_messages: usize,
    /// Their bytes with names, properties and overhead.
    pub log_bytes: usize,
}

/// What waits in one lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStats {
    /// Deliveries that wait.
    pub waiting_deliveries: usize,
    /// Payload bytes of the messages that wait.
    pub waiting_bytes: usize,
    /// Subscribers that belong to it.
    pub subscribers: usize,
}
