//! Shared subscriptions whose members are slow, away, or come and go.

use broker_core::{Channel, Filter, Publish, Qos};
use front_mqtt::Config;

use crate::client::*;
use crate::support::Server;

/// Acknowledges every PUBLISH of version 3 at QoS 1 that comes until nothing has come for a while; their payloads.
async fn acknowledge_all(member: &mut Client) -> Vec<u16> {
    let mut got = Vec::new();
    while let Some(raw) = member.try_read(QUIET * 3).await {
        assert_eq!(raw.first & 0xF6, 0x32, "{raw:x?}");
        let topic = 2 + usize::from(u16::from_be_bytes([raw.body[0], raw.body[1]]));
        let number = |at: usize| u16::from_be_bytes([raw.body[at], raw.body[at + 1]]);
        member.send(&ack(0x40, number(topic))).await;
        got.push(number(topic + 2));
    }
    got
}

fn publish_numbers(server: &Server, numbers: impl Iterator<Item = u16>) {
    for n in numbers {
        let message = Publish::new(Channel::parse("t").unwrap(), n.to_be_bytes().to_vec());
        server.broker.publish(message.qos(Qos::AtLeastOnce)).unwrap();
    }
}

#[tokio::test]
async fn a_stalled_member_keeps_no_more_from_the_others_than_it_has_in_flight() {
    let mut config = Config::default();
    config.max_inflight = 100;
    let server = Server::with(config).await;
    let mut stalled = Client::connected(server.address, 4, "stalled").await;
    stalled.subscribe(4, &[("$share/g/t", 1)]).await;
    let mut quick = Client::connected(server.address, 4, "quick").await;
    quick.subscribe(4, &[("$share/g/t", 1)]).await;
    publish_numbers(&server, 0..6_000);
    let got = acknowledge_all(&mut quick).await;
    assert!(got.is_sorted());
    assert!((5_900..6_000).contains(&got.len()), "{}", got.len());
    let stats = server.front.stats();
    assert_eq!((stats.messages_dropped, stats.group_queued, stats.group_queued_bytes), (0, 0, 0));
    let mut all = [got, acknowledge_all(&mut stalled).await].concat();
    all.sort_unstable();
    assert_eq!(all, (0..6_000).collect::<Vec<u16>>());
}

#[tokio::test]
async fn what_no_member_has_room_for_waits_for_the_first_that_has() {
    let mut config = Config::default();
    config.max_inflight = 10;
    let server = Server::with(config).await;
    let mut members = Vec::new();
    for id in ["m1", "m2"] {
        let mut member = Client::connected(server.address, 4, id).await;
        member.subscribe(4, &[("$share/g/t", 1)]).await;
        members.push(member);
    }
    publish_numbers(&server, 0..500);
    server.broker.drained().await;
    assert_eq!(server.front.stats().group_queued, 480);
    let got = acknowledge_all(&mut members[1]).await;
    assert!(got.is_sorted());
    assert_eq!(got.len(), 490);
    assert_eq!(server.front.stats().group_queued, 0);
    assert_eq!(server.front.stats().messages_dropped, 0);
}

#[tokio::test]
async fn a_group_takes_no_more_than_its_budget_and_loses_it_with_its_last_member() {
    let mut one = Config::default();
    one.max_inflight = 1;
    one.max_group_queued_messages = 5;
    let mut all = Config::default();
    all.max_inflight = 1;
    all.max_groups_queued_bytes = 1_500;
    for config in [one, all] {
        let server = Server::with(config).await;
        let mut member = Client::connected(server.address, 4, "m").await;
        member.subscribe(4, &[("$share/g/t", 1)]).await;
        publish_numbers(&server, 0..9);
        server.broker.drained().await;
        let stats = server.front.stats();
        assert_eq!((stats.group_queued, stats.group_dropped, stats.messages_dropped), (5, 3, 3));
        member.send(&unsubscribe(4, 1, &["$share/g/t"])).await;
        assert_eq!(member.read_publish().await.3, [0, 0]);
        assert_eq!(member.read().await.first, 0xB0);
        let stats = server.front.stats();
        assert_eq!((stats.group_queued, stats.group_queued_bytes, stats.group_dropped), (0, 0, 8));
    }
}

#[tokio::test]
async fn what_comes_while_all_members_are_away_goes_to_the_first_that_is_back() {
    let server = Server::start().await;
    let keep = |id: &str| connect(4, id, false, 0, &[]);
    for id in ["m1", "m2"] {
        let (mut member, _) = Client::connected_with(server.address, &keep(id)).await;
        member.subscribe(4, &[("$share/g/t", 1)]).await;
        member.send(DISCONNECT).await;
        member.expect_closed().await;
    }
    tokio::time::sleep(QUIET).await;
    publish_numbers(&server, 0..100);
    server.broker.drained().await;
    let (mut member, _) = Client::connected_with(server.address, &keep("m2")).await;
    assert_eq!(acknowledge_all(&mut member).await, (0..100).collect::<Vec<u16>>());
}

#[tokio::test]
async fn the_broker_knows_who_is_in_a_group_and_who_was() {
    let server = Server::start().await;
    let members = || {
        let group = server.broker.group("g", &Filter::parse("t").unwrap());
        group.map(|group| group.members().iter().map(|member| member.is_online).collect::<Vec<_>>())
    };
    let eventually = async |expected: Option<&[bool]>| {
        for _ in 0..500 {
            if members().as_deref() == expected {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{:?} is not {expected:?}", members());
    };
    let (mut kept, _) = Client::connected_with(server.address, &connect(4, "kept", false, 0, &[])).await;
    kept.subscribe(4, &[("$share/g/t", 1)]).await;
    let mut clean = Client::connected(server.address, 4, "clean").await;
    clean.subscribe(4, &[("$share/g/t", 1), ("$share/h/t", 1)]).await;
    eventually(Some(&[true, true])).await;
    kept.send(DISCONNECT).await;
    eventually(Some(&[false, true])).await;
    // A session that is over is in no group, even if somebody still holds it.
    let (_, held) = server.broker.connections(None, 9).pop().unwrap();
    clean.send(DISCONNECT).await;
    eventually(Some(&[false])).await;
    assert!(server.broker.group("h", &Filter::parse("t").unwrap()).is_none());
    let mut last = Client::connected_with(server.address, &connect(4, "kept", true, 0, &[])).await.0;
    eventually(None).await;
    last.send(PING).await;
    assert_eq!(last.read().await.first, 0xD0);
    drop(held);
}

/// Members with little room come, acknowledge, and go without a word: nobody oversleeps what waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_message_of_a_group_is_acknowledged_by_somebody_while_members_come_and_go() {
    const COUNT: u16 = 4_000;
    let mut config = Config::default();
    config.max_inflight = 3;
    let server = Server::with(config).await;
    let mut lasting = Client::connected(server.address, 4, "lasting").await;
    lasting.subscribe(4, &[("$share/g/t", 1)]).await;
    let address = server.address;
    let fickle: Vec<_> = (0..3)
        .map(|member| {
            tokio::spawn(async move {
                let mut got = Vec::new();
                for round in 0..20u8 {
                    let mut client = Client::connected(address, 4, &format!("m{member}")).await;
                    client.subscribe(4, &[("$share/g/t", 1)]).await;
                    for _ in 0..30 + round {
                        let Some(raw) = client.try_read(QUIET).await else { break };
                        client.send(&ack(0x40, u16::from_be_bytes([raw.body[3], raw.body[4]]))).await;
                        got.push(u16::from_be_bytes([raw.body[5], raw.body[6]]));
                    }
                    // What it acknowledged last must have been read before the connection is lost.
                    client.send(PING).await;
                    while client.read().await.first != 0xD0 {}
                }
                got
            })
        })
        .collect();
    let broker = server.broker.clone();
    let publisher = tokio::spawn(async move {
        for n in 0..COUNT {
            let message = Publish::new(Channel::parse("t").unwrap(), n.to_be_bytes().to_vec());
            broker.publish_wait(message.qos(Qos::AtLeastOnce)).await.unwrap();
            if n % 16 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    publisher.await.unwrap();
    let mut got = Vec::new();
    for member in fickle {
        got.extend(member.await.unwrap());
    }
    got.extend(acknowledge_all(&mut lasting).await);
    got.sort_unstable();
    got.dedup();
    let missing: Vec<_> = (0..COUNT).filter(|n| got.binary_search(n).is_err()).collect();
    assert!(missing.is_empty(), "{missing:?} of {:?}", server.front.stats());
    assert_eq!(server.front.stats().messages_dropped, 0);
}
