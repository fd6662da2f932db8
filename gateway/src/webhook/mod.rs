//! Webhooks: a backend decides about clients and hears of them, whatever they speak.
//!
//! What is said is in two places without a clock or a socket: [`event`] makes requests' bodies, [`answer`] reads what
//! comes back. A [`Hook`] is one backend; [`Webhooks`] are all of them, as the broker's policy and listener.
//!
//! ```text
//! front ─ may it? ──▶ Webhooks ──▶ the first Hook with that event ──▶ Caller      the client waits
//! broker ─ it did ──▶ Webhooks ──▶ all Hooks with that event ───────▶ Courier     nobody waits
//! ```

pub mod answer;
mod api;
mod asked;
mod elsewhere;
pub mod event;
mod hook;
mod listening;
mod messages;
mod nodes;
mod occupancy;
mod settings;
mod visit;
mod webhooks;

pub use self::api::Api;
pub use self::hook::{Counted, Hook};
pub use self::nodes::{Nodes, Occupied};
pub use self::settings::{OnFailure, Settings, Written, Wrong};
pub use self::webhooks::{Gateway, PutError, Webhooks};
pub use crate::dead::{DeadLetter, DeadLetters};
