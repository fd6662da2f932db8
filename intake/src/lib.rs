//! Publishing from outside: what every request that publishes goes through, whatever its wire form.
//!
//! ```text
//! JSON ─▶ Item ──────┐ for each channel
//! JSON ─▶ CloudEvent ┼▶ Publication ─▶ Gate::publish ─▶ Published, or Error
//! a front's own form ┘                 right · expiry · rate · Broker::publish or publish_once
//! ```
//!
//! A publication is a message as somebody describes it; the [`Gate`] asks whether that [`Publisher`] may, and publishes
//! it, once for each idempotency key. An [`Item`] is one for several channels, each of which is answered by itself:
//! what is wrong with one harms no other. Names ([`channel`], [`target`], [`filter`]) and options ([`ttl`], [`event`],
//! [`idempotency_key`]) are the same for all.
//!
//! It leaves to others: HTTP, from headers to statuses, so that there is no `http` and no hyper in its tree; who
//! somebody is; how an answer or an [`Error`] is written; how a front writes its connections (`exclude` is given a
//! parser for that). It knows JSON where the form of an item or an event is JSON.
//!
//! (The `Intake` of crate `link` is another thing: it counts the bytes of requests that are not whole yet.)
//!
//! ```
//! use std::sync::Arc;
//! use broker_core::{AllowAll, Broker, Config, Principal, Rights};
//! use intake::{Gate, Item, Outcome, Publisher, Reading, Turn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), intake::Error> {
//! let gate = Gate::new(Broker::new(Config::default()), Arc::new(AllowAll));
//! let publisher = Publisher::new(Principal::anonymous(Rights::all()), "test");
//! let body = bytes::Bytes::from_static(br#"{"channels":["a","b"],"data":{"n":1}}"#);
//! let item = Item::read(&body, &body, Reading::new(100, |_| None))?;
//! let Outcome::Several(results) = gate.publish_item(&publisher, &item, &mut Turn::new()).await? else { unreachable!() };
//! assert!(results.iter().all(Result::is_ok));
//! assert_eq!(gate.stats().published, 2);
//! # Ok(()) }
//! ```

mod cloud_event;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod item;
mod name;
mod option;
mod payload;
mod publication;
mod text;
mod turn;

pub use cloud_event::CloudEvent;
pub use error::Error;
pub use gate::{Gate, Outcome, Stats};
pub use item::{Channels, Item, Reading, key_at, parse_array};
pub use name::{channel, filter, target};
pub use option::{event, idempotency_key, ttl};
pub use payload::{BASE64, own};
pub use publication::{Publication, Published, Publisher};
pub use text::Text;
pub use turn::Turn;
