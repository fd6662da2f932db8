//! The handshake: the origin is asked before the client has its 101.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use grip::exchange::strip_opening;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_edge::websocket::Upgrade;
use http_edge::{Body, Response, user_agent};
use tokio::sync::oneshot;
use websocket::DeflateParams;
use websocket::handshake;

use crate::conversation::{Conversation, Refusal};
use crate::frames::Frames;
use crate::hub::{Hub, Rules};
use crate::member::{From, Member, OUTBOX};
use crate::origin::Origin;

/// How much of an origin's other answer a client is shown, in bytes.
const MAX_REFUSAL_BYTES: usize = 100_000;

/// Fields of the handshake, or of one connection.
const OF_THE_CONNECTION: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "sec-websocket-accept",
    "sec-websocket-version",
];

/// Whoever lets go of it before the connection is open has a client that left early.
struct Admitted(Option<Box<Conversation>>);

impl Admitted {
    fn open(mut self, socket: link::Socket, deflate: Option<DeflateParams>) {
        if let Some(conversation) = self.0.take() {
            tokio::spawn(conversation.run(socket, deflate));
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(conversation) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(conversation.abandon());
        }
    }
}

/// Answers an opening handshake of a client at `remote`. `headers` are those that the origin gets of it, without what is of
/// one connection only; `parts` is the handshake itself.
///
/// # Cancel safety
/// When it is dropped the client has left: its origin is told so if it had said yes.
pub async fn open(
    hub: &Hub,
    rules: Arc<Rules>,
    origin: Arc<dyn Origin>,
    remote: Option<IpAddr>,
    mut parts: Parts,
    headers: HeaderMap,
) -> Response {
    let mut options = handshake::Options::default();
    options.deflate = true;
    // Looked at first: nobody is asked about what cannot become a WebSocket.
    let upgrade = match Upgrade::accept(&mut parts, &options) {
        Ok(upgrade) => upgrade,
        Err(refused) => return refused.response("GET"),
    };
    if hub.0.is_closing.load(Relaxed) {
        let mut response = said(StatusCode::SERVICE_UNAVAILABLE, "The server is stopping.");
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(1));
        return response;
    }
    let deflate = upgrade.deflate();
    let [plain, deflated] = hub.0.encodings;
    let encoding = if deflate.is_some() { deflated } else { plain };
    let frames = Arc::new(Frames::new(encoding, hub.0.traits, deflate.is_some()));
    let from = From { remote, user_agent: user_agent(&parts.headers).map(str::to_owned) };
    let subscriber = hub.0.broker.attach(Arc::clone(&frames) as _, OUTBOX);
    let key = subscriber.key();
    let member = Arc::new(Member::new(subscriber, frames, from));
    hub.0.members.insert(key, Arc::clone(&member));
    let offered = offered(&parts.headers);
    drop(parts);
    let mut conversation = Box::new(Conversation::new((Arc::clone(&hub.0), rules), member, origin, headers));
    let (done, outcome) = oneshot::channel();
    // In a task of its own: what an origin has said of a client that left meanwhile still counts.
    tokio::spawn(async move {
        let opened = conversation.open().await;
        let opened = match opened {
            Ok(headers) => {
                // Before the 101: what is published once the client has that is for it, and operators see it.
                conversation.member.open();
                Ok((Admitted(Some(conversation)), headers))
            }
            Err(refusal) => {
                conversation.hub.members.remove(&key);
                conversation.member.leave(broker_core::LeaveReason::NotAllowed);
                Err((refusal, conversation.rules.route.clone()))
            }
        };
        drop(done.send(opened));
    });
    match outcome.await {
        Ok(Ok((admitted, mut headers))) => {
            strip_opening(&mut headers);
            strip_connection(&mut headers);
            let chosen = headers.remove(SEC_WEBSOCKET_PROTOCOL);
            let mut response = upgrade.then(move |socket| admitted.open(socket, deflate));
            for (name, value) in &headers {
                if !response.headers().contains_key(name) || name == "set-cookie" {
                    response.headers_mut().append(name.clone(), value.clone());
                }
            }
            if let Some(chosen) =
                chosen.filter(|chosen| offered.iter().any(|offered| chosen == offered.as_str()))
            {
                response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, chosen);
            }
            response
        }
        Ok(Err((refusal, route))) => refused(refusal, &route),
        Err(_) => said(StatusCode::BAD_GATEWAY, "The server behind this address does not answer."),
    }
}

/// Sub-protocols that the client offers.
fn offered(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|name| name.trim().to_owned()).collect()
}

fn strip_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in OF_THE_CONNECTION {
        headers.remove(name);
    }
}

fn refused(refusal: Refusal, route: &str) -> Response {
    let (status, sentence, why) = match refusal {
        Refusal::Answered(answer) => {
            let status = StatusCode::from_u16(answer.status).ok().filter(|status| status.as_u16() >= 200);
            let Some(status) = status else {
                return said(StatusCode::BAD_GATEWAY, "The server behind this address does not answer.");
            };
            let body =
                answer.body.get(..MAX_REFUSAL_BYTES).map_or(answer.body.clone(), Bytes::copy_from_slice);
            let mut response = http::Response::new(Body::full(body));
            *response.status_mut() = status;
            let content_type = answer.headers.get(CONTENT_TYPE).cloned();
            let mut headers = answer.headers;
            strip_opening(&mut headers);
            strip_connection(&mut headers);
            if let Some(content_type) = content_type {
                headers.insert(CONTENT_TYPE, content_type);
            }
            *response.headers_mut() = headers;
            return response;
        }
        Refusal::Malformed(why) => {
            (StatusCode::BAD_GATEWAY, "The server behind this address does not open WebSockets.", why)
        }
        Refusal::Failed(failed) => {
            (failed.status, "The server behind this address does not answer.", failed.why)
        }
    };
    tracing::warn!(
        target: "fanwire::gateway", route, status = status.as_u16(), error = why, "a WebSocket was not opened"
    );
    let mut response = said(status, sentence);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(1));
    }
    response
}

fn said(status: StatusCode, sentence: &str) -> Response {
    let mut response = http::Response::new(Body::full(format!("{sentence}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
