//! From credentials to a principal.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::{Principal, Rights};
use crate::answer::Answer;
use crate::filter::Filter;
use crate::key::SubscriberKey;

/// What a peer offered to show who it is. A front fills in what its protocol has.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Credentials<'a> {
    /// User name (MQTT CONNECT, HTTP Basic).
    pub user: Option<&'a str>,
    /// Its password; bytes, because MQTT passwords are. A key or a signed token may stand here too.
    pub password: Option<&'a [u8]>,
    /// A bearer token or API key.
    pub token: Option<&'a str>,
    /// MQTT client identifier.
    pub client_id: Option<&'a str>,
    /// Whom the client's TLS certificate names, verified in the handshake. It counts where nothing else is offered.
    pub certificate: Option<&'a str>,
    /// Where the connection comes from.
    pub remote: Option<SocketAddr>,
    /// The web page's `Origin`, if a page of another origin than the server's asks. That some origin list has it was
    /// checked; whether these credentials may be used there was not.
    pub cross_origin: Option<&'a str>,
    /// `mqtt`, `bayeux`, `sse` or `http`.
    pub protocol: &'static str,
    /// The request by which the client came, where there was one.
    pub request: Option<RequestHead<'a>>,
    /// What carries it: `tcp`, `websocket`, `long-polling`, `http/1.1`, …; empty if the front does not say.
    pub transport: &'static str,
    /// What the client says beside: JSON text of the Bayeux handshake's `ext`.
    pub ext: Option<&'a str>,
    /// What it wants to be subscribed to at once (SSE).
    pub filters: &'a [Filter],
    /// Its name in the core, if it has one already. An MQTT client that comes back to its session gets the session's.
    pub key: Option<SubscriberKey>,
}

impl<'a> Credentials<'a> {
    /// The head of the request by which the client came, as its front has it: over HTTP, WebSockets included, that is
    /// `http::request::Parts`, with its headers and what a middleware has put into its extensions. `None` for a
    /// connection that no request began (MQTT over TCP), and for a type that the front does not have.
    ///
    /// Nobody keeps the head for a connection that lasts: it is there for as long as it takes to let the client in. The
    /// pages that may ask were checked before, but what a browser sends by itself, cookies above all, it also sends for
    /// pages of other sites: see [`cross_origin`](Self::cross_origin).
    pub fn request<T: Any>(&self) -> Option<&'a T> {
        self.request.and_then(RequestHead::downcast)
    }
}

/// The head of a request, of a type that only its front and the embedding service know.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    head: &'a (dyn Any + Send + Sync),
    asked: Option<&'a AtomicBool>,
}

impl<'a> RequestHead<'a> {
    /// This head.
    pub fn new(head: &'a (dyn Any + Send + Sync)) -> Self {
        Self { head, asked: None }
    }

    /// The same; `asked` becomes true once somebody looks at it. So a front learns whether it matters.
    #[must_use]
    pub fn noting(self, asked: &'a AtomicBool) -> Self {
        Self { asked: Some(asked), ..self }
    }

    fn downcast<T: Any>(self) -> Option<&'a T> {
        if let Some(asked) = self.asked {
            asked.store(true, Relaxed);
        }
        self.head.downcast_ref()
    }
}

impl fmt::Debug for RequestHead<'_> {
    /// Nothing of it: there may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead").finish_non_exhaustive()
    }
}

/// Why nobody could be made of the credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// Credentials are needed and there were none.
    #[error("credentials are required")]
    Required,
    /// The credentials are wrong, and how. Nothing of the credentials themselves stands here.
    #[error("invalid credentials: {0}")]
    Invalid(String),
    /// The credentials may not be used by this web page.
    #[error("pages of origin {0} may not use these credentials")]
    Origin(String),
    /// Whoever has the last word refuses the client, whatever its credentials. The text is for the client.
    #[error("{0}")]
    Denied(String),
    /// Whoever has the last word does not answer.
    #[error("whoever decides does not answer, try again in {} ms", retry_after.as_millis())]
    Undecided {
        /// When to try again.
        retry_after: Duration,
    },
    /// They could not be checked now.
    #[error("credentials cannot be checked: {0}")]
    Unavailable(String),
    /// Too many checks at a time, or too many attempts.
    #[error("too many attempts to authenticate")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
}

/// What an [`Authenticator`] answers with, at once or later.
pub type Authenticated<'a> = Answer<'a, Result<Principal, AuthError>>;

/// Turns credentials into a [`Principal`]; asked once per connection, session or request.
pub trait Authenticator: Send + Sync + 'static {
    /// Who is this?
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Authenticated<'a>;

    /// Whether it would still give this principal for the same credentials; asked for every connection after the
    /// configuration changed. Those for whom it is false are closed.
    fn still_holds(&self, principal: &Principal) -> bool {
        let _ = principal;
        true
    }

    /// What the credentials of `principal` would make now, their expiry aside; `None` if they are worth nothing any
    /// more. Asked before something is done in the name of a client that cannot be asked for its credentials again: its
    /// will.
    ///
    /// As provided: the same, or nothing, as [`still_holds`](Authenticator::still_holds) says.
    fn renewed(&self, principal: &Principal) -> Option<Principal> {
        self.still_holds(principal).then(|| principal.clone())
    }
}

/// Gives everybody all rights: what a broker on loopback without configuration does.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

impl Authenticator for AllowAll {
    fn authenticate<'a>(&'a self, _: Credentials<'a>) -> Authenticated<'a> {
        static EVERYBODY: LazyLock<Principal> = LazyLock::new(|| Principal::anonymous(Rights::all()));
        Authenticated::now(Ok(EVERYBODY.clone()))
    }
}

/// Gives everybody the same rights, asking nothing.
#[derive(Debug, Clone)]
pub struct Anonymous(pub Principal);

impl Authenticator for Anonymous {
    fn authenticate<'a>(&'a self, _: Credentials<'a>) -> Authenticated<'a> {
        Authenticated::now(Ok(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_by_its_type_and_notes_who_looks() {
        let (head, asked) = ("GET /".to_owned(), AtomicBool::new(false));
        let mut credentials = Credentials::default();
        assert_eq!(credentials.request::<String>(), None);
        credentials.request = Some(RequestHead::new(&head).noting(&asked));
        assert!(!format!("{credentials:?}").contains("GET"));
        assert!(!asked.load(Relaxed), "to show it is not to look at it");
        assert_eq!(credentials.request::<u32>(), None);
        assert!(asked.load(Relaxed));
        assert_eq!(credentials.request::<String>().map(String::as_str), Some("GET /"));
    }
}
