//! What is begun and not finished: one account of all fronts, in which the least progress goes first; a least rate.

use std::net::SocketAddr;
use std::time::Duration;

use fanwire::Config;
use fanwire::edge::{Intake, IntakeConfig, IntakeStats};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::http::{get, post};
use crate::support::mqtt::Bare;
use crate::support::{TestServer, eventually, within};

const MIB: usize = 1 << 20;

async fn server(intake: &Intake) -> TestServer {
    TestServer::with(|config: &mut Config| {
        config.api.intake = intake.clone();
        config.bayeux.intake = intake.clone();
        config.mqtt_front.intake = intake.clone();
    })
    .await
}

/// Begins a request whose body is to be `length` bytes.
async fn post_begun(address: SocketAddr, target: &str, headers: &str, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let head = format!("POST {target} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("written");
    stream
}

/// Opens a Bayeux WebSocket and reads past the answer to the upgrade.
async fn websocket(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let request = "GET /cometd HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    stream
}

/// The head of a masked text frame of a megabyte; the mask is zero.
const FRAME_OF_A_MEGABYTE: [u8; 14] = [0x81, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0];

/// What comes until the server closes.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = within(stream.read_to_end(&mut bytes)).await;
    bytes
}

/// A connection of version 5 that has begun a PUBLISH of a megabyte.
async fn mqtt_begun(address: SocketAddr, id: u8) -> Bare {
    let mut bare = Bare::connect(address).await;
    bare.send(&[0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0, 0, 1, id]).await;
    let connack = bare.receive(2).await;
    bare.receive(connack[1].into()).await;
    bare.send(b"\x30\x80\x80\x40\x00\x01t\x00").await;
    bare
}

async fn settled(intake: &Intake, expected: impl Fn(IntakeStats) -> bool) {
    eventually(|| expected(intake.stats())).await;
}

#[tokio::test]
async fn what_stands_still_makes_room_for_what_moves_over_all_fronts() {
    let mut config = IntakeConfig::default();
    config.max_bytes = 8 * MIB;
    let intake = Intake::new(config);
    let server = server(&intake).await;
    let part = vec![b' '; 900_000];
    // Begun at different doors, then silent.
    let mut silent_post = post_begun(server.http, "/v1/publish/a", "", MIB).await;
    silent_post.write_all(&part).await.expect("written");
    let mut silent_batch =
        post_begun(server.http, "/v1/publish", "content-type: application/x-ndjson\r\n", 4 * MIB).await;
    silent_batch.write_all(&part).await.expect("written");
    let mut silent_poll =
        post_begun(server.http, "/cometd", "content-type: application/json\r\n", 2 * MIB).await;
    silent_poll.write_all(&part).await.expect("written");
    let mut silent_frame = websocket(server.http).await;
    silent_frame.write_all(&FRAME_OF_A_MEGABYTE).await.expect("written");
    silent_frame.write_all(&part).await.expect("written");
    let mut silent_packet = mqtt_begun(server.mqtt, b's').await;
    silent_packet.send(&part).await;
    settled(&intake, |stats| stats.unfinished == 5 && stats.held_bytes > 5 * part.len()).await;
    // Their bytes are no news any more once half a minute has passed; here they are outweighed.
    let mut honest = post_begun(server.http, "/v1/publish/honest", "", 200_000).await;
    honest.write_all(&part[..100_000]).await.expect("written");
    settled(&intake, |stats| stats.unfinished == 6).await;
    let mut attackers = Vec::new();
    for _ in 0..12 {
        let mut attacker = post_begun(server.http, "/v1/publish/a", "", 3 * MIB).await;
        let _ = attacker.write_all(&vec![b' '; 2 * MIB]).await;
        attackers.push(attacker);
    }
    settled(&intake, |stats| stats.shed >= 6 && stats.held_bytes <= 8 * MIB).await;

    // The small one that moves was left alone, and so is whoever comes now.
    honest.write_all(&part[..100_000]).await.expect("written");
    let mut answer = [0; 12];
    within(honest.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    assert_eq!(post(server.http, "/v1/publish/a", vec![b'x'; 300_000]).await.status, 200);

    let metrics = get(server.http, "/metrics").await;
    let shed = format!("fanwire_unfinished_shed_total {}", intake.stats().shed);
    assert!(metrics.text().contains(&shed), "{shed} in {}", metrics.text());
    drop((silent_post, silent_batch, silent_poll, silent_frame, silent_packet, attackers));
    settled(&intake, |stats| stats.held_bytes == 0 && stats.unfinished == 0).await;
}

#[tokio::test]
async fn each_front_says_in_its_own_terms_that_there_is_no_room() {
    // Nothing of a megabyte fits.
    let mut config = IntakeConfig::default();
    config.max_bytes = MIB / 2;
    let intake = Intake::new(config);
    let server = server(&intake).await;
    let part = vec![b' '; 900_000];
    for (target, headers) in [
        ("/v1/publish/a", ""),
        ("/v1/publish", ""),
        ("/v1/events", "content-type: application/cloudevents+json\r\n"),
        ("/cometd", "content-type: application/json\r\n"),
    ] {
        let mut stream = post_begun(server.http, target, headers, MIB).await;
        let _ = stream.write_all(&part).await;
        let answer = String::from_utf8(rest(&mut stream).await).expect("text");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{target}: {answer}");
        assert!(answer.contains("retry-after: ") && answer.contains("\"no_room_for_body\""), "{answer}");
    }
    let mut lines =
        post_begun(server.http, "/v1/publish", "content-type: application/x-ndjson\r\n", MIB).await;
    let _ = lines.write_all(&part).await;
    let answer = String::from_utf8(rest(&mut lines).await).expect("text");
    assert!(answer.contains("\"no_room_for_body\""), "{answer}");

    let mut frame = websocket(server.http).await;
    let _ = frame.write_all(&FRAME_OF_A_MEGABYTE).await;
    let _ = frame.write_all(&part).await;
    let close = rest(&mut frame).await;
    assert_eq!((close[0], &close[2..4]), (0x88, &1013u16.to_be_bytes()[..]));

    let mut packet = mqtt_begun(server.mqtt, b'p').await;
    let _ = packet.0.write_all(&part).await;
    let disconnect = packet.rest().await;
    assert_eq!((disconnect[0], disconnect[2]), (0xe0, 0x97));

    assert_eq!(intake.stats().shed, 7);
    assert_eq!(intake.stats().held_bytes, 0);
    assert_eq!(post(server.http, "/v1/publish/a", "x").await.status, 200);
}

#[tokio::test]
async fn a_connect_that_does_not_end_makes_room_too() {
    let mut config = IntakeConfig::default();
    config.max_bytes = 100_000;
    let intake = Intake::new(config);
    let server = server(&intake).await;
    let mut bare = Bare::connect(server.mqtt).await;
    bare.send(b"\x10\x80\x80\x10\x00\x04MQTT\x05\x02\x00\x00\x00").await;
    let _ = bare.0.write_all(&vec![0; 200_000]).await;
    let connack = bare.rest().await;
    assert_eq!((connack[0], connack[3]), (0x20, 0x97));
    assert_eq!(intake.stats().held_bytes, 0);
}

#[tokio::test]
async fn a_byte_now_and_then_is_no_progress() {
    let mut config = IntakeConfig::default();
    config.grace = Duration::from_millis(300);
    config.min_bytes_per_second = 1000;
    let intake = Intake::new(config);
    let server = server(&intake).await;
    let trickle = |mut stream: TcpStream| async move {
        let (mut reader, mut writer) = stream.split();
        let feed = async {
            while writer.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let mut bytes = Vec::new();
        let read = async { _ = reader.read_to_end(&mut bytes).await };
        within(async {
            tokio::select! { () = feed => (), () = read => () }
        })
        .await;
        bytes
    };
    for (target, headers, code) in [
        ("/v1/publish/a", "", "body_too_slow"),
        ("/v1/publish", "content-type: application/x-ndjson\r\n", "body_too_slow"),
        ("/cometd", "content-type: application/json\r\n", "request_timeout"),
    ] {
        let stream = post_begun(server.http, target, headers, 100_000).await;
        let answer = String::from_utf8(trickle(stream).await).expect("text");
        assert!(answer.contains("408") && answer.contains(code), "{target}: {answer}");
    }
    let mut frame = websocket(server.http).await;
    frame.write_all(&FRAME_OF_A_MEGABYTE).await.expect("written");
    let close = trickle(frame).await;
    assert_eq!((close[0], &close[2..4]), (0x88, &1008u16.to_be_bytes()[..]));
    let packet = mqtt_begun(server.mqtt, b'p').await;
    let disconnect = trickle(packet.0).await;
    assert_eq!((disconnect[0], disconnect[2]), (0xe0, 0x8d));
    assert_eq!((intake.stats().slow, intake.stats().shed), (5, 0));

    // What moves has as long as it needs.
    let mut honest = post_begun(server.http, "/v1/publish/a", "", 10_000).await;
    for _ in 0..10 {
        honest.write_all(&[b'x'; 1000]).await.expect("written");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut answer = [0; 12];
    within(honest.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}
