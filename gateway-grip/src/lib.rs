//! Routes to origins, and publishing by GRIP: requests and WebSockets are passed through, items are messages.
//!
//! ```text
//! request ─▶ table: host, path, method ─▶ pass ─▶ upstream: turn, origin, breaker ─▶ origin
//!                                           │  ◀── head and body, as they come ◀──────┘
//!                                           └─ handshake ─▶ tunnel ─▶ splice: bytes both ways
//! activity: what is under way ─▶ /v1/routes, metrics, who scales origins
//! POST /grip/publish/ ─▶ keys ─▶ publishing ─▶ desk: order, ids ─▶ broker
//! ```
//!
//! What decides knows no clock and no socket: [`pattern`], the table, what is forwarded. It leaves to others: sockets
//! (the server), HTTP to origins (`outgoing`), notifications that are retried (`gateway`).

mod activity;
mod answer;
mod api;
mod backend;
pub mod config;
mod cors;
mod desk;
mod elsewhere;
mod forward;
mod front;
mod hold;
pub mod import;
pub mod keys;
mod pass;
pub mod pattern;
mod publishing;
mod route;
mod routes;
mod secret;
mod served;
#[cfg(feature = "settings")]
pub mod settings;
mod splice;
mod table;
mod tunnel;
mod upstream;

pub use api::Api;
pub use config::Settings;
pub use elsewhere::Nodes;
pub use front::{Config, Front};
pub use gateway::resource::Door;
pub use routes::Routes;
