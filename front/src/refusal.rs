//! Why a server refuses a client before any front has looked at it.

use std::time::Duration;

use http_edge::Problem;

/// When a client for which there was no room may come back. Nobody knows better.
const NO_ROOM_RETRY: Duration = Duration::from_secs(5);

/// Why a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// There are as many connections as may be.
    ServerFull,
    /// Its address has as many connections as it may have.
    AddressFull,
    /// Its address has sent as many requests as it may for now.
    TooFast,
    /// It asks for a server of another name.
    OtherHost,
}

/// A refusal, and how it is said over HTTP where the protocol has no words of its own for it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The same for HTTP: status, code, a sentence, and when to come back.
    pub problem: Problem,
}

impl Refusal {
    /// There are as many connections as may be: 503, 5 s.
    pub fn server_full() -> Self {
        Self { reason: Reason::ServerFull, problem: Problem::no_room(NO_ROOM_RETRY) }
    }

    /// Its address has as many connections as it may have: 429, 5 s.
    pub fn address_full() -> Self {
        Self { reason: Reason::AddressFull, problem: Problem::too_many_connections(NO_ROOM_RETRY) }
    }

    /// Its address may send the next request only after `wait`: 429.
    pub fn too_fast(wait: Duration) -> Self {
        Self { reason: Reason::TooFast, problem: Problem::too_many_requests(wait) }
    }

    /// It asks for a server of this other name: 421.
    pub fn other_host(name: &str) -> Self {
        Self { reason: Reason::OtherHost, problem: Problem::host_not_allowed(name) }
    }

    /// When to come back, if that would help.
    pub fn retry_after(&self) -> Option<Duration> {
        self.problem.retry_after
    }
}
