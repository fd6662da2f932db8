//! WebSocket's own options (CometD's `ws.*`).

use std::time::Duration;

/// What concerns WebSocket only (`ws.*`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebSocketConfig {
    /// As [`Timing::timeout`](super::Timing::timeout), for WebSocket alone (`ws.timeout`); default as there.
    pub timeout: Option<Duration>,
    /// As [`Timing::interval`](super::Timing::interval) (`ws.interval`); default as there.
    pub interval: Option<Duration>,
    /// As [`Timing::max_interval`](super::Timing::max_interval) (`ws.maxInterval`); default as there.
    pub max_interval: Option<Duration>,
    /// As [`Config::max_processing`](super::Config::max_processing) (`ws.maxProcessing`); default as there.
    pub max_processing: Option<Duration>,
    /// As [`Config::max_lazy_timeout`](super::Config::max_lazy_timeout) (`ws.maxLazyTimeout`); default as there.
    pub max_lazy_timeout: Option<Duration>,
    /// As [`Config::meta_connect_deliver_only`](super::Config::meta_connect_deliver_only)
    /// (`ws.metaConnectDeliverOnly`); default as there.
    pub meta_connect_deliver_only: Option<bool>,
    /// How often a ping goes to a client from which nothing was read, for proxies that cut silent
    /// connections (faye's `ping`); default never, as zero is.
    pub ping_interval: Option<Duration>,
    /// Closes a socket on which nothing was read for so long (`ws.idleTimeout`); default 300 s, zero
    /// means never.
    pub idle_timeout: Duration,
    /// Closes a socket that has no session for so long, because nobody shook hands on it or named one, or because its
    /// session is over; default 10 s, zero means never. Where publishing needs no session, each message counts.
    pub handshake_timeout: Duration,
    /// Sub-protocol that a client must offer (`ws.protocol`); default none.
    pub protocol: Option<String>,
    /// Whether each socket needs a handshake of its own (`ws.requireHandshakePerConnection`); default
    /// false: a session may go on over a new socket.
    pub require_handshake_per_connection: bool,
    /// Whether permessage-deflate is negotiated (`ws.enableExtension.permessage-deflate`); default true.
    pub deflate: bool,
    /// Events shorter than this many bytes are not compressed; default 256.
    pub deflate_from_bytes: usize,
    /// Largest message, in bytes; default 4 MiB and 64 KiB, so that a payload of the broker's limit fits
    /// with its envelope. Beyond it: close code 1009.
    pub max_message_bytes: usize,
    /// Events per frame when several are sent at once (`ws.messagesPerFrame`); default 1, 0 means all
    /// in one. A connect reply of an acknowledging session always shares its events' frame.
    pub messages_per_frame: usize,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            timeout: None,
            interval: None,
            max_interval: None,
            max_processing: None,
            max_lazy_timeout: None,
            meta_connect_deliver_only: None,
            ping_interval: None,
            idle_timeout: Duration::from_secs(300),
            handshake_timeout: Duration::from_secs(10),
            protocol: None,
            require_handshake_per_connection: false,
            deflate: true,
            deflate_from_bytes: 256,
            max_message_bytes: 4 * 1024 * 1024 + 64 * 1024,
            messages_per_frame: 1,
        }
    }
}
