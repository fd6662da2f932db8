//! A single-threaded epoll client: opens connections within a bound, moves bytes between sockets and sessions.

mod connection;
mod tls;

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dialect::{Event, Session};
use crate::sys::clock::{Deadline, now_ns};
use crate::sys::poller::{Interest, Poller, Ready};
use connection::{Connection, Progress};
pub(crate) use tls::{ClientTls, Tickets};

/// Bytes read from one socket at a time.
const READ_BYTES: usize = 128 * 1_024;
/// Tokens from here on belong to the caller's own sources.
const FIRST_EXTERNAL: u64 = 1 << 32;
/// Why a connection is closed that a ramp gave up.
pub(crate) const NOT_READY: &str = "not ready in time";
/// Silence after which a ramp gives the connections that are not ready up.
const RAMP_PATIENCE: Duration = Duration::from_secs(10);

/// Who is told what the connections do.
pub(crate) trait Observer {
    fn event(&mut self, connection: usize, event: Event<'_>);

    /// The connection is closed and gone; the reason is for people.
    fn broken(&mut self, connection: usize, reason: &str);
}

/// How connections are opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RampLimits {
    /// Connections that may be opening at a time.
    pub(crate) in_flight: usize,
    pub(crate) deadline: Deadline,
}

/// A connection to be opened.
pub(crate) struct Dial {
    pub(crate) target: SocketAddr,
    /// Local address and port to come from; the next free port if that one is taken.
    pub(crate) source: Option<SocketAddrV4>,
    pub(crate) session: Box<dyn Session>,
    /// Inside of which it speaks; none for plain.
    pub(crate) tls: Option<Arc<ClientTls>>,
    /// Bytes the socket may hold unread; none leaves it to the kernel.
    pub(crate) receive_buffer: Option<usize>,
}

/// How a ramp went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ramp {
    pub(crate) opened: usize,
    pub(crate) failed: usize,
    /// From the first connect to the last subscription confirmed.
    pub(crate) elapsed_ns: u64,
}

pub(crate) struct Engine {
    poller: Poller,
    connections: Vec<Option<Connection>>,
    /// Connections that are not ready yet.
    opening: usize,
    buffer: Vec<u8>,
    ready: Vec<Ready>,
    external: Vec<usize>,
    waiting: Waiting,
}

/// How the client waits for readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Waiting {
    /// In the kernel; every write that finds the client asleep costs the server a wake-up.
    Sleep,
    /// By asking again: wake-ups cost nobody anything, and the client's CPU is always busy.
    Spin,
}

impl Engine {
    pub(crate) fn new(waiting: Waiting) -> io::Result<Self> {
        Ok(Self {
            poller: Poller::new()?,
            connections: Vec::new(),
            opening: 0,
            buffer: vec![0; READ_BYTES],
            ready: Vec::new(),
            external: Vec::new(),
            waiting,
        })
    }

    /// Number the next connection will have.
    pub(crate) fn next_number(&self) -> usize {
        self.connections.len()
    }

    /// Has [`Engine::turn`] tell when `source` is readable, as `number`.
    pub(crate) fn watch(&mut self, source: impl AsFd, number: usize) -> io::Result<()> {
        self.poller.add(source, FIRST_EXTERNAL + number as u64, Interest::Read)
    }

    /// Opens `count` connections, numbered in order, and waits until each is ready or has failed.
    ///
    /// A failed one keeps its number and has told the observer why.
    pub(crate) fn ramp(
        &mut self,
        count: usize,
        mut dial: impl FnMut(usize) -> Dial,
        limits: RampLimits,
        observer: &mut impl Observer,
    ) -> io::Result<Ramp> {
        let (first, started) = (self.connections.len(), now_ns());
        let mut patience = Deadline::after(RAMP_PATIENCE);
        let mut last_opening = usize::MAX;
        let mut begun = 0;
        while (begun < count || self.opening > 0) && !limits.deadline.passed() && !patience.passed() {
            while begun < count && self.opening < limits.in_flight.max(1) {
                self.open(dial(begun), observer);
                begun += 1;
            }
            self.turn(Duration::from_millis(100), observer)?;
            if self.opening != last_opening {
                last_opening = self.opening;
                patience = Deadline::after(RAMP_PATIENCE);
            }
        }
        let elapsed_ns = now_ns() - started;
        for number in first..self.connections.len() {
            if self.connections[number].as_ref().is_some_and(|connection| !connection.ready()) {
                self.close(number, NOT_READY, observer);
            }
        }
        let opened = self.connections[first..].iter().flatten().count();
        Ok(Ramp { opened, failed: count - opened, elapsed_ns })
    }

    fn open(&mut self, dial: Dial, observer: &mut impl Observer) {
        let number = self.connections.len();
        self.connections.push(None);
        self.opening += 1;
        let opened = Connection::open(dial, number as u64, &self.poller);
        match opened {
            Ok(connection) => {
                let connected = connection.connected();
                self.connections[number] = Some(connection);
                if connected {
                    self.progress(number, observer, |connection, poller, _, on| connection.begin(poller, on));
                }
            }
            Err(error) => {
                self.opening -= 1;
                observer.broken(number, &format!("connect: {error}"));
            }
        }
    }

    /// Waits up to `timeout` for readiness and handles one batch; returns the caller's sources that are readable.
    pub(crate) fn turn(&mut self, timeout: Duration, observer: &mut impl Observer) -> io::Result<&[usize]> {
        let mut ready = std::mem::take(&mut self.ready);
        let waited = match self.waiting {
            Waiting::Sleep => self.poller.wait(timeout, &mut ready),
            Waiting::Spin => self.spin(timeout, &mut ready),
        };
        self.external.clear();
        for source in &ready {
            if source.token >= FIRST_EXTERNAL {
                self.external.push((source.token - FIRST_EXTERNAL) as usize);
            } else {
                let source = *source;
                self.progress(source.token as usize, observer, |connection, poller, buffer, on| {
                    connection.handle(source, poller, buffer, on)
                });
            }
        }
        self.ready = ready;
        waited?;
        Ok(&self.external)
    }

    fn spin(&mut self, timeout: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        let deadline = Deadline::after(timeout);
        loop {
            self.poller.wait(Duration::ZERO, ready)?;
            if !ready.is_empty() || deadline.passed() {
                return Ok(());
            }
        }
    }

    /// Publishes on connection `number`; does nothing if it is gone. Nothing is written before [`Engine::flush`].
    pub(crate) fn publish(
        &mut self,
        number: usize,
        channel: &str,
        payload: &[u8],
        observer: &mut impl Observer,
    ) {
        self.progress(number, observer, |connection, _, _, on| connection.publish(channel, payload, on));
    }

    /// Writes what was published on connection `number`.
    pub(crate) fn flush(&mut self, number: usize, observer: &mut impl Observer) {
        self.progress(number, observer, |connection, poller, _, _| connection.send(poller));
    }

    /// How many publishes connection `number` may have unanswered.
    pub(crate) fn window(&self, number: usize) -> usize {
        self.connections.get(number).and_then(Option::as_ref).map_or(0, Connection::window)
    }

    /// Never reads connection `number` again, and keeps it open.
    pub(crate) fn stop_reading(&mut self, number: usize) -> io::Result<()> {
        match self.connections.get_mut(number).and_then(Option::as_mut) {
            Some(connection) => connection.stop_reading(&self.poller),
            None => Ok(()),
        }
    }

    /// How many connections are inside of TLS that went on from an earlier session.
    pub(crate) fn resumed(&self) -> usize {
        self.connections.iter().flatten().filter(|connection| connection.is_resumed()).count()
    }

    /// Local address of connection `number`.
    pub(crate) fn local_address(&self, number: usize) -> Option<SocketAddr> {
        self.connections.get(number)?.as_ref()?.local_address()
    }

    /// Closes every connection at once, without a word to the observer.
    pub(crate) fn disconnect_all(&mut self) {
        self.connections.clear();
        self.opening = 0;
    }

    fn progress(
        &mut self,
        number: usize,
        observer: &mut impl Observer,
        step: impl FnOnce(&mut Connection, &Poller, &mut [u8], &mut dyn FnMut(Event<'_>)) -> Progress,
    ) {
        // Events of a batch may name a connection that an earlier one closed.
        let Some(connection) = self.connections.get_mut(number).and_then(Option::as_mut) else { return };
        let was_ready = connection.ready();
        let progress =
            step(connection, &self.poller, &mut self.buffer, &mut |event| observer.event(number, event));
        if !was_ready && connection.ready() {
            self.opening -= 1;
        }
        if let Progress::Broken(reason) = progress {
            self.close(number, &reason, observer);
        }
    }

    fn close(&mut self, number: usize, reason: &str, observer: &mut impl Observer) {
        if let Some(connection) = self.connections.get_mut(number).and_then(Option::take) {
            if !connection.ready() {
                self.opening -= 1;
            }
            observer.broken(number, reason);
        }
    }
}
