//! `/metrics` in the OpenMetrics text format, written by the `prometheus-client` library.

use std::fmt;
use std::sync::Arc;

use broker_core::{Action, Broker, Channel, Principal, Stats as BrokerStats};
use front::{Metric, MetricSource, Value};
use http::{HeaderValue, StatusCode, header};
use http_edge::{Body, Intake, Response};
use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::config::METRICS_CHANNEL;
use crate::connections::may_manage_all;
use crate::error::Error;
use crate::stats::Stats;

/// What a scrape reads.
pub(crate) struct Scraped<'a> {
    pub(crate) broker: &'a Broker,
    pub(crate) stats: Stats,
    pub(crate) unfinished: &'a Intake,
    pub(crate) sources: &'a RwLock<Vec<Arc<dyn MetricSource>>>,
}

/// The answer to a scrape by somebody who needs the right to it.
pub(crate) fn answer_to(scraped: &Scraped<'_>, principal: &Principal) -> Result<Response, Error> {
    let alone = Channel::parse(METRICS_CHANNEL).is_ok_and(|own| principal.allows(Action::Manage, &own));
    if !alone && may_manage_all(principal).is_err() {
        return Err(Error::forbidden(principal, "manage", METRICS_CHANNEL));
    }
    Ok(answer(scraped))
}

/// The answer to a scrape: the broker, this API, and every source that was added.
pub(crate) fn answer(scraped: &Scraped<'_>) -> Response {
    let mut metrics = Vec::with_capacity(64);
    let stats = scraped.broker.stats();
    of_broker(&stats, &mut metrics);
    of_api(scraped, &stats, &mut metrics);
    let sources: Vec<_> = scraped.sources.read().iter().map(Arc::clone).collect();
    for source in sources {
        source.collect(&mut metrics);
    }
    let mut registry = Registry::with_prefix("fanwire");
    registry.register_collector(Box::new(Snapshot(metrics)));
    let mut out = String::new();
    let mut response = match text::encode(&mut out, &registry) {
        Ok(()) => http::Response::new(Body::full(out)),
        Err(fmt::Error) => {
            let mut response = http::Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    };
    let openmetrics = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, openmetrics);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Numbers as they were a moment ago.
#[derive(Debug)]
struct Snapshot(Vec<Metric>);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in &self.0 {
            match metric.value {
                Value::Counter(value) => {
                    let counter = ConstCounter::new(value);
                    let descriptor =
                        encoder.encode_descriptor(metric.name, metric.help, None, MetricType::Counter)?;
                    counter.encode(descriptor)?;
                }
                Value::Gauge(value) => {
                    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
                    let descriptor =
                        encoder.encode_descriptor(metric.name, metric.help, None, MetricType::Gauge)?;
                    gauge.encode(descriptor)?;
                }
            }
        }
        Ok(())
    }
}

fn of_broker(stats: &BrokerStats, out: &mut Vec<Metric>) {
    let counter = |name, help, value| Metric { name, help, value: Value::Counter(value) };
    let gauge = |name, help, value: usize| Metric { name, help, value: Value::Gauge(value as u64) };
    let waiting = |of: fn(&broker_core::LaneStats) -> usize| stats.lanes.iter().map(of).sum::<usize>();
    out.extend([
        counter("published_messages", "Messages taken from publishers", stats.published),
        counter("published_bytes", "Payload bytes of the messages taken", stats.published_bytes),
        counter("refused_busy", "Messages refused because a lane had too much waiting", stats.refused_busy),
        counter("refused_messages", "Messages refused for any other reason", stats.refused),
        counter(
            "refused_levels",
            "Channels and filters refused because they have too many levels",
            stats.refused_levels,
        ),
        counter(
            "refused_filters",
            "Subscriptions refused because all filters weigh as much as they may",
            stats.refused_filters,
        ),
        counter("delivered_messages", "Deliveries handed to subscribers", stats.delivered),
        counter("dropped_messages", "Frames thrown away for slow readers", stats.dropped),
        counter(
            "panicked_deliveries",
            "Subscribers ended because delivering to them panicked, which is a bug",
            stats.panicked,
        ),
        gauge("channels", "Channels with a subscriber or a recorded message", stats.channels),
        gauge("wildcard_filters", "Distinct filters with wildcards", stats.wildcard_filters),
        gauge("filter_bytes", "Bytes of the filters of all subscriptions", stats.filter_bytes),
        gauge("subscribers", "Sessions, streams and in-process subscriptions", stats.subscribers),
        gauge("subscriptions", "Subscriptions of all subscribers", stats.subscriptions),
        gauge("retained_messages", "Retained messages", stats.retained_messages),
        gauge("retained_bytes", "Bytes of the retained messages", stats.retained_bytes),
        gauge("log_messages", "Messages in the log", stats.log_messages),
        gauge("log_bytes", "Bytes of the log", stats.log_bytes),
        gauge("lanes", "Tasks that deliver", stats.lanes.len()),
        gauge("waiting_deliveries", "Deliveries that wait in lanes", waiting(|lane| lane.waiting_deliveries)),
        gauge("waiting_bytes", "Payload bytes that wait in lanes", waiting(|lane| lane.waiting_bytes)),
    ]);
}

fn of_api(scraped: &Scraped<'_>, broker: &BrokerStats, out: &mut Vec<Metric>) {
    let stats = scraped.stats;
    let intake = scraped.unfinished.stats();
    let counter = |name, help, value| Metric { name, help, value: Value::Counter(value) };
    let gauge = |name, help, value| Metric { name, help, value: Value::Gauge(value) };
    out.extend([
        counter("http_requests", "Requests answered by the HTTP API", stats.requests),
        counter("http_published_messages", "Messages published over HTTP", stats.published),
        counter("http_duplicates", "Publishes answered from an idempotency key", stats.duplicates),
        counter("http_refused_rights", "Answers 401 and 403", stats.refused_rights),
        counter("http_refused_busy", "Answers 429 and 503", stats.refused_busy),
        counter("http_failed", "Other answers from 400 on", stats.failed),
        counter("http_failed_items", "Items of batches that were refused", stats.failed_items),
        counter("http_direct_messages", "Messages sent to one connection", stats.direct_messages),
        counter("http_closed_connections", "Connections closed over HTTP", stats.closed_connections),
        counter(
            "http_forced_subscriptions",
            "Subscriptions of connections made or ended over HTTP",
            stats.forced_subscriptions,
        ),
        gauge(
            "unfinished_bytes",
            "Bytes of bodies, packets and messages that are not whole yet",
            intake.held_bytes as u64,
        ),
        gauge("unfinished", "Bodies, packets and messages that hold these", intake.unfinished as u64),
        counter("unfinished_shed", "Of these, given up to make room for others", intake.shed),
        counter("unfinished_slow", "Of these, given up because they came too slowly", intake.slow),
        Metric {
            name: "http_idempotency_keys",
            help: "Idempotency keys remembered",
            value: Value::Gauge(broker.idempotency_keys as u64),
        },
        counter(
            "http_idempotency_forgotten_early",
            "Idempotency keys forgotten before their time, of whoever held most",
            broker.idempotency_forgotten_early,
        ),
    ]);
}
