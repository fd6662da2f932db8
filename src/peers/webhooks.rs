//! Webhooks: backends are told once per cluster that a channel is occupied, or vacated.

use std::sync::Arc;

use bytes::Bytes;
use cluster::{Control, Peer, Service};
use gateway::webhook::{Nodes, Occupied, Webhooks};

use super::notices::{Notices, notices};

/// What webhooks tell other nodes.
const OCCUPANCY: &str = "occupancy";

/// Has webhooks agree with those of other nodes.
pub(super) fn join(control: Control, webhooks: &Webhooks) {
    let (notices, teller) = notices();
    let occupied = webhooks.join(Arc::new(Others { control: control.clone(), notices }), control.life());
    let heard = Arc::new(Heard(occupied));
    control.serve(OCCUPANCY, heard.clone());
    tokio::spawn(teller.run(control, OCCUPANCY, move || heard.0.tell_all()));
}

/// The other nodes, as webhooks tell them.
struct Others {
    control: Control,
    notices: Notices,
}

impl Nodes for Others {
    fn tell(&self, notice: Vec<u8>) {
        self.notices.tell(notice);
    }

    fn lives(&self) -> Vec<u64> {
        self.control.peers().iter().map(|peer| peer.life).collect()
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
