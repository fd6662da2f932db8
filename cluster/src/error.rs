//! Why a node does not belong to a cluster.

use std::io;
use std::path::PathBuf;

/// Why a node could not be made part of a cluster. That no server answers is no such reason: then it is alone until one
/// does.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// No server is named.
    #[error("no NATS server is named")]
    NoServer,
    /// What stands there is no address of a server.
    #[error("{0:?} is no address of a NATS server, such as \"nats://127.0.0.1:4222\"")]
    Server(String),
    /// The prefix is not one token.
    #[error("{0:?} cannot begin subjects of NATS: letters, digits, `_` and `-`, 64 at most")]
    Prefix(String),
    /// The credentials are not to be had.
    #[error("cannot read the credentials in {}: {source}", path.display())]
    Credentials {
        /// Where they should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The servers do not know this node.
    #[error("the NATS server does not let this node in: {0}")]
    Refused(String),
    /// TLS is not set up well.
    #[error("no TLS with the NATS server: {0}")]
    Tls(String),
    /// The server is too old.
    #[error(
        "the NATS server is version {found}, {} or newer is needed (`allow_unsafe` lets this one)",
        version(*needed)
    )]
    TooOld {
        /// Its version.
        found: String,
        /// The oldest one that is known to work.
        needed: (i64, i64, i64),
    },
}

fn version((major, minor, patch): (i64, i64, i64)) -> String {
    format!("{major}.{minor}.{patch}")
}
