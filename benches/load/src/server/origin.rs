//! The origin behind Pushpin: holds every request as a stream on the channel that its path names.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::dialect::STREAM_PREFIX;

/// Longest request line or header.
const MAX_LINE_BYTES: u64 = 16 * 1_024;

/// Serves on `address` until the process is ended, or its parent is.
///
/// # Errors
/// When the address cannot be bound.
pub(crate) fn serve(address: SocketAddr) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let listener = TcpListener::bind(address)?;
    for stream in listener.incoming() {
        let stream = stream?;
        // The proxy keeps few connections and uses them again.
        thread::spawn(move || answer(&stream));
    }
    Ok(())
}

/// Answers requests without a body until the connection ends or is no HTTP.
fn answer(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        let mut path = None;
        loop {
            line.clear();
            if io::Read::take(&mut reader, MAX_LINE_BYTES).read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim_end().is_empty() {
                break;
            }
            path = path.or_else(|| line.split(' ').nth(1).map(str::to_owned));
        }
        let response = match path.as_deref().and_then(|path| path.strip_prefix(STREAM_PREFIX)) {
            Some(channel) => hold(channel),
            None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
        };
        (&mut &*stream).write_all(response.as_bytes())?;
    }
}

/// The answer that has the proxy hold the stream.
fn hold(channel: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nGrip-Hold: stream\r\nGrip-Channel: {channel}\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_a_hold_is_as_long_as_it_says() {
        let response = hold("load/0/1");
        let (head, body) = response.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("\r\nGrip-Channel: load/0/1\r\n"), "{head}");
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
    }
}
