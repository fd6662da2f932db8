use std::time::{Duration, Instant};

use rumqttc::{Incoming, QoS};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::http::post_json;
use crate::support::process::Process;
use crate::support::sse::EventStream;
use crate::support::{bayeux, mqtt, within};

const SHORT: &[&str] = &["--config", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/binary/short_window.toml")];

#[tokio::test]
async fn with_nobody_there_it_stops_at_once_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Process::start(&[]).await;
        let begun = Instant::now();
        server.signal(signal);
        assert_eq!(server.exit().await.code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}

/// A line of the log that is not written is not made either, and nothing that matters may stand in one.
#[tokio::test]
async fn it_serves_until_it_is_told_to_stop_whatever_is_logged() {
    for level in ["off", "error", "warn", "trace"] {
        let mut server = Process::start_after(&format!("export FANWIRE_LOGGING_LEVEL={level}")).await;
        for _ in 0..10 {
            assert_eq!(crate::support::http::get(server.http, "/healthz").await.status, 200, "{level}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.signal(Signal::TERM);
        assert_eq!(server.exit().await.code(), Some(0), "{level}");
    }
}

#[tokio::test]
async fn readiness_fails_while_clients_leave() {
    let mut server = Process::start(SHORT).await;
    // Many streams, so that one of them ends late in the window.
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(EventStream::open(server.http, "/sse/a").await);
    }
    server.signal(Signal::TERM);
    within(async {
        loop {
            let answer = crate::support::http::get(server.http, "/readyz").await;
            if answer.status == 503 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let refused = post_json(server.http, "/v1/publish/a", "1").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(server.exit().await.code(), Some(0));
}

#[tokio::test]
async fn every_client_is_told_in_its_protocol_and_gets_what_was_accepted() {
    let mut server = Process::start(SHORT).await;
    let mut stream = EventStream::open(server.http, "/sse/a").await;
    let mut device = mqtt::Client::connect(server.mqtt, "device").await;
    device.subscribe("a", QoS::AtLeastOnce).await;
    let mut page = bayeux::Socket::handshake(server.http).await;
    page.subscribe("/a").await;

    for n in 0..200 {
        assert_eq!(post_json(server.http, "/v1/publish/a", n.to_string()).await.status, 200);
    }
    let begun = Instant::now();
    server.signal(Signal::TERM);

    for n in 0..200 {
        assert_eq!(stream.data().await, n.to_string());
        assert_eq!(device.payload().await, n.to_string());
        assert_eq!(page.event().await["data"], n);
    }
    assert_eq!(stream.next().await, None);
    assert!(stream.retry.is_some(), "an event stream is told when to come back");
    device.ended().await;
    while page.frame().await.is_some() {}
    assert_eq!(server.exit().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn version_5_clients_hear_the_reason() {
    let mut server = Process::start(SHORT).await;
    let mut client = mqtt::Bare::connect(server.mqtt).await;
    client.send(b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03abc").await;
    assert_eq!(client.receive(1).await, [0x20]);
    server.signal(Signal::TERM);
    let rest = client.rest().await;
    let disconnect = rest.iter().rposition(|byte| *byte == 0xe0).expect("a DISCONNECT");
    assert_eq!(rest.get(disconnect + 2), Some(&0x8b), "server shutting down: {rest:?}");
    assert_eq!(server.exit().await.code(), Some(0));
}

#[tokio::test]
async fn clients_that_do_nothing_cannot_hold_it_up() {
    let mut server = Process::start(SHORT).await;
    // Silent on both ports, half a request, a held poll of somebody who will never read.
    let _silent = TcpStream::connect(server.http).await.expect("listening");
    let _silent_too = TcpStream::connect(server.mqtt).await.expect("listening");
    let mut half = TcpStream::connect(server.http).await.expect("listening");
    half.write_all(b"POST /v1/publish/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nabc")
        .await
        .expect("written");
    let mut held = TcpStream::connect(server.http).await.expect("listening");
    held.write_all(b"GET /v1/history/a?wait=50 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("written");
    let mut stalled = TcpStream::connect(server.http).await.expect("listening");
    stalled.write_all(b"GET /sse/a HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("written");
    let mut head = [0; 12];
    stalled.read_exact(&mut head).await.expect("a head");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.exit().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut server = Process::start(&[]).await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(EventStream::open(server.http, "/sse/a").await);
    }
    server.signal(Signal::TERM);
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.signal(Signal::INT);
    assert_eq!(server.exit().await.code(), Some(1));
}

#[tokio::test]
async fn a_client_that_was_killed_is_forgotten() {
    let server = Process::start(&[]).await;
    let mut watcher = mqtt::Client::connect(server.mqtt, "watcher").await;
    watcher.subscribe("wills/#", QoS::AtMostOnce).await;
    let victim = mqtt::Client::connect_with(server.mqtt, "victim", |options| {
        options.set_last_will(rumqttc::LastWill::new("wills/victim", "gone", QoS::AtMostOnce, false));
    })
    .await;
    victim.kill();
    let will = watcher.wait_for(|packet| matches!(packet, Incoming::Publish(_))).await;
    assert!(matches!(will, Incoming::Publish(publish) if publish.payload == "gone"));
}
