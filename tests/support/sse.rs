//! An event stream read as the HTML standard says, without reconnecting.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::within;

/// One dispatched event.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Event {
    pub event: String,
    pub data: String,
    pub id: String,
}

/// An open stream.
pub struct EventStream {
    input: BufReader<TcpStream>,
    is_chunked: bool,
    /// Of the body, what has come and was not read yet.
    body: Vec<u8>,
    pub status: u16,
    pub head: Vec<String>,
    last_id: String,
    /// Whether the body came to its own end; a cut leaves it false.
    pub is_whole: bool,
    /// The reconnection time that the server asked for.
    pub retry: Option<u64>,
}

impl EventStream {
    pub async fn open(address: SocketAddr, target: &str) -> Self {
        Self::open_with(address, target, "").await
    }

    /// `headers` are whole lines, each with its CRLF.
    pub async fn open_with(address: SocketAddr, target: &str, headers: &str) -> Self {
        within(async {
            let mut stream = TcpStream::connect(address).await.expect("the server listens");
            let request = format!(
                "GET {target} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n{headers}\r\n"
            );
            stream.write_all(request.as_bytes()).await.expect("written");
            let mut input = BufReader::new(stream);
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                input.read_line(&mut line).await.expect("a head");
                if line.trim_end().is_empty() {
                    break;
                }
                head.push(line.trim_end().to_owned());
            }
            let status =
                head[0].split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
            let is_chunked = head.iter().any(|line| line == "transfer-encoding: chunked");
            EventStream {
                input,
                is_chunked,
                body: Vec::new(),
                status,
                head,
                last_id: String::new(),
                is_whole: false,
                retry: None,
            }
        })
        .await
    }

    /// The next event; `None` once the server has closed.
    pub async fn next(&mut self) -> Option<Event> {
        within(async {
            let mut event = Event::default();
            let mut data: Option<String> = None;
            loop {
                let line = self.line().await?;
                let line = line.as_str();
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "" if line.is_empty() => {
                        if let Some(data) = data.take() {
                            return Some(Event { data, id: self.last_id.clone(), ..event });
                        }
                        event = Event::default();
                    }
                    "data" => match &mut data {
                        Some(data) => *data = format!("{data}\n{value}"),
                        None => data = Some(value.to_owned()),
                    },
                    "event" => event.event = value.to_owned(),
                    "id" => self.last_id = value.to_owned(),
                    "retry" => self.retry = value.parse().ok(),
                    _ => {}
                }
            }
        })
        .await
    }

    /// The next line of the body, out of its chunks.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.body.iter().position(|byte| *byte == b'\n') {
                let rest = self.body.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.body, rest);
                line.pop();
                return Some(String::from_utf8(line).expect("UTF-8"));
            }
            if !self.is_chunked {
                let mut line = Vec::new();
                self.input.read_until(b'\n', &mut line).await.ok().filter(|_| line.ends_with(b"\n"))?;
                self.body.extend_from_slice(&line);
                continue;
            }
            let mut size = String::new();
            self.input.read_line(&mut size).await.ok().filter(|_| size.ends_with("\r\n"))?;
            let size = usize::from_str_radix(size.trim_end(), 16).expect("a chunk's size");
            let mut chunk = vec![0; size + 2];
            self.input.read_exact(&mut chunk).await.ok()?;
            assert!(chunk.ends_with(b"\r\n"), "a chunk is as long as it says");
            if size == 0 {
                self.is_whole = true;
                return None;
            }
            self.body.extend_from_slice(&chunk[..size]);
        }
    }

    /// What a reconnect would send as `Last-Event-ID`.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// The next event's data.
    pub async fn data(&mut self) -> String {
        self.next().await.expect("an event").data
    }
}
