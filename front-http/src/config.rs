//! Limits and habits of the API.

use std::time::Duration;

use http_edge::{Intake, OriginPolicy, TokenSources};

/// How the API is set up. Every default suits a broker that anybody on the machine may use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where the API is; it answers there and below. Default `/v1`. `/healthz`, `/readyz` and `/metrics` stay where
    /// they are. Not looked at by [`Front::nested`](crate::Front::nested).
    pub path: String,
    /// Pages that may call the API. Default: those of the same origin and of this machine ([`OriginPolicy::Loopback`]).
    pub origins: OriginPolicy,
    /// Where a token is read beside the headers. Default nowhere.
    pub token_sources: TokenSources,
    /// Who may read `/metrics`. Default everybody.
    pub metrics: MetricsAccess,
    /// What counts the bodies that are not whole yet, and how slowly they may come. Default that of the process.
    pub intake: Intake,
    /// Longest request body in bytes, batches included. Default 16 MiB; longer ones are 413. One payload is bounded by
    /// the broker's `max_message_bytes`.
    pub max_request_bytes: usize,
    /// Results of NDJSON that wait while the client still sends, in bytes. Default 16 MiB, for about 130,000 lines;
    /// then no more of the body is read until the client has read some.
    pub max_result_bytes: usize,
    /// Messages in one array, and channels in one item. Default 1,000; more are 400.
    pub max_batch: usize,
    /// Messages in one page of history or channels. Default 1,000; a larger `limit` is 400.
    pub max_page: usize,
    /// Payload bytes in one page of history. Default 8 MiB; a page ends before it, with at least one message.
    pub max_page_bytes: usize,
    /// The longest `wait`. Default 55 s, below the minute that functions and gateways allow; longer ones are cut to it.
    pub max_wait: Duration,
    /// Clients that may watch the figures at a time. Default 16; one more is answered 503 `too_many_watchers`.
    pub max_watchers: usize,
}

/// Who may read `/metrics`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum MetricsAccess {
    /// Everybody; credentials are not looked at.
    #[default]
    Open,
    /// Who may manage every channel, or [`METRICS_CHANNEL`] alone: a scraper needs no right to anything else.
    Manage,
}

/// What stands for the numbers of the whole broker where rights are asked for. Nothing is published there.
pub const METRICS_CHANNEL: &str = "$SYS/metrics";

impl Default for Config {
    fn default() -> Self {
        Config {
            path: "/v1".to_owned(),
            origins: OriginPolicy::default(),
            token_sources: TokenSources::default(),
            metrics: MetricsAccess::Open,
            intake: Intake::default(),
            max_request_bytes: 16 << 20,
            max_result_bytes: 16 << 20,
            max_batch: 1_000,
            max_page: 1_000,
            max_page_bytes: 8 << 20,
            max_wait: Duration::from_secs(55),
            max_watchers: 16,
        }
    }
}
