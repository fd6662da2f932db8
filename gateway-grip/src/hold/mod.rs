//! Clients of HTTP that are held as an origin's answer says.
//!
//! ```text
//! answer ─▶ told ─▶ position ─┬─ respond   waits for the first message
//!                             └─ stream    what the origin sends, then what is published
//! publish ─▶ broker ─▶ inbox (lane) ─▶ the socket, or the client's task where there are filters
//! ```

mod channels;
mod follow;
mod form;
mod held;
mod holds;
mod inbox;
mod links;
mod position;
mod respond;
mod stream;
mod told;

use std::sync::Arc;

use broker_core::Position;
use grip::instruct::{Hold, Instruction, NextLink};
use grip::link::FEATURES;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, header};
use http_edge::{Body, Encrypted, Response, user_agent};
use hyper::ext::ReasonPhrase;
use websocket_over_http::owned;

use self::held::{From, Linking};
use self::links::resolve;
use self::told::{Initial, Told};
use crate::activity::Place;
use crate::answer::{Refusal, passing};
use crate::backend::Backend;
use crate::forward;
use crate::route::RouteState;

pub(crate) use holds::Holds;
pub(crate) use told::instructs;

/// What is of a request's own body and answer, and not of requests to links.
const NOT_OF_LINKS: [HeaderName; 9] = [
    header::ACCEPT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_RANGE,
    header::RANGE,
];

/// A request whose answer instructs.
pub(crate) struct Asking<'a> {
    pub(crate) state: &'a Arc<RouteState>,
    pub(crate) holds: &'a Holds,
    pub(crate) place: Place,
    pub(crate) parts: &'a Parts,
    /// As its origin saw it.
    pub(crate) path: String,
    pub(crate) id: &'a HeaderValue,
    /// Who asks, as its origin was told.
    pub(crate) told: &'a forward::Told<'a>,
    /// Where the logs stood before its origin was asked.
    pub(crate) since: Position,
}

/// Why a client is not held.
#[derive(Debug)]
pub(crate) enum Problem {
    /// What its origin says cannot be done.
    Malformed(String),
    /// Not now.
    Later(String),
}

impl std::convert::From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Malformed(why) => Self::Hold(why),
            Problem::Later(why) => Self::Later(why),
        }
    }
}

impl<'a> Asking<'a> {
    /// What is needed of the request for the links of a stream, if it has any.
    fn linking(&self, told: &Instruction) -> Result<Option<Box<Linking>>, Problem> {
        if told.next.is_none() && told.gone.is_none() {
            return Ok(None);
        }
        let route = &self.state.route;
        let mut hosts: Vec<String> =
            route.origins.iter().map(|origin| origin.authority().to_owned()).collect();
        let host = self.parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let authority = self.parts.uri.authority().map(http::uri::Authority::as_str);
        hosts.extend(host.or(authority).map(str::to_owned));
        hosts.extend(route.link_hosts.iter().cloned());
        let resolve = |link: &str| resolve(&self.path, link, &hosts).map_err(Problem::Malformed);
        if let Some(next) = &told.next {
            resolve(&next.uri)?;
        }
        let gone = told.gone.as_deref().map(resolve).transpose()?;
        Ok(Some(self.again(hosts, told.next.clone(), gone)))
    }

    /// What is needed to ask again in the client's name.
    fn again(&self, hosts: Vec<String>, next: Option<NextLink>, gone: Option<String>) -> Box<Linking> {
        let route = &self.state.route;
        let mut headers = forward::request(self.parts, route, self.told).unwrap_or_default();
        for name in NOT_OF_LINKS {
            headers.remove(name);
        }
        headers.insert("grip-feature", HeaderValue::from_static(FEATURES));
        Box::new(Linking::new(owned(&headers), hosts, (self.path.clone(), next), gone))
    }

    /// The client, for as long as it is held.
    fn client(self) -> (&'a Holds, From) {
        let from = From {
            remote: self.told.remote,
            encryption: Encrypted::of(&self.parts.extensions),
            user_agent: user_agent(&self.parts.headers).map(Box::from),
            version: self.parts.version,
            backend: Backend::new(Arc::clone(self.state), self.path, self.place),
        };
        (self.holds, from)
    }
}

/// Does what an answer instructs.
///
/// # Errors
/// Why the client gets nothing of it.
pub(crate) async fn follow(
    asking: Asking<'_>,
    answer: http::Response<outgoing::Body>,
) -> Result<Response, Refusal> {
    let told = told::read(&asking.state.route, &asking.parts.headers, answer).await.map_err(Refusal::Hold)?;
    match told.instruction.hold {
        // There is nothing to wait for.
        Some(_) if asking.parts.method == Method::HEAD => Ok(now(asking.place, told)),
        Some(Hold::Response) => Ok(respond::hold(asking, told).await?),
        Some(Hold::Stream) => Ok(stream::hold(asking, told).await?),
        None if asking.parts.method == Method::HEAD => Ok(now(asking.place, told)),
        // It goes on at once, as a stream that has no channels yet.
        None if told.instruction.next.is_some() => Ok(stream::hold(asking, told).await?),
        None => Ok(now(asking.place, told)),
    }
}

/// The answer as it is, without what was for this server.
fn now(place: Place, told: Told) -> Response {
    let body = match told.body {
        Initial::Whole(bytes) => Body::full(bytes),
        Initial::Streamed(body) => passing(place, body),
    };
    let mut response = http::Response::new(body);
    (*response.status_mut(), *response.headers_mut()) = (told.status, told.headers);
    say(&mut response, told.instruction.reason.as_deref());
    response
}

/// The words behind a status, where they are an origin's own.
fn say<B>(response: &mut http::Response<B>, reason: Option<&str>) {
    if let Some(reason) = reason.and_then(|reason| ReasonPhrase::try_from(reason.to_owned()).ok()) {
        response.extensions_mut().insert(reason);
    }
}
