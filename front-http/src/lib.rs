//! The HTTP API: everything that a backend or an operator asks of the broker over HTTP.
//!
//! A backend that lives for milliseconds publishes with one request and holds no connection; a message has its place in
//! the log and its jobs in the lanes when the answer is sent.
//!
//! ```text
//! request ─▶ route ─┬─ publish/   raw body · object or array · NDJSON ─▶ intake ─▶ Broker
//!                   ├─ events     CloudEvents, on the same path
//!                   ├─ history    long poll on an in-process subscription
//!                   ├─ retained · channels · connections · presence
//!                   ├─ figures    once a second, for who watches
//!                   └─ health · metrics · openapi
//! ```
//!
//! ```
//! use std::sync::Arc;
//! use broker_core::{AllowAll, Broker};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let broker = Broker::new(broker_core::Config::default());
//! let front = front_http::Front::new(broker, Arc::new(AllowAll), front_http::Config::default());
//! let request = http::Request::post("/v1/publish/chat/room1").body(http_edge::Body::full("hello")).unwrap();
//! assert_eq!(front.handle(request).await.status(), 200);
//! # }
//! ```
//!
//! Payloads are bytes. A raw publish is never looked into; of a JSON publish the exact text of `data` is kept.

mod answer;
mod asked;
mod channels;
mod cluster;
mod config;
mod connections;
mod error;
mod events;
mod exposition;
mod figures;
mod front;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod history;
mod json;
mod metrics;
mod name;
mod nodes;
mod openapi;
mod presence;
mod publish;
mod query;
mod report;
mod retained;
mod revocations;
mod route;
mod served;
#[cfg(feature = "settings")]
mod settings;
mod shown;
mod stats;

pub use ::front::{Metric, MetricSource, Value};
pub use config::{Config, METRICS_CHANNEL, MetricsAccess};
pub use front::Front;
pub use nodes::{Answered, Nodes};
pub use report::{HeardNode, NodeReport, NodeState, StreamState, Streams};
#[cfg(feature = "settings")]
pub use settings::Api as Settings;
pub use stats::Stats;
