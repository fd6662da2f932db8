//! What is published: items, each of which says in several formats what clients of several kinds get.
//!
//! ```
//! use grip::publish::{self, HttpStream};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let body = br#"{"items":[{"channel":"a","id":"2","prev-id":"1","formats":{"http-stream":{"content":"hi\n"}}}]}"#;
//! let items = publish::parse(body)?;
//! let item = &items[0].item;
//! assert!(matches!(&item.stream, Some(HttpStream::Send { content, .. }) if *content == "hi\n"));
//! assert_eq!(item.elsewhere().expect("others get it too").payload, "hi\n");
//! # Ok(()) }
//! ```

mod elsewhere;
mod parse;
mod patch;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

pub use elsewhere::{Elsewhere, Event};
pub use parse::{Listed, PublishError, escaped, item, parse};
pub use patch::{Patch, PatchError};

use crate::meta::Meta;

/// Most items of one request.
pub const MAX_ITEMS: usize = 10_000;
/// The property of a message in which a gateway finds the item that it is, as its text ([`item`]).
pub const ITEM_PROPERTY: &str = "grip";
/// The property of a message that has the id of its item, by which a log is searched.
pub const ID_PROPERTY: &str = "grip_id";

/// A message for the clients of one channel.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Item {
    /// Where.
    pub channel: String,
    /// What the publisher calls it.
    pub id: Option<String>,
    /// What it comes after.
    pub prev_id: Option<String>,
    /// What clients get that wait for an answer.
    pub response: Option<HttpResponse>,
    /// What clients get that read a stream.
    pub stream: Option<HttpStream>,
    /// What clients get that have a WebSocket.
    pub message: Option<WsMessage>,
    /// What filters know of it.
    pub meta: Meta,
    /// It waits for nothing before it, and nothing waits for it.
    pub no_seq: bool,
    /// How large the publisher says that it is.
    pub size: Option<u64>,
    /// Whether others than the clients of a gateway get it; `None`: as is configured.
    pub bridge: Option<bool>,
    /// What those get, if the publisher says it.
    pub shown: Option<Elsewhere>,
}

/// What becomes of an answer that is held.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpResponse {
    /// This is it.
    Send(Answer),
    /// There is something new: the origin is to be asked again.
    Hint,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// Its status. Default 200.
    pub status: StatusCode,
    /// The words for it, if the publisher has its own.
    pub reason: Option<String>,
    /// Headers; those of the held answer with other names stay.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Body,
    /// Which filters its content is meant for; `None`: whatever they are.
    pub filters: Option<Vec<String>>,
}

/// The body of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// What changes in the body of the held answer.
    Patch(Patch),
}

/// What becomes of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpStream {
    /// It goes on with this.
    Send {
        /// What is sent.
        content: Bytes,
        /// Which filters it is meant for; `None`: whatever they are.
        filters: Option<Vec<String>>,
    },
    /// There is something new: its next link is to be asked.
    Hint,
    /// It ends.
    Close,
}

/// What becomes of a WebSocket.
#[derive(Clone, Debug, PartialEq)]
pub enum WsMessage {
    /// It gets this.
    Send {
        /// As what.
        kind: WsKind,
        /// What is sent.
        content: Bytes,
        /// Which filters it is meant for; `None`: whatever they are.
        filters: Option<Vec<String>>,
    },
    /// It is closed.
    Close {
        /// The code that the client is told; `None`: none.
        code: Option<u16>,
        /// The reason.
        reason: String,
    },
    /// Its origin is asked whether there is something new.
    Refresh,
}

/// What is sent over a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WsKind {
    /// A message of text.
    Text,
    /// A message of bytes.
    Binary,
    /// A ping.
    Ping,
    /// A pong that nobody asked for.
    Pong,
}

impl Answer {
    /// Puts its headers over those of the held answer: each name is replaced whole, and what has other names stays.
    pub fn head(&self, held: &mut HeaderMap) {
        for (name, _) in &self.headers {
            held.remove(name);
        }
        for (name, value) in &self.headers {
            held.append(name.clone(), value.clone());
        }
    }
}

impl WsKind {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "binary" => Some(Self::Binary),
            "ping" => Some(Self::Ping),
            "pong" => Some(Self::Pong),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_an_item_replace_by_name_and_the_others_stay() {
        let body = r#"{"items":[{"channel":"a","http-response":{"body":"",
            "headers":[["Set-Cookie","a"],["Set-Cookie","b"],["X","1"]]}}]}"#;
        let item = parse(body.as_bytes()).unwrap().remove(0).item;
        let Some(HttpResponse::Send(answer)) = item.response else { panic!("{:?}", item.response) };
        let mut held = HeaderMap::new();
        for (name, value) in [("x", "0"), ("x", "9"), ("y", "2"), ("set-cookie", "c")] {
            held.append(name, HeaderValue::from_static(value));
        }
        answer.head(&mut held);
        let all = |name: &str| held.get_all(name).iter().cloned().collect::<Vec<_>>();
        assert_eq!(all("set-cookie"), ["a", "b"]);
        assert_eq!(all("x"), ["1"]);
        assert_eq!(all("y"), ["2"]);
    }
}
