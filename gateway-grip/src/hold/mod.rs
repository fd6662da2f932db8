//! Clients of HTTP that are held as an origin's answer says.
//!
//! ```text
//! answer ─▶ told ─▶ position ─┬─ respond   waits for the first message
//!                             └─ stream    what the origin sends, then what is published
//! publish ─▶ broker ─▶ inbox (lane) ─▶ the socket, or the client's task where there are filters
//! ```

mod channels;
mod form;
mod held;
mod holds;
mod inbox;
mod position;
mod respond;
mod stream;
mod told;

use std::net::IpAddr;
use std::sync::Arc;

use broker_core::Position;
use grip::instruct::Hold;
use http::request::Parts;
use http::{HeaderValue, Method};
use http_edge::{Body, Response, user_agent};

use self::held::From;
use self::told::{Initial, Told};
use crate::activity::Place;
use crate::answer::{Refusal, passing};
use crate::backend::Backend;
use crate::route::RouteState;

pub(crate) use holds::Holds;
pub(crate) use told::instructs;

/// A request whose answer instructs.
pub(crate) struct Asking<'a> {
    pub(crate) state: &'a Arc<RouteState>,
    pub(crate) holds: &'a Holds,
    pub(crate) place: Place,
    pub(crate) parts: &'a Parts,
    /// As its origin saw it.
    pub(crate) path: String,
    pub(crate) id: &'a HeaderValue,
    pub(crate) remote: Option<IpAddr>,
    /// Where the logs stood before its origin was asked.
    pub(crate) since: Position,
    /// The id of the last item of a channel, if one is known.
    pub(crate) last_of: &'a (dyn Fn(&str) -> Option<String> + Sync),
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
    /// The client, for as long as it is held.
    fn client(self) -> (&'a Holds, From) {
        let from = From {
            remote: self.remote,
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
    let told = told::read(&asking.state.route, answer).await.map_err(Refusal::Hold)?;
    match told.instruction.hold {
        // There is nothing to wait for.
        Some(_) if asking.parts.method == Method::HEAD => Ok(now(asking.place, told)),
        Some(Hold::Response) => Ok(respond::hold(asking, told).await?),
        Some(Hold::Stream) => Ok(stream::hold(asking, told).await?),
        None if told.instruction.next.is_some() => {
            Err(Refusal::Hold("an answer that goes on at a next link, without a hold".to_owned()))
        }
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
    response
}
