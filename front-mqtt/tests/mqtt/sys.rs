//! `$SYS/broker/...`: the names that dashboards read, in mosquitto's units.

use std::collections::HashMap;
use std::time::Duration;

use broker_core::Filter;
use front_mqtt::Config;

use crate::TRANSPORT;
use crate::client::*;
use crate::support::Server;
use crate::transport::Transport;

/// What is there now, by the name behind `$SYS/broker/`.
fn told(server: &Server) -> HashMap<String, String> {
    let messages = server.broker.retained_matching(&Filter::parse("$SYS/broker/#").unwrap());
    let name = |topic: &str| topic.strip_prefix("$SYS/broker/").unwrap().to_owned();
    let value = |payload: &[u8]| String::from_utf8(payload.to_vec()).unwrap();
    messages.iter().map(|one| (name(one.channel().as_str()), value(one.payload()))).collect()
}

/// Waits until a figure is told.
async fn wait_for(server: &Server, name: &str, value: &str) -> HashMap<String, String> {
    for _ in 0..500 {
        let told = told(server);
        if told.get(name).is_some_and(|now| now == value) {
            return told;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} should be {value}: {:?}", told(server));
}

#[tokio::test]
async fn the_names_of_mosquitto_are_told() {
    let mut config = Config::default();
    config.sys_interval = Duration::from_millis(50);
    let server = Server::with(config).await;
    let _client = Client::connected(server.address, 4, "a").await;
    let told = wait_for(&server, "clients/connected", "1").await;
    let names = [
        "bytes/received",
        "bytes/sent",
        "clients/active",
        "clients/connected",
        "clients/disconnected",
        "clients/expired",
        "clients/inactive",
        "clients/maximum",
        "clients/total",
        "messages/inflight",
        "messages/received",
        "messages/sent",
        "messages/stored",
        "publish/messages/dropped",
        "publish/messages/received",
        "publish/messages/sent",
        "retained messages/count",
        "store/messages/bytes",
        "store/messages/count",
        "subscriptions/count",
    ];
    for name in names {
        let value = told.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert!(value.parse::<u64>().is_ok(), "{name}: {value:?}");
    }
    for load in [
        "bytes/received",
        "bytes/sent",
        "connections",
        "messages/received",
        "messages/sent",
        "publish/dropped",
        "publish/received",
        "publish/sent",
        "sockets",
    ] {
        for span in ["1min", "5min", "15min"] {
            let name = format!("load/{load}/{span}");
            let value = told.get(&name).unwrap_or_else(|| panic!("{name} is missing"));
            assert!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{name}: {value:?}");
            assert_eq!(value.split_once('.').map(|(_, cents)| cents.len()), Some(2), "{name}: {value:?}");
        }
    }
    assert!(told["version"].starts_with("fanwire ") && told["uptime"].ends_with(" seconds"));
}

#[tokio::test]
async fn packets_and_bytes_are_counted_both_ways() {
    let mut config = Config::default();
    config.sys_interval = Duration::from_millis(50);
    let server = Server::with(config).await;
    let hello = connect(4, "a", true, 0, &[]);
    let (mut client, _) = Client::connected_with(server.address, &hello).await;
    client.subscribe(4, &[("t", 0)]).await;
    let sent = publish(4, 2, "t", 1, b"x");
    let plain = publish(4, 0, "t", 0, b"x");
    client.send(&[&sent[..], PING].concat()).await;
    // To itself at QoS 0, its PUBACK and PINGRESP.
    for _ in 0..3 {
        client.read().await;
    }
    client.send(&plain.repeat(10)).await;
    for _ in 0..10 {
        client.read().await;
    }
    // CONNECT, SUBSCRIBE, eleven PUBLISH and PINGREQ; an answer to each that has one, and the eleven deliveries.
    let told = wait_for(&server, "messages/received", "14").await;
    assert_eq!((&*told["publish/messages/received"], &*told["publish/messages/sent"]), ("11", "11"));
    assert_eq!(told["messages/sent"], "15");
    let received = hello.len() + subscribe(4, 100, &[("t", 0)]).len() + sent.len() + 2 + 10 * plain.len();
    let answers = 4 + 5 + 4 + 2 + 11 * plain.len();
    if TRANSPORT == Transport::Tcp {
        assert_eq!(told["bytes/received"], received.to_string());
        assert_eq!(told["bytes/sent"], answers.to_string());
    } else {
        assert!(told["bytes/received"].parse::<usize>().unwrap() > received);
        assert!(told["bytes/sent"].parse::<usize>().unwrap() > answers);
    }
    let stats = server.front.stats();
    assert_eq!((stats.packets_received, stats.packets_sent, stats.messages_sent), (14, 15, 11));
    // What is over is still counted.
    client.send(DISCONNECT).await;
    client.expect_closed().await;
    let told = wait_for(&server, "messages/received", "15").await;
    assert_eq!((&*told["messages/sent"], &*told["publish/messages/sent"]), ("15", "11"));
    let told = wait_for(&server, "clients/connected", "0").await;
    assert!(told["bytes/sent"].parse::<usize>().unwrap() >= answers);
}

#[tokio::test]
async fn what_waits_for_the_absent_is_stored() {
    let mut config = Config::default();
    config.sys_interval = Duration::from_millis(50);
    let server = Server::with(config).await;
    let (mut absent, _) = Client::connected_with(server.address, &connect(4, "absent", false, 0, &[])).await;
    absent.subscribe(4, &[("t", 1)]).await;
    absent.send(DISCONNECT).await;
    absent.expect_closed().await;
    let mut client = Client::connected(server.address, 4, "a").await;
    let before: usize =
        wait_for(&server, "clients/disconnected", "1").await["messages/stored"].parse().unwrap();
    for id in 1..=5 {
        client.send(&publish(4, 2, "t", id, b"waits")).await;
        client.expect(&ack(0x40, id)).await;
    }
    // What the broker says about itself is retained, too, and all of it was there before.
    wait_for(&server, "messages/stored", &(before + 5).to_string()).await;
}
