//! QoS 1 and 2 through a proxy that cuts the connection at random bytes: what was promised is kept.
//!
//! `FW_TEST_CUTS` cuts (default 100) while `FW_TEST_MESSAGES` messages (default 10,000) flow each way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use broker_core::Qos;
use fanwire::{Broker, Channel, Filter, Publish};

use crate::mqtt_client::{Client, Over};
use crate::proxy::Proxy;
use crate::support::TestServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qos_1_over_tcp_loses_nothing() {
    cut_at_random(Over::Tcp, 4, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qos_2_over_tcp_is_exactly_once_and_in_order() {
    cut_at_random(Over::Tcp, 5, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qos_1_over_websocket_loses_nothing() {
    cut_at_random(Over::WebSocket, 5, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qos_2_over_websocket_is_exactly_once_and_in_order() {
    cut_at_random(Over::WebSocket, 4, 2).await;
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

async fn cut_at_random(over: Over, level: u8, qos: u8) {
    let (cuts, messages) = (setting("FW_TEST_CUTS", 100), setting("FW_TEST_MESSAGES", 10_000));
    let server = TestServer::start().await;
    let target = if over == Over::Tcp { server.mqtt } else { server.http };
    let mut client = Client::new(target, over, level, qos);
    client.subscribe("down").await;
    let mut up = server.broker.subscribe(Filter::parse("up").expect("a filter")).expect("taken");
    let witness = tokio::spawn(async move {
        let mut arrived = Vec::new();
        while arrived.last() != Some(&(messages - 1)) {
            let message = up.message().await.expect("the broker lives");
            arrived.push(std::str::from_utf8(message.payload()).expect("text").parse().expect("a number"));
        }
        arrived
    });
    // A message is some 20 bytes each way at QoS 1 and twice that at QoS 2, with all that belongs to it: more cuts
    // fit than are wanted.
    let bytes = 1..(messages as u64 * 24 * u64::from(qos) / cuts as u64).max(100);
    let proxy = Proxy::start(target, cuts, bytes.clone(), bytes, 2).await;
    client.address = proxy.address;
    let heard = Arc::new(AtomicUsize::new(0));
    let publisher = tokio::spawn(publish_down(server.broker.clone(), messages, heard.clone()));
    let began = Instant::now();
    client.run("up", messages, |count| heard.store(count, Ordering::Relaxed)).await;
    publisher.await.expect("it publishes");
    let arrived = witness.await.expect("it listens");
    println!(
        "{over:?} level {level} QoS {qos}: {} cuts in {:.1} s, {messages} messages each way, {} and {} arrived",
        proxy.cuts(),
        began.elapsed().as_secs_f64(),
        client.heard.len(),
        arrived.len(),
    );
    for (direction, got) in [("down", &client.heard), ("up", &arrived)] {
        let mut next = 0;
        for &n in got {
            // Repeats are QoS 1's right; a first arrival is always the next in order.
            assert!(n == next || (qos == 1 && n < next), "{direction}: {n} came where {next} was due");
            next = next.max(n + 1);
        }
        assert_eq!(next, messages, "{direction}");
    }
    assert_eq!(proxy.cuts(), cuts, "too few bytes flowed to be cut");
}

/// Publishes as fast as the client hears, so that its session's queue stays within its bound.
async fn publish_down(broker: Broker, messages: usize, heard: Arc<AtomicUsize>) {
    for n in 0..messages {
        while n >= heard.load(Ordering::Relaxed) + 400 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let channel = Channel::parse("down").expect("a channel");
        broker.publish(Publish::new(channel, n.to_string()).qos(Qos::ExactlyOnce)).expect("taken");
    }
}
