//! Why a command failed, in one line and an exit code that a script can act on.

use std::io;
use std::time::Duration;

use http::StatusCode;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The arguments contradict what can be said over HTTP.
    #[error("{0}")]
    Arguments(String),
    /// Nobody answers there.
    #[error("cannot reach {url}: {why}")]
    Unreachable { url: String, why: String },
    /// The server answered with an error status.
    #[error("{} {code}: {detail}", status.as_u16())]
    Refused { status: StatusCode, code: String, detail: String, retry_after: Option<Duration> },
    /// What answers there is no Fanwire, or speaks another language.
    #[error("{url} does not answer as Fanwire does: {why}")]
    Foreign { url: String, why: String },
    /// Some were refused, and said so when they were; the others were done.
    #[error("{0}")]
    NotAll(&'static str),
    /// Standard input or output failed.
    #[error("{0}")]
    Local(#[from] io::Error),
}

impl Failure {
    /// 1 refused, 2 wrong arguments (as the argument parser has it), 3 not reachable, 4 who are you, 5 you may not,
    /// 6 come back later.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Local(_) | Failure::Foreign { .. } | Failure::NotAll(_) => 1,
            Failure::Arguments(_) => 2,
            Failure::Unreachable { .. } => 3,
            Failure::Refused { status, .. } => match *status {
                StatusCode::UNAUTHORIZED => 4,
                StatusCode::FORBIDDEN => 5,
                status if is_passing(status) => 6,
                _ => 1,
            },
        }
    }
}

/// Whether the same request may succeed later.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}
