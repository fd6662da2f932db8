//! What a durable publish costs: `cargo nextest run --release -p fanwire-cluster --test figures --run-ignored all --no-capture`.

#[allow(unreachable_pub, dead_code, reason = "of the tests alone")]
mod support;

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use self::support::{Nats, Node, config, keeping, message};

const PAYLOAD: usize = 256;

const FOR: Duration = Duration::from_secs(5);

/// Publishes with so many in flight over so many channels for a while; messages a second, and the median and the 99th
/// percentile of the time to the acknowledgement.
async fn publish(node: &Node, in_flight: usize, channels: usize) -> (f64, Duration, Duration) {
    let text = "x".repeat(PAYLOAD);
    let mut number = 0;
    let mut next = || {
        number += 1;
        let (broker, channel) = (node.broker.clone(), format!("c/{}", number % channels));
        let publish = message(&channel, &text);
        async move {
            let began = Instant::now();
            broker.submit(publish).await.unwrap();
            began.elapsed()
        }
    };
    let began = Instant::now();
    let mut waiting: FuturesUnordered<_> = (0..in_flight).map(|_| next()).collect();
    let mut times = Vec::new();
    while let Some(time) = waiting.next().await {
        times.push(time);
        if began.elapsed() < FOR {
            waiting.push(next());
        }
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    (rate, at(50), at(99))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures, not a test"]
async fn figures() {
    let Some(nats) = Nats::keeping() else { return };
    let (here, there) =
        (Node::of(keeping(&nats, "n1"), config()).await, Node::of(keeping(&nats, "n2"), config()).await);
    for (in_flight, channels) in [(1, 1), (64, 64), (64, 1), (512, 64)] {
        let (rate, median, p99) = publish(&here, in_flight, channels).await;
        println!(
            "{in_flight} in flight, {channels} channels, {PAYLOAD} B: {rate:.0}/s, ack p50 {median:?}, p99 {p99:?}"
        );
    }
    let stats = there.cluster.stats();
    println!("{stats:?}");
}
