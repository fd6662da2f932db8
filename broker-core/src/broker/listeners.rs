//! Who is asked about clients, who hears of them, and who answers them.

use std::sync::Arc;

use super::Broker;
use crate::clock::unix_ms;
use crate::error::PublishError;
use crate::lifecycle::Lifecycle;
use crate::message::{Publish, Receipt};
use crate::rights::{Client, Policy};
use crate::service::Service;

impl Broker {
    /// Has `policy` asked by every front before a client subscribes or publishes; what it says at their connecting is
    /// [`Governed`](crate::Governed)'s. Once, before the first client; false if there is one already, which stays. A
    /// policy that holds a handle of the broker keeps it until [`Broker::close`].
    pub fn set_policy(&self, policy: Arc<dyn Policy>) -> bool {
        self.shared().policy.set(policy).is_ok()
    }

    /// Who is to be asked before a client subscribes or publishes: a front does, after the rights.
    pub fn policy(&self) -> Option<&Arc<dyn Policy>> {
        self.shared().policy.get()
    }

    /// Tells `listener` from now on who comes, subscribes and leaves, over all fronts. For the broker's life; several
    /// may listen. One that holds a handle of the broker keeps it until [`Broker::close`].
    pub fn hear(&self, listener: Arc<dyn Lifecycle>) {
        self.shared().listeners.add(listener);
    }

    /// Has `service` answer what clients ask it from now on, by publishing where only the broker publishes. For the
    /// broker's life; of several that take a channel the first is asked. One that holds a handle of the broker keeps it
    /// until [`Broker::close`].
    pub fn offer(&self, service: Arc<dyn Service>) {
        self.shared().services.add(service);
    }

    /// Asks the service whose channel `request` is for: what a front does with a publish that a client's rights
    /// [allow as a request](crate::Rights::allows_asking).
    ///
    /// # Errors
    /// [`PublishError::Forbidden`] if no service takes it; what the service says.
    pub fn ask_service(&self, client: &Client<'_>, request: &Publish) -> Result<Receipt, PublishError> {
        let Some(service) = self.shared().services.of(request.channel()) else {
            let error = PublishError::Forbidden("only the broker publishes to this channel".into());
            self.shared().count_refused(&error);
            return Err(error);
        };
        service.ask(client, request)?;
        Ok(Receipt::new(None, unix_ms(), 1))
    }
}
