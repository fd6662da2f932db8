//! Keeps what was acknowledged, on this machine's disk: an [`Engine`](broker_core::Engine) for the broker, without any
//! other service to run.
//!
//! ```text
//! Broker::submit ─▶ queue ─▶ committer (a thread: it waits for the disk) ─▶ one batch, one fsync ─▶ release, answers
//!                             │ takes all that waits: what comes meanwhile is the next batch
//! reads behind the memory ─▶ threads of the runtime, a page at a time
//! ```
//!
//! What is acknowledged under [`Durability::Always`] is on the disk. Each message is delivered after its commit, so
//! nobody has seen what a crash forgets. Messages lie in *buckets* by time, which are dropped whole: that is how ages,
//! sizes and counts are kept to.
//!
//! # Example
//! ```no_run
//! use std::sync::Arc;
//!
//! use broker_core::{Broker, Channel, Config, Publish};
//! use store::{Store, Settings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Arc::new(Store::open(Settings::new("/var/lib/fanwire"))?);
//! let broker = Broker::with_engine(Config::default(), Arc::clone(&store) as _);
//! let receipt = broker.publish_wait(Publish::new(Channel::parse("orders")?, "17")).await?;
//! assert!(receipt.id.is_some(), "it is on the disk");
//! broker.drained().await;
//! store.close();
//! # Ok(()) }
//! ```

mod ahead;
mod backup;
mod block;
mod bucket;
mod check;
mod committer;
mod copying;
mod disk;
mod door;
mod error;
mod gather;
mod index;
mod journal;
mod keys;
mod lock;
mod order;
mod queue;
mod read;
mod schema;
mod sessions;
mod settings;
mod shared;
mod store;
mod walk;

pub use backup::backup;
pub use check::{Report, check};
pub use error::{BackupError, OpenError};
pub use settings::{Durability, DurabilityError, Namespace, Retention, Settings};
pub use shared::State;
pub use store::{Kept, Stats, Store};
