//! What carries the bytes of a test, so that each runs over TCP and over WebSocket.

use std::io;
use std::net::SocketAddr;

use front_mqtt::Front;
use http_edge::ServeConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "each test binary uses one of them")]
pub(crate) enum Transport {
    Tcp,
    WebSocket,
}

/// Either end of a connection, as bytes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Serves the front on a free port, for as long as the runtime lives.
pub(crate) async fn serve(front: Front) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (_keep, down) = tokio::sync::watch::channel(false);
        while let Ok((stream, peer)) = listener.accept().await {
            let (front, down) = (front.clone(), down.clone());
            match crate::TRANSPORT {
                Transport::Tcp => {
                    tokio::spawn(async move { front.serve_tcp(stream, peer).await });
                }
                Transport::WebSocket => {
                    let service = move |request| {
                        let front = front.clone();
                        async move { front.handle(request).await }
                    };
                    tokio::spawn(http_edge::serve(stream, peer, service, ServeConfig::default(), down));
                }
            }
        }
    });
    address
}

pub(crate) async fn open(address: SocketAddr) -> Box<dyn Stream> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    if crate::TRANSPORT == Transport::Tcp {
        return Box::new(stream);
    }
    let request = format!(
        "GET /mqtt HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    let (near, far) = tokio::io::duplex(64 << 10);
    tokio::spawn(bridge(far, stream));
    Box::new(near)
}

/// Puts what the test writes into masked frames, and takes the server's frames apart. The end of either side
/// ends the other.
async fn bridge(test: DuplexStream, socket: TcpStream) {
    let (mut from_test, mut to_test) = tokio::io::split(test);
    let (mut from_server, mut to_server) = socket.into_split();
    let down = async move {
        loop {
            let first = from_server.read_u8().await?;
            let length = match from_server.read_u8().await? {
                126 => usize::from(from_server.read_u16().await?),
                127 => from_server.read_u64().await? as usize,
                short => usize::from(short),
            };
            let mut payload = vec![0; length];
            from_server.read_exact(&mut payload).await?;
            match first {
                0x82 => to_test.write_all(&payload).await?,
                0x88 => break,
                other => panic!("an unexpected frame: {other:x}"),
            }
        }
        to_test.shutdown().await
    };
    let up = async move {
        let mut bytes = vec![0; 16 << 10];
        loop {
            let read = from_test.read(&mut bytes).await?;
            if read == 0 {
                return io::Result::Ok(());
            }
            to_server.write_all(&frame(0x82, &bytes[..read])).await?;
        }
    };
    // The test's own end closes the socket without a word; the server's end is passed on.
    tokio::select! {
        _ = up => {}
        _ = down => {}
    }
}

/// A masked client frame.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        bytes @ ..126 => out.push(0x80 | bytes as u8),
        bytes @ ..65_536 => {
            out.push(0x80 | 126);
            out.extend((bytes as u16).to_be_bytes());
        }
        bytes => {
            out.push(0x80 | 127);
            out.extend((bytes as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}
