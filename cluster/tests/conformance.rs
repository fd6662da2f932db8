//! What every engine must do, over streams of NATS: but for notes, of which it has none, and for what is over when a life
//! begins, which a node knows of others once it has not heard of them for a while (`sessions.rs`).

#[allow(unreachable_pub, dead_code, reason = "of the tests alone")]
mod support;

use std::sync::Arc;

use broker_core::Engine;
use cluster::Cluster;
use conformance::Ground;
use tokio::runtime::Handle;

use self::support::{Nats, keeping};

/// Lives of a node on one server, whose streams stay.
struct OnNats(Nats);

impl Ground for OnNats {
    fn open(&self) -> Arc<dyn Engine> {
        let joined =
            tokio::task::block_in_place(|| Handle::current().block_on(Cluster::join(keeping(&self.0, "n1"))));
        Arc::new(joined.expect("it joins"))
    }

    /// The broker has it too, and is closed: its tasks end with the last of both.
    fn end(&self, engine: Arc<dyn Engine>) {
        drop(engine);
    }
}

/// Nothing is tried where there is no server.
fn on_nats() -> Option<OnNats> {
    Nats::keeping().map(OnNats)
}

conformance::suite!(messages: on_nats);
conformance::suite!(sessions: on_nats);
conformance::suite!(work: on_nats);
