//! Connections that wait for their next request, and turns at a host.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::connection::Connection;
use crate::error::{Error, Phase};
use crate::payload::Payload;
use crate::target::Target;

/// How long a kept connection may take to be ready: its task has to see that the last answer has ended.
const READY_LIMIT: Duration = Duration::from_millis(100);

/// How often what is too old is looked for, at most and at least.
const SWEEPS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What a client keeps of the hosts that it calls.
#[derive(Debug)]
pub(crate) struct Pool {
    inner: Mutex<Inner>,
    bounds: Bounds,
}

/// The bounds for one host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) max_requests: usize,
    pub(crate) max_idle: usize,
    pub(crate) idle_timeout: Duration,
    pub(crate) turn_timeout: Duration,
}

#[derive(Debug, Default)]
struct Inner {
    hosts: HashMap<Target, Host>,
    is_swept: bool,
}

#[derive(Debug)]
struct Host {
    turns: Arc<Semaphore>,
    /// Newest last, and that one is taken first: the others may grow too old.
    idle: Vec<(http1::SendRequest<Payload>, Instant)>,
    shared: Option<(http2::SendRequest<Payload>, Instant)>,
}

impl Pool {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), bounds })
    }

    /// Waits until a request to `target` may be made.
    pub(crate) async fn turn(self: &Arc<Self>, target: &Target) -> Result<OwnedSemaphorePermit, Error> {
        let turns = {
            let mut inner = self.inner.lock();
            self.sweep_later(&mut inner);
            let host = inner.hosts.entry(target.clone()).or_insert_with(|| Host {
                turns: Arc::new(Semaphore::new(self.bounds.max_requests.max(1))),
                idle: Vec::new(),
                shared: None,
            });
            Arc::clone(&host.turns)
        };
        let limit = self.bounds.turn_timeout;
        match timeout(limit, turns.acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            // Nobody closes it.
            Ok(Err(_)) | Err(_) => Err(Error::timeout(Phase::Turn, limit)),
        }
    }

    /// A connection to `target` that is open as far as can be known.
    pub(crate) async fn take(&self, target: &Target) -> Option<Connection> {
        loop {
            let kept = self.pop(target)?;
            match kept {
                Connection::Http1(mut sender) => {
                    if matches!(timeout(READY_LIMIT, sender.ready()).await, Ok(Ok(()))) {
                        return Some(Connection::Http1(sender));
                    }
                }
                shared @ Connection::Http2(_) => return Some(shared),
            }
        }
    }

    fn pop(&self, target: &Target) -> Option<Connection> {
        let mut inner = self.inner.lock();
        let host = inner.hosts.get_mut(target)?;
        let now = Instant::now();
        if let Some((sender, used)) = &mut host.shared {
            if !sender.is_closed() {
                *used = now;
                return Some(Connection::Http2(sender.clone()));
            }
            host.shared = None;
        }
        let (sender, since) = host.idle.pop()?;
        if now.duration_since(since) < self.bounds.idle_timeout {
            return Some(Connection::Http1(sender));
        }
        // The others are older.
        host.idle.clear();
        None
    }

    /// Lets other requests share a new connection, where the version can.
    pub(crate) fn share(&self, target: &Target, connection: &Connection) {
        let Connection::Http2(sender) = connection else { return };
        if let Some(host) = self.inner.lock().hosts.get_mut(target) {
            host.shared = Some((sender.clone(), Instant::now()));
        }
    }

    /// Keeps a connection whose answer was read, while its request still has its turn.
    pub(crate) fn put(&self, target: &Target, connection: Connection) {
        let Connection::Http1(sender) = connection else { return };
        // Without a runtime nothing would look after it.
        if sender.is_closed() || Handle::try_current().is_err() {
            return;
        }
        if let Some(host) = self.inner.lock().hosts.get_mut(target)
            && host.idle.len() < self.bounds.max_idle
        {
            host.idle.push((sender, Instant::now()));
        }
    }

    /// Starts the task that drops what is too old, if there is none.
    fn sweep_later(self: &Arc<Self>, inner: &mut Inner) {
        if inner.is_swept {
            return;
        }
        inner.is_swept = true;
        let mut sweeper = Sweeper(Arc::downgrade(self));
        let period = (self.bounds.idle_timeout / 2).clamp(SWEEPS.0, SWEEPS.1);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(period).await;
                let Some(pool) = sweeper.0.upgrade() else { return };
                if pool.sweep() == 0 {
                    sweeper.has_ended();
                    return;
                }
            }
        });
    }

    /// Drops what is too old; returns how many hosts are left.
    fn sweep(&self) -> usize {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let is_young = |since: Instant| now.duration_since(since) < self.bounds.idle_timeout;
        inner.hosts.retain(|_, host| {
            host.idle.retain(|(sender, since)| !sender.is_closed() && is_young(*since));
            let is_called = Arc::strong_count(&host.turns) > 1;
            host.shared.take_if(|(sender, used)| sender.is_closed() || !is_called && !is_young(*used));
            is_called || !host.idle.is_empty() || host.shared.is_some()
        });
        if inner.hosts.is_empty() {
            inner.is_swept = false;
        }
        inner.hosts.len()
    }
}

/// The task that sweeps. When it ends, with its runtime perhaps, another one may begin.
struct Sweeper(Weak<Pool>);

impl Sweeper {
    /// From here on the pool is another one's.
    fn has_ended(&mut self) {
        self.0 = Weak::new();
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            let mut inner = pool.inner.lock();
            inner.is_swept = false;
        }
    }
}
