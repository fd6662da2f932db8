//! Clients that send one message and wait for what comes of it.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A client that sends, and has its answer when its function has been called.
pub(super) trait Client: Send {
    fn ask(&mut self) -> io::Result<()>;
}

/// Longest that one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn connected(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn unexpected(what: &str, found: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {found:?}"))
}

/// MQTT 3.1.1, at QoS 1.
pub(super) struct Mqtt {
    stream: TcpStream,
    topic: String,
}

impl Mqtt {
    pub(super) fn connect(address: SocketAddr, number: usize, topic: &str) -> io::Result<Self> {
        let mut stream = connected(address)?;
        let name = format!("load-{number}");
        let mut packet = vec![0x10, 12 + name.len() as u8];
        packet.extend_from_slice(b"\0\x04MQTT\x04\x02\0\0");
        packet.extend_from_slice(&[0, name.len() as u8]);
        packet.extend_from_slice(name.as_bytes());
        stream.write_all(&packet)?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        if answer != [0x20, 2, 0, 0] {
            return Err(unexpected("no CONNACK", &answer));
        }
        Ok(Self { stream, topic: topic.to_owned() })
    }

    pub(super) fn ask_on(&mut self, topic: &str) -> io::Result<()> {
        let payload = br#"{"text":"hello from a client"}"#;
        let mut packet = vec![0x32, (4 + topic.len() + payload.len()) as u8, 0, topic.len() as u8];
        packet.extend_from_slice(topic.as_bytes());
        packet.extend_from_slice(&[0, 1]);
        packet.extend_from_slice(payload);
        self.stream.write_all(&packet)?;
        let mut answer = [0; 4];
        self.stream.read_exact(&mut answer)?;
        if answer == [0x40, 2, 0, 1] { Ok(()) } else { Err(unexpected("no PUBACK", &answer)) }
    }
}

impl Client for Mqtt {
    fn ask(&mut self) -> io::Result<()> {
        let topic = self.topic.clone();
        self.ask_on(&topic)
    }
}

/// A WebSocket with messages of one frame.
pub(super) struct WebSocket(TcpStream);

impl WebSocket {
    pub(super) fn connect(address: SocketAddr, path: &str) -> io::Result<Self> {
        let mut stream = connected(address)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend_from_slice(&byte);
        }
        if head.starts_with(b"HTTP/1.1 101 ") { Ok(Self(stream)) } else { Err(unexpected("no 101", &head)) }
    }
}

impl WebSocket {
    /// From now on [`Self::heard`] says `WouldBlock` instead of waiting.
    pub(super) fn will_not_wait(&self) -> io::Result<()> {
        self.0.set_nonblocking(true)
    }

    pub(super) fn send(&mut self) -> io::Result<()> {
        let payload = br#"{"action":"send","text":"hello"}"#;
        // Masked with zeros: the same bytes.
        let mut frame = vec![0x81, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        self.0.write_all(&frame)
    }

    /// One frame, short and whole, as text to count it by: ids in it are left out.
    pub(super) fn heard(&mut self) -> io::Result<Option<String>> {
        let mut piece = [0; 1 << 10];
        let bytes = match self.0.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => piece.get(..bytes).unwrap_or_default(),
        };
        Ok(Some(match bytes {
            [0x88, _, high, low, ..] => format!("close {}", u16::from_be_bytes([*high, *low])),
            [0x81, _, text @ ..] => {
                let told = serde_json::from_slice::<serde_json::Value>(text).unwrap_or_default();
                match told.get("message").and_then(serde_json::Value::as_str) {
                    Some(message) => message.to_owned(),
                    None => String::from_utf8_lossy(text).into_owned(),
                }
            }
            other => format!("{:x?}", other.first()),
        }))
    }
}

impl Client for WebSocket {
    fn ask(&mut self) -> io::Result<()> {
        self.send()?;
        let mut head = [0; 2];
        self.0.read_exact(&mut head)?;
        let mut body = vec![0; usize::from(head[1])];
        self.0.read_exact(&mut body)?;
        if head[0] == 0x81 && body == b"done" { Ok(()) } else { Err(unexpected("no answer", &body)) }
    }
}
