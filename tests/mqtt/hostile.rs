//! What no client would send.

use std::time::Duration;

use fanwire::Filter;
use tokio::io::AsyncWriteExt;

use crate::support::mqtt::{Bare, Client};
use crate::support::{TestServer, within};

#[tokio::test]
async fn garbage_closes_the_connection_and_the_server_lives() {
    let server = TestServer::start().await;
    let noise: Vec<u8> = (0..70_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let cases: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\x00\x00",
        b"\x10\xff\xff\xff\xff\x7f",
        b"\x10\x80\x80\x80\x80\x01",
        b"\x10\x02\x00\x04",
        b"\x30\x05\x00\x01tab",
        b"\xf0\x00",
        &noise,
    ];
    for bytes in cases {
        let mut bare = Bare::connect(server.mqtt).await;
        let _ = bare.0.write_all(bytes).await;
        let answer = bare.rest().await;
        assert!(answer.is_empty() || answer[0] == 0x20, "{bytes:?}: {answer:?}");
    }
    Client::connect(server.mqtt, "still served").await;
}

#[tokio::test]
async fn a_hundred_megabytes_are_refused_at_the_fixed_header() {
    let server = TestServer::start().await;
    let mut bare = Bare::shake_hands(server.mqtt, "big").await;
    // PUBLISH with a remaining length of 100 MiB.
    bare.send(b"\x30\x80\x80\x80\x32\x00\x01t").await;
    assert!(bare.rest().await.is_empty(), "version 3 has no words for it");
    Client::connect(server.mqtt, "still served").await;
}

#[tokio::test]
async fn deep_json_is_bytes_to_mqtt() {
    let server = TestServer::start().await;
    let mut all = server.broker.subscribe(Filter::parse("deep").unwrap()).unwrap();
    let client = Client::connect(server.mqtt, "c").await;
    let deep = "[".repeat(200_000);
    client.publish("deep", rumqttc::QoS::AtLeastOnce, &deep).await;
    assert_eq!(within(all.message()).await.unwrap().payload(), &deep);
}

#[tokio::test]
async fn half_a_packet_and_then_silence_is_ended() {
    let server =
        TestServer::with(|config| config.mqtt_front.handshake_timeout = Duration::from_millis(300)).await;
    let mut bare = Bare::connect(server.mqtt).await;
    bare.send(b"\x10\x0f\x00\x04MQ").await;
    within(async { bare.rest().await }).await;
}

#[tokio::test]
async fn a_reader_that_stops_costs_the_others_nothing() {
    let server = TestServer::start().await;
    let mut stopped = Bare::shake_hands(server.mqtt, "stopped").await;
    stopped.send(b"\x82\x06\x00\x01\x00\x01t\x00").await;
    assert_eq!(stopped.receive(5).await, [0x90, 3, 0, 1, 0]);
    let mut reader = Client::connect(server.mqtt, "reader").await;
    reader.subscribe("t", rumqttc::QoS::AtMostOnce).await;
    let payload = "x".repeat(10_000);
    for n in 0..2000 {
        server.publish("t", &format!("{n} {payload}"));
        // The reader's own outbox must not overflow: it is the other one that is tested.
        assert!(reader.payload().await.starts_with(&format!("{n} ")));
    }
    assert!(server.broker.stats().dropped > 0, "the oldest went");
}
