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
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use super::descriptors;
use crate::Config;

/// Connections that the kernel holds until they are accepted; the system's own limit (`somaxconn`) may be lower.
const BACKLOG: u32 = 4096;
/// How long accepting pauses when the process or the system is out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the count of open descriptors is believed once the limit was reached.
const RECOUNT: Duration = Duration::from_millis(200);
/// Refused peers that may be told why at a time, and take their time for it. One more waits to be accepted.
const MAX_TURNS: usize = 32;
/// How long a refused peer may take, until it has read why.
const TURN: Duration = Duration::from_secs(2);
/// How long it may at least, however many wait for their turn: it has said what it wants by then, or was told without.
const SHORTEST_TURN: Duration = Duration::from_millis(500);
/// How long one may that is refused although it was let in: for others there is a queue, and it is not to be one in it.
/// On a busy machine, or behind a slow network, a client asks some time after it has connected.
const GLIMPSE: Duration = Duration::from_millis(250);
/// Of the descriptors that connections may have, the part (and the number) that may have a glimpse at a time.
const GLIMPSES_PART: usize = 4;
const MAX_GLIMPSES: usize = 1024;

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
/// are, and only when those accepted since the last count could have reached the limit. Those that are refused have
/// theirs from what is reserved, and no more than half of that.
pub(crate) struct Gate {
    /// Descriptors that there may be as long as the process may have more.
    wanted: usize,
    state: Mutex<Count>,
    turns: Arc<Semaphore>,
    max_turns: usize,
    /// Somebody waits for a turn: who has had enough of it goes.
    crowded: Notify,
    glimpses: Semaphore,
    pub(crate) counters: Counters,
}

struct Count {
    max: usize,
    at_most: usize,
    counted_at: Instant,
}

/// The right to be told why one is refused.
pub(crate) type Turn = OwnedSemaphorePermit;

/// What became of connections.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) pauses: AtomicU64,
}

/// What of `limit` is not for connections: for those that are refused, files that are read again, calls to others.
fn reserve(limit: usize) -> usize {
    Config::RESERVED_DESCRIPTORS.min(limit / 4)
}

impl Gate {
    /// Room for `max_connections` beside what is open now, as far as descriptors allow.
    pub(crate) fn new(max_connections: Option<usize>) -> Self {
        let open = descriptors::open().unwrap_or(0);
        let limit = descriptors::soft_limit();
        let wanted = max_connections.map_or(usize::MAX, |max| max.saturating_add(open));
        let max_turns = MAX_TURNS.min(reserve(limit) / 2).max(1);
        let max = wanted.min(limit - reserve(limit));
        Gate {
            wanted,
            state: Mutex::new(Count { max, at_most: open, counted_at: Instant::now() }),
            turns: Arc::new(Semaphore::new(max_turns)),
            max_turns,
            crowded: Notify::new(),
            glimpses: Semaphore::new((max / GLIMPSES_PART).clamp(max_turns, MAX_GLIMPSES)),
            counters: Counters::default(),
        }
    }

    /// Whether a connection that was just accepted may stay.
    fn admits(&self) -> bool {
        let mut count = self.state.lock();
        count.at_most += 1;
        count.at_most <= count.max || self.has_room(&mut count)
    }

    /// Counts, if that was not done a moment ago.
    fn has_room(&self, count: &mut Count) -> bool {
        count.counted_at.elapsed() >= RECOUNT && self.recount(count)
    }

    /// The limit is asked for again too: it can be changed from outside.
    fn recount(&self, count: &mut Count) -> bool {
        count.counted_at = Instant::now();
        let limit = descriptors::soft_limit();
        count.max = self.wanted.min(limit - reserve(limit));
        match descriptors::open() {
            // Those that are being told have descriptors from what is reserved for them.
            Some(open) => {
                count.at_most = open.saturating_sub(self.max_turns - self.turns.available_permits())
            }
            // Where nobody counts, EMFILE tells.
            None => return true,
        }
        count.at_most <= count.max
    }

    /// A turn for one for whom there is no room; `None` if there is by then. As long as it waits nobody else is
    /// accepted: the kernel's queue is a better place to wait than a descriptor.
    async fn turn(&self) -> Option<Turn> {
        loop {
            if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
                return Some(turn);
            }
            self.crowded.notify_one();
            if let Ok(turn) = timeout(RECOUNT, Arc::clone(&self.turns).acquire_owned()).await {
                return turn.ok();
            }
            if self.has_room(&mut self.state.lock()) {
                return None;
            }
        }
    }

    /// Lets `telling` tell a peer why it is closed; it is dropped if that takes long, or not quite as long while others
    /// wait for their turn.
    pub(crate) async fn tell(&self, turn: Turn, telling: impl Future) {
        let enough = async {
            sleep(SHORTEST_TURN).await;
            let _ = timeout(TURN - SHORTEST_TURN, self.crowded.notified()).await;
        };
        tokio::select! {
            _ = telling => {}
            () = enough => {}
        }
        drop(turn);
    }

    /// The same for one that was let in and may not stay. If all turns are taken it has a moment: who has asked by then
    /// is answered.
    pub(crate) async fn refuse(&self, telling: impl Future) {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            self.tell(turn, telling).await;
        } else if let Ok(_glimpse) = self.glimpses.try_acquire() {
            let _ = timeout(GLIMPSE, telling).await;
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

/// Accepts for ever, handing each connection to `serve`; one too many goes to `refuse` instead, with its turn.
///
/// # Cancel safety
/// Dropping the future stops accepting; at most one connection is lost, that was to be refused.
pub(crate) async fn accept(
    listener: TcpListener,
    gate: Arc<Gate>,
    refuse: impl Fn(TcpStream, SocketAddr, Turn),
    mut serve: impl FnMut(TcpStream, SocketAddr),
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let turn = if gate.admits() { None } else { gate.turn().await };
                match turn {
                    None => {
                        gate.counters.accepted.fetch_add(1, Relaxed);
                        serve(stream, peer);
                    }
                    Some(turn) => {
                        gate.counters.refused.fetch_add(1, Relaxed);
                        refuse(stream, peer, turn);
                    }
                }
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
                // Fewer than were counted on.
                gate.recount(&mut gate.state.lock());
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
                self.state.lock().max as u64,
            ),
        ]);
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}
