//! Who may do what: the place where an embedding service decides.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use broker_core::{Action, AuthError, Authenticator, Channel, Credentials, Filter, Principal};

use crate::error::{Denial, HandshakeDenial};

/// What a policy's handshake gives.
pub type Handshaken<'a> = Pin<Box<dyn Future<Output = Result<Principal, HandshakeDenial>> + Send + 'a>>;

/// Decides at handshake, subscribe and publish. [`ByRights`] is the default; it asks the
/// authenticator and the principal's rights.
///
/// The three synchronous questions are asked often and must be cheap.
pub trait Policy: Send + Sync + 'static {
    /// Whether a client becomes a session, and as whom. `ext` is the JSON text of the handshake's
    /// `ext`, if it had one.
    fn can_handshake<'a>(&'a self, credentials: Credentials<'a>, ext: Option<&'a str>) -> Handshaken<'a>;

    /// Whether [`can_create`](Self::can_create) is to be asked at all. False spares each publish a look
    /// whether its channel exists.
    fn guards_creation(&self) -> bool {
        true
    }

    /// Whether a channel that does not exist yet may come to be, by a subscription or a publish.
    ///
    /// # Errors
    /// The denial's reason is told to the client.
    fn can_create(&self, principal: &Principal, channel: &Channel) -> Result<(), Denial> {
        let _ = (principal, channel);
        Ok(())
    }

    /// Whether a subscription to `filter` is granted.
    ///
    /// # Errors
    /// The denial's reason is told to the client.
    fn can_subscribe(&self, principal: &Principal, filter: &Filter) -> Result<(), Denial> {
        if principal.allows_filter(Action::Subscribe, filter) { Ok(()) } else { Err(Denial::Policy) }
    }

    /// Whether a message to `channel` is taken.
    ///
    /// # Errors
    /// The denial's reason is told to the client.
    fn can_publish(&self, principal: &Principal, channel: &Channel) -> Result<(), Denial> {
        if principal.allows(Action::Publish, channel) { Ok(()) } else { Err(Denial::Policy) }
    }
}

/// The policy that leaves every decision to the broker's rights.
pub struct ByRights(pub Arc<dyn Authenticator>);

impl Policy for ByRights {
    fn guards_creation(&self) -> bool {
        false
    }

    fn can_handshake<'a>(&'a self, mut credentials: Credentials<'a>, ext: Option<&'a str>) -> Handshaken<'a> {
        credentials.ext = ext;
        Box::pin(async move {
            self.0.authenticate(credentials).await.map_err(|error| match error {
                AuthError::Unavailable(_) | AuthError::Busy { .. } => HandshakeDenial::Unavailable,
                AuthError::Undecided { .. } => HandshakeDenial::Undecided,
                AuthError::Denied(why) => HandshakeDenial::Denied(why),
                _ => HandshakeDenial::Refused,
            })
        })
    }
}
