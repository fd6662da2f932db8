//! Events of clients' lives, and where they are published.

use std::sync::Arc;

use broker_core::{Broker, Channel, Notes, Publish};
use serde_json::{Map, Value};

use crate::outlet::Outlet;
use crate::stats::Counters;

/// Publishes events in the order in which they are told.
pub(crate) struct Events {
    counters: Arc<Counters>,
    outlet: Outlet,
}

impl Events {
    pub(crate) fn new(broker: Broker, counters: Arc<Counters>) -> Self {
        Self { counters, outlet: Outlet::new(broker, Notes::default()) }
    }

    /// Tells of `client` on `$aws/events/KIND/CLIENT`. One whose name MQTT has no topic for is not told of.
    pub(crate) fn tell(&self, kind: &str, client: &str, event: Map<String, Value>) {
        if client.contains(['+', '#']) {
            return;
        }
        let Ok(channel) = Channel::parse(&format!("$aws/events/{kind}/{client}")) else { return };
        let publish = Publish::new(channel, Value::Object(event).to_string()).json();
        let counter =
            if self.outlet.send(publish) { &self.counters.events } else { &self.counters.events_lost };
        counter.add();
    }
}
