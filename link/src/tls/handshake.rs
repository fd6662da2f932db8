//! The handshake, in a task of its own, its arithmetic beside the threads that serve.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use broker_core::{Durations, Encryption, Histogram};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::session::{Session, add_alerts, encode, invalid};
use super::{MAX_RECORD, TlsStream};
use crate::NetStream;

/// The longest hello and, where clients have certificates, the longest chain of them.
const MAX_INCOMING: usize = (64 << 10) + MAX_RECORD;

/// Read at once.
const READ: usize = 4 << 10;

/// What a handshake left.
#[derive(Debug)]
#[non_exhaustive]
pub struct Handshake {
    /// The connection, to be read and written as a plain one.
    pub stream: NetStream,
    /// The protocol that the client chose of those that it was offered, `h2` say.
    pub protocol: Option<Vec<u8>>,
    /// What was agreed on.
    pub encryption: Option<Encryption>,
    /// The client's own certificate, if it has shown one: verified.
    pub client: Option<CertificateDer<'static>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// As many are under way as may be.
    #[error("too many handshakes at a time")]
    Busy,
    /// It took too long.
    #[error("the handshake took too long")]
    Slow,
    /// The client is gone, or was before it had said anything.
    #[error("the client left")]
    Gone,
    /// The client cannot be served, or is none of TLS.
    #[error("{0}")]
    Failed(#[source] io::Error),
}

/// How many handshakes there may be, and what they may take of the machine. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Handshakes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: Duration,
    max: usize,
    under_way: AtomicUsize,
    /// Threads that may calculate at a time.
    arithmetic: Arc<Semaphore>,
    failed: AtomicU64,
    left: AtomicU64,
    slow: AtomicU64,
    refused: AtomicU64,
    /// Of those that led to a connection.
    times: Histogram,
}

/// Counters, a gauge and times of [`Handshakes`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct HandshakeStats {
    /// Under way now.
    pub under_way: usize,
    /// Led to a connection.
    pub done: u64,
    /// Ended by a mistake or without agreement.
    pub failed: u64,
    /// Given up by the client.
    pub left: u64,
    /// Given up after their time.
    pub slow: u64,
    /// Not begun, as there were too many.
    pub refused: u64,
    /// How long those took that led to a connection.
    pub times: Durations,
}

impl Handshakes {
    /// Up to `max` at a time, each within `limit`, their arithmetic on up to `threads` threads beside those that serve.
    pub fn new(max: usize, limit: Duration, threads: usize) -> Self {
        let zero = || AtomicU64::new(0);
        Self(Arc::new(Shared {
            limit,
            max,
            under_way: AtomicUsize::new(0),
            arithmetic: Arc::new(Semaphore::new(threads.max(1))),
            failed: zero(),
            left: zero(),
            slow: zero(),
            refused: zero(),
            times: Histogram::default(),
        }))
    }

    /// As it is now.
    pub fn stats(&self) -> HandshakeStats {
        let Shared { under_way, failed, left, slow, refused, times, .. } = &*self.0;
        let times = times.durations();
        HandshakeStats {
            under_way: under_way.load(Relaxed),
            done: times.count(),
            failed: failed.load(Relaxed),
            left: left.load(Relaxed),
            slow: slow.load(Relaxed),
            refused: refused.load(Relaxed),
            times,
        }
    }

    /// A place, as long as there is one.
    fn begin(&self) -> Option<UnderWay> {
        let place = UnderWay(Arc::clone(&self.0));
        let before = self.0.under_way.fetch_add(1, Relaxed);
        (before < self.0.max).then_some(place)
    }
}

struct UnderWay(Arc<Shared>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// Shakes hands with a client that has just come. What it says of itself is in the answer.
///
/// # Errors
/// There is no room, no time, or no agreement: the client is told the last by an alert.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn handshake(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    all: &Handshakes,
) -> Result<Handshake, HandshakeError> {
    let shared = Arc::clone(&all.0);
    let Some(_place) = all.begin() else {
        shared.refused.fetch_add(1, Relaxed);
        return Err(HandshakeError::Busy);
    };
    let began = Instant::now();
    let outcome = match timeout(shared.limit, shake(tcp, config, &shared.arithmetic)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(HandshakeError::Slow),
    };
    let counter = match &outcome {
        Ok(_) => {
            shared.times.observe(began.elapsed());
            return outcome;
        }
        Err(HandshakeError::Slow) => &shared.slow,
        Err(HandshakeError::Gone) => &shared.left,
        Err(HandshakeError::Failed(_) | HandshakeError::Busy) => &shared.failed,
    };
    counter.fetch_add(1, Relaxed);
    outcome
}

/// One side of a handshake, moved to where it calculates.
pub(super) struct Side {
    tls: UnbufferedServerConnection,
    pub(super) incoming: Vec<u8>,
    pub(super) outgoing: Vec<u8>,
    /// What the client said at once behind its last word of the handshake.
    plain: Vec<u8>,
    pub(super) outcome: io::Result<Step>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Read,
    Done,
}

async fn shake(
    mut tcp: TcpStream,
    config: Arc<ServerConfig>,
    arithmetic: &Arc<Semaphore>,
) -> Result<Handshake, HandshakeError> {
    let mut side = Side::new(config).map_err(HandshakeError::Failed)?;
    loop {
        if side.incoming.len() > MAX_INCOMING {
            return Err(HandshakeError::Failed(io::ErrorKind::InvalidData.into()));
        }
        side.incoming.reserve(READ);
        if tcp.read_buf(&mut side.incoming).await.map_err(|_| HandshakeError::Gone)? == 0 {
            return Err(HandshakeError::Gone);
        }
        if !has_whole_record(&side.incoming) {
            continue;
        }
        // A signature takes a thread longer than a thousand messages: not one of those that serve.
        let permit = Arc::clone(arithmetic).acquire_owned().await.map_err(|_| HandshakeError::Gone)?;
        let calculated = spawn_blocking(move || {
            // Held until it is done, whoever waits for it.
            let _permit = permit;
            side.calculate()
        });
        side = calculated.await.map_err(|_| HandshakeError::Gone)?;
        let written = tcp.write_all(&side.outgoing).await;
        side.outgoing = Vec::new();
        match side.outcome {
            Err(error) => {
                _ = tcp.shutdown().await;
                return Err(HandshakeError::Failed(error));
            }
            Ok(_) if written.is_err() => return Err(HandshakeError::Gone),
            Ok(Step::Read) => {}
            Ok(Step::Done) => return Ok(side.finish(tcp)),
        }
    }
}

/// Whether there is something to calculate with. What is not TLS at all counts, so that it is found to be none.
pub(super) fn has_whole_record(bytes: &[u8]) -> bool {
    match bytes {
        [22, 3, _, high, low, rest @ ..] => rest.len() >= usize::from(u16::from_be_bytes([*high, *low])),
        [22, 3, ..] | [22] => bytes.len() > 4,
        _ => true,
    }
}

impl Side {
    pub(super) fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = UnbufferedServerConnection::new(config).map_err(invalid)?;
        let (incoming, outgoing, plain) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Side { tls, incoming, outgoing, plain, outcome: Ok(Step::Read) })
    }

    pub(super) fn calculate(mut self) -> Self {
        self.outcome = self.step();
        self
    }

    fn step(&mut self) -> io::Result<Step> {
        loop {
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut self.incoming);
            let step = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut self.outgoing, |out| data.encode(out))?;
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::BlockedHandshake) => Some(Step::Read),
                Ok(ConnectionState::WriteTraffic(_)) => Some(Step::Done),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        self.plain.extend_from_slice(record.map_err(invalid)?.payload);
                    }
                    None
                }
                // A client that leaves behind its last word is found to be gone by whoever reads.
                Ok(ConnectionState::PeerClosed) => None,
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                Err(error) => {
                    add_alerts(&mut self.tls, &mut self.outgoing);
                    return Err(invalid(error));
                }
            };
            self.incoming.drain(..discard);
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    fn finish(self, tcp: TcpStream) -> Handshake {
        let protocol = self.tls.alpn_protocol().map(Vec::from);
        let suite = self.tls.negotiated_cipher_suite().map(|suite| u16::from(suite.suite()));
        let encryption = suite.and_then(Encryption::of_suite);
        let client =
            self.tls.peer_certificates().and_then(<[_]>::first).cloned().map(CertificateDer::into_owned);
        let session = Session::new(self.tls, &self.incoming, &self.plain);
        let stream = TlsStream::new(tcp, session).into();
        Handshake { stream, protocol, encryption, client }
    }
}
