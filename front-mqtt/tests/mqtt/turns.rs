//! What one client sends in one go does not keep the others from their turns.

use std::future::poll_fn;
use std::task::Poll;

use front_mqtt::Front;
use tokio::io::AsyncWriteExt;

use crate::client::*;
use crate::support::Server;

const BURST: u64 = 4_000;

/// The most packets that were handled between two turns of another task, until `more` of them were. On a runtime with
/// one thread, whose tasks take turns.
pub(crate) async fn longest_turn(front: &Front, more: u64) -> u64 {
    let (front, before) = (front.clone(), front.stats().packets_received);
    longest_turn_of(move || front.stats().packets_received - before, more).await
}

/// The most by which `figure` grew between two turns of another task, on its way from 0 to `end`.
async fn longest_turn_of(figure: impl Fn() -> u64 + Send + 'static, end: u64) -> u64 {
    let watching = tokio::spawn(async move {
        let (mut seen, mut longest) = (0, 0);
        while seen < end {
            // Not tokio's: that one waits for the sockets to be looked at, which is more than one turn.
            let mut waited = false;
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            let now = figure();
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

#[tokio::test(flavor = "current_thread")]
async fn the_filters_of_one_packet_are_handled_in_turns() {
    const FILTERS: u64 = 10_000;
    let server = Server::start().await;
    let names: Vec<String> = (0..FILTERS).map(|n| format!("a/{n}/+")).collect();
    let asked: Vec<(&str, u8)> = names.iter().map(|name| (&**name, 0)).collect();
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    let mut client = Client::connected(server.address, 4, "a").await;
    for (packet, answer) in [(subscribe(4, 1, &asked), 0x90), (unsubscribe(4, 1, &names), 0xB0)] {
        let (broker, before) = (server.broker.clone(), server.broker.stats().subscriptions as u64);
        let changed = move || before.abs_diff(broker.stats().subscriptions as u64);
        client.send(&packet).await;
        let longest = longest_turn_of(changed, FILTERS).await;
        assert!(longest <= 64, "{longest} filters in one turn");
        let raw = client.read().await;
        assert_eq!(raw.first, answer);
        assert!(raw.body[2..].iter().all(|code| *code == 0));
    }
}

#[tokio::test]
async fn a_packet_has_no_more_filters_than_a_session() {
    let mut config = front_mqtt::Config::default();
    config.max_subscriptions = 3;
    let server = Server::with(config).await;
    let mut client = Client::connected(server.address, 5, "a").await;
    let codes = client.subscribe(5, &[("a", 0), ("a", 1), ("b", 2), ("a", 0), ("c", 0)]).await;
    assert_eq!(codes, [0, 1, 2, 0x97, 0x97]);
    assert_eq!(server.broker.stats().subscriptions, 2);
    client.send(&unsubscribe(5, 9, &["x", "y", "#/x", "a", "#/x"])).await;
    let unsuback = client.read().await;
    assert_eq!((unsuback.first, &unsuback.body[3..]), (0xB0, &[0x11, 0x11, 0x8F, 0, 0x11][..]));
    assert_eq!(server.broker.stats().subscriptions, 1);
}
