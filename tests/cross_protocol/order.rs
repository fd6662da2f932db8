use std::collections::HashMap;

use fanwire::Filter;
use rumqttc::QoS;
use serde_json::json;

use crate::support::bayeux::Socket;
use crate::support::http::post_json;
use crate::support::mqtt::Client;
use crate::support::sse::EventStream;
use crate::support::{TestServer, within};

const MESSAGES: u64 = 300;
const PUBLISHERS: [&str; 3] = ["http", "mqtt", "bayeux"];

/// Checks that each publisher's messages come once and in order.
#[derive(Default)]
struct Ledger {
    next: HashMap<String, u64>,
    order: Vec<(String, u64)>,
}

impl Ledger {
    fn take(&mut self, text: &str) {
        let message: serde_json::Value = serde_json::from_str(text).unwrap();
        let from = message["from"].as_str().unwrap().to_owned();
        let n = message["n"].as_u64().unwrap();
        let next = self.next.entry(from.clone()).or_default();
        assert_eq!(n, *next, "{from}");
        *next += 1;
        self.order.push((from, n));
    }

    fn is_full(&self) -> bool {
        self.order.len() as u64 == MESSAGES * PUBLISHERS.len() as u64
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_publishers_on_one_channel_are_seen_in_one_order_by_all() {
    let server = TestServer::start().await;
    let mut in_process = server.broker.subscribe(Filter::parse("o").unwrap()).unwrap();
    let mut stream = EventStream::open(server.http, "/sse/o").await;
    let mut device = Client::connect(server.mqtt, "device").await;
    device.subscribe("o", QoS::AtLeastOnce).await;
    let mut page = Socket::handshake(server.http).await;
    page.subscribe("/o").await;
    server.wait_for_subscriptions(4).await;

    let text = |from: &str, n: u64| format!(r#"{{"from":"{from}","n":{n}}}"#);
    let address = server.http;
    let over_http = tokio::spawn(async move {
        for n in 0..MESSAGES {
            assert_eq!(post_json(address, "/v1/publish/o", text("http", n)).await.status, 200);
        }
    });
    let publisher = Client::connect(server.mqtt, "publisher").await;
    let over_mqtt = tokio::spawn(async move {
        for n in 0..MESSAGES {
            publisher.publish("o", QoS::AtLeastOnce, &text("mqtt", n)).await;
        }
        publisher
    });
    let over_bayeux = tokio::spawn(async move {
        let mut publisher = Socket::handshake(address).await;
        for n in 0..MESSAGES {
            publisher.publish("/o", &json!({"from": "bayeux", "n": n})).await;
        }
    });

    let mut ledgers: [Ledger; 4] = Default::default();
    let [a, b, c, d] = &mut ledgers;
    let reading = async {
        tokio::join!(
            async {
                while !a.is_full() {
                    let message = within(in_process.message()).await.unwrap();
                    a.take(std::str::from_utf8(message.payload()).unwrap());
                }
            },
            async {
                while !b.is_full() {
                    b.take(&stream.data().await);
                }
            },
            async {
                while !c.is_full() {
                    c.take(&device.payload().await);
                }
            },
            async {
                while !d.is_full() {
                    d.take(&page.event().await["data"].to_string());
                }
            },
        );
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), reading).await.expect("all arrive");
    over_http.await.unwrap();
    drop(over_mqtt.await.unwrap());
    over_bayeux.await.unwrap();
    for ledger in &ledgers[1..] {
        assert_eq!(ledger.order, ledgers[0].order, "one order for all");
    }
}
