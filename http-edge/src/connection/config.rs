//! What one connection may do and hold.

use std::time::Duration;

use super::holds::Holds;
use super::raw_head::RawHeads;
use super::refuse::Refuser;
use super::stalled::Stalled;

/// Limits of one connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServeConfig {
    /// Time for the first request's head; also how long a later head may stay incomplete and a full socket may
    /// stay full, both measured in whole periods, so that they end after one to two of them. Default 10 s.
    pub header_read_timeout: Duration,
    /// How long a kept-alive connection may wait between requests. Default 75 s, above the 60 s of common proxies, so
    /// that it is the proxy that closes; 0 is for ever.
    pub idle_timeout: Duration,
    /// Longest request head (HTTP/2: header list), in bytes. Default 16 KiB; longer ones are answered 431, over HTTP/2
    /// without a body if they are four times as long.
    pub max_header_bytes: u32,
    /// Requests at a time on one HTTP/2 connection, streams included. Default 4,096; more are refused by the protocol.
    pub max_concurrent_streams: u32,
    /// Which requests over HTTP/1 may be held for long, and which are answered at once. Default: nobody says.
    pub holds: Holds,
    /// Which requests over HTTP/1 come with the spelling of their header fields. Default none.
    pub raw_heads: RawHeads,
    /// Bytes that wait per HTTP/2 stream for the client's window. Default 64 KiB; then the stream's own queue grows.
    pub max_send_bytes: usize,
    /// Bytes that may wait on one HTTP/2 connection for streams whose client takes nothing: in the connection, in what
    /// fills their bodies, and in responses that are there already. Looked at four times a second; a stream counts that
    /// was not asked for its next frame from one look to the next. Beyond it the streams that have waited longest are
    /// reset. Default 64 MiB.
    pub max_stalled_bytes: usize,
    /// The same over all connections that share `stalled`. Beyond it the connection that holds most gives way at once,
    /// and responses of more than `max_send_bytes` that are ready are replaced by 503 until there is room. Default 256
    /// MiB.
    pub max_stalled_total_bytes: usize,
    /// What waits on the HTTP/2 connections that share it. Default an account of its own for each `ServeConfig` that
    /// was not cloned from another.
    pub stalled: Stalled,
    /// How requests are answered that the service does not see. Default: with the problem alone.
    pub refuse: Refuser,
    /// What the connection holds on to until it ends, also after its stream was taken over. Default nothing.
    pub hold: link::Hold,
}

impl Default for ServeConfig {
    fn default() -> Self {
        ServeConfig {
            header_read_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            max_header_bytes: 16 * 1024,
            max_concurrent_streams: 4096,
            max_send_bytes: 64 * 1024,
            max_stalled_bytes: 64 << 20,
            max_stalled_total_bytes: 256 << 20,
            stalled: Stalled::default(),
            refuse: Refuser::default(),
            hold: link::Hold::default(),
            holds: Holds::default(),
            raw_heads: RawHeads::default(),
        }
    }
}
