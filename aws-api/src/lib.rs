//! What clients of AWS ask over HTTP, answered by a broker.
//!
//! Code that was written for AWS IoT's data plane, with boto3 or an AWS SDK, is pointed at a broker by its `endpoint_url`
//! and nothing else: it signs its requests, publishes, reads retained messages, looks at connections and sends to one
//! client alone. What it publishes is the broker's publish, whatever its readers speak.
//!
//! ```text
//!            ┌ sigv4     who has signed it ─▶ AccessKey ─▶ Principal
//! request ───┤
//!            └ iot       /topics · /retainedMessage · /connections · /things ─▶ Broker
//! MQTT ─────── things    $aws/things/…/shadow/…, asked and answered
//! Lifecycle ── presence  who is there, who was, and $aws/events/…   ─▶ Broker
//! ```
//!
//! It leaves to others: sockets (the server), what is published and who receives it (`broker-core`), what a publish goes
//! through (`intake`).

mod config;
mod error;
mod front;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod iot;
mod outlet;
mod presence;
mod served;
pub mod sigv4;
mod stats;
mod things;

pub use config::{Config, Key, Secret, Signatures};
pub use error::AwsError;
pub use front::Front;
pub use stats::Stats;
