//! Who answers what clients publish to channels of the broker's own.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::channel::Channel;
use crate::error::PublishError;
use crate::message::Publish;
use crate::rights::Client;

/// Answers what clients ask by publishing where only the broker publishes ([`Channel::is_the_brokers_own`]): the request
/// is handed over and published nowhere, so its answers cannot be forged. Given to
/// [`Broker::offer`](crate::Broker::offer).
pub trait Service: Send + Sync + 'static {
    /// Whether a message on this channel asks it something.
    fn takes(&self, channel: &Channel) -> bool;

    /// A client asks, whose [rights](crate::Rights::allows_asking) allow it. Called by the thread that handles the
    /// client, so it must not block; what it answers it publishes.
    ///
    /// # Errors
    /// The request was not taken; the client is told.
    fn ask(&self, client: &Client<'_>, request: &Publish) -> Result<(), PublishError>;
}

/// Those that were offered. None, usually.
#[derive(Default)]
pub(crate) struct Services(RwLock<Arc<[Arc<dyn Service>]>>);

impl Services {
    pub(crate) fn add(&self, service: Arc<dyn Service>) {
        let mut list = self.0.write();
        *list = list.iter().cloned().chain([service]).collect();
    }

    pub(crate) fn of(&self, channel: &Channel) -> Option<Arc<dyn Service>> {
        self.0.read().iter().find(|service| service.takes(channel)).cloned()
    }
}
