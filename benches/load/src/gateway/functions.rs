//! Functions that take their time: a thread for each connection of the server.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

pub(super) struct Functions {
    pub(super) address: SocketAddr,
    told: AtomicUsize,
    ended: AtomicUsize,
    delay: Duration,
}

impl Functions {
    pub(super) fn start(delay: Duration) -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, [told, ended]) = (listener.local_addr()?, Default::default());
        let functions = Arc::new(Self { address, told, ended, delay });
        let own = Arc::clone(&functions);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let own = Arc::clone(&own);
                thread::spawn(move || own.serve(stream));
            }
        });
        Ok(functions)
    }

    /// Notifications so far.
    pub(super) fn told(&self) -> usize {
        self.told.load(Relaxed)
    }

    /// Ends of connections so far.
    pub(super) fn ended(&self) -> usize {
        self.ended.load(Relaxed)
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut read = Vec::new();
        loop {
            let (path, whole) = loop {
                if let Some(found) = request(&read) {
                    break found;
                }
                let mut piece = [0; 16 << 10];
                match stream.read(&mut piece)? {
                    0 => return Ok(()),
                    bytes => read.extend_from_slice(piece.get(..bytes).unwrap_or_default()),
                }
            };
            read.drain(..whole);
            let answer = match &*path {
                "/socket" => {
                    stream.write_all(SWITCHING.as_bytes())?;
                    return self.converse(stream, read);
                }
                // It is awaited for as long as the server likes, and longer.
                "/hangs" => {
                    thread::sleep(HANGS);
                    return Ok(());
                }
                "/garbage" => {
                    stream.write_all(b"\x16\x03garbage\r\n\r\n")?;
                    return Ok(());
                }
                // What is told waits for nobody, and measures the server alone.
                "/told" => {
                    self.told.fetch_add(1, Relaxed);
                    "HTTP/1.1 204 No Content\r\n\r\n"
                }
                "/ended" => {
                    thread::sleep(self.delay);
                    self.ended.fetch_add(1, Relaxed);
                    "HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n{\"statusCode\":200}"
                }
                "/function" => {
                    thread::sleep(self.delay);
                    "HTTP/1.1 200 OK\r\ncontent-length: 32\r\n\r\n{\"statusCode\":200,\"body\":\"done\"}"
                }
                _ => {
                    thread::sleep(self.delay);
                    "HTTP/1.1 204 No Content\r\n\r\n"
                }
            };
            stream.write_all(answer.as_bytes())?;
        }
    }

    /// A WebSocket of its own: for each message the same answer as the function's, after as long.
    fn converse(&self, mut stream: TcpStream, mut read: Vec<u8>) -> io::Result<()> {
        loop {
            let mut piece = [0; 1 << 10];
            // Masked, and short.
            while let Some(length) = read.get(1).map(|second| 6 + usize::from(second & 0x7f)) {
                if read.len() < length {
                    break;
                }
                read.drain(..length);
                thread::sleep(self.delay);
                stream.write_all(b"\x81\x04done")?;
            }
            match stream.read(&mut piece)? {
                0 => return Ok(()),
                bytes => read.extend_from_slice(piece.get(..bytes).unwrap_or_default()),
            }
        }
    }
}

/// What ends the handshake of a client of [`super::clients`], whose key is always the same.
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Longer than any part is measured.
const HANGS: Duration = Duration::from_secs(120);

/// The path of a whole request, and its length; `None`: more of it is to come.
pub(super) fn request(read: &[u8]) -> Option<(String, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(read) {
        Ok(httparse::Status::Complete(head)) => head,
        _ => return None,
    };
    let path = request.path?.to_owned();
    let length = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    let whole = head + length.unwrap_or(0);
    (read.len() >= whole).then_some((path, whole))
}
