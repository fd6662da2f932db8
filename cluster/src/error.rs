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
    /// The server is too old for durable channels, or one of those that it is to keep them with.
    #[error(
        "the NATS server is version {found}, durable channels need {} or newer: upgrade it, or have no namespace that is \
         kept",
        version(*needed)
    )]
    TooOldToKeep {
        /// Its version.
        found: String,
        /// The oldest one that keeps what it acknowledges.
        needed: (i64, i64, i64),
    },
    /// There are not as many servers as copies are wanted.
    #[error(
        "durable channels are to be on {wanted} NATS servers and would be on {found}: set up more servers with JetStream, \
         or say so with `replicas`, or let it be with `allow_unsafe`"
    )]
    TooFewReplicas {
        /// How many copies there would be.
        found: usize,
        /// How many are wanted.
        wanted: usize,
    },
    /// The streams of durable channels are not to be had.
    #[error("durable channels need JetStream (`nats-server -js`), and it does not give their streams: {0}")]
    NoStream(String),
    /// A stream of that name is somebody else's.
    #[error("the stream {0} of JetStream is not one of durable channels: choose another `prefix`")]
    OtherStream(String),
}

fn version((major, minor, patch): (i64, i64, i64)) -> String {
    format!("{major}.{minor}.{patch}")
}
