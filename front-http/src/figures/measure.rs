//! One set of figures.

use std::sync::Arc;
use std::time::Instant;

use ::front::{Metric, Value};
use broker_core::{Broker, LaneStats, Stats, unix_ms};
use envelope::{timestamp, write_string};

use super::Sources;
use super::busiest::Busiest;
use super::slow::Slow;

/// What is known from one second to the next.
pub(super) struct Measuring {
    began: Instant,
    busiest: Busiest,
    slow: Slow,
}

impl Default for Measuring {
    fn default() -> Self {
        Measuring { began: Instant::now(), busiest: Busiest::default(), slow: Slow::default() }
    }
}

impl Measuring {
    /// The figures as they are now, as one JSON object on one line. Counters are totals of the process: whoever wants a
    /// rate takes the difference of two, over that of their `at_ms`.
    pub(super) async fn take(&mut self, broker: &Broker, sources: &Sources) -> Vec<u8> {
        let now = Instant::now();
        self.busiest.look(broker, now);
        self.slow.look(broker, now).await;
        let mut out = format!(
            "{{\"time\":\"{}\",\"at_ms\":{}",
            timestamp(unix_ms()),
            now.saturating_duration_since(self.began).as_millis()
        )
        .into_bytes();
        write_broker(&broker.stats(), &mut out);
        out.extend_from_slice(b",\"counts\":{");
        write_counts(sources, &mut out);
        out.extend_from_slice(b"},\"busiest\":");
        self.busiest.write(now, &mut out);
        out.extend_from_slice(b",\"slow\":");
        self.slow.write(broker, now, &mut out);
        out.push(b'}');
        out
    }
}

fn write_broker(stats: &Stats, out: &mut Vec<u8>) {
    let numbers = [
        ("published_messages", stats.published),
        ("published_bytes", stats.published_bytes),
        ("delivered_messages", stats.delivered),
        ("dropped_messages", stats.dropped),
        ("refused_messages", stats.refused + stats.refused_busy),
        ("channels", stats.channels as u64),
        ("subscribers", stats.subscribers as u64),
        ("subscriptions", stats.subscriptions as u64),
        ("retained_messages", stats.retained_messages as u64),
        ("retained_bytes", stats.retained_bytes as u64),
        ("log_messages", stats.log_messages as u64),
        ("log_bytes", stats.log_bytes as u64),
    ];
    for (name, number) in numbers {
        out.extend_from_slice(format!(",\"{name}\":{number}").as_bytes());
    }
    out.extend_from_slice(b",\"lanes\":[");
    for (number, lane) in stats.lanes.iter().enumerate() {
        let LaneStats { waiting_deliveries, waiting_bytes, subscribers, .. } = lane;
        let comma = if number == 0 { "" } else { "," };
        let lane = format!(
            "{comma}{{\"waiting_deliveries\":{waiting_deliveries},\"waiting_bytes\":{waiting_bytes},\"subscribers\":{subscribers}}}"
        );
        out.extend_from_slice(lane.as_bytes());
    }
    out.push(b']');
}

/// What the fronts and the server count, under the names of `/metrics`. Histograms are not for the eye of a moment.
fn write_counts(sources: &Sources, out: &mut Vec<u8>) {
    let sources: Vec<_> = sources.read().iter().map(Arc::clone).collect();
    let mut metrics: Vec<Metric> = Vec::with_capacity(128);
    for source in sources {
        source.collect(&mut metrics);
    }
    let mut comma = "";
    for metric in &metrics {
        let number = match metric.value {
            Value::Counter(number) | Value::Gauge(number) => number.to_string(),
            Value::CountedSeconds(seconds) | Value::Seconds(seconds) if seconds.is_finite() => {
                seconds.to_string()
            }
            _ => continue,
        };
        out.extend_from_slice(comma.as_bytes());
        write_string(&series(metric), out);
        out.extend_from_slice(format!(":{number}").as_bytes());
        comma = ",";
    }
}

/// A name with its labels, as Prometheus writes them: `refused{protocol="sse",reason="rights"}`.
fn series(metric: &Metric) -> String {
    let labels: Vec<_> = metric.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    if labels.is_empty() {
        metric.name.to_owned()
    } else {
        format!("{}{{{}}}", metric.name, labels.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_their_names_and_labels() {
        let sources = Sources::default();
        sources.write().push(Arc::new(|out: &mut Vec<Metric>| {
            out.push(Metric::gauge("things", "Things", 7));
            out.push(Metric::info("build", "Which it is"));
            out.push(
                Metric::counter("refused", "Refused", 1).with("protocol", "sse").with("reason", "rights"),
            );
            out.push(Metric::counted_seconds("process_cpu_seconds", "CPU", 1.5));
            out.push(Metric::seconds("age_seconds", "Age", f64::NAN));
        }));
        let mut out = Vec::new();
        write_counts(&sources, &mut out);
        let expected =
            r#""things":7,"refused{protocol=\"sse\",reason=\"rights\"}":1,"process_cpu_seconds":1.5"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
