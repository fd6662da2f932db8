//! The front: from a request to its answer.

use std::fmt;
use std::sync::Arc;

use ::front::{Context, RefusedLine};
use broker_core::{Broker, Principal, Rights, unix_ms};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, header};
use http_edge::{BodyError, BoxError, Peer, Response, X_REQUEST_ID, request_id_among, take_body};
use intake::{Gate, Publisher};

use crate::config::{Config, Signatures};
use crate::error::{AwsError, REQUEST_ID};
use crate::iot::{self, Messages, Query, Resource};
use crate::presence::{Clients, Events, Listener, Requests};
use crate::sigv4::Verifier;
use crate::stats::{Counters, Stats};
use crate::things::{Asked, Things};

/// What its name is to listeners, metrics and logs.
pub(crate) const NAME: &str = "aws";

/// What requests for the data plane are signed for.
const IOT: &str = "iotdata";

/// AWS' APIs on a broker. Clones are handles to the same front.
#[derive(Clone)]
pub struct Front(Arc<Shared>);

struct Shared {
    broker: Broker,
    gate: Gate,
    verifier: Verifier,
    config: Config,
    counters: Arc<Counters>,
    clients: Arc<Clients>,
    /// Where signatures are not looked at, and no key is named.
    anybody: Principal,
    things: Arc<Things>,
    /// Held for as long as the front is there.
    _events: Option<Arc<Events>>,
}

impl Front {
    /// AWS' APIs on the broker of `context`. It hears of clients from now on.
    pub fn new(context: &Context, config: Config) -> Self {
        let broker = context.broker.clone();
        let counters = Arc::<Counters>::default();
        let clients = Arc::<Clients>::default();
        let events =
            config.lifecycle_events.then(|| Arc::new(Events::new(broker.clone(), Arc::clone(&counters))));
        if config.iot || events.is_some() {
            let events = events.as_ref().map(Arc::downgrade).unwrap_or_default();
            let requests = Requests::new(broker.config().max_message_bytes);
            broker.hear(Arc::new(Listener { clients: Arc::downgrade(&clients), events, requests }));
        }
        let things = Arc::new(Things::new(broker.clone()));
        if config.iot {
            broker.offer(Arc::new(Asked(Arc::downgrade(&things))));
        }
        let shared = Shared {
            things,
            gate: Gate::new(broker.clone(), Arc::clone(&context.authenticator)),
            verifier: Verifier::new(config.region.clone(), config.clock_skew, &config.keys),
            broker,
            config,
            counters,
            clients,
            anybody: Principal::anonymous(Rights::all()),
            _events: events,
        };
        Self(Arc::new(shared))
    }

    /// Answers one request. Every answer carries `x-amzn-RequestId`.
    pub async fn handle<B>(&self, request: Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let peer = Peer::of(request.extensions());
        self.handle_from(peer, request).await
    }

    /// As [`handle`](Self::handle), for a request that comes from `peer`.
    pub async fn handle_from<B>(&self, peer: Option<Peer>, request: Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let shared = &self.0;
        shared.counters.requests.add();
        let (parts, body) = request.into_parts();
        let id = request_id_among(&parts.headers);
        let answer = shared.answer(peer, &parts, body, id.to_str().unwrap_or_default()).await;
        let response = answer.unwrap_or_else(|error| {
            shared.note(&error, peer, &parts, &id);
            error.response()
        });
        named(response, id)
    }

    /// What the server refuses before it comes here.
    pub(crate) fn refuse(error: &AwsError, parts: &Parts) -> Response {
        named(error.response(), request_id_among(&parts.headers))
    }

    /// Whether a path is one of its own.
    pub(crate) fn claims(&self, path: &str) -> bool {
        self.0.config.iot && iot::claims(path)
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.0.counters.snapshot(self.0.gate.stats().published)
    }
}

::front::service!(Front);

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

fn named(mut response: Response, id: HeaderValue) -> Response {
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.clone());
    headers.insert(X_REQUEST_ID, id);
    response
}

impl Shared {
    async fn answer<B>(
        &self,
        peer: Option<Peer>,
        parts: &Parts,
        body: B,
        id: &str,
    ) -> Result<Response, AwsError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // Where nothing has to be signed, a page of another origin could ask in the name of whoever looks at it.
        if !self.config.origins.allows(parts) {
            return Err(AwsError::forbidden("pages of this origin may not ask here"));
        }
        if self.config.signatures == Signatures::Required {
            // Nobody's body is read who has not said at least whose it is.
            self.verifier.read(parts)?;
        }
        let body = take_body(body, self.broker.config().max_message_bytes, &self.config.intake).await;
        let body = body.map_err(refused_body)?;
        let principal = self.principal(parts, &body)?;
        let mut codings = parts.headers.get_all(header::CONTENT_ENCODING).iter();
        if codings.any(|coding| coding != "identity") {
            return Err(AwsError::unknown_encoding(
                "the body has to be sent as it is, without a Content-Encoding",
            ));
        }
        let resource = Resource::find(parts.uri.path())?;
        resource.check(&parts.method)?;
        let query = Query::read(parts.uri.query())?;
        let mut publisher = Publisher::new(principal, NAME);
        publisher.address = peer.map(|peer| peer.0.ip());
        let (broker, clients, principal) = (&self.broker, &self.clients, &publisher.principal);
        let message = Messages { headers: &parts.headers, query: &query, body: &body, id };
        match resource {
            Resource::Topic(topic) => iot::publish(&self.gate, &publisher, message, &topic).await,
            Resource::RetainedMessages => iot::list(broker, principal, &query).await,
            Resource::RetainedMessage(topic) => iot::show(broker, principal, &topic).await,
            Resource::Connection(client) if parts.method == Method::DELETE => {
                let closed = iot::close(broker, clients, principal, &client, &query).await;
                closed.inspect(|_| self.counters.closed_connections.add())
            }
            Resource::Connection(client) => iot::one(broker, clients, principal, &client, &query).await,
            Resource::Subscriptions(client) => {
                iot::subscriptions(broker, clients, principal, &client, &query).await
            }
            Resource::Shadow(thing) => {
                iot::shadow(&self.things, principal, &parts.method, &thing, &query, &body).await
            }
            Resource::Shadows(thing) => iot::list_shadows(&self.things, principal, &thing, &query),
            Resource::Messages(client) => {
                let sent = iot::send(broker, clients, principal, &client, message).await;
                sent.inspect(|_| self.counters.direct_messages.add())
            }
        }
    }

    /// As whom a request acts.
    fn principal(&self, parts: &Parts, body: &[u8]) -> Result<Principal, AwsError> {
        if self.config.signatures == Signatures::Ignored {
            let named = self.verifier.named(parts);
            return Ok(named.map_or(&self.anybody, |key| key.principal()).clone());
        }
        let now = i64::try_from(unix_ms() / 1_000).unwrap_or(i64::MAX);
        let key = self.verifier.verify(IOT, parts, body, now)?;
        Ok(key.principal().clone())
    }

    /// Counts what refuses whoever asks, and logs it. What is wrong with the request itself is its client's affair.
    fn note(&self, error: &AwsError, peer: Option<Peer>, parts: &Parts, id: &HeaderValue) {
        match error.kind {
            "ForbiddenException" | "UnauthorizedException" => self.counters.refused_rights.add(),
            "ThrottlingException" => self.counters.throttled.add(),
            _ if error.status == 403 => self.counters.not_signed.add(),
            _ => {}
        }
        if !matches!(error.status.as_u16(), 401 | 403 | 429 | 500..) {
            return;
        }
        let mut line = RefusedLine::default();
        line.protocol = NAME;
        line.reason = error.kind;
        line.detail = Some(&error.message);
        line.remote = peer.map(|peer| peer.0.ip());
        line.request = id.to_str().ok();
        line.what = Some(parts.uri.path());
        line.log();
    }
}

fn refused_body(error: BodyError) -> AwsError {
    let text = error.to_string();
    match error {
        BodyError::TooLarge { .. } => AwsError::too_large(text),
        BodyError::Shed => AwsError::throttled(text).after(std::time::Duration::from_secs(5)),
        _ => AwsError::invalid(text),
    }
}
