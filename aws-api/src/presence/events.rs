//! Events of clients' lives, on their way to the channels where they are published.

use std::sync::Arc;

use broker_core::{Broker, Channel, Publish, PublishError, Refused};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::stats::Counters;

/// Events that may wait while the broker is busy.
const MAX_WAITING: usize = 10_000;

/// Publishes events in the order in which they are told.
pub(crate) struct Events {
    counters: Arc<Counters>,
    sender: mpsc::Sender<Publish>,
    /// Until somebody publishes what comes.
    idle: Mutex<Option<(Broker, mpsc::Receiver<Publish>)>>,
}

impl Events {
    pub(crate) fn new(broker: Broker, counters: Arc<Counters>) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        Self { counters, sender, idle: Mutex::new(Some((broker, receiver))) }
    }

    /// Tells of `client` on `$aws/events/KIND/CLIENT`. One whose name MQTT has no topic for is not told of.
    pub(crate) fn tell(&self, kind: &str, client: &str, event: Map<String, Value>) {
        if client.contains(['+', '#']) {
            return;
        }
        let Ok(channel) = Channel::parse(&format!("$aws/events/{kind}/{client}")) else { return };
        self.start();
        let publish = Publish::new(channel, Value::Object(event).to_string()).json();
        match self.sender.try_send(publish) {
            Ok(()) => self.counters.events.add(),
            Err(_) => self.counters.events_lost.add(),
        }
    }

    /// The task begins with the first event, so that a front can be made anywhere. It ends with the front.
    fn start(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if let Some((broker, receiver)) = self.idle.lock().take() {
            runtime.spawn(publish_all(broker, receiver));
        }
    }
}

async fn publish_all(broker: Broker, mut events: mpsc::Receiver<Publish>) {
    while let Some(event) = events.recv().await {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            // What is answered later is with whoever keeps the channel, in this order.
            if let Ok(Err(Refused {
                error: PublishError::Busy { retry_after }, publish: Some(again), ..
            })) = broker.submit(event).if_now()
            {
                tokio::time::sleep(retry_after).await;
                next = Some(*again);
            }
        }
    }
}
