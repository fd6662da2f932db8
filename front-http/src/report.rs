//! What a node says of itself, and what others know of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeState {
    /// It is one with the others, and takes whatever comes.
    Ready,
    /// It is one with the others, and something of durable channels is lost, or nobody answers for it.
    Degraded,
    /// It is alone.
    #[default]
    Down,
}

/// How a stream of durable channels is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StreamState {
    /// It is there, and the one that it was.
    There,
    /// Nobody says anything of it.
    #[default]
    Silent,
    /// It is gone, or another one.
    Lost,
}

/// The streams of durable channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Streams {
    /// That of all messages.
    pub messages: StreamState,
    /// That of what is retained.
    pub retained: StreamState,
}

impl Streams {
    /// These two.
    pub fn new(messages: StreamState, retained: StreamState) -> Self {
        Self { messages, retained }
    }
}

/// What a node says of itself. Counts are totals since it started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeReport {
    /// What tells it from others of its name, and from itself before.
    pub life: u64,
    /// The version of its program.
    #[serde(default)]
    pub version: String,
    /// How it is.
    #[serde(default)]
    pub state: NodeState,
    /// Clients that are connected to it.
    #[serde(default)]
    pub connections: u64,
    /// Messages that it has given to NATS.
    #[serde(default)]
    pub sent: u64,
    /// Messages that it has taken from there.
    #[serde(default)]
    pub received: u64,
    /// How long NATS took for its newest answer, in milliseconds.
    #[serde(default)]
    pub round_trip_ms: f64,
    /// `None` where all is in memory.
    #[serde(default)]
    pub streams: Option<Streams>,
}

/// What is known of another node that may not say anything itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeardNode {
    /// What it is called.
    pub name: String,
    /// As in [`NodeReport::life`].
    pub life: u64,
    /// How long ago it was heard last.
    pub ago: Duration,
    /// Whether it is not counted any more: it has left, or was silent for too long.
    pub is_gone: bool,
}

impl HeardNode {
    /// It was heard so long ago.
    pub fn new(name: String, life: u64, ago: Duration, is_gone: bool) -> Self {
        Self { name, life, ago, is_gone }
    }
}
