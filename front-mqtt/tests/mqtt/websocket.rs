//! The same packets inside WebSocket frames: handshake, frames split anywhere, control frames, close codes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{AllowAll, Broker, Channel, Publish};
use front_mqtt::{Config, Front};
use http_edge::{OriginPolicy, ServeConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::*;
use crate::transport::frame;

struct Web {
    address: SocketAddr,
    broker: Broker,
    front: Front,
}

async fn web(config: Config) -> Web {
    let broker = Broker::new(broker_core::Config::default());
    let front = Front::new(broker.clone(), Arc::new(AllowAll), config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = front.clone();
    tokio::spawn(async move {
        let (_keep, down) = tokio::sync::watch::channel(false);
        while let Ok((stream, peer)) = listener.accept().await {
            let (front, down) = (accepting.clone(), down.clone());
            let service = move |request| {
                let front = front.clone();
                async move { front.handle(request).await }
            };
            tokio::spawn(http_edge::serve(stream, peer, service, ServeConfig::default(), down));
        }
    });
    Web { address, broker, front }
}

/// A WebSocket whose frames the test writes itself.
struct Socket {
    stream: TcpStream,
}

const BINARY: u8 = 0x82;

impl Socket {
    async fn request(address: SocketAddr, extra: &str) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET /mqtt HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tokio::time::timeout(SOON, stream.read_u8()).await.unwrap().unwrap());
        }
        (stream, String::from_utf8(head).unwrap().to_lowercase())
    }

    async fn open(address: SocketAddr) -> Self {
        let (stream, head) = Self::request(address, "Sec-WebSocket-Protocol: mqtt\r\n").await;
        assert!(
            head.starts_with("http/1.1 101 ") && head.contains("sec-websocket-protocol: mqtt\r\n"),
            "{head}"
        );
        Self { stream }
    }

    async fn connected(address: SocketAddr, level: u8, id: &str) -> Self {
        let mut socket = Self::open(address).await;
        socket.send(&connect(level, id, true, 0, &[])).await;
        let connack = socket.packet().await;
        assert_eq!((connack[0], connack[3]), (0x20, 0));
        socket
    }

    async fn send(&mut self, packet: &[u8]) {
        self.raw(&frame(BINARY, packet)).await;
    }

    async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame: first byte and payload.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        tokio::time::timeout(SOON, async {
            let first = self.stream.read_u8().await.unwrap();
            let length = match self.stream.read_u8().await.unwrap() {
                126 => usize::from(self.stream.read_u16().await.unwrap()),
                127 => self.stream.read_u64().await.unwrap() as usize,
                short => usize::from(short),
            };
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await.unwrap();
            (first, payload)
        })
        .await
        .expect("a frame should have come")
    }

    /// The next packet, which must fill one binary frame.
    async fn packet(&mut self) -> Vec<u8> {
        let (first, payload) = self.frame().await;
        assert_eq!(first, BINARY, "{payload:x?}");
        payload
    }

    /// The close code, and then the end.
    async fn close_code(&mut self) -> u16 {
        let (first, payload) = self.frame().await;
        assert_eq!(first, 0x88, "{payload:x?}");
        let mut rest = Vec::new();
        tokio::time::timeout(SOON, self.stream.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert!(rest.is_empty());
        if payload.is_empty() { 0 } else { u16::from_be_bytes([payload[0], payload[1]]) }
    }

    async fn subscribe(&mut self, level: u8, filter: &str, qos: u8) {
        self.send(&subscribe(level, 1, &[(filter, qos)])).await;
        assert_eq!(self.packet().await.last(), Some(&qos));
    }
}

#[tokio::test]
async fn the_subprotocol_is_one_that_was_offered() {
    let web = web(Config::default()).await;
    for (offer, status, answer) in [
        ("mqtt", "101", Some("mqtt")),
        ("mqttv3.1", "101", Some("mqttv3.1")),
        ("chat, mqtt", "101", Some("mqtt")),
        ("chat", "400", None),
        ("", "101", None),
    ] {
        let extra =
            if offer.is_empty() { String::new() } else { format!("Sec-WebSocket-Protocol: {offer}\r\n") };
        let (_, head) = Socket::request(web.address, &extra).await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{offer}: {head}");
        let got = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(got, answer, "{offer}");
    }
}

#[tokio::test]
async fn plain_http_and_foreign_origins_are_refused() {
    let mut config = Config::default();
    config.origins = OriginPolicy::SameOrigin;
    let web = web(config).await;
    let (_, head) = Socket::request(web.address, "Origin: http://evil.example\r\n").await;
    assert!(head.starts_with("http/1.1 403 "), "{head}");
    let mut stream = TcpStream::connect(web.address).await.unwrap();
    stream.write_all(b"GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let answer = answer.to_lowercase();
    assert!(answer.starts_with("http/1.1 426 ") && answer.contains("upgrade: websocket"), "{answer}");
}

#[tokio::test]
async fn packets_go_both_ways_at_every_qos() {
    let web = web(Config::default()).await;
    for level in [4, 5] {
        let mut socket = Socket::connected(web.address, level, "ws").await;
        socket.subscribe(level, "t/#", 2).await;
        for flags in [0, 2, 4] {
            socket.send(&publish(level, flags, "t/x", 5, b"hi")).await;
            let mut acked = flags == 0;
            loop {
                let packet = socket.packet().await;
                match packet[0] >> 4 {
                    3 => {
                        assert_eq!(packet[0] & 0xF, flags);
                        assert!(packet.ends_with(b"hi"));
                        let id = [packet[7], packet[8]];
                        match flags {
                            2 => socket.send(&[0x40, 2, id[0], id[1]]).await,
                            4 => socket.send(&[0x50, 2, id[0], id[1]]).await,
                            _ => {}
                        }
                        if flags != 4 && acked {
                            break;
                        }
                    }
                    4 => acked = true,
                    5 => socket.send(&ack(0x62, 5)).await,
                    6 => {
                        socket.send(&[0x70, 2, packet[2], packet[3]]).await;
                        if acked {
                            break;
                        }
                        acked = true;
                    }
                    7 if acked => break,
                    7 => acked = true,
                    other => panic!("{other}"),
                }
            }
        }
        web.broker
            .publish(Publish::new(Channel::parse("t/y").unwrap(), "inside").qos(broker_core::Qos::AtMostOnce))
            .unwrap();
        let packet = socket.packet().await;
        assert!(packet[0] == 0x30 && packet.ends_with(b"inside"), "{packet:x?}");
    }
}

#[tokio::test]
async fn packets_may_be_split_joined_and_fragmented() {
    let web = web(Config::default()).await;
    // Every packet at once in one frame; byte by byte in frames of one; fragmented with a ping between.
    let all = [connect(4, "ws", true, 0, &[]), subscribe(4, 1, &[("t", 0)]), PING.to_vec()].concat();
    let one = frame(BINARY, &all);
    let bytes: Vec<u8> = all.iter().flat_map(|byte| frame(BINARY, &[*byte])).collect();
    let fragments = [
        frame(0x02, &all[..5]),
        frame(0x89, b"ping"),
        frame(0x00, &[]),
        frame(0x00, &all[5..20]),
        frame(0x80, &all[20..]),
    ]
    .concat();
    for (sent, pongs) in [(one, 0), (bytes, 0), (fragments, 1)] {
        for piece in [usize::MAX, 1, 7] {
            let mut socket = Socket::open(web.address).await;
            for piece in sent.chunks(piece.min(sent.len())) {
                socket.raw(piece).await;
                tokio::task::yield_now().await;
            }
            let mut got = Vec::new();
            for _ in 0..3 + pongs {
                let (first, payload) = socket.frame().await;
                if first == 0x8A {
                    assert_eq!(payload, b"ping");
                } else {
                    assert_eq!(first, BINARY);
                    got.push(payload[0]);
                }
            }
            assert_eq!(got, [0x20, 0x90, 0xD0]);
        }
    }
}

#[tokio::test]
async fn large_messages_pass_both_ways() {
    let web = web(Config::default()).await;
    let mut socket = Socket::connected(web.address, 4, "ws").await;
    socket.subscribe(4, "big", 1).await;
    for (flags, bytes) in [(0, 1 << 20), (2, 1 << 20), (0, 65_536), (2, 125), (2, 3000)] {
        let payload: Vec<u8> = (0..bytes).map(|n: u32| n as u8).collect();
        let packet = publish(4, flags, "big", 1, &payload);
        // In frames of an odd size, so that headers lie anywhere.
        let mut frames = Vec::new();
        for (n, piece) in packet.chunks(99_991).enumerate() {
            let last = (n + 1) * 99_991 >= packet.len();
            frames.extend(frame(if n == 0 { 0x02 } else { 0x00 } | if last { 0x80 } else { 0 }, piece));
        }
        socket.raw(&frames).await;
        let mut seen = false;
        for _ in 0..if flags == 0 { 1 } else { 2 } {
            let packet = socket.packet().await;
            if packet[0] >> 4 == 3 {
                assert!(packet.ends_with(&payload), "{bytes}");
                if flags == 2 {
                    let at = packet.len() - payload.len();
                    socket.send(&[0x40, 2, packet[at - 2], packet[at - 1]]).await;
                }
                seen = true;
            }
        }
        assert!(seen);
    }
}

#[tokio::test]
async fn closes_say_why() {
    let mut config = Config::default();
    config.max_packet_bytes = 1000;
    let web = web(config).await;
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("text", frame(0x81, b"hello"), 1003),
        ("reserved opcode", frame(0x83, b""), 1002),
        ("unmasked", vec![0x82, 0x02, 0xC0, 0x00], 1002),
        ("close", frame(0x88, &[0x03, 0xE8]), 1000),
        ("empty close", frame(0x88, &[]), 0),
        ("goodbye", frame(BINARY, DISCONNECT), 1000),
        ("frame too large", [vec![0x82, 0xFF], vec![0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4]].concat(), 1009),
    ];
    for (name, sent, code) in cases {
        let mut socket = Socket::connected(web.address, 4, "ws").await;
        socket.raw(&sent).await;
        assert_eq!(socket.close_code().await, code, "{name}");
    }
    // In version 5 the packet comes first.
    let cases: Vec<(&str, Vec<u8>, u8, u16)> = vec![
        ("malformed", vec![0x00, 0x00], 0x81, 1002),
        ("packet too large", publish(5, 0, "t", 0, &[0; 2000]), 0x95, 1009),
        ("second CONNECT", connect(5, "ws", true, 0, &[]), 0x82, 1002),
    ];
    for (name, sent, reason, code) in cases {
        let mut socket = Socket::connected(web.address, 5, "ws").await;
        socket.send(&sent).await;
        let packet = socket.packet().await;
        assert_eq!((packet[0], packet[2]), (0xE0, reason), "{name}");
        assert_eq!(socket.close_code().await, code, "{name}");
    }
    // A refused CONNECT too.
    let mut socket = Socket::open(web.address).await;
    socket.send(&packet(0x10, &[&string("MQTT"), &[4, 0, 0, 0], &string("")])).await;
    assert_eq!(socket.packet().await, [0x20, 2, 0, 2]);
    assert_eq!(socket.close_code().await, 1008);
}

#[tokio::test]
async fn a_close_frame_without_disconnect_publishes_the_will() {
    let web = web(Config::default()).await;
    let mut witness = Socket::connected(web.address, 4, "w").await;
    witness.subscribe(4, "w", 0).await;
    let mut socket = Socket::open(web.address).await;
    let head = [string("MQTT"), vec![4, 6, 0, 0]].concat();
    socket.send(&packet(0x10, &[&head, &string("c"), &string("w"), &binary(b"gone")])).await;
    socket.packet().await;
    socket.raw(&frame(0x88, &[0x03, 0xE9])).await;
    assert!(witness.packet().await.ends_with(b"gone"));
}

#[tokio::test]
async fn sessions_pass_from_tcp_to_websocket_and_back() {
    let web = web(Config::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = listener.local_addr().unwrap();
    let front = web.front.clone();
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let front = front.clone();
            tokio::spawn(async move { front.serve_tcp(stream, peer).await });
        }
    });
    let keep = connect(5, "both", false, 0, &[0x11, 0, 0, 0, 100]);
    let (mut client, _) = Client::connected_with(tcp, &keep).await;
    client.subscribe(5, &[("t", 1)]).await;
    let mut socket = Socket::open(web.address).await;
    socket.send(&keep).await;
    client.expect(&[0xE0, 1, 0x8E]).await;
    let connack = socket.packet().await;
    assert_eq!((connack[0], connack[2], connack[3]), (0x20, 1, 0));
    for n in 0..3u8 {
        web.broker.publish(Publish::new(Channel::parse("t").unwrap(), vec![n])).unwrap();
        assert_eq!(socket.packet().await.last(), Some(&n));
    }
    let (mut client, present) = Client::connected_with(tcp, &keep).await;
    assert!(present);
    assert_eq!(socket.packet().await, [0xE0, 1, 0x8E]);
    assert_eq!(socket.close_code().await, 1008);
    for n in 0..3u8 {
        let raw = client.read().await;
        assert_eq!((raw.first, raw.body.last()), (0x3A, Some(&n)));
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    web.broker.publish(Publish::new(Channel::parse("t").unwrap(), vec![9])).unwrap();
    assert_eq!(client.read().await.body.last(), Some(&9));
}

#[tokio::test(flavor = "current_thread")]
async fn a_burst_before_the_close_frame_is_handled_in_turns_and_as_a_whole() {
    const BURST: u64 = 20_000;
    let web = web(Config::default()).await;
    let mut socket = Socket::connected(web.address, 4, "a").await;
    // QoS 0, which nobody has to read an answer to.
    let packets = publish(4, 0, "t", 0, b"").repeat(BURST as usize);
    let burst = [frame(BINARY, &packets), frame(0x88, &1000u16.to_be_bytes())].concat();
    let writing = tokio::spawn(async move {
        socket.raw(&burst).await;
        socket
    });
    let longest = crate::turns::longest_turn(&web.front, BURST).await;
    assert!(longest <= 64, "{longest} packets in one turn");
    let (first, code) = writing.await.unwrap().frame().await;
    assert_eq!((first, code), (0x88, 1000u16.to_be_bytes().to_vec()));
}
