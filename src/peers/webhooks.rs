//! Webhooks: backends are told once per cluster that a channel is occupied, or vacated.

use std::sync::Arc;

use bytes::Bytes;
use cluster::{Control, Peer, Service};
use gateway::webhook::{Nodes, Occupied, Webhooks};
use tokio::sync::mpsc;

/// What webhooks tell other nodes.
const OCCUPANCY: &str = "occupancy";

/// Has webhooks agree with those of other nodes.
pub(super) fn join(control: Control, webhooks: &Webhooks) {
    let (notices, to_tell) = mpsc::unbounded_channel();
    let occupied = webhooks.join(Arc::new(Others { control: control.clone(), notices }), control.life());
    control.serve(OCCUPANCY, Arc::new(Heard(occupied)));
    tokio::spawn(tell(control, to_tell));
}

/// The other nodes, as webhooks tell them.
struct Others {
    control: Control,
    notices: mpsc::UnboundedSender<Vec<u8>>,
}

impl Nodes for Others {
    fn tell(&self, notice: Vec<u8>) {
        // The task is there as long as this is.
        _ = self.notices.send(notice);
    }

    fn lives(&self) -> Vec<u64> {
        self.control.peers().iter().map(|peer| peer.life).collect()
    }
}

/// In the order in which it is told. Ends with the webhooks.
async fn tell(control: Control, mut notices: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(notice) = notices.recv().await {
        // A channel's name is not larger than NATS takes, so that this is none that is not told.
        _ = control.tell(OCCUPANCY, &notice).await;
    }
}

struct Heard(Occupied);

impl Service for Heard {
    fn hear(&self, from: &Peer, notice: Bytes) {
        self.0.hear(from.life, &notice);
    }

    fn came(&self, _: &Peer) {
        self.0.tell_all();
    }

    fn reconnected(&self) {
        self.0.tell_all();
    }

    fn left(&self, node: &Peer) {
        self.0.left(node.life);
    }
}
