//! What one client sends in one go does not keep the others from their turns.

use std::future::poll_fn;
use std::task::Poll;

use front_mqtt::Front;
use tokio::io::AsyncWriteExt;

use crate::client::*;
use crate::support::Server;

const BURST: u64 = 20_000;

/// The most packets that were handled between two turns of another task, until `more` of them were. On a runtime with one
/// thread, whose tasks take turns.
pub(crate) async fn longest_turn(front: &Front, more: u64) -> u64 {
    let front = front.clone();
    let watching = tokio::spawn(async move {
        let before = front.stats().packets_received;
        let (mut seen, mut longest) = (before, 0);
        while seen < before + more {
            // Not tokio's: that one waits for the sockets to be looked at, which is more than one turn.
            let mut waited = false;
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            let now = front.stats().packets_received;
            (longest, seen) = (longest.max(now - seen), now);
        }
        longest
    });
    tokio::time::timeout(4 * SOON, watching).await.expect("all of them are handled").unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn a_burst_of_packets_is_handled_in_turns() {
    let server = Server::start().await;
    // Many packets in one read, and many reads of few packets each.
    for packet in [PING.to_vec(), publish(4, 0, "t", 0, &[0; 2000])] {
        let client = Client::connected(server.address, 4, "a").await;
        let (mut read, mut write) = tokio::io::split(client.stream);
        // Whoever does not read its answers is not read either.
        let reading = tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
        let writing = tokio::spawn(async move {
            let some = packet.repeat(100);
            for _ in 0..BURST / 100 {
                write.write_all(&some).await.unwrap();
            }
            write
        });
        let longest = longest_turn(&server.front, BURST).await;
        assert!(longest <= 64, "{longest} packets in one turn");
        drop(writing.await.unwrap());
        reading.abort();
    }
}
