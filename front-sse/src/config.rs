//! Limits and habits of the front.

use std::time::Duration;

use broker_core::{OutboxConfig, OutboxPolicy};
use http_edge::{Intake, OriginPolicy, TokenSources};

/// How the front is set up. Every default suits a broker that anybody on the machine may use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where the front is; it answers there and below, and requests elsewhere are 404. Default `/sse`. Not looked at by
    /// [`Front::nested`](crate::Front::nested).
    pub path: String,
    /// Pages that may open streams. Default: those of the same origin and of this machine ([`OriginPolicy::Loopback`]).
    pub origins: OriginPolicy,
    /// What counts the bodies of requests that are not whole yet, and how slowly they may come. Default that of the
    /// process.
    pub intake: Intake,
    /// Where a token is read beside the headers. Default nowhere.
    pub token_sources: TokenSources,
    /// Time between keep-alive comments; the first comes after half to all of it, so that streams opened together do
    /// not write together. Default 15 s, below what proxies and balancers take for idleness; 0 is never.
    pub keep_alive: Duration,
    /// What may wait for one slow reader before its stream is closed. Default 1 MiB and 10,000 events, closing.
    pub outbox: OutboxConfig,
    /// Filters on one stream. Default 1,000; more are 400.
    pub max_filters: usize,
    /// Longest body of a `POST` or `QUERY` that names filters, in bytes. Default 1 MiB, a thousand long filters; longer
    /// ones are 413.
    pub max_request_bytes: usize,
    /// Streams at a time. Default 1 million, which is to say the process' descriptors. One too many is accepted, told
    /// when to come back, and closed: a browser would take an error status as final.
    pub max_streams: usize,
    /// Bytes that wait in a response body where the socket cannot be taken back, per stream, before they wait
    /// in the outbox. Default 16 KiB.
    pub max_pipe_bytes: usize,
    /// Whether a new stream begins with the log's position as an `id:` line, which is part of its first event's block:
    /// a client that takes ids as they come misses nothing either when its connection breaks before that event. Default
    /// true.
    pub announce_position: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            path: "/sse".to_owned(),
            intake: Intake::default(),
            origins: OriginPolicy::default(),
            token_sources: TokenSources::default(),
            keep_alive: Duration::from_secs(15),
            outbox: OutboxConfig::new(10_000, 1 << 20, OutboxPolicy::Disconnect),
            max_filters: 1_000,
            max_request_bytes: 1 << 20,
            max_streams: 1_000_000,
            max_pipe_bytes: 16 * 1024,
            announce_position: true,
        }
    }
}

/// What stands in `data:`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Format {
    /// The payload as it is; one that is not UTF-8 comes as the envelope with `event: binary`. The default for a stream
    /// of one literal channel.
    Raw,
    /// The JSON envelope. The default for all other streams, which need the channel's name.
    Json,
}
