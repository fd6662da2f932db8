//! From a path to a front: the one place where the fronts of a server stand together.

use std::pin::Pin;
use std::time::Duration;

use broker_core::Broker;
use bytes::Bytes;
#[cfg(feature = "http")]
use futures_util::future::Either;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_edge::{Body, BoxError, Peer, Problem, Response, X_REQUEST_ID, request_id_among};
#[cfg(feature = "http")]
use http_edge::{OriginPolicy, TokenSources};

use crate::{Config, page};

/// All fronts on one broker, behind one [`handle`](Fronts::handle). Clones are handles to the same fronts.
///
/// | path | front |
/// | --- | --- |
/// | `/cometd` and below (`bayeux.mount`) | Bayeux |
/// | `/mqtt` | MQTT over WebSocket |
/// | `/sse` and below | Server-Sent Events |
/// | `/v1/…`, `/healthz`, `/readyz`, `/metrics` | the HTTP API |
/// | `/`, `/page/…` | the page that shows it working |
///
/// Anything else, and a front that was left out of the build, is 404.
///
/// Which web pages may come is each front's own `origins` in its `Config`; by default those of the same origin and of this machine.
/// The same origin is judged by `Host`. [`Server`](crate::Server) answers on loopback to `localhost` and addresses only; a
/// service that mounts these fronts in an HTTP server of its own decides for itself which hosts it answers to.
#[derive(Clone)]
pub struct Fronts {
    /// The pages that may read what no front says.
    #[cfg(feature = "http")]
    pages: (OriginPolicy, TokenSources),
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
    /// The fronts on `broker`, as `config` sets them up. `/metrics` shows the counters of all.
    #[cfg_attr(
        not(any(feature = "bayeux", feature = "http", feature = "mqtt", feature = "sse")),
        expect(unused_variables, reason = "no front was built in")
    )]
    pub fn new(broker: &Broker, config: &Config) -> Self {
        let fronts = Fronts {
            #[cfg(feature = "http")]
            pages: (config.api.origins.clone(), config.api.token_sources.clone()),
            #[cfg(feature = "http")]
            api: front_http::Front::new(broker.clone(), config.authenticator.clone(), config.api.clone()),
            #[cfg(feature = "bayeux")]
            bayeux: front_bayeux::Front::new(
                broker.clone(),
                config.authenticator.clone(),
                config.bayeux.clone(),
            ),
            #[cfg(feature = "mqtt")]
            mqtt: front_mqtt::Front::new(
                broker.clone(),
                config.authenticator.clone(),
                config.mqtt_front.clone(),
            ),
            #[cfg(feature = "sse")]
            sse: front_sse::Front::new(broker.clone(), config.authenticator.clone(), config.sse.clone()),
        };
        #[cfg(all(feature = "http", feature = "bayeux"))]
        fronts.api.add_metrics(crate::metrics::of_bayeux(&fronts.bayeux));
        #[cfg(all(feature = "http", feature = "mqtt"))]
        fronts.api.add_metrics(crate::metrics::of_mqtt(&fronts.mqtt));
        #[cfg(all(feature = "http", feature = "sse"))]
        fronts.api.add_metrics(crate::metrics::of_sse(&fronts.sse));
        fronts
    }

    /// Answers one request of any HTTP server that can hand over hyper's upgrades (for WebSocket). A [`Peer`] extension says
    /// where it comes from.
    pub async fn handle<B>(&self, request: Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let peer = request.extensions().get().copied();
        self.handle_from(peer, request).await
    }

    /// As [`handle`](Self::handle), for a request that comes from `peer`, whether or not it says so itself.
    #[cfg_attr(
        not(any(feature = "bayeux", feature = "http", feature = "mqtt", feature = "sse")),
        expect(unused_variables, reason = "no front was built in")
    )]
    pub fn handle_from<B>(
        &self,
        peer: Option<Peer>,
        mut request: Request<B>,
    ) -> impl Future<Output = Response> + Send + use<B>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let path = request.uri().path();
        #[cfg(any(feature = "http", feature = "mqtt", feature = "sse"))]
        let first = path.get(1..).unwrap_or_default().split('/').next().unwrap_or_default();
        #[cfg(feature = "http")]
        if matches!(first, "v1" | "healthz" | "readyz" | "metrics") {
            return Either::Left(self.api.handle_from(peer, request));
        }
        #[cfg(feature = "bayeux")]
        let is_bayeux = self.bayeux.serves(path);
        #[cfg(feature = "mqtt")]
        let is_mqtt = first == "mqtt";
        #[cfg(feature = "sse")]
        let is_sse = first == "sse";
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let id = request_id_among(request.headers());
        // Boxed, so that a connection holds the future of the front it talks to and not of the largest.
        let answer: Pin<Box<dyn Future<Output = Response> + Send>> = match () {
            #[cfg(feature = "bayeux")]
            () if is_bayeux => {
                let front = self.bayeux.clone();
                Box::pin(named(id, async move { front.handle(request).await }))
            }
            #[cfg(feature = "mqtt")]
            () if is_mqtt => {
                let front = self.mqtt.clone();
                Box::pin(named(id, async move { front.handle(request).await }))
            }
            #[cfg(feature = "sse")]
            () if is_sse => {
                let front = self.sse.clone();
                Box::pin(named(id, async move { front.handle(request).await }))
            }
            () => Box::pin(named(id, std::future::ready(self.answer_elsewhere(&request)))),
        };
        #[cfg(feature = "http")]
        return Either::Right(answer);
        #[cfg(not(feature = "http"))]
        answer
    }

    /// The page, and what no front answers.
    fn answer_elsewhere<B>(&self, request: &Request<B>) -> Response {
        let path = request.uri().path();
        match path.split('/').nth(1).unwrap_or_default() {
            "" if path == "*" && request.method() == Method::OPTIONS => self.readable(any_of_them(), request),
            "" | "page" => page::answer(request.method(), path),
            _ => {
                let problem = Problem::not_found("nothing is here; `/` shows what there is");
                self.readable(problem.response(), request)
            }
        }
    }

    /// The answer, for the pages that may read what no front says.
    #[cfg(feature = "http")]
    fn readable<B>(&self, mut answer: Response, request: &Request<B>) -> Response {
        let (origins, tokens) = &self.pages;
        origins.cors_headers(request.headers(), origins.cookies(tokens), answer.headers_mut());
        answer
    }

    #[cfg(not(feature = "http"))]
    fn readable<B>(&self, answer: Response, _: &Request<B>) -> Response {
        answer
    }

    /// MQTT over TCP, for connections that were accepted elsewhere.
    #[cfg(feature = "mqtt")]
    pub fn mqtt(&self) -> &front_mqtt::Front {
        &self.mqtt
    }

    /// Bayeux, for services on `/service/...`, a listener, and messages to one session.
    #[cfg(feature = "bayeux")]
    pub fn bayeux(&self) -> &front_bayeux::Front {
        &self.bayeux
    }

    /// Server-Sent Events, for counters and for requests that were refused elsewhere.
    #[cfg(feature = "sse")]
    pub fn sse(&self) -> &front_sse::Front {
        &self.sse
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
    #[cfg_attr(
        not(any(feature = "bayeux", feature = "http", feature = "mqtt", feature = "sse")),
        expect(unused_variables, reason = "no front was built in")
    )]
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
}

/// An answer with the request's id.
async fn named(id: HeaderValue, answer: impl Future<Output = Response>) -> Response {
    let mut response = answer.await;
    response.headers_mut().entry(X_REQUEST_ID).or_insert(id);
    response
}

/// `OPTIONS *` asks about the server as a whole (RFC 9110 §9.3.7): every method that is answered somewhere.
fn any_of_them() -> Response {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, QUERY, OPTIONS");
    response.headers_mut().insert(header::ALLOW, methods);
    response
}

impl std::fmt::Debug for Fronts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fronts").finish_non_exhaustive()
    }
}
