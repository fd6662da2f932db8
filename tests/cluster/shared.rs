//! `$share` on durable channels over nodes: each message is one member's, wherever members are and whatever becomes of them.

use std::time::Duration;

use rumqttc::QoS;
use rustix::process::Signal;

use super::durable::{node, node_with};
use super::nats::Nats;
use super::sessions::Returning;
use super::support::mqtt::Client;
use super::support::process::Process;
use super::support::{http, within};
use super::until_there_are;

const QUIET: Duration = Duration::from_millis(700);

/// Longer than JetStream waits for a node that says nothing.
const LATE: Duration = Duration::from_secs(40);

async fn publish(server: &Process, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let answer = http::post(server.http, "/v1/publish/jobs/a", number.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// What comes until nothing more does.
async fn drain(client: &mut Client, patience: Duration) -> Vec<usize> {
    let mut got = Vec::new();
    while let Some(payload) = client.payload_if_any(patience).await {
        got.push(payload.parse().expect("a number"));
    }
    got
}

fn sorted(mut numbers: Vec<usize>) -> Vec<usize> {
    numbers.sort_unstable();
    numbers
}

async fn nodes<const N: usize>(nats: &Nats) -> [Process; N] {
    let mut servers = Vec::new();
    for number in 0..N {
        servers.push(node(nats, &format!("n{number}")).await);
    }
    let nodes = u32::try_from(N).expect("few");
    until_there_are(&servers, nodes).await;
    servers.try_into().unwrap_or_else(|_| panic!("as many"))
}

/// A member whose messages are acknowledged when it says so.
async fn silent(server: &Process, id: &str) -> Client {
    let mut client = Client::connect_with(server.mqtt, id, |options| _ = options.set_manual_acks(true)).await;
    client.subscribe("$share/workers/jobs/+", QoS::AtLeastOnce).await;
    client
}

/// A member, whose session stays.
async fn member(server: &Process, id: &str) -> Client {
    let mut client =
        Client::connect_with(server.mqtt, id, |options| _ = options.set_clean_session(false)).await;
    client.subscribe("$share/workers/jobs/+", QoS::AtLeastOnce).await;
    client
}

#[tokio::test]
async fn a_durable_message_is_one_members_on_all_nodes() {
    let Some(nats) = Nats::keeping() else { return };
    let servers: [Process; 3] = nodes(&nats).await;
    let mut two = member(&servers[1], "two").await;
    let mut three = member(&servers[2], "three").await;
    let mut transient = Client::connect(servers[2].mqtt, "transient").await;
    transient.subscribe("$share/workers/jobs/+", QoS::AtMostOnce).await;
    let mut plain = Client::connect(servers[2].mqtt, "plain").await;
    plain.subscribe("jobs/#", QoS::AtLeastOnce).await;
    let mut others = Client::connect(servers[0].mqtt, "others").await;
    others.subscribe("$share/others/jobs/+", QoS::AtLeastOnce).await;
    let publisher = Client::connect(servers[0].mqtt, "publisher").await;
    publish(&servers[0], 0..60).await;
    for number in 60..300 {
        // Many at a time, so that they are stored together.
        publisher.publish("jobs/a", QoS::AtLeastOnce, &number.to_string()).await;
    }
    let mut all = Vec::new();
    for client in [&mut two, &mut three, &mut transient] {
        let got = drain(client, QUIET).await;
        assert!(!got.is_empty(), "each has its part");
        all.extend(got);
    }
    let expected: Vec<usize> = (0..300).collect();
    assert_eq!(sorted(all), expected, "each once, by one of them");
    assert_eq!(drain(&mut plain, QUIET).await, expected, "who is in no group gets all");
    assert_eq!(sorted(drain(&mut others, QUIET).await), expected, "another group as well");
}

#[tokio::test]
async fn what_a_killed_node_had_not_done_is_anothers() {
    let Some(nats) = Nats::keeping() else { return };
    let [mut one, other]: [Process; 2] = nodes(&nats).await;
    let mut dying = silent(&one, "dying").await;
    publish(&other, 0..5).await;
    assert_eq!(drain(&mut dying, QUIET).await, [0, 1, 2, 3, 4]);
    let mut heir = member(&other, "heir").await;
    one.signal(Signal::KILL);
    one.exit().await;
    publish(&other, 5..8).await;
    let mut got: Vec<usize> = Vec::new();
    while got.len() < 8 {
        got.push(heir.payload_within(LATE).await.parse().expect("a number"));
    }
    assert_eq!(sorted(got), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(drain(&mut heir, QUIET).await, [0; 0], "and once");
}

#[tokio::test]
async fn what_members_leave_undone_is_anothers_at_once() {
    let Some(nats) = Nats::keeping() else { return };
    let [mut one, other]: [Process; 2] = nodes(&nats).await;
    let (mut ending, mut stopped) = (silent(&one, "ending").await, silent(&one, "stopped").await);
    publish(&other, 0..6).await;
    let (first, second) = (drain(&mut ending, QUIET).await, drain(&mut stopped, QUIET).await);
    assert_eq!(sorted([&first[..], &second[..]].concat()), [0, 1, 2, 3, 4, 5]);
    let mut heir = member(&other, "heir").await;
    assert_eq!(drain(&mut heir, QUIET).await, [0; 0], "they are on their way");
    // The session of the one ends, and then the node of the other.
    ending.kill();
    let passed = [drain(&mut stopped, QUIET).await, drain(&mut heir, QUIET).await].concat();
    assert_eq!(sorted(passed), sorted(first));
    one.signal(Signal::TERM);
    one.exit().await;
    let mut got = drain(&mut heir, Duration::from_secs(3)).await;
    got.sort_unstable();
    got.dedup();
    assert!(second.iter().all(|number| got.contains(number)), "{second:?} of {got:?}");
}

#[tokio::test]
async fn a_group_keeps_its_place_while_all_are_away() {
    let Some(nats) = Nats::keeping() else { return };
    let [one, other]: [Process; 2] = nodes(&nats).await;
    let mut first = member(&one, "first").await;
    publish(&one, 0..3).await;
    assert_eq!(drain(&mut first, QUIET).await, [0, 1, 2]);
    first.kill();
    // The session is away by then.
    tokio::time::sleep(QUIET).await;
    publish(&one, 3..40).await;
    drop(one);
    let mut second = member(&other, "second").await;
    let mut got = drain(&mut second, Duration::from_secs(2)).await;
    got.sort_unstable();
    assert_eq!(got, (3..40).collect::<Vec<_>>(), "who comes first has all of it");
    // And the one that was there before has its subscription still.
    second.kill();
    tokio::time::sleep(QUIET).await;
    publish(&other, 40..45).await;
    let mut first =
        Client::connect_with(other.mqtt, "first", |options| _ = options.set_clean_session(false)).await;
    let mut got = drain(&mut first, Duration::from_secs(7)).await;
    got.sort_unstable();
    assert_eq!(got, [40, 41, 42, 43, 44]);
}

/// Times at which these nodes have told that something was missed.
async fn gaps_of(servers: &[Process]) -> f64 {
    let mut gaps = 0.0;
    for server in servers {
        gaps += super::metric(server.http, "fanwire_mqtt_session_gaps_total").await;
    }
    gaps
}

#[tokio::test]
async fn what_is_dropped_before_a_group_has_it_is_told_once() {
    let Some(nats) = Nats::keeping() else { return };
    let servers: [Process; 2] = nodes(&nats).await;
    let ids = ["first", "second"];
    let mut members = [member(&servers[0], ids[0]).await, member(&servers[1], ids[1]).await];
    publish(&servers[0], 0..3).await;
    let got = [drain(&mut members[0], QUIET).await, drain(&mut members[1], QUIET).await].concat();
    assert_eq!(sorted(got), [0, 1, 2]);
    members.into_iter().for_each(Client::kill);
    // The sessions are away by then.
    tokio::time::sleep(QUIET).await;
    publish(&servers[0], 3..20).await;
    let answer = nats.ask("$JS.API.STREAM.PURGE.fw_H0", r#"{"keep":5}"#);
    assert!(answer.contains(r#""purged":15"#), "{answer}");
    // On one node after the other, and each of them sees that something is gone.
    let (mut got, mut gone) = (Vec::new(), Vec::new());
    for (server, id) in servers.iter().zip(ids) {
        let mut member = self::member(server, id).await;
        got.extend(drain(&mut member, Duration::from_secs(2)).await);
        gone.push(member);
    }
    assert_eq!(sorted(got), [15, 16, 17, 18, 19], "what is left");
    within(async {
        while gaps_of(&servers).await < 1.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(gaps_of(&servers).await, 1.0, "once");
    gone.into_iter().for_each(Client::kill);
    tokio::time::sleep(QUIET).await;
    // A group that has had all of it misses nothing, whatever is dropped.
    let mut member = self::member(&servers[1], ids[1]).await;
    publish(&servers[0], 20..23).await;
    assert_eq!(sorted(drain(&mut member, Duration::from_secs(2)).await), [20, 21, 22]);
    member.kill();
    tokio::time::sleep(Duration::from_secs(6)).await;
    nats.ask("$JS.API.STREAM.PURGE.fw_H0", "");
    let mut member = self::member(&servers[0], ids[0]).await;
    publish(&servers[0], 23..24).await;
    assert_eq!(drain(&mut member, Duration::from_secs(6)).await, [23]);
    assert_eq!(gaps_of(&servers).await, 1.0);
}

#[tokio::test]
async fn there_are_as_many_groups_as_may_be() {
    let Some(nats) = Nats::keeping() else { return };
    let server = node_with(&nats, "n1", &[("FANWIRE_CLUSTER_MAX_GROUPS", "1")]).await;
    let mut client = Returning::connect(server.mqtt, "client", 255, None).await;
    assert_eq!(client.ask_for("$share/a/jobs/1", 1).await, 1);
    assert_eq!(client.ask_for("$share/b/jobs/1", 1).await, 0x97);
    assert_eq!(client.ask_for("$share/a/jobs/1", 2).await, 2, "it is there");
    assert_eq!(super::metric(server.http, "fanwire_cluster_groups_refused_total").await, 1.0);
    assert_eq!(super::metric(server.http, "fanwire_cluster_groups ").await, 1.0);
    // One that somebody may come back to keeps its place, and its room.
    drop(client);
    let mut second = Returning::connect(server.mqtt, "second", 0, None).await;
    assert_eq!(second.ask_for("$share/b/jobs/1", 1).await, 0x97);
}
