//! From credentials to a principal.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use super::{Principal, Rights};
use crate::answer::Answer;

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
