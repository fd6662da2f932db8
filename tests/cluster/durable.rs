//! Channels that NATS keeps, by the protocols of clients.

use rumqttc::QoS;

use super::nats::Nats;
use super::support::mqtt::Client;
use super::support::process::{self, Process};
use super::support::sse::EventStream;
use super::support::{http, within};
use super::until_ready_is;

pub(crate) async fn node(nats: &Nats, name: &str) -> Process {
    node_with(nats, name, &[]).await
}

pub(crate) async fn node_with(nats: &Nats, name: &str, more: &[(&str, &str)]) -> Process {
    let mut command = process::command();
    command.args(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]);
    command.envs([("FANWIRE_CLUSTER_SERVERS", format!("[\"{}\"]", nats.url()).as_str())]);
    command.envs([
        ("FANWIRE_CLUSTER_NODE", name),
        ("FANWIRE_CLUSTER_DURABILITY", "always"),
        ("FANWIRE_CLUSTER_REPLICAS", "1"),
        ("FANWIRE_CLUSTER_MAX_BYTES", "256 MiB"),
    ]);
    command.envs(more.iter().copied());
    Process::started(command).await
}

#[tokio::test]
async fn what_one_server_took_is_on_another_after_all_were_killed() {
    let Some(nats) = Nats::keeping() else { return };
    let first = {
        let (here, there) = (node(&nats, "n1").await, node(&nats, "n2").await);
        let mut events = EventStream::open(there.http, "/sse/orders/1").await;
        let answer = http::post(here.http, "/v1/publish/orders/1", "one").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(events.data().await, "one");
        let mut mqtt = Client::connect(there.mqtt, "one").await;
        mqtt.subscribe("orders/+", QoS::AtLeastOnce).await;
        mqtt.retain("orders/2", "two").await;
        assert_eq!(mqtt.payload().await, "two");
        answer.json()["id"].as_str().expect("an id").to_owned()
    };
    let (here, there) = (node(&nats, "n3").await, node(&nats, "n4").await);
    for server in [&here, &there] {
        let path = format!("/v1/history/orders/2?after={first}");
        let history = http::get(server.http, &path).await;
        assert!(history.status == 200 && history.text().contains("two"), "{}", history.text());
        assert_eq!(http::get(server.http, "/v1/retained/orders/2").await.status, 200);
    }
}

#[tokio::test]
async fn without_nats_they_are_refused_with_when_to_try_again() {
    let Some(mut nats) = Nats::keeping() else { return };
    let here = node(&nats, "n1").await;
    nats.kill();
    until_ready_is(here.http, 503).await;
    let answer = http::post(here.http, "/v1/publish/orders/1", "refused").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(
        answer.header("retry-after").is_some() && answer.text().contains("store_unavailable"),
        "{answer:?}"
    );
    nats.restart();
    until_ready_is(here.http, 200).await;
    within(async {
        while http::post(here.http, "/v1/publish/orders/1", "stored").await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let history = http::get(here.http, "/v1/history/orders/1").await;
    assert!(history.text().contains("stored") && !history.text().contains("refused"), "{}", history.text());
}
