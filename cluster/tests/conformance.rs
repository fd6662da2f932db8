//! What every engine must do, over a stream of NATS: but for what it has of sessions and notes, which is nothing yet.

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
macro_rules! suite {
    ($($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(nats) = Nats::keeping() else { return };
                conformance::suite::$case(Arc::new(OnNats(nats))).await;
            }
        )*
    };
}

suite! {
    order_is_kept_and_nothing_comes_twice
    what_is_acknowledged_was_delivered
    what_nobody_waits_for_keeps_the_order_of_its_channel
    a_position_loses_nothing
    a_crash_forgets_only_what_nobody_waited_for
    the_past_is_read_from_both_ends
    a_replay_goes_on_into_the_present
    lives_follow_each_other
    retained_messages_outlive_a_life
    a_key_is_used_once
    a_key_outlives_a_life
    what_is_in_memory_is_none_of_its_business
    a_barrier_waits_for_all_before_it
    expired_messages_do_not_come_back
}
