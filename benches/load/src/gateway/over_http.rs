//! `fanwire-load ws-over-http`: what a message of a WebSocket costs whose origin answers short requests. Clients here, the
//! origin here, and between them a server; Pushpin too where it is installed.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use clap::Args;

use super::clients::WebSocket;
use super::functions::request;
use super::{Server, nobody, rounds, table};
use crate::sys::affinity::Cpus;

#[derive(Debug, Args)]
pub(crate) struct WsOverHttpArgs {
    /// Clients, each with one message under way.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// How long each part is measured, seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How long the origin takes, milliseconds.
    #[arg(long, default_value_t = 0)]
    delay: u64,
    /// Clients of Pushpin, which fails those that come many at a time.
    #[arg(long, default_value_t = 64)]
    pushpin_connections: usize,
    /// CPUs for the server; default 0 if there are two or more, else none.
    #[arg(long)]
    server_cpus: Option<Cpus>,
}

/// Measures and prints; false never, as a client that is not answered is an error.
pub(crate) fn run(args: &WsOverHttpArgs) -> io::Result<bool> {
    let delay = Duration::from_millis(args.delay);
    let span = Duration::from_secs(args.seconds.clamp(1, 60));
    let origin = origin(delay)?;
    let cpus = args.server_cpus.as_ref();
    let config = format!(
        "[[gateway.routes]]\nid = \"load\"\ndialect = \"grip\"\npath = \"/**\"\norigin = \"http://{origin}\"\n"
    );
    let server = Server::with_config(&config, None, cpus)?;
    let connect = |_| WebSocket::connect(server.http, "/load");
    let mut parts = vec![rounds("fanwire", args.connections, span, delay, &server, connect)?];
    let root = std::env::var_os("PUSHPIN_ROOT").unwrap_or_default();
    if Path::new(&root).join("usr/bin/pushpin").exists() || Path::new("/usr/bin/pushpin").exists() {
        let peer = pushpin(origin, cpus)?;
        let connect = |_| WebSocket::connect(peer.http, "/load");
        parts.push(rounds("pushpin", args.pushpin_connections, span, delay, &peer, connect)?);
        drop(peer);
        let connect = |_| WebSocket::connect(server.http, "/load");
        parts.push(rounds("fanwire again", args.connections, span, delay, &server, connect)?);
    } else {
        println!("pushpin is not installed");
    }
    print!("{}", table(parts));
    io::stdout().flush()?;
    Ok(true)
}

/// Pushpin before the same origin.
fn pushpin(origin: SocketAddr, cpus: Option<&Cpus>) -> io::Result<Server> {
    let (http, control) = (nobody()?, nobody()?);
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../peers/pushpin.sh"));
    let mut command = Command::new("sh");
    command
        .arg(script)
        .args([http.to_string(), control.to_string(), origin.to_string()])
        .args(["tcp", "none"]);
    command.env("PUSHPIN_ROUTE", format!("{origin},over_http"));
    Server::peer(command, http, "/load", cpus)
}

/// An origin that opens every WebSocket and says `done` to each message: a thread for each connection of the server.
fn origin(delay: Duration) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(stream, delay));
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream, delay: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::new();
    loop {
        let whole = loop {
            if let Some((_, whole)) = request(&read) {
                break whole;
            }
            let mut piece = [0; 16 << 10];
            match stream.read(&mut piece)? {
                0 => return Ok(()),
                bytes => read.extend_from_slice(piece.get(..bytes).unwrap_or_default()),
            }
        };
        let answer = answer(read.get(..whole).unwrap_or_default());
        read.drain(..whole);
        if !delay.is_zero() {
            thread::sleep(delay);
        }
        stream.write_all(&answer)?;
    }
}

/// The answer to a request: its events are those of [`WebSocket`] alone, and none has a line end in it.
fn answer(request: &[u8]) -> Vec<u8> {
    let head = request.windows(4).position(|four| four == b"\r\n\r\n").map_or(request.len(), |at| at + 4);
    let events = String::from_utf8_lossy(request.get(head..).unwrap_or_default());
    let mut body = String::new();
    for line in events.lines() {
        match line.split(' ').next() {
            Some("OPEN") => body.push_str("OPEN\r\n"),
            Some("TEXT") => body.push_str("TEXT 6\r\nm:done\r\n"),
            Some("CLOSE") => body.push_str("CLOSE\r\n"),
            _ => {}
        }
    }
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/websocket-events\r\nsec-websocket-extensions: grip\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_answered_and_its_content_is_none() {
        let of = |events: &str| {
            let answer = answer(format!("POST / HTTP/1.1\r\nhost: a\r\n\r\n{events}").as_bytes());
            String::from_utf8(answer).expect("text").split("\r\n\r\n").nth(1).map(str::to_owned)
        };
        assert_eq!(of("OPEN\r\n").as_deref(), Some("OPEN\r\n"));
        let two = "TEXT 7\r\n{\"a\":1}\r\nTEXT 7\r\n{\"a\":2}\r\n";
        assert_eq!(of(two).as_deref(), Some("TEXT 6\r\nm:done\r\nTEXT 6\r\nm:done\r\n"));
    }
}
