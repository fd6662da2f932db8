//! The bare server that everything is compared with: one thread, and per message a plain loop of `write(2)`.
//!
//! It knows no limits, policies, log or rights. Subscribers attach as to Fanwire (`GET /sse/{channel}`); a control
//! connection names a channel and a payload, the frame is encoded once, and every socket of the channel is written
//! to in turn. Messages are never joined, in bursts neither.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept_with, bind, listen, socket_with, sockopt};

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

struct Peer {
    socket: OwnedFd,
    role: Role,
    pending: Vec<u8>,
}

struct Floor {
    poller: Poller,
    listener: OwnedFd,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    channels: HashMap<String, Vec<usize>>,
    frame: Vec<u8>,
    messages: u64,
}

/// Serves on `address` until the process is ended.
///
/// # Errors
/// When the address cannot be bound or epoll fails.
pub(crate) fn serve(address: SocketAddr) -> io::Result<()> {
    raise_descriptor_limit();
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
        frame: Vec::new(),
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
            self.peers[number] = Some(Peer { socket, role: Role::New, pending: Vec::new() });
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
        peer.pending.extend_from_slice(&buffer[..bytes]);
        if peer.pending.len() > MAX_PENDING_BYTES {
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
        let written = rustix::io::write(&peer.socket, answer);
        match channel {
            Some(channel) if written == Ok(answer.len()) => {
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
            let Some(peer) = &self.peers[*number] else { continue };
            // Without queues a full socket means the subscriber is too slow for this server.
            if rustix::io::write(peer.socket.as_fd(), &self.frame) != Ok(self.frame.len()) {
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
