//! Every option of the front, with its default. CometD's name stands in brackets where it has one.

use std::time::Duration;

use broker_core::Filter;
use http_edge::{Intake, OriginPolicy};

use crate::codec::channel::Grammar;

mod cookie;
mod extensions;
mod queue;
mod transport;
mod websocket;

pub use crate::codec::event::EventOptions;
pub use cookie::BrowserCookie;
pub use extensions::{Activity, Extensions};
pub use queue::{Lazy, QueueFull};
pub use transport::{Timing, Transport, TransportOptions};
pub use websocket::WebSocketConfig;

/// The front's options.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Where the front is; it answers at each of these paths and below, and requests elsewhere are 404. Default
    /// `/cometd`. More of them let clients of another server keep theirs (faye's `mount`). Not looked at by
    /// [`Front::nested`](crate::Front::nested).
    pub mount: Vec<String>,
    /// Times for all transports (`timeout`, `interval`, `maxInterval`).
    pub timing: Timing,
    /// What long-polling does differently (`long-polling.json.*`); default nothing.
    pub long_polling: TransportOptions,
    /// What callback-polling does differently (`callback-polling.*`); default nothing.
    pub callback_polling: TransportOptions,
    /// Longest hold that a client may ask for in its connect's advice; default 10 min.
    pub max_client_timeout: Duration,
    /// Ends a session whose held connect is overdue by this much (`maxProcessing`); default never.
    pub max_processing: Option<Duration>,
    /// Longest delay of lazy messages (`maxLazyTimeout`); default 5 s.
    pub max_lazy_timeout: Duration,
    /// Which channels are lazy; default none.
    pub lazy: Vec<Lazy>,
    /// How often expired sessions are looked for (`sweepPeriod`); default 997 ms.
    pub sweep_period: Duration,
    /// Transports in order of liking (`allowedTransports`); default all.
    pub transports: Vec<Transport>,
    /// Whether events come in connect replies only (`metaConnectDeliverOnly`); default false. Always so
    /// for acknowledging sessions and callback-polling.
    pub meta_connect_deliver_only: bool,
    /// Whether a publisher gets its own messages if it is subscribed (`broadcastToPublisher`); default
    /// true. A session may differ: [`Front::set_broadcast_to_publisher`](crate::Front::set_broadcast_to_publisher).
    pub broadcast_to_publisher: bool,
    /// Channels whose publishers never get their own messages (`ServerChannel.broadcastToPublisher`);
    /// default none.
    pub not_to_publisher: Vec<Filter>,
    /// Whether a handshake reply tells `maxInterval`, so that clients reconnect by handshake later
    /// (`handshakeReconnect`); default false.
    pub handshake_reconnect: bool,
    /// Whether queued events may follow a handshake's reply (`allowMessageDeliveryDuringHandshake`);
    /// default false.
    pub deliver_during_handshake: bool,
    /// Whether a new subscription first gets the retained messages that match; default true.
    pub retained: bool,
    /// Which names are legal (`validateMessageFields` true is strict); default strict.
    pub grammar: Grammar,
    /// Whether publishing needs no session; default false.
    pub publish_without_session: bool,
    /// Whether a session may be used from any browser (`trustClientSession`); default false.
    pub trust_client_session: bool,
    /// What a held connect is ended with when a newer one arrives
    /// (`duplicateMetaConnectHttpResponseCode`); default 500, and at least 400.
    pub duplicate_connect_status: u16,
    /// The cookie of a browser.
    pub cookie: BrowserCookie,
    /// Connects held at a time for one browser over HTTP/1 (`maxSessionsPerBrowser`); default 1,
    /// negative means any number.
    pub max_sessions_per_browser: i64,
    /// The same over HTTP/2 (`http2MaxSessionsPerBrowser`); default -1.
    pub http2_max_sessions_per_browser: i64,
    /// How long the other sessions of a browser wait between connects (`multiSessionInterval`);
    /// default 2 s. Zero refuses them.
    pub multi_session_interval: Duration,
    /// Messages a session may have waiting (`maxQueue`); default 50,000, so that a burst is no reason to lose a client
    /// that reads. Beyond it [`queue_full`](Self::queue_full) says what happens.
    pub max_queue_messages: usize,
    /// What they hold, in bytes: their text, and 64 for each one's place in the queue; default 8 MiB, which is 50,000
    /// messages of 100 bytes. One message of any size always fits.
    pub max_queue_bytes: usize,
    /// What happens then (CometD's queue listener); default the session ends. A
    /// [`Listener`](crate::Listener) may decide otherwise for a session.
    pub queue_full: QueueFull,
    /// Largest request, in bytes (`maxMessageSize`); default 16 MiB. Beyond it: 413.
    pub max_request_bytes: usize,
    /// Messages in one request; default 10,000. Beyond it: 413, or close code 1009.
    pub max_batch_messages: usize,
    /// Deepest nesting of a request; default 512 levels. Beyond it: 400, or close code 1011.
    pub max_depth: usize,
    /// Largest `ext` that a publisher may give its message, in bytes; default 64 KiB. It is kept with the message and
    /// goes to all receivers. Beyond it: `413:MAX:ext_too_large`.
    pub max_ext_bytes: usize,
    /// Subscriptions of one session; default 10,000.
    pub max_subscriptions: usize,
    /// Channels per second that one session may bring into being by publishing or subscribing; default
    /// 1,000, and ten seconds' worth at once. Beyond it: `403:too_many_new_channels:...`. Zero means any
    /// number, and spares each publish a look whether its channel exists.
    pub max_new_channels_per_second: u32,
    /// Sessions in all; default 1,000,000.
    pub max_sessions: usize,
    /// Sessions from one address; default 100,000, as many may share one behind a proxy.
    pub max_sessions_per_address: usize,
    /// Pages that may use the endpoint. Default: those of the same origin and of this machine
    /// ([`OriginPolicy::Loopback`]).
    pub origins: OriginPolicy,
    /// What counts the requests and messages that are not whole yet, and how slowly they may come. Default that of the
    /// process.
    pub intake: Intake,
    /// Where else than in headers a token may be; default nowhere. Over callback-polling a cookie counts only where the
    /// page that asks is known.
    pub token_sources: http_edge::TokenSources,
    /// Whether a message to `/service/...` without a handler fails (`service_unhandled = "error"`);
    /// default false.
    pub refuse_unhandled_services: bool,
    /// How long a service's handler may take; default 30 s. Then the client gets `successful:false` with
    /// `data` `"timeout"`.
    pub service_timeout: Duration,
    /// Calls to services that may wait for their handlers, in all; default 10,000. Beyond it: `429::busy`.
    pub max_service_calls: usize,
    /// The same for one session; default 100.
    pub max_service_calls_per_session: usize,
    /// WebSocket's own options.
    pub websocket: WebSocketConfig,
    /// What events carry.
    pub events: EventOptions,
    /// What may be negotiated.
    pub extensions: Extensions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mount: vec!["/cometd".to_owned()],
            timing: Timing::default(),
            long_polling: TransportOptions::default(),
            callback_polling: TransportOptions::default(),
            max_client_timeout: Duration::from_secs(600),
            max_processing: None,
            max_lazy_timeout: Duration::from_secs(5),
            lazy: Vec::new(),
            sweep_period: Duration::from_millis(997),
            transports: vec![Transport::WebSocket, Transport::LongPolling, Transport::CallbackPolling],
            meta_connect_deliver_only: false,
            broadcast_to_publisher: true,
            not_to_publisher: Vec::new(),
            handshake_reconnect: false,
            deliver_during_handshake: false,
            retained: true,
            grammar: Grammar::Strict,
            publish_without_session: false,
            trust_client_session: false,
            duplicate_connect_status: 500,
            cookie: BrowserCookie::default(),
            max_sessions_per_browser: 1,
            http2_max_sessions_per_browser: -1,
            multi_session_interval: Duration::from_secs(2),
            max_queue_messages: 50_000,
            max_queue_bytes: 8 * 1024 * 1024,
            queue_full: QueueFull::Disconnect,
            max_request_bytes: 16 * 1024 * 1024,
            max_batch_messages: 10_000,
            max_depth: 512,
            max_ext_bytes: 64 * 1024,
            max_subscriptions: 10_000,
            max_new_channels_per_second: 1000,
            max_sessions: 1_000_000,
            max_sessions_per_address: 100_000,
            intake: Intake::default(),
            origins: OriginPolicy::default(),
            token_sources: http_edge::TokenSources::default(),
            refuse_unhandled_services: false,
            service_timeout: Duration::from_secs(30),
            max_service_calls: 10_000,
            max_service_calls_per_session: 100,
            websocket: WebSocketConfig::default(),
            events: EventOptions::default(),
            extensions: Extensions::default(),
        }
    }
}
