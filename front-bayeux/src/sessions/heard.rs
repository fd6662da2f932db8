//! The embedding service's listener hears of sessions by what the core tells of all clients.

use std::any::Any;
use std::sync::{Arc, Weak};

use broker_core::{Account, Connection, Interest, Left, Lifecycle, SubscriberKey};

use super::Sessions;
use super::member::Member;
use crate::hooks::listener::Listener;

/// Tells the listener of those clients that are sessions of this front.
pub(super) struct Heard(pub(super) Weak<Sessions>);

impl Heard {
    fn tell(&self, connection: &dyn Connection, what: impl FnOnce(&dyn Listener, &Member)) {
        let connection: &dyn Any = connection;
        let Some(member) = connection.downcast_ref::<Member>() else { return };
        let Some(sessions) = self.0.upgrade().filter(|_| member.is_of(&self.0)) else { return };
        sessions.tell(|listener| what(listener, member));
    }

    fn tell_of(&self, client: SubscriberKey, what: impl FnOnce(&dyn Listener, &Member)) {
        let connection = self.0.upgrade().and_then(|sessions| sessions.broker.connection(client));
        if let Some(connection) = connection {
            self.tell(&*connection, what);
        }
    }
}

impl Lifecycle for Heard {
    fn joined(&self, _: SubscriberKey, connection: &Arc<dyn Connection>) {
        self.tell(&**connection, |listener, member| listener.opened(&member.id, &member.principal));
    }

    fn subscribed(&self, client: SubscriberKey, subscription: Interest<'_>) {
        self.tell_of(client, |listener, member| listener.subscribed(&member.id, subscription.filter));
    }

    fn unsubscribed(&self, client: SubscriberKey, subscription: Interest<'_>) {
        self.tell_of(client, |listener, member| listener.unsubscribed(&member.id, subscription.filter));
    }

    fn left(&self, client: SubscriberKey, how: Left, _: &Account<'_>) {
        if !how.stays {
            self.tell_of(client, |listener, member| listener.closed(&member.id, how.why));
        }
    }
}
