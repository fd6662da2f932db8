//! The bare server that everything is compared with: one thread, and per message a plain loop of `write(2)`.
//!
//! It knows no limits, policies, log or rights. Subscribers attach as to Fanwire (`GET /sse/{channel}`); a control
//! connection names a channel and a payload, the frame is encoded once, and every socket of the channel is written
//! to in turn. Messages are never joined, in bursts neither. With a certificate a subscriber may come inside of TLS:
//! then the frame is sealed for it, one record with a key of its own, and written.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept_with, bind, listen, socket_with, sockopt};

use rustls::ServerConfig;

use super::sealed::{self, HANDSHAKE, Sealer, Shaking};
use crate::dialect::{CONTROL_MAGIC, ControlFrame};
use crate::sys::poller::{Interest, Poller, Ready};
use crate::sys::process::raise_descriptor_limit;

const BACKLOG: i32 = 4_096;
const LISTENER: u64 = u64::MAX;
const READ_BYTES: usize = 64 * 1_024;
/// Longest request head or control frame held back.
const MAX_PENDING_BYTES: usize = 8 * 1_024 * 1_024;

const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\
    Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n: floor\n\r\n";
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

enum Role {
    /// Has not said yet what it is.
    New,
    Subscriber,
    Control,
}

/// What a peer's bytes are inside of.
enum Layer {
    Plain,
    Shaking(Shaking),
    Sealed(Sealer),
}

struct Peer {
    socket: OwnedFd,
    role: Role,
    layer: Layer,
    pending: Vec<u8>,
}

struct Floor {
    poller: Poller,
    listener: OwnedFd,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    channels: HashMap<String, Vec<usize>>,
    tls: Option<Arc<ServerConfig>>,
    frame: Vec<u8>,
    record: Vec<u8>,
    messages: u64,
}

/// Serves on `address` until the process is ended; with a certificate and its key, TLS as well.
///
/// # Errors
/// When the address cannot be bound or epoll fails, or the files are not what they should be.
pub(crate) fn serve(address: SocketAddr, identity: Option<(&Path, &Path)>) -> io::Result<()> {
    raise_descriptor_limit();
    let tls = identity.map(|(certificate, key)| sealed::config(certificate, key)).transpose()?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let listener = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    bind(&listener, &address)?;
    listen(&listener, BACKLOG)?;
    let poller = Poller::new()?;
    poller.add(&listener, LISTENER, Interest::Read)?;
    let mut floor = Floor {
        poller,
        listener,
        peers: Vec::new(),
        free: Vec::new(),
        channels: HashMap::new(),
        tls,
        frame: Vec::new(),
        record: Vec::new(),
        messages: 0,
    };
    let (mut ready, mut buffer) = (Vec::new(), vec![0; READ_BYTES]);
    loop {
        floor.poller.wait(Duration::from_secs(60), &mut ready)?;
        for source in &ready {
            if source.token == LISTENER {
                floor.accept()?;
            } else {
                floor.read(source, &mut buffer);
            }
        }
    }
}

impl Peer {
    /// Puts what is inside of these bytes behind what waits.
    fn receive(&mut self, bytes: &[u8], tls: Option<&Arc<ServerConfig>>) -> io::Result<()> {
        if let (Role::New, Layer::Plain, Some(config), Some(&HANDSHAKE)) =
            (&self.role, &self.layer, tls, bytes.first())
            && self.pending.is_empty()
        {
            self.layer = Layer::Shaking(Shaking::new(config)?);
        }
        match &mut self.layer {
            Layer::Plain => self.pending.extend_from_slice(bytes),
            Layer::Shaking(shaking) => shaking.receive(bytes, &self.socket, &mut self.pending)?,
            Layer::Sealed(_) => {}
        }
        Ok(())
    }

    /// Writes the answer to a request; whether all of it was taken.
    fn answer(&mut self, answer: &[u8]) -> bool {
        match std::mem::replace(&mut self.layer, Layer::Plain) {
            Layer::Shaking(shaking) => match shaking.answer(answer, &self.socket) {
                Ok(sealer) => {
                    self.layer = Layer::Sealed(sealer);
                    true
                }
                Err(_) => false,
            },
            Layer::Plain | Layer::Sealed(_) => rustix::io::write(&self.socket, answer) == Ok(answer.len()),
        }
    }
}

impl Floor {
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let socket = match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(error) => return Err(error.into()),
            };
            sockopt::set_tcp_nodelay(&socket, true)?;
            let number = self.free.pop().unwrap_or_else(|| {
                self.peers.push(None);
                self.peers.len() - 1
            });
            self.poller.add(&socket, number as u64, Interest::Read)?;
            let peer = Peer { socket, role: Role::New, layer: Layer::Plain, pending: Vec::new() };
            self.peers[number] = Some(peer);
        }
    }

    fn read(&mut self, ready: &Ready, buffer: &mut [u8]) {
        let number = ready.token as usize;
        let Some(peer) = self.peers.get_mut(number).and_then(Option::as_mut) else { return };
        let bytes = match rustix::io::read(&peer.socket, &mut *buffer) {
            Ok(bytes) if bytes > 0 => bytes,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(_) | Err(_) => return self.close(number),
        };
        if matches!(peer.role, Role::Subscriber) {
            return;
        }
        let received = peer.receive(&buffer[..bytes], self.tls.as_ref());
        if received.is_err() || peer.pending.len() > MAX_PENDING_BYTES {
            return self.close(number);
        }
        if matches!(peer.role, Role::New) && !self.classify(number) {
            return;
        }
        self.run_control(number);
    }

    /// Decides what a new peer is; true if it is a control connection.
    fn classify(&mut self, number: usize) -> bool {
        let Some(peer) = self.peers[number].as_mut() else { return false };
        if peer.pending.starts_with(CONTROL_MAGIC) {
            peer.pending.drain(..CONTROL_MAGIC.len());
            peer.role = Role::Control;
            return true;
        }
        if memchr::memmem::find(&peer.pending, b"\r\n\r\n").is_none() {
            return false;
        }
        let head = std::mem::take(&mut peer.pending);
        let channel = head.strip_prefix(b"GET /sse/").and_then(|rest| {
            let end = memchr::memchr(b' ', rest)?;
            std::str::from_utf8(&rest[..end]).ok().map(str::to_owned)
        });
        let answer = if channel.is_some() { STREAM_HEAD } else { NOT_FOUND };
        let answered = peer.answer(answer);
        match channel {
            Some(channel) if answered => {
                peer.role = Role::Subscriber;
                self.channels.entry(channel).or_default().push(number);
            }
            _ => self.close(number),
        }
        false
    }

    fn run_control(&mut self, number: usize) {
        let Some(peer) = self.peers[number].as_mut() else { return };
        let pending = std::mem::take(&mut peer.pending);
        let mut taken = 0;
        while let Some(control) = ControlFrame::read(&pending[taken..]) {
            taken += control.bytes;
            self.fan_out(&control);
        }
        if let Some(peer) = self.peers[number].as_mut() {
            peer.pending = pending;
            peer.pending.drain(..taken);
        }
    }

    /// The floor itself.
    fn fan_out(&mut self, control: &ControlFrame<'_>) {
        self.messages += 1;
        self.frame.clear();
        let id = format!("id: floor0-{}\ndata: ", self.messages);
        // The bytes that Fanwire writes: one chunk. Writing into memory cannot fail.
        let _ = write!(self.frame, "{:x}\r\n{id}", id.len() + control.payload.len() + 2);
        self.frame.extend_from_slice(control.payload);
        self.frame.extend_from_slice(b"\n\n\r\n");
        let Some(subscribers) = self.channels.get(control.channel) else { return };
        let mut failed = Vec::new();
        for number in subscribers {
            let Some(peer) = &mut self.peers[*number] else { continue };
            let bytes = match &mut peer.layer {
                Layer::Sealed(sealer) => match sealer.seal(&self.frame, &mut self.record) {
                    Ok(()) => &self.record,
                    // Longer than a record.
                    Err(_) => &Vec::new(),
                },
                Layer::Plain | Layer::Shaking(_) => &self.frame,
            };
            // Without queues a full socket means the subscriber is too slow for this server.
            if bytes.is_empty() || rustix::io::write(peer.socket.as_fd(), bytes) != Ok(bytes.len()) {
                failed.push(*number);
            }
        }
        for number in failed {
            self.close(number);
        }
    }

    fn close(&mut self, number: usize) {
        let Some(peer) = self.peers[number].take() else { return };
        if matches!(peer.role, Role::Subscriber) {
            for subscribers in self.channels.values_mut() {
                if let Some(place) = subscribers.iter().position(|its| *its == number) {
                    subscribers.swap_remove(place);
                    break;
                }
            }
        }
        self.free.push(number);
    }
}
