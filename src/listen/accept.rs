//! Accepting connections, and not accepting them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use front::{Metric, MetricSource};
use link::NetStream;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::descriptors;
use crate::Config;

/// Connections that the kernel holds until they are accepted; the system's own limit (`somaxconn`) may be lower.
const BACKLOG: u32 = 4096;
/// How long accepting pauses when the process or the system is out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the count of open descriptors is believed once the limit was reached.
const RECOUNT: Duration = Duration::from_millis(200);
/// Refusals that may be told at a time; a peer beyond them is closed without a word.
const MAX_REFUSALS: usize = 32;
/// How long a refused peer may take, until it has read why.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// Opens a listener.
///
/// # Errors
/// The address is taken, not ours, or not allowed.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted server must not wait for its old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    link::prepare_listener(&listener);
    Ok(listener)
}

/// Decides whether there is room for one more connection, over all listeners.
///
/// Connections change hands (hyper, a front's own task), so they are not counted one by one: the process' descriptors
/// are, and only when those accepted since the last count could have reached the limit.
pub(crate) struct Gate {
    max_descriptors: usize,
    state: Mutex<Count>,
    refusals: Semaphore,
    pub(crate) counters: Counters,
}

struct Count {
    at_most: usize,
    counted_at: Instant,
}

/// What became of connections.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) pauses: AtomicU64,
}

impl Gate {
    /// Room for `max_connections` beside what is open now, as far as descriptors allow.
    pub(crate) fn new(max_connections: Option<usize>) -> Self {
        let open = descriptors::open().unwrap_or(0);
        let limit = descriptors::soft_limit();
        let possible = limit - Config::RESERVED_DESCRIPTORS.min(limit / 4);
        let wanted = max_connections.map_or(usize::MAX, |max| max.saturating_add(open));
        Gate {
            max_descriptors: possible.min(wanted),
            state: Mutex::new(Count { at_most: open, counted_at: Instant::now() }),
            refusals: Semaphore::new(MAX_REFUSALS),
            counters: Counters::default(),
        }
    }

    /// Whether a connection that was just accepted may stay.
    fn admits(&self) -> bool {
        let mut count = self.state.lock();
        count.at_most += 1;
        if count.at_most <= self.max_descriptors {
            return true;
        }
        if count.counted_at.elapsed() < RECOUNT {
            return false;
        }
        count.counted_at = Instant::now();
        match descriptors::open() {
            Some(open) => count.at_most = open,
            // Where nobody counts, EMFILE tells.
            None => return true,
        }
        count.at_most <= self.max_descriptors
    }

    /// Lets `telling` tell a peer why it is closed, if not too many are told at this time; it is dropped if that takes
    /// long.
    pub(crate) async fn refuse(&self, telling: impl Future) {
        if let Ok(_permit) = self.refusals.try_acquire() {
            let _ = timeout(REFUSAL_LINGER, telling).await;
        }
    }
}

/// Closes a socket whose peer was told why. The input is drained meanwhile: closing a socket with unread input resets
/// it, and the peer would never see the answer.
pub(crate) async fn close(mut stream: NetStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Accepts for ever, handing each connection to `serve`; one too many goes to `refuse` instead.
///
/// # Cancel safety
/// Dropping the future stops accepting; nothing that was accepted is lost.
pub(crate) async fn accept(
    listener: TcpListener,
    gate: Arc<Gate>,
    refuse: impl Fn(TcpStream),
    mut serve: impl FnMut(TcpStream, SocketAddr),
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if gate.admits() => {
                gate.counters.accepted.fetch_add(1, Relaxed);
                serve(stream, peer);
            }
            Ok((stream, _)) => {
                gate.counters.refused.fetch_add(1, Relaxed);
                refuse(stream);
            }
            // The peer went before it was accepted; the next one is no worse for it.
            Err(error) if is_about_the_peer(&error) => {}
            Err(error) => {
                // The connection stays in the backlog, so asking again at once would spin.
                let pauses = gate.counters.pauses.fetch_add(1, Relaxed) + 1;
                // Out of descriptors for an hour is 36,000 pauses; sixteen lines tell it as well.
                if pauses.is_power_of_two() {
                    tracing::warn!(%error, pauses, "cannot accept connections now");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

fn is_about_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

impl MetricSource for Gate {
    fn collect(&self, out: &mut Vec<Metric>) {
        let Counters { accepted, refused, pauses } = &self.counters;
        let read = |number: &AtomicU64| number.load(Relaxed);
        out.extend([
            Metric::counter("accepted_connections", "Connections accepted on all listeners", read(accepted)),
            Metric::counter(
                "refused_connections",
                "Connections closed because there were too many",
                read(refused),
            ),
            Metric::counter(
                "accept_pauses",
                "Pauses in accepting for lack of descriptors or memory",
                read(pauses),
            ),
            Metric::gauge(
                "max_descriptors",
                "Descriptors beyond which connections are refused",
                self.max_descriptors as u64,
            ),
        ]);
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("max_descriptors", &self.max_descriptors).finish_non_exhaustive()
    }
}
