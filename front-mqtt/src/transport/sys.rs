//! `$SYS/broker/...`: what the broker says about itself, under mosquitto's names and in its units where it has them.

use std::sync::Weak;
use std::time::Instant;

use broker_core::{Channel, Publish, Qos};

use super::load::{Load, SPANS};
use crate::front::Inner;

/// Reports at every interval, for as long as the front lives.
pub(crate) async fn keep_reporting(front: Weak<Inner>) {
    let mut report = Report { since: Instant::now(), last: Instant::now(), loads: Loads::default(), most: 0 };
    while let Some(inner) = front.upgrade() {
        report.publish(&inner);
        let interval = inner.shared.config.sys_interval;
        drop(inner);
        tokio::time::sleep(interval).await;
    }
}

/// What one report keeps for the next.
struct Report {
    since: Instant,
    last: Instant,
    loads: Loads,
    /// The most clients that were connected at a report.
    most: u64,
}

/// What there are moving averages of.
type Loads = [Load; 9];

impl Report {
    /// Publishes every figure, retained, so that a new subscriber has them at once.
    fn publish(&mut self, inner: &Inner) {
        let stats = inner.stats();
        let broker = inner.broker.stats();
        let (connected, sessions) = (stats.connections as u64, stats.sessions as u64);
        let absent = sessions.saturating_sub(connected);
        self.most = self.most.max(connected);
        let retained = broker.retained_messages as u64;
        let stored = retained + (stats.messages_waiting + stats.messages_inflight) as u64;
        let figures: [(&str, u64); 30] = [
            ("clients/connected", connected),
            ("clients/active", connected),
            ("clients/disconnected", absent),
            ("clients/inactive", absent),
            ("clients/total", sessions),
            ("clients/maximum", self.most),
            ("clients/expired", stats.sessions_expired),
            ("bytes/received", stats.bytes_received),
            ("bytes/sent", stats.bytes_sent),
            ("messages/received", stats.packets_received),
            ("messages/sent", stats.packets_sent),
            ("messages/inflight", stats.messages_inflight as u64),
            ("messages/stored", stored),
            ("store/messages/count", stored),
            ("store/messages/bytes", broker.retained_bytes as u64 + stats.bytes_waiting as u64),
            ("publish/messages/received", stats.messages_received),
            ("publish/messages/sent", stats.messages_sent),
            ("publish/messages/dropped", stats.messages_dropped),
            ("retained messages/count", retained),
            ("subscriptions/count", broker.subscriptions as u64),
            // Names of our own.
            ("connects", stats.connects),
            ("handshakes/failed", stats.handshakes_failed),
            ("messages/dropped", stats.messages_dropped),
            ("messages/published", broker.published),
            ("messages/delivered", broker.delivered),
            ("bytes/published", broker.published_bytes),
            ("messages/refused", broker.refused + broker.refused_busy),
            ("subscriptions/wildcards", broker.wildcard_filters as u64),
            ("retained messages/bytes", broker.retained_bytes as u64),
            ("channels/count", broker.channels as u64),
        ];
        publish(inner, "version", concat!("fanwire ", env!("CARGO_PKG_VERSION")));
        publish(inner, "uptime", &format!("{} seconds", self.since.elapsed().as_secs()));
        for (name, value) in figures {
            publish(inner, name, &value.to_string());
        }
        let loads = [
            ("bytes/received", stats.bytes_received),
            ("bytes/sent", stats.bytes_sent),
            ("connections", stats.connects),
            ("messages/received", stats.packets_received),
            ("messages/sent", stats.packets_sent),
            ("publish/dropped", stats.messages_dropped),
            ("publish/received", stats.messages_received),
            ("publish/sent", stats.messages_sent),
            ("sockets", stats.sockets),
        ];
        let now = Instant::now();
        let minutes = now.duration_since(self.last).as_secs_f64() / 60.0;
        self.last = now;
        for (load, (name, count)) in self.loads.iter_mut().zip(loads) {
            for (average, (span, _)) in load.update(count, minutes).into_iter().zip(SPANS) {
                publish(inner, &format!("load/{name}/{span}"), &format!("{average:.2}"));
            }
        }
    }
}

fn publish(inner: &Inner, name: &str, value: &str) {
    let Ok(channel) = Channel::parse(&format!("$SYS/broker/{name}")) else { return };
    let publish = Publish::new(channel, value.to_owned()).qos(Qos::AtMostOnce).retain(true);
    // A broker too busy for it, or closed, says it the next time or not at all.
    _ = inner.broker.publish(publish);
}
