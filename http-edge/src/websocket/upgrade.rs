//! The opening handshake: a GET of HTTP/1.1 that is answered 101, or a CONNECT of HTTP/2 that is answered 200.

use http::header::{ALLOW, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use websocket::DeflateParams;
use websocket::handshake::{Accepted, Options, Refused, accept, accept_connect, is_upgrade};

use crate::connection::{Park, Takeover, Tunnel, WEBSOCKET, taken_over};
use crate::problem::Problem;
use crate::request::{Body, Response};

/// A request that becomes a WebSocket.
#[derive(Debug)]
pub struct Upgrade {
    accepted: Accepted,
    on: OnUpgrade,
    /// What its stream has of its connection, where that is one of ours and speaks HTTP/2.
    tunnel: Option<Tunnel>,
}

/// Whether a request wants to become a WebSocket; what it lacks then is [`Upgrade::accept`]'s answer.
pub fn is_opening(request: &Parts) -> bool {
    match request.method {
        Method::GET => is_upgrade(&request.headers),
        Method::CONNECT => request.extensions.get::<Protocol>().is_some(),
        _ => false,
    }
}

/// Why a request does not become a WebSocket.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoUpgrade {
    /// It is no opening handshake that can be answered.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It is a CONNECT that asks for something else (RFC 8441 §4).
    #[error("CONNECT opens WebSockets here, and nothing else")]
    OtherProtocol,
    /// Its connection cannot be taken over: its server does not do upgrades.
    #[error("this connection cannot become a WebSocket")]
    Unable,
}

impl Upgrade {
    /// Checks an opening handshake. Rights and the page's origin are not checked: the caller does that before.
    ///
    /// # Errors
    /// What [`accept`] and [`accept_connect`] refuse, and connections that cannot be taken over.
    pub fn accept(request: &mut Parts, options: &Options<'_>) -> Result<Self, NoUpgrade> {
        let accepted =
            match request.extensions.get::<Protocol>().filter(|_| request.method == Method::CONNECT) {
                None => accept(request, options)?,
                Some(protocol) if protocol.as_str() == WEBSOCKET => accept_connect(request, options)?,
                Some(_) => return Err(NoUpgrade::OtherProtocol),
            };
        let on = request.extensions.remove::<OnUpgrade>().ok_or(NoUpgrade::Unable)?;
        // Who keeps the request for a while is not to keep what hyper's connection is driven by.
        request.extensions.remove::<Takeover>();
        request.extensions.remove::<Park>();
        let tunnel = request.extensions.remove::<Tunnel>();
        Ok(Self { accepted, on, tunnel })
    }

    /// The subprotocol that is answered.
    pub fn protocol(&self) -> Option<&str> {
        self.accepted.protocol.as_deref()
    }

    /// What was negotiated about compression; for a [`WebSocket`](super::WebSocket).
    pub fn deflate(&self) -> Option<DeflateParams> {
        self.accepted.deflate
    }

    /// The 101, or the 200. Once it is written `then` gets the socket, in a task of its own; it should spawn one for the
    /// connection, as small as can be. A client that is gone before is nobody's loss: `then` is dropped.
    pub fn then(self, then: impl FnOnce(link::Socket) + Send + 'static) -> Response {
        let Self { accepted, on, tunnel } = self;
        tokio::spawn(async move {
            if let Ok(socket) = taken_over(on, tunnel).await {
                then(socket);
            }
        });
        accepted.response.map(|()| Body::empty())
    }
}

/// A connection that is handed on as it is, for whoever answers the handshake in somebody else's words: a proxy.
#[derive(Debug)]
pub struct HandOver {
    on: OnUpgrade,
    tunnel: Option<Tunnel>,
}

impl HandOver {
    /// What a request has of its connection; `None` if its server does not do upgrades. Nothing of the handshake is
    /// looked at.
    pub fn take(request: &mut Parts) -> Option<Self> {
        let on = request.extensions.remove::<OnUpgrade>()?;
        request.extensions.remove::<Takeover>();
        request.extensions.remove::<Park>();
        Some(Self { on, tunnel: request.extensions.remove::<Tunnel>() })
    }

    /// Once a 101, or over HTTP/2 a 200, is written, `then` gets the socket, in a task of its own. A client that is gone
    /// before is nobody's loss: `then` is dropped.
    pub fn then(self, then: impl FnOnce(link::Socket) + Send + 'static) {
        let Self { on, tunnel } = self;
        tokio::spawn(async move {
            if let Ok(socket) = taken_over(on, tunnel).await {
                then(socket);
            }
        });
    }
}

impl NoUpgrade {
    /// The answer. `methods` are those that the path takes, e.g. `GET, HEAD, OPTIONS`, for a 405.
    pub fn response(&self, methods: &'static str) -> Response {
        let refused = match self {
            Self::Refused(refused) => refused,
            Self::OtherProtocol => return Problem::protocol_not_supported(None).response(),
            Self::Unable => {
                let detail = self.to_string();
                return Problem::new(StatusCode::NOT_IMPLEMENTED, "no_upgrade", detail).response();
            }
        };
        let code = match refused.status {
            StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
            StatusCode::UPGRADE_REQUIRED => "upgrade_required",
            _ => "invalid_handshake",
        };
        let mut response = Problem::new(refused.status, code, refused.reason).response();
        let headers = response.headers_mut();
        headers.extend(refused.response().into_parts().0.headers);
        if refused.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        response
    }
}
