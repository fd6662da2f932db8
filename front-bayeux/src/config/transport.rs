//! What differs between transports: their names and their times.

use std::time::Duration;

use super::Config;

/// How a client reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// Frames on one socket.
    WebSocket,
    /// POST with JSON; a connect is held until there is something to say.
    LongPolling,
    /// GET with `jsonp`, for pages of another origin in browsers without CORS.
    CallbackPolling,
}

impl Transport {
    /// Its name in `supportedConnectionTypes`.
    pub const fn name(self) -> &'static str {
        match self {
            Transport::WebSocket => "websocket",
            Transport::LongPolling => "long-polling",
            Transport::CallbackPolling => "callback-polling",
        }
    }
}

/// When connects are answered and sessions end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// How long a connect is held when nothing happens (`timeout`); default 30 s. A client may ask for
    /// another time, up to [`Config::max_client_timeout`].
    pub timeout: Duration,
    /// How long a client shall wait between a connect's reply and the next connect (`interval`);
    /// default 0.
    pub interval: Duration,
    /// How much longer than `interval` a session lives without a connect (`maxInterval`); default 10 s.
    pub max_interval: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            interval: Duration::ZERO,
            max_interval: Duration::from_secs(10),
        }
    }
}

/// What one transport does differently: CometD's options with the prefix `ws.`, `long-polling.json.` or
/// `callback-polling.`. What is `None` is as in [`Config`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportOptions {
    /// As [`Timing::timeout`].
    pub timeout: Option<Duration>,
    /// As [`Timing::interval`].
    pub interval: Option<Duration>,
    /// As [`Timing::max_interval`].
    pub max_interval: Option<Duration>,
    /// As [`Config::max_processing`].
    pub max_processing: Option<Duration>,
    /// As [`Config::max_lazy_timeout`].
    pub max_lazy_timeout: Option<Duration>,
    /// As [`Config::meta_connect_deliver_only`].
    pub meta_connect_deliver_only: Option<bool>,
}

impl Config {
    /// What a transport does differently.
    pub fn narrowed(&self, transport: Transport) -> TransportOptions {
        let socket = &self.websocket;
        match transport {
            Transport::WebSocket => TransportOptions {
                timeout: socket.timeout,
                interval: socket.interval,
                max_interval: socket.max_interval,
                max_processing: socket.max_processing,
                max_lazy_timeout: socket.max_lazy_timeout,
                meta_connect_deliver_only: socket.meta_connect_deliver_only,
            },
            Transport::LongPolling => self.long_polling,
            Transport::CallbackPolling => self.callback_polling,
        }
    }

    /// The times that hold for a transport.
    pub fn timing_for(&self, transport: Transport) -> Timing {
        let own = self.narrowed(transport);
        Timing {
            timeout: own.timeout.unwrap_or(self.timing.timeout),
            interval: own.interval.unwrap_or(self.timing.interval),
            max_interval: own.max_interval.unwrap_or(self.timing.max_interval),
        }
    }

    /// Longest delay of lazy messages over a transport.
    pub fn max_lazy_timeout_for(&self, transport: Transport) -> Duration {
        self.narrowed(transport).max_lazy_timeout.unwrap_or(self.max_lazy_timeout)
    }
}
