//! One non-blocking socket and the session that speaks on it.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, socket_with, sockopt};

use super::Dial;
use super::tls::Tls;
use crate::dialect::{Event, Session};
use crate::sys::poller::{Interest, Poller, Ready};

/// Ports looked at beyond the one that was asked for.
const MAX_PORTS_TRIED: u16 = 64;

/// What a step did to the connection.
pub(super) enum Progress {
    Alive,
    Broken(String),
}

impl Progress {
    fn of(outcome: io::Result<()>) -> Self {
        match outcome {
            Ok(()) => Self::Alive,
            Err(error) => Self::Broken(error.to_string()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Opening,
    Ready,
}

pub(super) struct Connection {
    socket: OwnedFd,
    target: SocketAddr,
    token: u64,
    phase: Phase,
    interest: Interest,
    stalled: bool,
    /// Boxed, as a plain connection is not to pay for it.
    tls: Option<Box<Tls>>,
    session: Box<dyn Session>,
    /// The session has begun to speak.
    started: bool,
    unread: Vec<u8>,
    unsent: Vec<u8>,
}

impl Connection {
    /// Starts a connect; on loopback it is often done at once.
    pub(super) fn open(dial: Dial, token: u64, poller: &Poller) -> io::Result<Self> {
        let (socket, phase, interest) = dial_socket(dial.target, dial.source, dial.receive_buffer)?;
        poller.add(&socket, token, interest)?;
        Ok(Self {
            socket,
            target: dial.target,
            token,
            phase,
            interest,
            stalled: false,
            tls: dial.tls.map(|shared| Tls::new(shared).map(Box::new)).transpose()?,
            session: dial.session,
            started: false,
            unread: Vec::new(),
            unsent: Vec::new(),
        })
    }

    pub(super) fn connected(&self) -> bool {
        self.phase != Phase::Connecting
    }

    pub(super) fn ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    pub(super) fn window(&self) -> usize {
        self.session.window()
    }

    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        getsockname(&self.socket).ok()?.try_into().ok()
    }

    /// The socket is connected: the session may speak.
    pub(super) fn begin(&mut self, poller: &Poller, on: &mut dyn FnMut(Event<'_>)) -> Progress {
        self.phase = Phase::Opening;
        if self.tls.is_none() {
            self.start(on);
        }
        Progress::of(self.flush(poller))
    }

    /// The session may speak, unless it does already.
    fn start(&mut self, on: &mut dyn FnMut(Event<'_>)) {
        if !std::mem::replace(&mut self.started, true) {
            let (session, phase) = (&mut self.session, &mut self.phase);
            session.start(&mut self.unsent, &mut |event| watch_ready(phase, event, on));
        }
    }

    /// Whether it is inside of TLS that goes on from an earlier session.
    pub(super) fn is_resumed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_resumed())
    }

    pub(super) fn handle(
        &mut self,
        ready: Ready,
        poller: &Poller,
        buffer: &mut [u8],
        on: &mut dyn FnMut(Event<'_>),
    ) -> Progress {
        if self.phase == Phase::Connecting {
            return match sockopt::socket_error(&self.socket) {
                Ok(Ok(())) if ready.writable => self.begin(poller, on),
                Ok(Ok(())) => Progress::Alive,
                Ok(Err(error)) | Err(error) => Progress::Broken(format!("connect: {error}")),
            };
        }
        if ready.hung_up && (self.stalled || !ready.readable) {
            return Progress::Broken("reset by the server".to_owned());
        }
        if ready.readable && !self.stalled {
            match self.read(buffer, on) {
                Progress::Alive => {}
                broken @ Progress::Broken(_) => return broken,
            }
            if self.session.take_closing() {
                return Progress::of(self.reopen(poller));
            }
        }
        Progress::of(self.flush(poller))
    }

    /// Goes on with the same session over a new socket.
    fn reopen(&mut self, poller: &Poller) -> io::Result<()> {
        // Writes before it is connected wait for it as for any full socket.
        let (socket, _, interest) = dial_socket(self.target, None, None)?;
        poller.add(&socket, self.token, interest)?;
        self.socket = socket;
        self.interest = interest;
        self.unread = Vec::new();
        if let Some(tls) = &mut self.tls {
            **tls = tls.again()?;
        }
        Ok(())
    }

    pub(super) fn publish(
        &mut self,
        channel: &str,
        payload: &[u8],
        on: &mut dyn FnMut(Event<'_>),
    ) -> Progress {
        self.session.publish(channel, payload, &mut self.unsent, on);
        Progress::Alive
    }

    pub(super) fn send(&mut self, poller: &Poller) -> Progress {
        Progress::of(self.flush(poller))
    }

    pub(super) fn stop_reading(&mut self, poller: &Poller) -> io::Result<()> {
        self.stalled = true;
        self.want(Interest::Nothing, poller)
    }

    fn read(&mut self, buffer: &mut [u8], on: &mut dyn FnMut(Event<'_>)) -> Progress {
        // Behind what TLS wraps there must be room for what is inside.
        let room = if self.tls.is_some() { buffer.len() / 2 } else { buffer.len() };
        let bytes = match rustix::io::read(&self.socket, &mut buffer[..room]) {
            Ok(0) => return Progress::Broken("closed by the server".to_owned()),
            Ok(bytes) => bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Progress::Alive,
            Err(error) => return Progress::Broken(error.to_string()),
        };
        let outcome = match self.tls.take() {
            None => self.take(&buffer[..bytes], on),
            Some(mut tls) => {
                let (raw, plain) = buffer.split_at_mut(room);
                let outcome = tls.receive(&raw[..bytes], plain, |plain| {
                    // It may come together with the end of the handshake.
                    self.start(on);
                    self.take(plain, on)
                });
                if outcome.is_ok() && !tls.is_shaking_hands() {
                    self.start(on);
                }
                self.tls = Some(tls);
                outcome
            }
        };
        outcome.map_or_else(Progress::Broken, |()| Progress::Alive)
    }

    /// Hands plain bytes to the session.
    fn take(&mut self, bytes: &[u8], on: &mut dyn FnMut(Event<'_>)) -> Result<(), String> {
        let (session, phase, unsent) = (&mut self.session, &mut self.phase, &mut self.unsent);
        let mut on = |event: Event<'_>| watch_ready(phase, event, &mut *on);
        if self.unread.is_empty() {
            let taken = session.receive(bytes, unsent, &mut on).map_err(|violation| violation.0)?;
            self.unread.extend_from_slice(&bytes[taken..]);
            return Ok(());
        }
        self.unread.extend_from_slice(bytes);
        let taken = session.receive(&self.unread, unsent, &mut on).map_err(|violation| violation.0)?;
        if taken == self.unread.len() {
            self.unread = Vec::new();
        } else {
            self.unread.drain(..taken);
        }
        Ok(())
    }

    fn flush(&mut self, poller: &Poller) -> io::Result<()> {
        let all_sent = match &mut self.tls {
            None => self.write_unsent()?,
            Some(tls) => {
                if !tls.is_shaking_hands() && !self.unsent.is_empty() {
                    tls.write(&self.unsent)?;
                    self.unsent.clear();
                }
                tls.flush(&self.socket)?
            }
        };
        match (self.stalled, all_sent) {
            (true, _) => Ok(()),
            (false, true) => self.want(Interest::Read, poller),
            (false, false) => self.want(Interest::Both, poller),
        }
    }

    /// Whether that was all.
    fn write_unsent(&mut self) -> io::Result<bool> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match rustix::io::write(&self.socket, &self.unsent[sent..]) {
                Ok(bytes) => sent += bytes,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        if sent == self.unsent.len() {
            self.unsent.clear();
        } else {
            self.unsent.drain(..sent);
        }
        Ok(self.unsent.is_empty())
    }

    fn want(&mut self, interest: Interest, poller: &Poller) -> io::Result<()> {
        if self.interest != interest {
            poller.modify(&self.socket, self.token, interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}

/// Starts a connect; on loopback it is often done at once.
fn dial_socket(
    target: SocketAddr,
    source: Option<SocketAddrV4>,
    receive_buffer: Option<usize>,
) -> io::Result<(OwnedFd, Phase, Interest)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    if let Some(bytes) = receive_buffer {
        // Before the connect: later it no longer shrinks the window that was announced.
        sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
    }
    if let Some(source) = source {
        bind_near(&socket, source)?;
    }
    match connect(&socket, &target) {
        Ok(()) => Ok((socket, Phase::Opening, Interest::Read)),
        Err(Errno::INPROGRESS) => Ok((socket, Phase::Connecting, Interest::Write)),
        Err(error) => Err(error.into()),
    }
}

/// Binds to `source`, or to the first free port after it.
fn bind_near(socket: &OwnedFd, source: SocketAddrV4) -> io::Result<()> {
    sockopt::set_socket_reuseaddr(socket, true)?;
    let mut refused = Errno::ADDRINUSE;
    for step in 0..MAX_PORTS_TRIED {
        let port = source.port().saturating_add(step);
        match bind(socket, &SocketAddrV4::new(*source.ip(), port)) {
            Ok(()) => return Ok(()),
            Err(Errno::ADDRINUSE) => {}
            Err(error) => refused = error,
        }
    }
    Err(refused.into())
}

fn watch_ready(phase: &mut Phase, event: Event<'_>, on: &mut dyn FnMut(Event<'_>)) {
    if event == Event::Ready {
        *phase = Phase::Ready;
    }
    on(event);
}
