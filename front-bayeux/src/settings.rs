//! `[bayeux]`

use broker_core::Filter;
use front::{Common, Section};
use serde::{Deserialize, Serialize};
use settings::{Period, Setting, Size, Span, Text};

use crate::codec::channel::Grammar;
use crate::config::{
    Activity, BrowserCookie, Config, EventOptions, Extensions, Lazy, QueueFull, Timing, Transport,
    TransportOptions, WebSocketConfig,
};

settings::section!(
    /// `[bayeux]`: what of the front can be set in a configuration.
    pub Bayeux: Config {
        mount: Vec<String>,
        timing: Times,
        long_polling: Narrowed,
        callback_polling: Narrowed,
        max_client_timeout: Period,
        max_processing: Option<Period>,
        max_lazy_timeout: Span,
        lazy: Vec<LazyChannels>,
        sweep_period: Period,
        transports: Vec<TransportName>,
        meta_connect_deliver_only: bool,
        broadcast_to_publisher: bool,
        not_to_publisher: Vec<Text<Filter>>,
        handshake_reconnect: bool,
        deliver_during_handshake: bool,
        retained: bool,
        grammar: Names,
        publish_without_session: bool,
        trust_client_session: bool,
        duplicate_connect_status: u16,
        cookie: Cookie,
        max_sessions_per_browser: i64,
        http2_max_sessions_per_browser: i64,
        multi_session_interval: Span,
        max_queue_messages: usize,
        max_queue_bytes: Size,
        queue_full: WhenFull,
        max_request_bytes: Size,
        max_batch_messages: usize,
        max_depth: usize,
        max_ext_bytes: Size,
        max_subscriptions: usize,
        max_new_channels_per_second: u32,
        max_sessions: usize,
        max_sessions_per_address: usize,
        #[serde(rename = "service_unhandled")]
        refuse_unhandled_services: Unhandled,
        service_timeout: Period,
        max_service_calls: usize,
        max_service_calls_per_session: usize,
        websocket: WebSocket,
        events: Events,
        extensions: Negotiable,
    }
);

impl Section for Bayeux {
    type Config = Config;
    const NAME: &'static str = "bayeux";

    fn into_config(self, common: &Common) -> Config {
        let mut config: Config = self.into_value();
        let usual = WebSocketConfig::default().max_message_bytes;
        config.websocket.max_message_bytes = common.with_room(config.websocket.max_message_bytes, usual);
        Config {
            origins: common.origins.clone(),
            token_sources: common.token_sources.clone(),
            intake: common.intake.clone(),
            ..config
        }
    }
}

settings::section!(
    /// `timing`
    Times: Timing { timeout: Span, interval: Span, max_interval: Period }
);

settings::section!(
    /// `long_polling` and `callback_polling`
    Narrowed: TransportOptions {
        timeout: Option<Span>,
        interval: Option<Span>,
        max_interval: Option<Period>,
        max_processing: Option<Period>,
        max_lazy_timeout: Option<Span>,
        meta_connect_deliver_only: Option<bool>,
    }
);

settings::section!(
    /// `cookie`
    Cookie: BrowserCookie {
        name: String,
        domain: Option<String>,
        path: String,
        max_age: Option<Span>,
        secure: bool,
        http_only: bool,
        same_site: Option<String>,
        partitioned: bool,
    }
);

settings::section!(
    /// `websocket`
    WebSocket: WebSocketConfig {
        timeout: Option<Span>,
        interval: Option<Span>,
        max_interval: Option<Period>,
        max_processing: Option<Period>,
        max_lazy_timeout: Option<Span>,
        meta_connect_deliver_only: Option<bool>,
        ping_interval: Option<Span>,
        idle_timeout: Span,
        handshake_timeout: Span,
        protocol: Option<String>,
        require_handshake_per_connection: bool,
        deflate: bool,
        deflate_from_bytes: Size,
        max_message_bytes: Size,
        messages_per_frame: usize,
    }
);

settings::section!(
    /// `events`
    Events: EventOptions { timestamp: bool, replay_in_data: Vec<Text<Filter>> }
);

settings::section!(
    /// `extensions`
    Negotiable: Extensions { ack: bool, timesync: bool, replay: bool, activity: Option<Idleness> }
);

settings::choice!(
    /// How a client reaches the server.
    TransportName: Transport {
        WebSocket = "websocket",
        LongPolling = "long-polling",
        CallbackPolling = "callback-polling",
    }
);

settings::choice!(
    /// What happens when a session's queue is full.
    WhenFull: QueueFull {
        Disconnect = "disconnect",
        DropNewest = "drop_newest",
        DropOldest = "drop_oldest",
        Clear = "clear",
    }
);

settings::choice!(
    /// Which channel names are legal.
    Names: Grammar { Strict = "strict", Lenient = "lenient" }
);

settings::choice!(
    /// Whose messages keep a session active.
    ActivityOf: Activity { Client = "client", ClientAndServer = "client_and_server" }
);

/// What a message to a service without a handler is answered with.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Unhandled {
    Ignore,
    Error,
}

impl Setting<bool> for Unhandled {
    fn from_value(refuse: bool) -> Self {
        if refuse { Unhandled::Error } else { Unhandled::Ignore }
    }
    fn into_value(self) -> bool {
        matches!(self, Unhandled::Error)
    }
}

/// `extensions.activity`
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Idleness {
    of: ActivityOf,
    max_interval: Period,
}

impl Setting<(Activity, std::time::Duration)> for Idleness {
    fn from_value((of, max_interval): (Activity, std::time::Duration)) -> Self {
        Idleness { of: Setting::from_value(of), max_interval: Setting::from_value(max_interval) }
    }
    fn into_value(self) -> (Activity, std::time::Duration) {
        (self.of.into_value(), self.max_interval.into_value())
    }
}

/// One `[[bayeux.lazy]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct LazyChannels {
    filter: Text<Filter>,
    #[serde(default)]
    timeout: Option<Span>,
}

impl Setting<Lazy> for LazyChannels {
    fn from_value(value: Lazy) -> Self {
        LazyChannels {
            filter: Setting::from_value(value.filter),
            timeout: Setting::from_value(value.timeout),
        }
    }
    fn into_value(self) -> Lazy {
        Lazy { filter: self.filter.into_value(), timeout: self.timeout.into_value() }
    }
}
