//! `$SYS/broker/...`: what the broker says about itself.

use std::sync::Weak;
use std::time::Instant;

use broker_core::{Channel, Publish, Qos};

use crate::front::Inner;

/// Reports at every interval, for as long as the front lives.
pub(crate) async fn keep_reporting(front: Weak<Inner>) {
    let since = Instant::now();
    while let Some(inner) = front.upgrade() {
        report(&inner, since);
        let interval = inner.shared.config.sys_interval;
        drop(inner);
        tokio::time::sleep(interval).await;
    }
}

/// Publishes every figure, retained, so that a new subscriber has them at once.
fn report(inner: &Inner, since: Instant) {
    let stats = inner.stats();
    let broker = inner.broker.stats();
    let figures: [(&str, u64); 16] = [
        ("clients/connected", stats.connections as u64),
        ("clients/disconnected", stats.sessions.saturating_sub(stats.connections) as u64),
        ("clients/total", stats.sessions as u64),
        ("connects", stats.connects),
        ("handshakes/failed", stats.handshakes_failed),
        ("messages/received", stats.messages_received),
        ("messages/dropped", stats.messages_dropped),
        ("messages/published", broker.published),
        ("messages/delivered", broker.delivered),
        ("bytes/published", broker.published_bytes),
        ("messages/refused", broker.refused + broker.refused_busy),
        ("subscriptions/count", broker.subscriptions as u64),
        ("subscriptions/wildcards", broker.wildcard_filters as u64),
        ("retained messages/count", broker.retained_messages as u64),
        ("retained messages/bytes", broker.retained_bytes as u64),
        ("channels/count", broker.channels as u64),
    ];
    publish(inner, "version", concat!("fanwire ", env!("CARGO_PKG_VERSION")));
    publish(inner, "uptime", &format!("{} seconds", since.elapsed().as_secs()));
    for (name, value) in figures {
        publish(inner, name, &value.to_string());
    }
}

fn publish(inner: &Inner, name: &str, value: &str) {
    let Ok(channel) = Channel::parse(&format!("$SYS/broker/{name}")) else { return };
    let publish = Publish::new(channel, value.to_owned()).qos(Qos::AtMostOnce).retain(true);
    // A broker too busy for it, or closed, says it the next time or not at all.
    _ = inner.broker.publish(publish);
}
