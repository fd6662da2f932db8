//! What Eclipse Paho's suites ask of a server with `tests/mqtt/paho.toml`, and found missing once: their own clients
//! are no crate, so the packets are written here.

use crate::support::mqtt::Bare;
use crate::support::process::Process;

const SETTINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mqtt/paho.toml");

/// A server with the suites' settings, and a version 5 client with these properties whose CONNACK comes second.
async fn connected(properties: &[u8]) -> (Process, Bare, Vec<u8>) {
    let server = Process::start(&["--config", SETTINGS]).await;
    let mut client = Bare::connect(server.mqtt).await;
    let body =
        [&b"\x00\x04MQTT\x05\x02\x00\x78"[..], &[length(properties)], properties, b"\x00\x01c"].concat();
    client.send(&packet(0x10, &body)).await;
    let (first, connack) = receive(&mut client).await;
    assert_eq!((first, connack[1]), (0x20, 0), "{connack:x?}");
    (server, client, connack)
}

fn length(bytes: &[u8]) -> u8 {
    u8::try_from(bytes.len()).ok().filter(|length| *length < 0x80).expect("a short packet")
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first, length(body)], body].concat()
}

fn publish(first: u8, topic: &str, id: u16) -> Vec<u8> {
    packet(first, &[&[0, length(topic.as_bytes())], topic.as_bytes(), &id.to_be_bytes(), &[0], b"x"].concat())
}

/// First byte and body of the next packet.
async fn receive(client: &mut Bare) -> (u8, Vec<u8>) {
    let head = client.receive(2).await;
    assert!(head[1] < 0x80, "a short packet");
    (head[0], client.receive(usize::from(head[1])).await)
}

/// `test_server_keep_alive` of client_test5.py.
#[tokio::test]
async fn a_client_that_asks_for_120_seconds_is_told_60() {
    let (_server, _, connack) = connected(&[]).await;
    assert!(connack.windows(3).any(|bytes| bytes == [0x13, 0, 60]), "{connack:x?}");
}

/// `test_flow_control2`: it sends one QoS 2 publish more than it was told it may, releases none, and waits to be cut.
#[tokio::test]
async fn one_unfinished_publish_more_than_the_receive_maximum_is_the_end() {
    let (_server, mut client, connack) = connected(&[]).await;
    assert!(connack.windows(3).any(|bytes| bytes == [0x21, 0, 100]), "{connack:x?}");
    let all: Vec<u8> = (1..=101).flat_map(|id| publish(0x34, "TopicA", id)).collect();
    client.send(&all).await;
    for id in 1..=100_u16 {
        let (first, pubrec) = receive(&mut client).await;
        assert_eq!((first, &pubrec[..2]), (0x50, &id.to_be_bytes()[..]));
    }
    assert_eq!(client.rest().await, [0xe0, 1, 0x93]);
}

/// The suites read acknowledgements of two and three bytes, also where they asked for problem information.
#[tokio::test]
async fn acknowledgements_are_never_longer_than_their_reason_code() {
    let (_server, mut client, _) = connected(&[0x17, 1]).await;
    client.send(&publish(0x32, "$SYS/refused", 1)).await;
    assert_eq!(client.receive(5).await, [0x40, 3, 0, 1, 0x87]);
    client.send(&publish(0x34, "$SYS/refused", 2)).await;
    assert_eq!(client.receive(5).await, [0x50, 3, 0, 2, 0x87]);
    client.send(&publish(0x32, "nobody", 3)).await;
    assert_eq!(client.receive(5).await, [0x40, 3, 0, 3, 0x10]);
    client.send(&publish(0x34, "nobody", 4)).await;
    assert_eq!(client.receive(5).await, [0x50, 3, 0, 4, 0x10]);
    client.send(&packet(0x62, &[0, 4])).await;
    assert_eq!(client.receive(4).await, [0x70, 2, 0, 4]);
}

/// `test_subscribe_failure`, with no other code than 0x80 and no reason string.
#[tokio::test]
async fn a_refused_subscription_is_0x80() {
    let (_server, mut client, _) = connected(&[0x17, 1]).await;
    let filter = b"test/nosubscribe";
    client.send(&packet(0x82, &[&[0, 1, 0, 0, length(filter)], &filter[..], &[2]].concat())).await;
    assert_eq!(client.receive(6).await, [0x90, 4, 0, 1, 0, 0x80]);
}

/// `test_retained_message`: what is retained at each quality comes at it, user properties included.
#[tokio::test]
async fn one_wildcard_brings_the_retained_messages_of_every_quality() {
    let (_server, mut client, _) = connected(&[]).await;
    let properties = b"\x26\x00\x01a\x00\x012\x26\x00\x01c\x00\x013";
    for (first, topic, id) in
        [(0x31, "TopicA/B", None), (0x33, "Topic/C", Some(1)), (0x35, "TopicA/C", Some(2_u16))]
    {
        let id = id.map_or(Vec::new(), |id| id.to_be_bytes().to_vec());
        let name = [&[0, length(topic.as_bytes())], topic.as_bytes()].concat();
        client
            .send(&packet(first, &[&name[..], &id, &[length(properties)], properties, b"kept"].concat()))
            .await;
    }
    assert_eq!(client.receive(5).await, [0x40, 3, 0, 1, 0x10]);
    assert_eq!(client.receive(5).await, [0x50, 3, 0, 2, 0x10]);
    client.send(&packet(0x62, &[0, 2])).await;
    assert_eq!(client.receive(4).await, [0x70, 2, 0, 2]);
    client.send(&packet(0x82, &[&[0, 3, 0, 0, 3], &b"+/+"[..], &[2]].concat())).await;
    assert_eq!(client.receive(6).await, [0x90, 4, 0, 3, 0, 2]);
    let mut qualities = Vec::new();
    for _ in 0..3 {
        let (first, body) = receive(&mut client).await;
        assert!(body.windows(properties.len()).any(|part| part == properties), "{body:x?}");
        assert!(body.ends_with(b"kept"));
        assert_eq!((first >> 4, first & 1), (3, 1), "retained");
        qualities.push(first >> 1 & 3);
    }
    qualities.sort_unstable();
    assert_eq!(qualities, [0, 1, 2]);
}
