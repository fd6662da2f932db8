//! After `101 Switching Protocols`, or over HTTP/2 after the 200 to a CONNECT.

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade;
use tokio::net::TcpStream;

use super::io::WatchedIo;
use super::tunnel::Tunnel;
use crate::request::BoxError;

/// As [`upgraded`], also for what was a stream of HTTP/2.
pub(crate) async fn taken_over(on: OnUpgrade, tunnel: Option<Tunnel>) -> Result<link::Socket, BoxError> {
    let upgraded = on.await?;
    Ok(match tunnel {
        Some(tunnel) => tunnel.socket(upgraded),
        None => unwrap(upgraded),
    })
}

/// The connection once the 101 is written: a socket that lanes can write to where [`serve`](crate::serve) or an
/// embedding service's hyper-util server (axum, for one, without TLS) holds one, else whatever carries the bytes.
///
/// Bytes that the client sent after its request are copied, as they would otherwise keep hyper's buffer alive.
///
/// # Errors
/// The connection failed before the 101 was written, or the server does not do upgrades.
pub async fn upgraded(on: OnUpgrade) -> Result<link::Socket, BoxError> {
    taken_over(on, None).await
}

fn unwrap(upgraded: Upgraded) -> link::Socket {
    let upgraded = match upgraded.downcast::<WatchedIo>() {
        Ok(parts) => {
            let (stream, hold) = parts.io.into_parts();
            return link::Socket::tcp(stream, parts.read_buf.to_vec()).holding(hold);
        }
        Err(upgraded) => upgraded,
    };
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => return link::Socket::tcp(parts.io.into_inner(), parts.read_buf.to_vec()),
        Err(upgraded) => upgraded,
    };
    match upgrade::downcast::<TokioIo<TcpStream>>(upgraded) {
        Ok(parts) => link::Socket::tcp(parts.io.into_inner(), parts.read_buf.to_vec()),
        Err(upgraded) => link::Socket::other(TokioIo::new(upgraded), Vec::new()),
    }
}
