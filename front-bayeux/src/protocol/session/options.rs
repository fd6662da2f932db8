//! What sessions are told by the configuration, and what one may have of its own.

use std::time::Duration;

use crate::config::{Activity, Config, Timing, Transport};
use crate::protocol::queue::QueueLimits;

/// What all sessions of a front have in common.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) limits: QueueLimits,
    pub(crate) websocket: Rules,
    pub(crate) long_polling: Rules,
    pub(crate) callback_polling: Rules,
    pub(crate) max_client_timeout: Duration,
    pub(crate) activity: Option<(Activity, Duration)>,
    pub(crate) tells_max_interval: bool,
}

/// What holds for the sessions of one transport.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) timing: Timing,
    pub(crate) deliver_only: bool,
    pub(crate) max_processing: Option<Duration>,
}

/// Times of one session alone; what is `None` is as its transport has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionTiming {
    /// How long its connects are held; what its client asks for goes before it.
    pub timeout: Option<Duration>,
    /// How long its client waits between a connect's reply and the next; told with the next advice.
    pub interval: Option<Duration>,
    /// How much longer than `interval` it lives without a connect.
    pub max_interval: Option<Duration>,
}

impl Options {
    pub(crate) fn new(config: &Config) -> Self {
        let limits =
            QueueLimits { max_messages: config.max_queue_messages, max_bytes: config.max_queue_bytes };
        Self {
            limits,
            websocket: Rules::new(config, Transport::WebSocket),
            long_polling: Rules::new(config, Transport::LongPolling),
            callback_polling: Rules::new(config, Transport::CallbackPolling),
            max_client_timeout: config.max_client_timeout,
            activity: config.extensions.activity,
            tells_max_interval: config.handshake_reconnect,
        }
    }

    pub(super) fn rules(&self, transport: Transport) -> &Rules {
        match transport {
            Transport::WebSocket => &self.websocket,
            Transport::LongPolling => &self.long_polling,
            Transport::CallbackPolling => &self.callback_polling,
        }
    }
}

impl Rules {
    fn new(config: &Config, transport: Transport) -> Self {
        let own = config.narrowed(transport);
        Self {
            timing: config.timing_for(transport),
            deliver_only: own.meta_connect_deliver_only.unwrap_or(config.meta_connect_deliver_only),
            max_processing: own.max_processing.or(config.max_processing),
        }
    }
}

impl SessionTiming {
    /// The times of a session whose transport has these.
    pub(super) fn over(&self, transport: Timing) -> Timing {
        Timing {
            timeout: self.timeout.unwrap_or(transport.timeout),
            interval: self.interval.unwrap_or(transport.interval),
            max_interval: self.max_interval.unwrap_or(transport.max_interval),
        }
    }
}
