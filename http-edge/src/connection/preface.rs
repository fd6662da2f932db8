//! Which version of HTTP a client speaks.

use bytes::Bytes;
use link::NetStream;

/// The preface of HTTP/2 (RFC 9113 §3.4) begins so, and no method of HTTP/1 does.
const PREFACE: &[u8; 3] = b"PRI";

/// Whether the client opens with the preface of HTTP/2, and what had to be read to know.
pub(crate) async fn speaks_http2(stream: &NetStream) -> std::io::Result<(bool, Bytes)> {
    let mut start = [0; PREFACE.len()];
    let seen = stream.peek(&mut start).await?;
    match start.get(..seen) {
        Some(start) if start == PREFACE => Ok((true, Bytes::new())),
        Some(start) if seen > 0 && PREFACE.starts_with(start) => Box::pin(read_preface(stream)).await,
        _ => Ok((false, Bytes::new())),
    }
}

/// The same for a client that has sent a part of it. It is read: as long as it waits in the socket there would be no
/// event to wait for.
async fn read_preface(stream: &NetStream) -> std::io::Result<(bool, Bytes)> {
    let mut start = [0; PREFACE.len()];
    let mut seen = 0;
    loop {
        stream.readable().await?;
        match stream.try_read(start.get_mut(seen..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(read) => seen += read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if seen == PREFACE.len() || start.get(..seen).is_none_or(|start| !PREFACE.starts_with(start)) {
            break;
        }
    }
    Ok((start == *PREFACE, Bytes::copy_from_slice(start.get(..seen).unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test]
    async fn a_client_that_has_sent_a_part_of_the_preface_is_asked_again_only_when_it_sends_more() {
        for (pieces, expected) in [
            (&["P", "R", "I * HTTP/2.0"][..], (true, "PRI")),
            (&["PR", "OPFIND /"], (false, "PRO")),
            (&["P", "UT /"], (false, "PUT")),
            (&["PRI * "], (true, "")),
            (&["GET /"], (false, "")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let stream = NetStream::from(listener.accept().await.unwrap().0);
            let polls = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&polls);
            let asked = tokio::spawn(async move {
                let mut asking = pin!(speaks_http2(&stream));
                poll_fn(|cx| {
                    count.fetch_add(1, Relaxed);
                    asking.as_mut().poll(cx)
                })
                .await
                .unwrap()
            });
            for piece in pieces {
                client.write_all(piece.as_bytes()).await.unwrap();
                // Time enough for a loop that waits for nothing.
                sleep(Duration::from_millis(200)).await;
            }
            let (is_http2, read) = timeout(Duration::from_secs(10), asked).await.unwrap().unwrap();
            assert_eq!((is_http2, &read[..]), (expected.0, expected.1.as_bytes()), "{pieces:?}");
            let polls = polls.load(Relaxed);
            assert!(polls <= 2 * pieces.len() + 2, "{polls} polls for {pieces:?}");
        }
    }
}
