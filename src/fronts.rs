//! From a path to a front: the one place where the fronts of a server stand together.

use std::sync::Arc;
use std::time::Duration;

use broker_core::Broker;
use bytes::Bytes;
use http::Request;
use http_edge::{BoxError, Problem, Response};

use crate::{Config, page};

/// All fronts on one broker, behind one [`handle`](Fronts::handle). Clones are handles to the same fronts.
///
/// | path | front |
/// | --- | --- |
/// | `/cometd` and below | Bayeux |
/// | `/mqtt` | MQTT over WebSocket |
/// | `/sse` and below | Server-Sent Events |
/// | `/v1/…`, `/healthz`, `/readyz`, `/metrics` | the HTTP API |
/// | `/`, `/page/…` | the page that shows it working |
///
/// Anything else, and a front that was left out of the build, is 404.
#[derive(Clone)]
pub struct Fronts {
    #[cfg(feature = "http")]
    api: front_http::Front,
    #[cfg(feature = "bayeux")]
    bayeux: front_bayeux::Front,
    #[cfg(feature = "mqtt")]
    mqtt: front_mqtt::Front,
    #[cfg(feature = "sse")]
    sse: front_sse::Front,
}

impl Fronts {
    /// The fronts on `broker`, as `config` sets them up.
    pub fn new(broker: &Broker, config: &Config) -> Self {
        let fronts = Fronts {
            #[cfg(feature = "http")]
            api: front_http::Front::new(
                broker.clone(),
                Arc::clone(&config.authenticator),
                config.api.clone(),
            ),
            #[cfg(feature = "bayeux")]
            bayeux: front_bayeux::Front::new(
                broker.clone(),
                Arc::clone(&config.authenticator),
                config.bayeux.clone(),
            ),
            #[cfg(feature = "mqtt")]
            mqtt: front_mqtt::Front::new(
                broker.clone(),
                Arc::clone(&config.authenticator),
                config.mqtt_front.clone(),
            ),
            #[cfg(feature = "sse")]
            sse: front_sse::Front::new(broker.clone(), Arc::clone(&config.authenticator), config.sse.clone()),
        };
        #[cfg(feature = "http")]
        fronts.add_metrics();
        fronts
    }

    /// Answers one request of any HTTP server that can hand over hyper's upgrades (for WebSocket).
    pub async fn handle<B>(&self, request: Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        match request.uri().path().split('/').nth(1).unwrap_or_default() {
            #[cfg(feature = "http")]
            "v1" | "healthz" | "readyz" | "metrics" => self.api.handle(request).await,
            #[cfg(feature = "bayeux")]
            "cometd" => self.bayeux.handle(request).await,
            #[cfg(feature = "mqtt")]
            "mqtt" => self.mqtt.handle(request).await,
            #[cfg(feature = "sse")]
            "sse" => self.sse.handle(request).await,
            "" | "page" => page::answer(request.method(), request.uri().path()),
            _ => Problem::not_found("nothing is here; `/` shows what there is").response(),
        }
    }

    /// MQTT over TCP, for connections that were accepted elsewhere.
    #[cfg(feature = "mqtt")]
    pub fn mqtt(&self) -> &front_mqtt::Front {
        &self.mqtt
    }

    /// The HTTP API, whose readiness and metrics an operator reads.
    #[cfg(feature = "http")]
    pub fn api(&self) -> &front_http::Front {
        &self.api
    }

    /// Makes `/readyz` say whether new clients should come here. `true` until somebody says otherwise.
    pub fn set_ready(&self, ready: bool) {
        #[cfg(feature = "http")]
        self.api.set_ready(ready);
        #[cfg(not(feature = "http"))]
        let _ = ready;
    }

    /// Tells all clients, each in its protocol's terms, that the server goes. Resolves when they are gone, or soon after
    /// `window`.
    pub async fn shutdown(&self, window: Duration) {
        tokio::join!(
            async {
                #[cfg(feature = "http")]
                self.api.shutdown(window).await;
            },
            async {
                #[cfg(feature = "bayeux")]
                self.bayeux.shutdown(window).await;
            },
            async {
                #[cfg(feature = "mqtt")]
                self.mqtt.shutdown(window).await;
            },
            async {
                #[cfg(feature = "sse")]
                self.sse.shutdown(window).await;
            },
        );
    }

    /// Shows every front's counters at `/metrics`.
    #[cfg(feature = "http")]
    fn add_metrics(&self) {
        use front_http::Metric;
        #[cfg(any(feature = "bayeux", feature = "mqtt", feature = "sse"))]
        use front_http::Value::{Counter, Gauge};

        #[cfg(feature = "sse")]
        {
            let sse = self.sse.clone();
            self.api.add_metrics(Arc::new(move |out: &mut Vec<Metric>| {
                let stats = sse.stats();
                out.extend([
                    Metric {
                        name: "sse_streams",
                        help: "Event streams open now",
                        value: Gauge(stats.streams),
                    },
                    Metric { name: "sse_opened", help: "Event streams opened", value: Counter(stats.opened) },
                    Metric {
                        name: "sse_resumed",
                        help: "Event streams that resumed from an id",
                        value: Counter(stats.resumed),
                    },
                    Metric {
                        name: "sse_gaps",
                        help: "Gaps told to streams that resumed",
                        value: Counter(stats.gaps),
                    },
                    Metric {
                        name: "sse_closed_slow",
                        help: "Event streams closed because their reader was too slow",
                        value: Counter(stats.closed_slow),
                    },
                    Metric {
                        name: "sse_refused_rights",
                        help: "Streams refused for lack of credentials or rights",
                        value: Counter(stats.refused_rights),
                    },
                    Metric {
                        name: "sse_refused",
                        help: "Streams refused for any other reason",
                        value: Counter(stats.refused),
                    },
                    Metric {
                        name: "sse_unexpressible",
                        help: "Messages that an event stream cannot express",
                        value: Counter(stats.unexpressible),
                    },
                ]);
            }));
        }
        #[cfg(feature = "mqtt")]
        {
            let mqtt = self.mqtt.clone();
            self.api.add_metrics(Arc::new(move |out: &mut Vec<Metric>| {
                let stats = mqtt.stats();
                out.extend([
                    Metric {
                        name: "mqtt_connections",
                        help: "MQTT connections open now",
                        value: Gauge(stats.connections as u64),
                    },
                    Metric {
                        name: "mqtt_sessions",
                        help: "MQTT sessions, connected or not",
                        value: Gauge(stats.sessions as u64),
                    },
                    Metric {
                        name: "mqtt_connects",
                        help: "MQTT connections let in",
                        value: Counter(stats.connects),
                    },
                    Metric {
                        name: "mqtt_handshakes_failed",
                        help: "MQTT connections not let in",
                        value: Counter(stats.handshakes_failed),
                    },
                    Metric {
                        name: "mqtt_messages_received",
                        help: "Publishes from MQTT clients",
                        value: Counter(stats.messages_received),
                    },
                    Metric {
                        name: "mqtt_messages_sent",
                        help: "Publishes to MQTT clients",
                        value: Counter(stats.messages_sent),
                    },
                    Metric {
                        name: "mqtt_messages_dropped",
                        help: "Messages kept from MQTT clients by a limit",
                        value: Counter(stats.messages_dropped),
                    },
                ]);
            }));
        }
        #[cfg(feature = "bayeux")]
        {
            let bayeux = self.bayeux.clone();
            self.api.add_metrics(Arc::new(move |out: &mut Vec<Metric>| {
                let stats = bayeux.stats();
                out.extend([
                    Metric {
                        name: "bayeux_sessions",
                        help: "Bayeux sessions that live now",
                        value: Gauge(stats.sessions),
                    },
                    Metric {
                        name: "bayeux_websockets",
                        help: "Bayeux WebSockets open now",
                        value: Gauge(stats.websockets),
                    },
                    Metric {
                        name: "bayeux_held_polls",
                        help: "Bayeux connects held over HTTP now",
                        value: Gauge(stats.held_polls),
                    },
                    Metric {
                        name: "bayeux_handshakes",
                        help: "Bayeux handshakes that succeeded",
                        value: Counter(stats.handshakes),
                    },
                    Metric {
                        name: "bayeux_handshakes_refused",
                        help: "Bayeux handshakes that failed",
                        value: Counter(stats.handshakes_refused),
                    },
                    Metric {
                        name: "bayeux_published",
                        help: "Messages published over Bayeux",
                        value: Counter(stats.published),
                    },
                    Metric {
                        name: "bayeux_failed",
                        help: "Bayeux messages answered as not successful",
                        value: Counter(stats.failed),
                    },
                    Metric {
                        name: "bayeux_malformed",
                        help: "Requests and frames that were no Bayeux messages",
                        value: Counter(stats.malformed),
                    },
                    Metric {
                        name: "bayeux_expired",
                        help: "Bayeux sessions that expired",
                        value: Counter(stats.expired),
                    },
                    Metric {
                        name: "bayeux_overflowed",
                        help: "Bayeux sessions ended because their queue was full",
                        value: Counter(stats.overflowed),
                    },
                    Metric {
                        name: "bayeux_inexpressible",
                        help: "Deliveries of channels that Bayeux cannot express",
                        value: Counter(stats.inexpressible),
                    },
                    Metric {
                        name: "bayeux_unhandled_services",
                        help: "Messages to services that no handler took",
                        value: Counter(stats.unhandled_services),
                    },
                ]);
            }));
        }
    }
}

impl std::fmt::Debug for Fronts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fronts").finish_non_exhaustive()
    }
}
