//! A client that writes and reads bytes, and nothing behind the test's back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::transport::{self, Stream};

/// How long a test waits for what must come.
pub(crate) const SOON: Duration = Duration::from_secs(5);
/// How long a test waits to believe that nothing comes.
pub(crate) const QUIET: Duration = Duration::from_millis(200);

pub(crate) struct Client {
    pub(crate) stream: Box<dyn Stream>,
}

/// A packet as it came: first byte, body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) first: u8,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    binary(text.as_bytes())
}

pub(crate) fn binary(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u16).to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

pub(crate) fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![first];
    let mut length = body.len();
    loop {
        let more = length > 127;
        out.push((length % 128) as u8 | if more { 0x80 } else { 0 });
        length /= 128;
        if !more {
            break;
        }
    }
    out.extend_from_slice(&body);
    out
}

/// CONNECT without user, password and will. `properties` are left out for level 4.
pub(crate) fn connect(level: u8, id: &str, clean: bool, keep_alive: u16, properties: &[u8]) -> Vec<u8> {
    let head =
        [string("MQTT"), vec![level, if clean { 2 } else { 0 }], keep_alive.to_be_bytes().to_vec()].concat();
    let properties =
        if level == 5 { [&[properties.len() as u8][..], properties].concat() } else { Vec::new() };
    packet(0x10, &[&head, &properties, &string(id)])
}

pub(crate) fn subscribe(level: u8, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if level == 5 {
        body.push(0);
    }
    for (filter, options) in filters {
        body.extend(string(filter));
        body.push(*options);
    }
    packet(0x82, &[&body])
}

pub(crate) fn unsubscribe(level: u8, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if level == 5 {
        body.push(0);
    }
    for filter in filters {
        body.extend(string(filter));
    }
    packet(0xA2, &[&body])
}

/// PUBLISH with the flags `flags` (DUP 8, QoS 2 and 4, RETAIN 1).
pub(crate) fn publish(level: u8, flags: u8, topic: &str, id: u16, payload: &[u8]) -> Vec<u8> {
    publish_with(level, flags, topic, id, &[], payload)
}

pub(crate) fn publish_with(
    level: u8,
    flags: u8,
    topic: &str,
    id: u16,
    properties: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let id = if flags & 6 != 0 { id.to_be_bytes().to_vec() } else { Vec::new() };
    let properties =
        if level == 5 { [&[properties.len() as u8][..], properties].concat() } else { Vec::new() };
    packet(0x30 | flags, &[&string(topic), &id, &properties, payload])
}

pub(crate) fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &[&id.to_be_bytes()])
}

pub(crate) const DISCONNECT: &[u8] = &[0xE0, 0];
pub(crate) const PING: &[u8] = &[0xC0, 0];

impl Client {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self { stream: transport::open(address).await }
    }

    /// Connects with a clean session and no keep alive.
    pub(crate) async fn connected(address: SocketAddr, level: u8, id: &str) -> Self {
        Self::connected_with(address, &connect(level, id, true, 0, &[])).await.0
    }

    /// Connects, checks that it was let in, and says whether a session was present.
    pub(crate) async fn connected_with(address: SocketAddr, connect: &[u8]) -> (Self, bool) {
        let mut client = Self::open(address).await;
        client.send(connect).await;
        let connack = client.read().await;
        assert_eq!((connack.first, connack.body[1]), (0x20, 0), "{connack:x?}");
        (client, connack.body[0] == 1)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a SUBSCRIBE and returns the codes of its SUBACK.
    pub(crate) async fn subscribe(&mut self, level: u8, filters: &[(&str, u8)]) -> Vec<u8> {
        self.send(&subscribe(level, 100, filters)).await;
        let suback = self.read().await;
        assert_eq!((suback.first, &suback.body[..2]), (0x90, &[0, 100][..]), "{suback:x?}");
        suback.body[if level == 5 { 3 } else { 2 }..].to_vec()
    }

    /// The next packet; panics if none comes.
    pub(crate) async fn read(&mut self) -> Raw {
        self.try_read(SOON).await.expect("a packet should have come")
    }

    /// The next packet, or `None` if none comes in `wait` or the connection ends.
    pub(crate) async fn try_read(&mut self, wait: Duration) -> Option<Raw> {
        tokio::time::timeout(wait, async {
            let first = self.stream.read_u8().await.ok()?;
            let (mut length, mut shift) = (0usize, 0);
            loop {
                let byte = self.stream.read_u8().await.ok()?;
                length |= usize::from(byte & 0x7F) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.ok()?;
            Some(Raw { first, body })
        })
        .await
        .ok()?
    }

    /// Reads a PUBLISH of version 3: flags, topic, packet identifier (0 with QoS 0), payload.
    pub(crate) async fn read_publish(&mut self) -> (u8, String, u16, Vec<u8>) {
        self.try_publish().await.expect("a PUBLISH should have come")
    }

    /// As [`Client::read_publish`]; `None` if nothing comes.
    pub(crate) async fn try_publish(&mut self) -> Option<(u8, String, u16, Vec<u8>)> {
        let raw = self.try_read(SOON).await?;
        assert_eq!(raw.first >> 4, 3, "a PUBLISH should have come: {raw:x?}");
        let length = usize::from(u16::from_be_bytes([raw.body[0], raw.body[1]]));
        let topic = String::from_utf8(raw.body[2..2 + length].to_vec()).unwrap();
        let mut rest = &raw.body[2 + length..];
        let mut id = 0;
        if raw.first & 6 != 0 {
            id = u16::from_be_bytes([rest[0], rest[1]]);
            rest = &rest[2..];
        }
        Some((raw.first & 0xF, topic, id, rest.to_vec()))
    }

    pub(crate) async fn expect(&mut self, bytes: &[u8]) {
        let raw = self.read().await;
        assert_eq!([&[raw.first, raw.body.len() as u8][..], &raw.body].concat(), bytes);
    }

    pub(crate) async fn expect_quiet(&mut self) {
        let raw = self.try_read(QUIET).await;
        assert_eq!(raw, None, "nothing should have come");
    }

    /// Waits for the server's end of the stream.
    pub(crate) async fn expect_closed(&mut self) {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(SOON, self.stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "the connection should have been closed");
        assert!(rest.is_empty(), "{rest:x?}: nothing should come before the close");
    }
}
