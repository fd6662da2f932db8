//! Real servers over a real NATS server, and their clients.

mod durable;
#[path = "../../cluster/tests/support/nats.rs"]
#[allow(dead_code, missing_docs, unreachable_pub, reason = "of another crate's tests")]
mod nats;
#[path = "../support/mod.rs"]
mod support;

mod bayeux;
mod clients;
mod groups;
mod hooks;
mod items;
mod sessions;
mod shared;
mod takeover;

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::QoS;

use self::nats::Nats;
use self::support::mqtt::Client;
use self::support::process::{self, Process};
use self::support::sse::EventStream;
use self::support::{http, within};

async fn node(nats: &Nats, name: &str) -> Process {
    node_with(nats, name, &[]).await
}

async fn node_with(nats: &Nats, name: &str, arguments: &[&str]) -> Process {
    let mut command = process::command();
    command.args(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]).args(arguments);
    command.envs([("FANWIRE_CLUSTER_SERVERS", format!("[\"{}\"]", nats.url()).as_str())]);
    command.env("FANWIRE_CLUSTER_NODE", name);
    Process::started(command).await
}

/// Until `/readyz` says this.
async fn until_ready_is(address: SocketAddr, status: u16) {
    within(async {
        while http::get(address, "/readyz").await.status != status {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Three servers that know of each other.
async fn three(nats: &Nats) -> [Process; 3] {
    let servers = [node(nats, "n1").await, node(nats, "n2").await, node(nats, "n3").await];
    until_there_are(&servers, 3).await;
    servers
}

/// Until each knows that there are so many, itself among them.
async fn until_there_are(servers: &[Process], nodes: u32) {
    for server in servers {
        within(async {
            while metric(server.http, "fanwire_cluster_nodes").await < f64::from(nodes) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

async fn metric(address: SocketAddr, name: &str) -> f64 {
    let page = http::get(address, "/metrics").await;
    let row = page.text().lines().find(|row| row.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
    row.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

#[tokio::test]
async fn clients_of_all_protocols_on_three_servers_are_one() {
    let Some(nats) = Nats::start(&[]) else { return };
    let servers = [node(&nats, "n1").await, node(&nats, "n2").await, node(&nats, "n3").await];
    let mut mqtt = Client::connect(servers[0].mqtt, "one").await;
    mqtt.subscribe("chat/+", QoS::AtLeastOnce).await;
    let mut events = EventStream::open(servers[1].http, "/sse/chat/room1").await;
    let answer = http::post(servers[2].http, "/v1/publish/chat/room1", "over http").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((mqtt.payload().await, events.data().await), ("over http".to_owned(), "over http".to_owned()));
    mqtt.publish("chat/room1", QoS::AtLeastOnce, "over mqtt").await;
    assert_eq!((mqtt.payload().await, events.data().await), ("over mqtt".to_owned(), "over mqtt".to_owned()));
    mqtt.retain("lamp", "on").await;
    for server in &servers {
        within(async {
            while http::get(server.http, "/v1/retained/lamp").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_that_starts_has_what_others_retain() {
    let Some(nats) = Nats::start(&[]) else { return };
    let first = node(&nats, "n1").await;
    for number in 0..1_000 {
        let target = format!("/v1/retained/lamps/{number}");
        assert_eq!(http::request(first.http, "PUT", &target, &[], "on").await.status, 200);
    }
    let second = node(&nats, "n2").await;
    for number in [0, 499, 999] {
        let answer = http::get(second.http, &format!("/v1/retained/lamps/{number}")).await;
        assert_eq!((answer.status, &answer.json()["text"]), (200, &"on".into()), "{number}");
    }
    let mut late = Client::connect(second.mqtt, "late").await;
    late.subscribe("lamps/7", QoS::AtMostOnce).await;
    let message = late.message().await;
    assert!(message.retain && &message.payload[..] == b"on");
}

#[tokio::test]
async fn a_server_without_nats_says_so_and_is_back_with_it() {
    let Some(mut nats) = Nats::start(&[]) else { return };
    let (here, there) = (node(&nats, "n1").await, node(&nats, "n2").await);
    let mut events = EventStream::open(there.http, "/sse/a").await;
    nats.kill();
    for server in [&here, &there] {
        until_ready_is(server.http, 503).await;
        assert_eq!(metric(server.http, "fanwire_cluster_connected").await, 0.0);
    }
    assert_eq!(http::post(there.http, "/v1/publish/a", "alone").await.status, 200);
    assert_eq!(events.data().await, "alone");
    assert_eq!(metric(there.http, "fanwire_cluster_unsent_total{reason=\"away\"}").await, 1.0);
    nats.restart();
    for server in [&here, &there] {
        until_ready_is(server.http, 200).await;
    }
    assert_eq!(http::post(here.http, "/v1/publish/a", "together").await.status, 200);
    assert_eq!(events.data().await, "together");
}

#[tokio::test]
async fn what_is_wrong_with_a_cluster_is_said_at_the_start() {
    let servers = ("FANWIRE_CLUSTER_SERVERS", "[\"nats://127.0.0.1:4222\"]");
    let user = ("FANWIRE_CLUSTER_USER", "fan");
    for (environment, said) in [
        (&[("FANWIRE_CLUSTER_NODE", "n1")][..], "cluster.node`: needs `cluster.servers`"),
        (
            &[("FANWIRE_CLUSTER_SERVERS", "[\"nats://a:b@c\"]")],
            "cluster.servers`: who this node is stands in",
        ),
        (&[("FANWIRE_CLUSTER_SERVERS", "[\"nats://[\"]")], "cluster.servers`: must be addresses"),
        (&[servers, ("FANWIRE_CLUSTER_PREFIX", "a.b")], "cluster.prefix`: begins subjects of NATS"),
        (&[servers, user], "cluster.user`: one of `user` with `password`"),
        (&[servers, ("FANWIRE_CLUSTER_KEY_FILE", "k.pem")], "cluster.key_file`: needs `cluster.cert_file`"),
        (
            &[servers, ("FANWIRE_CLUSTER_DURABILITY", "os")],
            "cluster.durability`: is \"always\" or \"memory\"",
        ),
        (&[servers, ("FANWIRE_CLUSTER_REPLICAS", "0")], "cluster.replicas`: is from 1 to 5"),
        (&[servers, ("FANWIRE_STORE_DIRECTORY", "data")], "cluster.servers`: what a store keeps"),
    ] {
        let (code, error) = process::run(&["check-config"], environment).await;
        assert!(code == Some(2) && error.contains(said), "{environment:?}: {code:?} {error}");
    }
    let Some(nats) = Nats::start(&["--user", "fan", "--pass", "secret"]) else { return };
    let servers = format!("[\"{}\"]", nats.url());
    let listen = ["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"];
    let (code, error) = process::run(&listen, &[("FANWIRE_CLUSTER_SERVERS", &servers)]).await;
    assert!(
        code == Some(2) && error.contains("the NATS server does not let this node in"),
        "{code:?} {error}"
    );
}

#[tokio::test]
async fn check_config_names_the_cluster() {
    let environment =
        [("FANWIRE_CLUSTER_SERVERS", "[\"nats://127.0.0.1:4222\"]"), ("FANWIRE_CLUSTER_NODE", "n1")];
    let checked = process::run_with_input(&["check-config"], &environment, b"").await;
    assert!(checked.out.trim_end().ends_with(" cluster=fw node=n1 nats_servers=1"), "{checked:?}");
}
