//! An MQTT client that never gives up: it keeps its half of the session and connects again until all is done.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What carries the packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Over {
    Tcp,
    WebSocket,
}

/// Why a connection is over: it was cut.
#[derive(Debug)]
pub(crate) struct Cut;

impl From<std::io::Error> for Cut {
    fn from(_: std::io::Error) -> Self {
        Cut
    }
}

/// One connection.
struct Wire {
    stream: TcpStream,
    over: Over,
    /// Bytes of packets, taken out of their frames.
    packets: Vec<u8>,
    /// Bytes as they came.
    frames: Vec<u8>,
}

impl Wire {
    async fn open(address: SocketAddr, over: Over) -> Result<Self, Cut> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut wire = Wire { stream, over, packets: Vec::new(), frames: Vec::new() };
        if over == Over::WebSocket {
            let request = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Protocol: mqtt\r\n\r\n";
            wire.stream.write_all(request.as_bytes()).await?;
            let end = loop {
                if let Some(end) = wire.frames.windows(4).position(|four| four == b"\r\n\r\n") {
                    break end + 4;
                }
                wire.fill().await?;
            };
            assert!(wire.frames.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&wire.frames));
            wire.frames.drain(..end);
        }
        Ok(wire)
    }

    async fn fill(&mut self) -> Result<(), Cut> {
        let into = if self.over == Over::Tcp { &mut self.packets } else { &mut self.frames };
        if self.stream.read_buf(into).await? == 0 { Err(Cut) } else { Ok(()) }
    }

    async fn send(&mut self, packet: &[u8]) -> Result<(), Cut> {
        if self.over == Over::Tcp {
            return Ok(self.stream.write_all(packet).await?);
        }
        const MASK: [u8; 4] = [1, 2, 3, 4];
        let mut frame = vec![0x82];
        match packet.len() {
            short @ ..=125 => frame.push(0x80 | short as u8),
            long => {
                frame.push(0x80 | 126);
                frame.extend((long as u16).to_be_bytes());
            }
        }
        frame.extend(MASK);
        frame.extend(packet.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        Ok(self.stream.write_all(&frame).await?)
    }

    /// Moves whole frames' payloads to the packets.
    fn unframe(&mut self) {
        while let [first, second, rest @ ..] = &self.frames[..] {
            let (header, length) = match (second, rest) {
                (126, [high, low, ..]) => (4, usize::from(u16::from_be_bytes([*high, *low]))),
                (126 | 127, _) => return,
                (short, _) => (2, usize::from(*short)),
            };
            if self.frames.len() < header + length {
                return;
            }
            assert!(matches!(first, 0x82 | 0x88), "a frame of another kind: {first:x}");
            if *first == 0x82 {
                self.packets.extend_from_slice(&self.frames[header..header + length]);
            }
            self.frames.drain(..header + length);
        }
    }

    /// The next packet: first byte and body.
    async fn read(&mut self) -> Result<(u8, Vec<u8>), Cut> {
        loop {
            self.unframe();
            if let [first, length @ ..=127, rest @ ..] = &self.packets[..] {
                let (first, length) = (*first, usize::from(*length));
                if rest.len() >= length {
                    let body = rest[..length].to_vec();
                    self.packets.drain(..2 + length);
                    return Ok((first, body));
                }
            }
            self.fill().await?;
        }
    }
}

/// An exchange of ours that is not finished.
struct Ours {
    id: u16,
    n: usize,
    released: bool,
}

/// The client's half of the session.
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) over: Over,
    pub(crate) level: u8,
    pub(crate) qos: u8,
    /// What it has heard, repeats included.
    pub(crate) heard: Vec<usize>,
    /// One more than the largest of it.
    heard_up_to: usize,
    /// Identifiers of QoS 2 publishes it has taken and that are not released.
    taken: BTreeSet<u16>,
    ours: VecDeque<Ours>,
    next: usize,
    last_id: u16,
}

/// Publishes of ours that may be unfinished: fewer than the server's receive maximum.
const WINDOW: usize = 20;

impl Client {
    pub(crate) fn new(address: SocketAddr, over: Over, level: u8, qos: u8) -> Self {
        Client {
            address,
            over,
            level,
            qos,
            heard: Vec::new(),
            heard_up_to: 0,
            taken: BTreeSet::new(),
            ours: VecDeque::new(),
            next: 0,
            last_id: 0,
        }
    }

    /// Connects once and subscribes.
    pub(crate) async fn subscribe(&mut self, topic: &str) {
        let mut wire = self.connect().await.expect("nothing cuts this one");
        let properties: &[u8] = if self.level == 5 { &[0] } else { &[] };
        let body = [&[0, 1], properties, &string(topic), &[self.qos]].concat();
        wire.send(&packet(0x82, &body)).await.expect("nothing cuts this one");
        let (first, suback) = wire.read().await.expect("nothing cuts this one");
        assert_eq!((first, suback.last()), (0x90, Some(&self.qos)));
        wire.send(&[0xE0, 0]).await.expect("nothing cuts this one");
        // Until the server is through with it.
        while wire.fill().await.is_ok() {}
    }

    async fn connect(&self) -> Result<Wire, Cut> {
        let mut wire = Wire::open(self.address, self.over).await?;
        let mut body = string("MQTT");
        body.extend([self.level, 0, 0, 0]);
        if self.level == 5 {
            body.extend([5, 17, 0, 0, 1, 0]);
        }
        body.extend(string("stubborn"));
        wire.send(&packet(0x10, &body)).await?;
        let (first, connack) = wire.read().await?;
        assert_eq!((first, connack[1]), (0x20, 0), "{connack:x?}");
        Ok(wire)
    }

    /// Publishes `count` numbers to `topic` and hears as many, however often it is cut off.
    pub(crate) async fn run(&mut self, topic: &str, count: usize, progress: impl Fn(usize)) {
        while !self.is_done(count) {
            // A connection that is cut is all an error can be.
            _ = self.life(topic, count, &progress).await;
        }
    }

    fn is_done(&self, count: usize) -> bool {
        self.next == count
            && self.ours.is_empty()
            && self.heard.last() == Some(&(count - 1))
            && self.taken.is_empty()
    }

    async fn life(&mut self, topic: &str, count: usize, progress: &impl Fn(usize)) -> Result<(), Cut> {
        let mut wire = self.connect().await?;
        for ours in &self.ours {
            let again =
                if ours.released { ack(0x62, ours.id) } else { self.publish(topic, ours.id, ours.n, 8) };
            wire.send(&again).await?;
        }
        while !self.is_done(count) {
            while self.ours.len() < WINDOW && self.next < count {
                self.last_id = self.last_id % 60_000 + 1;
                let (id, n) = (self.last_id, self.next);
                self.next += 1;
                self.ours.push_back(Ours { id, n, released: false });
                wire.send(&self.publish(topic, id, n, 0)).await?;
            }
            let (first, body) = wire.read().await?;
            self.handle(&mut wire, first, &body).await?;
            progress(self.heard_up_to);
        }
        wire.send(&[0xE0, 0]).await
    }

    async fn handle(&mut self, wire: &mut Wire, first: u8, body: &[u8]) -> Result<(), Cut> {
        match first >> 4 {
            3 => {
                let topic = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let id = u16::from_be_bytes([body[topic], body[topic + 1]]);
                let properties = if self.level == 5 { 1 + usize::from(body[topic + 2]) } else { 0 };
                let text = std::str::from_utf8(&body[topic + 2 + properties..]).expect("a number");
                let n: usize = text.parse().expect("a number");
                self.heard_up_to = self.heard_up_to.max(n + 1);
                if self.qos == 1 {
                    self.heard.push(n);
                    return wire.send(&ack(0x40, id)).await;
                }
                if self.taken.insert(id) {
                    self.heard.push(n);
                }
                wire.send(&ack(0x50, id)).await
            }
            6 => {
                let id = u16::from_be_bytes([body[0], body[1]]);
                self.taken.remove(&id);
                wire.send(&ack(0x70, id)).await
            }
            kind @ (4 | 5 | 7) => {
                let id = u16::from_be_bytes([body[0], body[1]]);
                let Some(index) = self.ours.iter().position(|ours| ours.id == id) else { return Ok(()) };
                if kind == 5 {
                    self.ours[index].released = true;
                    return wire.send(&ack(0x62, id)).await;
                }
                self.ours.remove(index);
                Ok(())
            }
            _ => panic!("an unexpected packet: {first:x} {body:x?}"),
        }
    }

    fn publish(&self, topic: &str, id: u16, n: usize, dup: u8) -> Vec<u8> {
        let mut body = string(topic);
        body.extend(id.to_be_bytes());
        if self.level == 5 {
            body.push(0);
        }
        body.extend(n.to_string().as_bytes());
        packet(0x30 | dup | self.qos << 1, &body)
    }
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first, u8::try_from(body.len()).expect("short packets only")], body].concat()
}

fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}
