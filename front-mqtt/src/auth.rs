//! Enhanced authentication (MQTT 5.0 §4.12): the place for mechanisms that need more than one message.

use std::future::Future;
use std::pin::Pin;

use broker_core::{AuthError, Principal};

/// A mechanism clients can name in CONNECT, such as `SCRAM-SHA-256`. Give it to [`Front::with_mechanism`].
///
/// [`Front::with_mechanism`]: crate::Front::with_mechanism
pub trait Mechanism: Send + Sync + 'static {
    /// The authentication method that names it.
    fn name(&self) -> &str;

    /// Begins one exchange with the client that calls itself `client_id`.
    fn begin(&self, client_id: &str) -> Box<dyn Exchange>;
}

/// What [`Exchange::step`] answers with.
pub type Stepping<'a> = Pin<Box<dyn Future<Output = Step> + Send + 'a>>;

/// One client's way through a mechanism.
pub trait Exchange: Send {
    /// Takes what the client says; empty if it said nothing.
    fn step<'a>(&'a mut self, data: &'a [u8]) -> Stepping<'a>;
}

/// Where an exchange stands.
#[derive(Debug)]
#[non_exhaustive]
pub enum Step {
    /// The client is to answer this.
    Continue(Vec<u8>),
    /// The client is known.
    Done {
        /// Who it is.
        principal: Principal,
        /// A last word for it; may be empty.
        data: Vec<u8>,
    },
    /// The client is refused.
    Failed(AuthError),
}

/// An exchange may take this many messages from the client; no mechanism needs as many.
pub(crate) const MAX_STEPS: usize = 16;
