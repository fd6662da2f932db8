//! How a source is.

use broker_core::unix_ms;

/// What a source is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// It is being reached.
    Connecting,
    /// It answers.
    Open,
    /// It failed, and is tried again.
    Backoff,
    /// It is left alone until somebody resumes it.
    Failed,
    /// Somebody wanted it to rest, or it said itself that there is nothing more.
    Paused,
}

impl Phase {
    /// `connecting`, `open`, `backoff`, `failed`, `paused`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Open => "open",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
            Self::Paused => "paused",
        }
    }

    /// Every one, in the order of their names' numbers in metrics.
    pub const ALL: [Self; 5] = [Self::Connecting, Self::Open, Self::Backoff, Self::Failed, Self::Paused];
}

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// Nobody answers there, or the connection ended.
    ConnectionFailed,
    /// It took too long.
    Timeout,
    /// The TLS handshake failed.
    TlsError,
    /// Its address may not be connected to.
    Policy,
    /// A message or an answer is larger than it may be.
    TooLarge,
    /// The answer has a status that carries no messages.
    BadStatus,
    /// What came is not what was asked for.
    Protocol,
}

impl Condition {
    /// `connection-failed`, `timeout`, `tls-error`, `policy`, `too-large`, `bad-status`, `protocol`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConnectionFailed => "connection-failed",
            Self::Timeout => "timeout",
            Self::TlsError => "tls-error",
            Self::Policy => "policy",
            Self::TooLarge => "too-large",
            Self::BadStatus => "bad-status",
            Self::Protocol => "protocol",
        }
    }
}

/// How a source is, to be shown.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct State {
    /// What it is at.
    pub phase: Phase,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// Tries since it was last open.
    pub attempts: u32,
    /// The last id of an event stream.
    pub last_id: Option<String>,
    /// Messages that were published.
    pub received: u64,
    /// Messages that were none of ours: without a channel, or refused by the broker.
    pub dropped: u64,
    /// What went wrong last.
    pub error: Option<(Condition, String)>,
}

impl State {
    pub(crate) fn new(phase: Phase) -> Self {
        Self { phase, since_ms: unix_ms(), attempts: 0, last_id: None, received: 0, dropped: 0, error: None }
    }

    /// Whether that is news.
    pub(crate) fn enter(&mut self, phase: Phase) -> bool {
        let is_news = self.phase != phase;
        if is_news {
            (self.phase, self.since_ms) = (phase, unix_ms());
        }
        is_news
    }
}
