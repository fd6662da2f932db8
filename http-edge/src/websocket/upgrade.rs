//! The opening handshake.

use http::StatusCode;
use http::header::{ALLOW, HeaderValue};
use http::request::Parts;
use hyper::upgrade::OnUpgrade;
use websocket::DeflateParams;
use websocket::handshake::{Accepted, Options, Refused, accept};

use crate::connection::{Park, Takeover, upgraded};
use crate::problem::Problem;
use crate::request::{Body, Response};

/// A request that becomes a WebSocket.
#[derive(Debug)]
pub struct Upgrade {
    accepted: Accepted,
    on: OnUpgrade,
}

/// Why a request does not become a WebSocket.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoUpgrade {
    /// It is no opening handshake that can be answered.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Its connection cannot be taken over: it speaks HTTP/2, or its server does not do upgrades.
    #[error("this connection cannot become a WebSocket")]
    Unable,
}

impl Upgrade {
    /// Checks an opening handshake. Rights and the page's origin are not checked: the caller does that before.
    ///
    /// # Errors
    /// What [`accept`] refuses, and connections that cannot be taken over.
    pub fn accept(request: &mut Parts, options: &Options<'_>) -> Result<Self, NoUpgrade> {
        let accepted = accept(request, options)?;
        let on = request.extensions.remove::<OnUpgrade>().ok_or(NoUpgrade::Unable)?;
        // Who keeps the request for a while is not to keep what hyper's connection is driven by.
        request.extensions.remove::<Takeover>();
        request.extensions.remove::<Park>();
        Ok(Self { accepted, on })
    }

    /// The subprotocol that is answered.
    pub fn protocol(&self) -> Option<&str> {
        self.accepted.protocol.as_deref()
    }

    /// What was negotiated about compression; for a [`WebSocket`](super::WebSocket).
    pub fn deflate(&self) -> Option<DeflateParams> {
        self.accepted.deflate
    }

    /// The 101. Once it is written `then` gets the socket, in a task of its own; it should spawn one for the
    /// connection, as small as can be. A client that is gone before is nobody's loss: `then` is dropped.
    pub fn then(self, then: impl FnOnce(link::Socket) + Send + 'static) -> Response {
        let Self { accepted, on } = self;
        tokio::spawn(async move {
            if let Ok(socket) = upgraded(on).await {
                then(socket);
            }
        });
        accepted.response.map(|()| Body::empty())
    }
}

impl NoUpgrade {
    /// The answer. `methods` are those that the path takes, e.g. `GET, HEAD, OPTIONS`, for a 405.
    pub fn response(&self, methods: &'static str) -> Response {
        let Self::Refused(refused) = self else {
            return Problem::new(StatusCode::NOT_IMPLEMENTED, "no_upgrade", self.to_string()).response();
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
