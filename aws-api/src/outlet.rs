//! Messages of the broker's own, on their way to the channels where they are published, in the order in which they are
//! given.

use broker_core::{Broker, Notes, Publish, PublishError, Refused};
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// Messages that may wait while the broker is busy.
const MAX_WAITING: usize = 10_000;

/// Publishes what it is given, by one task.
pub(crate) struct Outlet {
    sender: mpsc::Sender<Publish>,
    /// Until somebody publishes what comes.
    idle: Mutex<Option<(Broker, Notes, mpsc::Receiver<Publish>)>>,
}

impl Outlet {
    /// What is published is known from `notes` after a crash: each message waits until what was noted before it is safe.
    pub(crate) fn new(broker: Broker, notes: Notes) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        Self { sender, idle: Mutex::new(Some((broker, notes, receiver))) }
    }

    /// Whether so many more may wait.
    pub(crate) fn has_room_for(&self, messages: usize) -> bool {
        self.sender.capacity() >= messages
    }

    /// False if too many wait: then it is not published.
    pub(crate) fn send(&self, publish: Publish) -> bool {
        self.start();
        self.sender.try_send(publish).is_ok()
    }

    /// The task begins with the first message, so that a front can be made anywhere. It ends with the outlet.
    fn start(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if let Some((broker, notes, receiver)) = self.idle.lock().take() {
            runtime.spawn(publish_all(broker, notes, receiver));
        }
    }
}

async fn publish_all(broker: Broker, notes: Notes, mut messages: mpsc::Receiver<Publish>) {
    while let Some(message) = messages.recv().await {
        // Where the store takes nothing what is known in memory is still told.
        _ = notes.settled().await;
        let mut next = Some(message);
        while let Some(message) = next.take() {
            // What is answered later is with whoever keeps the channel, in this order.
            if let Ok(Err(Refused {
                error: PublishError::Busy { retry_after }, publish: Some(again), ..
            })) = broker.submit(message).if_now()
            {
                tokio::time::sleep(retry_after).await;
                next = Some(*again);
            }
        }
    }
}
