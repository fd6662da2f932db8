//! Publishes to channels that an engine keeps: several of a client under way, answered in their order.

use std::time::Duration;

use conformance::MEMORY;
use tokio::io::AsyncWriteExt as _;

use crate::client::*;
use crate::exact::{Gated, history};
use crate::kept::{keep, life, settle};

/// As many operations wait, and no more come.
async fn wait(ground: &Gated, operations: usize) {
    for _ in 0..500 {
        if ground.waiting() >= operations {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(QUIET).await;
    assert_eq!(ground.waiting(), operations);
}

#[tokio::test]
async fn what_comes_meanwhile_is_under_way_too_and_all_is_answered_in_order() {
    let ground = Gated::new();
    let server = life(&ground).await;
    let (mut client, _) = Client::connected_with(server.address, &keep(4)).await;
    settle(&mut client).await;
    ground.shut();
    let publishes = [
        publish(4, 2, "t", 1, b"1"),
        publish(4, 4, "t", 2, b"2"),
        PING.to_vec(),
        publish(4, 2, "u", 3, b"3"),
        // Its answer is that of the first.
        publish(4, 12, "t", 2, b"2"),
        // What would be delivered at once comes after those before it, and so does what changes the session.
        publish(4, 4, &format!("{MEMORY}/t"), 4, b"4"),
        publish(4, 0, "t", 0, b"5"),
        subscribe(4, 5, &[("t", 0)]),
        publish(4, 2, "t", 6, b"6"),
    ];
    client.send(&publishes.concat()).await;
    wait(&ground, 3).await;
    client.expect_quiet().await;
    ground.open_again();
    let answers =
        [ack(0x40, 1), ack(0x50, 2), vec![0xD0, 0], ack(0x40, 3), ack(0x50, 4), vec![0x90, 3, 0, 5, 0]];
    for answer in answers {
        client.expect(&answer).await;
    }
    let (mut acknowledged, mut received) = (false, false);
    while !(acknowledged && received) {
        let next = client.read().await;
        acknowledged |= next.first == 0x40 && next.body == [0, 6];
        received |= next.first == 0x30 && next.body.ends_with(b"6");
    }
    assert_eq!(history(&server, "t").await, ["1", "2", "5", "6"]);
    assert_eq!(history(&server, &format!("{MEMORY}/t")).await, ["4"]);
}

#[tokio::test]
async fn no_more_are_under_way_than_a_client_may_have() {
    let ground = Gated::new();
    let server = life(&ground).await;
    let mut client = Client::connected(server.address, 4, "c").await;
    ground.shut();
    let all: Vec<u8> = (1..=150).flat_map(|id| publish(4, 2, "t", id, b"x")).collect();
    client.send(&all).await;
    wait(&ground, 100).await;
    ground.open_again();
    for id in 1..=150 {
        client.expect(&ack(0x40, id)).await;
    }
}

#[tokio::test]
async fn who_sends_no_more_is_answered_before_the_end() {
    for last in [DISCONNECT, &[]] {
        let ground = Gated::new();
        let server = life(&ground).await;
        let mut client = Client::connected(server.address, 4, "c").await;
        ground.shut();
        let all: Vec<u8> = (1..=3).flat_map(|id| publish(4, 2, "t", id, b"x")).collect();
        client.send(&[&all, last].concat()).await;
        client.stream.shutdown().await.unwrap();
        wait(&ground, 3).await;
        ground.open_again();
        for id in 1..=3 {
            client.expect(&ack(0x40, id)).await;
        }
        client.expect_closed().await;
    }
}

#[tokio::test]
async fn those_that_a_connection_left_are_published_once() {
    let ground = Gated::new();
    let server = life(&ground).await;
    let (mut client, _) = Client::connected_with(server.address, &keep(4)).await;
    settle(&mut client).await;
    ground.shut();
    let publishes = |flags| (7..=9).flat_map(move |id| publish(4, flags, "t", id, &[b'0' + id as u8]));
    client.send(&publishes(4).collect::<Vec<_>>()).await;
    wait(&ground, 3).await;
    drop(client);
    let mut client = Client::open(server.address).await;
    client.send(&[keep(4), publishes(12).collect()].concat()).await;
    client.expect_quiet().await;
    ground.open_again();
    assert_eq!(client.read().await.body, [1, 0]);
    for id in 7..=9 {
        client.expect(&ack(0x50, id)).await;
    }
    assert_eq!(history(&server, "t").await, ["7", "8", "9"]);
}
