//! What every [`Engine`] beneath the broker must do, as tests that take a place to open one in.
//!
//! ```ignore
//! conformance::suite!(|| MyGround::new());
//! ```
//!
//! Two engines are here to run it on: [`Paced`], which keeps everything in memory and answers later, and [`Chaos`], which
//! does the same at random paces, refuses, repeats, and loses answers after it has done what it was asked for.

mod chaos;
mod paced;
pub mod suite;

use std::sync::Arc;

use broker_core::Engine;

pub use chaos::Chaos;
pub use paced::{Paced, PacedGround};

/// Where engines are opened, one life after another on the same ground.
pub trait Ground: Send + Sync + 'static {
    /// Opens the engine of the next life. The one before has been ended.
    fn open(&self) -> Arc<dyn Engine>;

    /// Ends a life: all that was acknowledged is there in the next one.
    fn end(&self, engine: Arc<dyn Engine>);

    /// Ends a life as a crash does: all that was acknowledged is there in the next one, and what nobody waited for need
    /// not be. Default: as any other end.
    fn crash(&self, engine: Arc<dyn Engine>) {
        self.end(engine);
    }

    /// Whether it may refuse, or say that it does not know, although nothing is wrong.
    fn is_unreliable(&self) -> bool {
        false
    }
}

/// A namespace that no engine of this suite keeps: grounds see to it.
pub const MEMORY: &str = "memory";

/// Makes a test of each case. `$make` is a function without arguments that gives a fresh [`Ground`]. With `messages:` before
/// it only of those that are no business of sessions and notes, and it gives a ground or `None`, where nothing is tried; with
/// `sessions:` of those of sessions that need no life to know at its start which ones are over, with `work:` of those of groups
/// that several processes are members of.
#[macro_export]
macro_rules! suite {
    (messages: $make:expr) => {
        $crate::suite!(@cases $make;
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
        );
    };
    (sessions: $make:expr) => {
        $crate::suite!(@cases $make;
            a_session_belongs_to_its_last_claim
            whoever_only_looks_takes_nothing
            a_session_outlives_a_life
            a_session_is_recorded_in_the_order_of_its_owner
            a_number_is_known_to_the_next_claim_until_it_is_freed
            whoever_lost_its_session_publishes_nothing_under_a_number
        );
    };
    (work: $make:expr) => {
        $crate::suite!(@cases $make;
            a_groups_message_is_given_until_it_is_finished
            a_groups_place_outlives_a_life
        );
    };
    ($make:expr) => {
        $crate::suite!(messages: || Some(($make)()));
        $crate::suite!(sessions: || Some(($make)()));
        $crate::suite!(@cases || Some(($make)());
            a_session_ends_in_its_time
            a_will_outlives_a_life_and_its_session
            notes_outlive_a_crash
        );
    };
    (@cases $make:expr; $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(ground) = ($make)() else { return };
                let ground: ::std::sync::Arc<dyn $crate::Ground> = ::std::sync::Arc::new(ground);
                $crate::suite::$case(ground).await;
            }
        )*
    };
}
