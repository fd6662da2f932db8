//! Why a request has no answer.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;

/// Why a request has no answer, or an answer no body.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request's URL cannot be called.
    #[error("`{url}` is no address: {why}")]
    Address {
        /// The URL, without credentials.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Nobody knows the name.
    #[error("no address is known for {host}: {why}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver says.
        why: String,
    },
    /// The [`AddressPolicy`](crate::AddressPolicy) refuses all addresses of the host.
    #[error("{host} is at {address}, which may not be connected to")]
    Forbidden {
        /// The host of the URL.
        host: String,
        /// The first of its addresses.
        address: IpAddr,
    },
    /// No connection to any address came about; the error is that of the last one.
    #[error("{0}")]
    Connect(io::Error),
    /// The proxy that the environment names does not take us there.
    #[error("the proxy {proxy} does not connect: {why}")]
    Proxy {
        /// Its URL, without credentials.
        proxy: String,
        /// What it said, or why it could not be asked.
        why: String,
    },
    /// The TLS handshake failed.
    #[error("{why}")]
    Tls {
        /// What kind of problem it is.
        problem: TlsProblem,
        /// In a sentence.
        why: String,
    },
    /// A phase took longer than it may.
    #[error("{} within {}", phase.unfinished(), humantime::format_duration(*limit))]
    Timeout {
        /// The phase.
        phase: Phase,
        /// How long it may take.
        limit: Duration,
    },
    /// What came back is not HTTP.
    #[error("the answer is not HTTP ({0})")]
    NotHttp(String),
    /// The connection ended before the answer did. The server may have got the request.
    #[error("{0}")]
    Broken(String),
    /// The answer's body is larger than it may be.
    #[error("the answer is larger than {max_bytes} bytes")]
    TooLarge {
        /// Most bytes that were wanted.
        max_bytes: usize,
    },
    /// The answer has another status than was wanted.
    #[error("status {0}")]
    Status(StatusCode),
}

/// A part of a request's way that has a time of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Phase {
    /// Waiting for others to the same host.
    Turn,
    /// From a name to addresses.
    Resolve,
    /// TCP, and a proxy's part.
    Connect,
    /// The TLS handshake.
    Tls,
    /// From the request to the head of the answer.
    Answer,
    /// All of it, with the body.
    Whole,
}

impl Phase {
    fn unfinished(self) -> &'static str {
        match self {
            Phase::Turn => "too many requests to it are under way: none ended",
            Phase::Resolve => "its name was not resolved",
            Phase::Connect => "it does not answer",
            Phase::Tls => "the TLS handshake did not end",
            Phase::Answer => "no answer came",
            Phase::Whole => "the answer did not end",
        }
    }
}

/// What is wrong between here and a server's TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TlsProblem {
    /// No TLS is spoken there.
    Plain,
    /// Nobody who is trusted vouches for the certificate.
    UnknownAuthority,
    /// The certificate is another one's, out of its time, or not one of a server.
    Certificate,
    /// Both speak TLS and do not agree.
    Handshake,
}

impl Error {
    pub(crate) fn of_hyper(error: &hyper::Error) -> Self {
        let mut why = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            why = format!("{why}: {inner}");
            cause = inner.source();
        }
        if error.is_parse() { Error::NotHttp(why) } else { Error::Broken(why) }
    }

    pub(crate) fn timeout(phase: Phase, limit: Duration) -> Self {
        Error::Timeout { phase, limit }
    }
}
