//! `$share` over nodes: of a message one member in the cluster gets it.

use std::time::Duration;

use rumqttc::QoS;
use rustix::process::Signal;

use crate::nats::Nats;
use crate::support::http;
use crate::support::mqtt::Client;
use crate::support::process::Process;
use crate::three;

const QUIET: Duration = Duration::from_millis(400);

async fn publish(server: &Process, text: &str) {
    let answer = http::post(server.http, "/v1/publish/jobs/a", text.to_owned()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// What each of them gets until nothing more comes, one after the other.
async fn drain(clients: &mut [&mut Client]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for client in clients {
        let mut got = Vec::new();
        while let Some(payload) = client.payload_if_any(QUIET).await {
            got.push(payload);
        }
        all.push(got);
    }
    all
}

/// Publishes until somebody gets it: the server knows of the groups elsewhere.
async fn until_known(server: &Process, clients: &mut [&mut Client]) {
    for _ in 0..50 {
        publish(server, "probe").await;
        if drain(clients).await.iter().any(|got| !got.is_empty()) {
            return;
        }
    }
    panic!("no member gets anything");
}

fn sorted(all: &[Vec<String>]) -> Vec<usize> {
    let mut numbers: Vec<usize> = all.iter().flatten().map(|text| text.parse().expect("a number")).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn one_member_in_the_cluster_gets_a_message() {
    let Some(nats) = Nats::start(&[]) else { return };
    let mut servers = three(&nats).await;
    let mut two = Client::connect(servers[1].mqtt, "two").await;
    two.subscribe("$share/workers/jobs/+", QoS::AtLeastOnce).await;
    let mut three = Client::connect(servers[2].mqtt, "three").await;
    three.subscribe("$share/workers/jobs/+", QoS::AtLeastOnce).await;
    let mut plain = Client::connect(servers[2].mqtt, "plain").await;
    plain.subscribe("jobs/#", QoS::AtLeastOnce).await;
    until_known(&servers[0], &mut [&mut two, &mut three]).await;
    drain(&mut [&mut plain]).await;

    let expected: Vec<usize> = (0..100).collect();
    for number in 0..100 {
        publish(&servers[0], &number.to_string()).await;
    }
    let got = drain(&mut [&mut two, &mut three]).await;
    assert_eq!(sorted(&got), expected, "each once, by one of them");
    assert!(got.iter().all(|got| !got.is_empty()), "both have their part");
    assert_eq!(sorted(&drain(&mut [&mut plain]).await), expected, "who is in no group gets all");

    // A member where it is published is preferred.
    for number in 0..50 {
        publish(&servers[1], &number.to_string()).await;
    }
    let got = drain(&mut [&mut two, &mut three]).await;
    assert_eq!((got[0].len(), got[1].len()), (50, 0));

    // One that is gone is not waited for.
    servers[1].signal(Signal::KILL);
    servers[1].exit().await;
    until_known(&servers[0], &mut [&mut three]).await;
    drain(&mut [&mut plain]).await;
    for number in 0..50 {
        publish(&servers[0], &number.to_string()).await;
    }
    assert_eq!(sorted(&drain(&mut [&mut three]).await).len(), 50);
}
