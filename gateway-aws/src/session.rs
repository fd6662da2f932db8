//! What is told to functions of one connection, in order, and what their answers do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::{ForcedError, LeaveReason, Publish, unix_ms};
use bytes::Bytes;
use gateway::client::Answer;
use gateway::delivery::Event;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

use crate::answer::{self, Actions, Body, Failure, Reply};
use crate::client::{Target, Trace, has_failed};
use crate::config::{Kind, Mapping, Route};
use crate::ending;
use crate::event::{Opening, Payload, Stamp};
use crate::member::{Close, Member, binary_frame, frame};
use crate::state::Shared;

/// How long a handshake waits for a turn.
const PATIENCE: Duration = Duration::from_secs(1);

/// One connection, for as long as anything of it is to be told.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) member: Arc<Member>,
    pub(crate) trace: Trace,
}

/// A message of the client.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Valid UTF-8.
    Text(Bytes),
    Binary(Bytes),
}

impl Incoming {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes.len(),
        }
    }

    fn payload(&self) -> Payload<'_> {
        match self {
            // It is UTF-8, or it would not have come as text.
            Self::Text(bytes) => std::str::from_utf8(bytes).map_or(Payload::Binary(bytes), Payload::Text),
            Self::Binary(bytes) => Payload::Binary(bytes),
        }
    }
}

/// What happened.
#[derive(Clone, Copy)]
enum Happened<'a> {
    Connect(&'a Opening),
    Message(&'a Incoming),
}

impl Happened<'_> {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Connect(_) => "CONNECT",
            Self::Message(_) => "MESSAGE",
        }
    }
}

impl Session {
    /// Asks whether the client may connect.
    pub(crate) async fn connect(&self, opening: &Opening) -> Option<Result<Reply, Failure>> {
        let route = self.member.state.api.routes.get("$connect")?;
        let stamp = Stamp::new(unix_ms());
        Some(self.call("$connect", route, &stamp, Happened::Connect(opening)).await)
    }

    /// Handles a message: the function is called, and what it answers is done. It never fails; what goes wrong is told
    /// to the client.
    pub(crate) async fn handle(self: Arc<Self>, message: Incoming) {
        let stamp = Stamp::new(unix_ms());
        let (facts, api) = (&self.member.facts, &self.member.state.api);
        let selected = match message.payload() {
            Payload::Text(text) => api.selection.evaluate(text),
            Payload::Binary(_) => None,
        };
        let named = selected.filter(|key| key != "$connect" && key != "$disconnect");
        let found = named.and_then(|key| api.routes.get_key_value(&key));
        let Some((key, route)) = found.or_else(|| api.routes.get_key_value("$default")) else {
            let text = facts.error("Forbidden", &stamp.request_id);
            self.member.send(frame(text.as_bytes(), self.member.deflate));
            return;
        };
        let outcome = self.call(key, route, &stamp, Happened::Message(&message)).await;
        let done = match outcome {
            Ok(reply) => self.act(reply.actions, reply.body, route.response).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = done {
            let text = facts.error(failure.message(), &stamp.request_id);
            self.member.send(frame(text.as_bytes(), self.member.deflate));
        }
    }

    /// Does what an answer says: first for the broker, then for the client.
    pub(crate) async fn act(&self, actions: Actions, body: Body, responds: bool) -> Result<(), Failure> {
        let malformed = |why: &dyn std::fmt::Display| {
            let failure = Failure::Malformed(why.to_string());
            tracing::warn!(
                target: "fanwire::gateway", gateway = %self.member.state.api.name,
                connection = %self.member.facts.connection_id, error = %failure,
                "what a function asked the broker for was not done"
            );
            failure
        };
        let Actions { subscribe, unsubscribe, publish, close } = actions;
        for filter in &unsubscribe {
            self.member.subscriber.unsubscribe_all(filter);
        }
        for filter in &subscribe {
            match self.member.grant(filter) {
                Ok(_) => {}
                // It has left, and nobody is subscribed.
                Err(ForcedError::Gone) => {}
                Err(error) => return Err(malformed(&error)),
            }
            let settled = self.shared.broker.settled(filter).await;
            settled.map_err(|error| malformed(&error))?;
        }
        let publishes = !publish.is_empty();
        for message in publish {
            let wanted = Publish::new(message.channel, message.payload);
            let wanted = if message.is_json { wanted.json() } else { wanted };
            let published = self.shared.broker.submit(wanted).await;
            published.map_err(|refused| malformed(&refused.error))?;
        }
        if publishes {
            // What the client itself gets of it comes before the answer and the close.
            self.member.subscriber.heard().await;
        }
        if responds {
            match body {
                Body::None => {}
                Body::Text(text) => _ = self.member.send(frame(text.as_bytes(), self.member.deflate)),
                Body::Binary(bytes) => _ = self.member.send(binary_frame(&bytes, self.member.deflate)),
            }
        }
        if let Some((code, reason)) = close {
            self.member.close_with(Close::new(code, &reason, LeaveReason::Closed));
        }
        Ok(())
    }

    /// Tells that the connection is over, again and again until somebody has heard it or it is of no use any more.
    pub(crate) async fn tell_end(&self, code: u16, reason: &str) {
        let (member, stamp) = (&self.member, Stamp::new(unix_ms()));
        let body = member.facts.disconnect(&stamp, member.authorized(), code, reason);
        let event = Event::new(stamp.request_id, member.facts.connection_id.as_str(), body, Instant::now());
        ending::tell(&member.state, &self.shared.broker, &self.trace, event).await;
    }

    /// Calls the integration of a route, and logs it.
    async fn call(
        &self,
        key: &str,
        route: &Route,
        stamp: &Stamp,
        happened: Happened<'_>,
    ) -> Result<Reply, Failure> {
        let state = &self.member.state;
        let (Some(target), Some(integration)) =
            (state.integrations.get(&route.integration), state.api.integrations.get(&route.integration))
        else {
            return Err(Failure::Unreachable("there is no such integration".to_owned()));
        };
        let began = Instant::now();
        let outcome = match &integration.kind {
            Kind::Lambda => self.call_lambda(target, key, stamp, happened).await,
            Kind::Http { headers } => self.call_http(target, headers, key, stamp, happened).await,
        };
        let connection = &self.member.facts.connection_id;
        state.log_call(connection, &stamp.request_id, key, &outcome, began.elapsed());
        outcome
    }

    async fn call_lambda(
        &self,
        target: &Target,
        key: &str,
        stamp: &Stamp,
        happened: Happened<'_>,
    ) -> Result<Reply, Failure> {
        let (facts, authorized) = (&self.member.facts, self.member.authorized());
        let event = match happened {
            Happened::Connect(opening) => facts.connect(opening, stamp, authorized),
            Happened::Message(message) => facts.message(stamp, key, authorized, message.payload()),
        };
        let turn = target.turn(patience(happened)).await?;
        let read = |answer: &Answer| answer::of_lambda(answer.status, has_failed(answer), &answer.body);
        target.call(turn, self.trace.lambda(), event.into(), read).await
    }

    async fn call_http(
        &self,
        target: &Target,
        mapped: &[(http::HeaderName, Mapping)],
        key: &str,
        stamp: &Stamp,
        happened: Happened<'_>,
    ) -> Result<Reply, Failure> {
        let mut headers: HeaderMap = self.trace.bare();
        let (body, content_type) = match happened {
            Happened::Message(Incoming::Text(text)) => {
                let is_json = matches!(text.trim_ascii_start().first(), Some(b'{' | b'['));
                (text.clone(), Some(if is_json { "application/json" } else { "text/plain; charset=utf-8" }))
            }
            Happened::Message(Incoming::Binary(bytes)) => (bytes.clone(), Some("application/octet-stream")),
            Happened::Connect(_) => (Bytes::new(), None),
        };
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        for (name, mapping) in mapped {
            if let Some(value) = self.mapped(mapping, key, stamp, happened.event_type()) {
                headers.insert(name.clone(), value);
            }
        }
        let turn = target.turn(patience(happened)).await?;
        let read = |answer: &Answer| {
            // 429 is what cannot have run; after it was asked again it is a status as any other.
            let protocol = answer.headers.get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
            Ok(answer::of_http(answer.status, protocol, &answer.body))
        };
        target.call(turn, headers, body, read).await
    }

    /// The value of a header field; nothing where there is none, or it cannot stand in one.
    fn mapped(&self, mapping: &Mapping, key: &str, stamp: &Stamp, event: &str) -> Option<HeaderValue> {
        let facts = &self.member.facts;
        let connected_at = facts.connected_at_ms.to_string();
        let text = match mapping {
            Mapping::Static(value) => return Some(value.clone()),
            Mapping::ConnectionId => &facts.connection_id,
            Mapping::RequestId => &stamp.request_id,
            Mapping::RouteKey => key,
            Mapping::EventType => event,
            Mapping::Stage => &facts.stage,
            Mapping::DomainName => &facts.domain,
            Mapping::ApiId => &facts.api,
            Mapping::ConnectedAt => &connected_at,
            Mapping::SourceIp => &facts.source_ip,
            Mapping::UserAgent => facts.user_agent.as_deref()?,
            Mapping::Authorizer(name) if name == "principalId" => &self.member.authorized()?.principal_id,
            Mapping::Authorizer(name) => self.member.authorized()?.context.get(name)?,
        };
        HeaderValue::from_str(text).ok()
    }
}

/// A handshake does not wait long for a turn; what was taken does.
fn patience(happened: Happened<'_>) -> Option<Duration> {
    matches!(happened, Happened::Connect(_)).then_some(PATIENCE)
}
