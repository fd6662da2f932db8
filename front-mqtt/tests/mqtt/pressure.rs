//! Clients that are slow, greedy or hostile, and a broker that is busy.

use std::sync::Arc;
use std::time::Duration;

use broker_core::{AllowAll, Broker, Channel, Publish, Qos};
use front_mqtt::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::*;
use crate::support::Server;

/// A publisher is read no further while the broker is busy, and nothing of what it sent is lost.
#[tokio::test]
async fn a_busy_broker_loses_nothing() {
    let mut config = broker_core::Config::default();
    config.max_lane_deliveries = 3;
    let broker = Broker::new(config);
    let server = Server::on(broker, Config::default(), Arc::new(AllowAll)).await;
    for (flags, version) in [(0, 4), (2, 4), (4, 5)] {
        let mut subscriber = Client::connected(server.address, 4, "s").await;
        subscriber.subscribe(4, &[("t", 0)]).await;
        let mut publisher = Client::connected(server.address, version, "p").await;
        let all: Vec<u8> =
            (0..90u16).flat_map(|n| publish(version, flags, "t", n + 1, &n.to_be_bytes())).collect();
        publisher.send(&all).await;
        for n in 0..90u16 {
            assert_eq!(subscriber.read_publish().await.3, n.to_be_bytes());
        }
        if flags == 2 {
            for n in 0..90u16 {
                publisher.expect(&ack(0x40, n + 1)).await;
            }
        }
    }
}

/// A client that sends without reading its acknowledgements is held back, not cut off.
#[tokio::test]
async fn unread_acknowledgements_hold_their_client_back() {
    let server = Server::start().await;
    let client = Client::connected(server.address, 4, "c").await;
    let (mut read, mut write) = tokio::io::split(client.stream);
    const COUNT: usize = 300_000;
    let writer = tokio::spawn(async move {
        let packet = publish(4, 2, "t", 1, b"x");
        let batch = packet.repeat(1000);
        for _ in 0..COUNT / 1000 {
            write.write_all(&batch).await.unwrap();
        }
        write
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut acks = vec![0; COUNT * 4];
    tokio::time::timeout(Duration::from_secs(60), read.read_exact(&mut acks)).await.unwrap().unwrap();
    assert!(acks.chunks(4).all(|ack| ack == [0x40, 2, 0, 1]));
    writer.await.unwrap();
}

/// QoS 1 for a reader that has stopped waits in its session; it keeps its connection and gets all of it.
#[tokio::test]
async fn a_stopped_reader_at_qos_1_loses_nothing_within_its_queue() {
    let server = Server::start().await;
    let mut reader = Client::connected(server.address, 4, "r").await;
    reader.subscribe(4, &[("t", 1)]).await;
    let channel = Channel::parse("t").unwrap();
    for n in 0..900u16 {
        let mut payload = n.to_be_bytes().to_vec();
        payload.resize(900, 0);
        server.broker.publish_wait(Publish::new(channel.clone(), payload)).await.unwrap();
    }
    server.broker.drained().await;
    tokio::time::sleep(QUIET).await;
    for n in 0..900u16 {
        let (_, _, id, payload) = reader.read_publish().await;
        assert_eq!(payload[..2], n.to_be_bytes());
        reader.send(&ack(0x40, id)).await;
    }
}

impl Client {
    /// The next PUBLISH of version 3 at QoS 1 or 2, past PUBRELs: flags, identifier, payload.
    async fn next_publish(&mut self) -> (u8, u16, Vec<u8>) {
        loop {
            let raw = self.read().await;
            if raw.first != 0x62 {
                assert_eq!(raw.first >> 4, 3, "{raw:x?}");
                let topic = 2 + usize::from(u16::from_be_bytes([raw.body[0], raw.body[1]]));
                let id = u16::from_be_bytes([raw.body[topic], raw.body[topic + 1]]);
                return (raw.first & 0xF, id, raw.body[topic + 2..].to_vec());
            }
        }
    }
}

/// A burst of any usual size waits until a connected client has read it.
#[tokio::test]
async fn a_connected_client_gets_all_of_a_burst_at_qos_1_and_2() {
    let server = Server::start().await;
    let mut reader = Client::connected(server.address, 4, "r").await;
    reader.subscribe(4, &[("t", 2)]).await;
    let channel = Channel::parse("t").unwrap();
    const COUNT: u16 = 20_000;
    for n in 0..COUNT {
        let qos = if n % 2 == 0 { Qos::AtLeastOnce } else { Qos::ExactlyOnce };
        let publish = Publish::new(channel.clone(), n.to_be_bytes().to_vec()).qos(qos);
        server.broker.publish_wait(publish).await.unwrap();
    }
    server.broker.drained().await;
    for n in 0..COUNT {
        let (flags, id, payload) = reader.next_publish().await;
        assert_eq!((flags, payload), (if n % 2 == 0 { 2 } else { 4 }, n.to_be_bytes().to_vec()));
        if n % 2 == 0 {
            reader.send(&ack(0x40, id)).await;
        } else {
            // PUBREL comes behind what is in flight; its PUBCOMP may go out ahead.
            reader.send(&[ack(0x50, id), ack(0x70, id)].concat()).await;
        }
    }
    assert_eq!(server.front.stats().messages_dropped, 0);
}

/// Past its budget a connected client is disconnected, in words; its session keeps what waited.
#[tokio::test]
async fn a_reader_far_behind_is_disconnected_and_keeps_its_session() {
    let mut config = Config::default();
    config.max_live_queued_messages = 2_000;
    config.max_inflight = 100;
    let server = Server::with(config).await;
    for (version, topic) in [(4, "a"), (5, "b")] {
        let channel = Channel::parse(topic).unwrap();
        let session: &[u8] = if version == 5 { &[0x11, 0, 0, 0, 60] } else { &[] };
        let connect = connect(version, &format!("r{version}"), false, 0, session);
        let (mut reader, _) = Client::connected_with(server.address, &connect).await;
        reader.subscribe(version, &[(topic, 1)]).await;
        let mut other = Client::connected(server.address, 4, "other").await;
        other.subscribe(4, &[(topic, 1)]).await;
        let before = server.front.stats();
        for n in 0..2_200u16 {
            let publish = Publish::new(channel.clone(), n.to_be_bytes().to_vec()).qos(Qos::AtLeastOnce);
            server.broker.publish_wait(publish).await.unwrap();
            let (_, _, id, payload) = other.read_publish().await;
            assert_eq!(payload, n.to_be_bytes());
            other.send(&ack(0x40, id)).await;
        }
        let mut last = None;
        while let Some(raw) = reader.try_read(SOON).await {
            last = Some(raw);
        }
        let last = last.expect("what was sent before");
        match version {
            4 => assert_eq!(last.first, 0x32, "version 3 has no word for it"),
            _ => assert_eq!((last.first, last.body[0]), (0xE0, 0x97), "{last:x?}"),
        }
        let (mut reader, present) = Client::connected_with(server.address, &connect).await;
        assert!(present);
        for n in 0..2_100u16 {
            let raw = reader.read().await;
            let payload = &raw.body[raw.body.len() - 2..];
            assert_eq!((raw.first & 0xF2, payload), (0x32, &n.to_be_bytes()[..]), "{version}");
            reader.send(&ack(0x40, u16::from_be_bytes([raw.body[3], raw.body[4]]))).await;
        }
        let after = server.front.stats();
        assert_eq!(after.closed_slow, before.closed_slow + 1);
        assert_eq!(after.messages_dropped, before.messages_dropped + 100);
    }
}

/// The others do not notice a reader that has stopped, and its oldest QoS 0 messages go.
#[tokio::test]
async fn a_stopped_reader_at_qos_0_loses_its_oldest() {
    let server = Server::start().await;
    let mut slow = Client::connected(server.address, 4, "slow").await;
    slow.subscribe(4, &[("t", 0)]).await;
    let mut quick = Client::connected(server.address, 4, "quick").await;
    quick.subscribe(4, &[("t", 0)]).await;
    let channel = Channel::parse("t").unwrap();
    const COUNT: u16 = 6_000;
    for n in 0..COUNT {
        let mut payload = n.to_be_bytes().to_vec();
        payload.resize(1000, 0);
        server.broker.publish_wait(Publish::new(channel.clone(), payload)).await.unwrap();
        if n % 100 == 99 {
            for _ in 0..100 {
                quick.read().await;
            }
        }
    }
    let mut last = None;
    let mut got = 0;
    while last != Some(COUNT - 1) {
        let payload = slow.read_publish().await.3;
        let n = u16::from_be_bytes([payload[0], payload[1]]);
        assert!(last < Some(n), "in order");
        last = Some(n);
        got += 1;
    }
    assert!(got < COUNT, "some were dropped");
}

#[tokio::test]
async fn garbage_on_many_connections_leaves_the_others_alone() {
    let server = Server::start().await;
    let mut witness = Client::connected(server.address, 4, "w").await;
    let mut random = 88_172_645_463_325_252_u64;
    for round in 0..300 {
        let mut client = if round % 3 == 0 {
            Client::open(server.address).await
        } else {
            Client::connected(server.address, if round % 3 == 1 { 4 } else { 5 }, "g").await
        };
        let mut noise = Vec::new();
        for _ in 0..64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            noise.extend(random.to_be_bytes());
        }
        _ = client.stream.write_all(&noise).await;
    }
    witness.send(PING).await;
    witness.expect(&[0xD0, 0]).await;
}
