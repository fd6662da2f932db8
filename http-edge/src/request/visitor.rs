//! Who is behind a connection that outlives its request.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use broker_core::{Credentials, Encryption, RequestHead};
use http::request::Parts;
use http::{HeaderMap, header};

use super::credentials::{HttpCredentials, credentials_from};
use super::peer::Encrypted;
use super::tokens::TokenSources;

/// How much of a client's name for itself is kept, in bytes.
const MAX_USER_AGENT_BYTES: usize = 128;

/// What a request said of the client, owned, for a connection that goes on without the request: a WebSocket, whose
/// client may show its credentials in the request or in its first message. A client that shows none costs no allocation
/// for them.
#[derive(Default)]
pub struct Visitor {
    remote: Option<SocketAddr>,
    encryption: Option<Encryption>,
    user_agent: Option<Box<str>>,
    shown: Option<Box<Shown>>,
    /// The request, until the client is let in.
    request: Option<Box<Parts>>,
    /// Whether anybody has looked at it.
    asked: AtomicBool,
}

/// What it shows to be let in.
#[derive(Clone, Default)]
struct Shown {
    user: Option<Box<str>>,
    password: Option<Box<[u8]>>,
    token: Option<Box<str>>,
    more_tokens: Vec<Box<str>>,
    cross_origin: Option<Box<str>>,
    certificate: Option<Box<str>>,
}

impl Visitor {
    /// Somebody at this address who has said nothing yet: a connection without a request.
    pub fn at(remote: Option<SocketAddr>) -> Self {
        Self { remote, ..Self::default() }
    }

    /// The same, with a certificate that the handshake of TLS has verified, if there was one.
    #[must_use]
    pub fn certified(mut self, certificate: Option<&str>) -> Self {
        if let Some(name) = certificate {
            self.shown.get_or_insert_default().certificate = Some(name.into());
        }
        self
    }

    /// The same, on a connection that is encrypted so.
    #[must_use]
    pub fn encrypted(mut self, encryption: Option<Encryption>) -> Self {
        self.encryption = encryption;
        self
    }

    /// Of a request; tokens are looked for where `sources` allow it.
    pub fn of(parts: &Parts, sources: &TokenSources) -> Self {
        let found = credentials_from(parts, sources);
        Self {
            remote: found.remote,
            encryption: Encrypted::of(&parts.extensions),
            user_agent: user_agent(&parts.headers).map(Box::from),
            shown: Shown::of(&found),
            ..Self::default()
        }
    }

    /// The same, with the request itself, for an embedding service that looks for something else in it. It is large, so
    /// it is to be [forgotten](Self::forget_request) once the client is let in.
    #[must_use]
    pub fn with_request(mut self, parts: Parts) -> Self {
        self.request = Some(Box::new(parts));
        self
    }

    /// Lets go of the request.
    pub fn forget_request(&mut self) {
        self.request = None;
    }

    /// Whether somebody has looked at the request that is forgotten now: who this is can be said by the same means on a
    /// new connection only.
    pub fn lacks_request(&self) -> bool {
        self.request.is_none() && self.asked.load(Relaxed)
    }

    /// Where it comes from.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// How its connection is encrypted, if it is and the server knows.
    pub fn encryption(&self) -> Option<Encryption> {
        self.encryption
    }

    /// Its name for itself, shortened to 128 bytes; `None` if it gave none that is text.
    pub fn user_agent(&self) -> Option<&str> {
        self.user_agent.as_deref()
    }

    /// What it shows, in the form that an `Authenticator` takes. `protocol` names the front, e.g. `mqtt`.
    pub fn credentials(&self, protocol: &'static str) -> Credentials<'_> {
        let mut credentials = Credentials::default();
        credentials.remote = self.remote;
        credentials.protocol = protocol;
        let head = self.request.as_deref().map(|parts| RequestHead::new(parts).noting(&self.asked));
        credentials.request = head;
        if let Some(shown) = &self.shown {
            credentials.user = shown.user.as_deref();
            credentials.password = shown.password.as_deref();
            credentials.token = shown.token.as_deref();
            credentials.cross_origin = shown.cross_origin.as_deref();
            credentials.certificate = shown.certificate.as_deref();
        }
        credentials
    }

    /// The tokens of more cookies of the same name, to be tried after the one of [`credentials`](Self::credentials).
    pub fn more_tokens(&self) -> &[Box<str>] {
        self.shown.as_ref().map_or(&[], |shown| &shown.more_tokens)
    }
}

impl Shown {
    /// `None` if there is nothing to keep.
    fn of(found: &HttpCredentials<'_>) -> Option<Box<Self>> {
        let HttpCredentials { user, password, token, more_tokens, cross_origin, certificate, .. } = found;
        let any = user.is_some() || password.is_some() || token.is_some();
        let any = any || cross_origin.is_some() || certificate.is_some();
        any.then(|| {
            Box::new(Self {
                user: user.as_deref().map(Box::from),
                password: password.as_deref().map(Box::from),
                token: token.as_deref().map(Box::from),
                more_tokens: more_tokens.iter().map(|token| Box::from(&**token)).collect(),
                cross_origin: cross_origin.map(Box::from),
                certificate: certificate.map(Box::from),
            })
        })
    }
}

impl std::fmt::Debug for Visitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visitor")
            .field("remote", &self.remote)
            .field("user_agent", &self.user_agent)
            .field("shown", &self.shown)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown")
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("cross_origin", &self.cross_origin)
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// The client's name for itself, shortened; nothing if it is not text.
pub fn user_agent(headers: &HeaderMap) -> Option<&str> {
    let name = headers.get(header::USER_AGENT)?.to_str().ok()?;
    name.get(..name.floor_char_boundary(MAX_USER_AGENT_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Peer, TokenPlaces};

    fn visitor(headers: &[(&str, &str)]) -> Visitor {
        let mut request = http::Request::get("/mqtt").extension(Peer(([192, 0, 2, 1], 7).into()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Visitor::of(&parts, &TokenSources::from(TokenPlaces::default()))
    }

    #[test]
    fn what_a_request_shows_outlives_it() {
        let plain = visitor(&[("user-agent", &"x".repeat(200))]);
        assert!(plain.shown.is_none());
        assert_eq!(plain.user_agent().map(str::len), Some(128));
        assert_eq!(plain.credentials("mqtt").remote, Some(([192, 0, 2, 1], 7).into()));
        let ann = visitor(&[("authorization", "Basic YW5uOnNlY3JldA=="), ("origin", "https://else.example")]);
        let shown = ann.credentials("mqtt");
        assert_eq!((shown.user, shown.password), (Some("ann"), Some(&b"secret"[..])));
        assert_eq!(shown.cross_origin, Some("https://else.example"));
        assert_eq!(shown.protocol, "mqtt");
        let bearer = visitor(&[("authorization", "Bearer abc")]);
        assert_eq!(bearer.credentials("bayeux").token, Some("abc"));
        assert!(ann.credentials("mqtt").request::<Parts>().is_none(), "kept only where it is asked for");
        assert!(!format!("{ann:?}{bearer:?}").contains("secret") && !format!("{bearer:?}").contains("abc"));
    }
    #[test]
    fn a_request_is_missed_only_by_who_has_looked_at_it() {
        for looks in [true, false] {
            let (parts, ()) = http::Request::get("/mqtt").header("x-own", "1").body(()).unwrap().into_parts();
            let mut visitor = Visitor::at(None).with_request(parts);
            let own = |visitor: &Visitor| {
                let parts = visitor.credentials("mqtt").request::<Parts>()?;
                Some(parts.headers["x-own"].as_bytes().to_owned())
            };
            assert!(!looks || own(&visitor).is_some());
            assert!(!visitor.lacks_request());
            visitor.forget_request();
            assert_eq!(visitor.lacks_request(), looks);
            assert_eq!(own(&visitor), None);
            assert!(!format!("{visitor:?}").contains("x-own"));
        }
    }
}
