//! `/metrics`: what the broker and this API count, and what was added.

use std::sync::Arc;

use broker_core::{Action, Broker, Channel, Principal, Stats as BrokerStats};
use front::{Metric, MetricSource, refused};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_edge::{Body, Intake, Response};
use parking_lot::RwLock;

use crate::config::METRICS_CHANNEL;
use crate::connections::may_manage_all;
use crate::error::Error;
use crate::exposition::{self, Format};
use crate::stats::{Stats, Times};

/// What a scrape reads.
pub(crate) struct Scraped<'a> {
    pub(crate) broker: &'a Broker,
    pub(crate) stats: Stats,
    pub(crate) times: &'a Times,
    pub(crate) unfinished: &'a Intake,
    pub(crate) sources: &'a RwLock<Vec<Arc<dyn MetricSource>>>,
}

/// The answer to a scrape by somebody who needs the right to it.
pub(crate) fn answer_to(
    scraped: &Scraped<'_>,
    principal: &Principal,
    headers: &HeaderMap,
) -> Result<Response, Error> {
    let alone = Channel::parse(METRICS_CHANNEL).is_ok_and(|own| principal.allows(Action::Manage, &own));
    if !alone && may_manage_all(principal).is_err() {
        return Err(Error::forbidden(principal, "manage", METRICS_CHANNEL));
    }
    Ok(answer(scraped, headers))
}

/// The answer to a scrape, in the format that it asks for.
pub(crate) fn answer(scraped: &Scraped<'_>, headers: &HeaderMap) -> Response {
    let format = Format::asked_by(headers);
    let mut response = match exposition::write(collect(scraped), format) {
        Ok(text) => http::Response::new(Body::full(text)),
        Err(std::fmt::Error) => {
            let mut response = http::Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    };
    let answered = response.headers_mut();
    answered.insert(header::CONTENT_TYPE, format.content_type());
    answered.insert(header::VARY, HeaderValue::from_static("Accept"));
    answered.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The broker, this API, and every source that was added.
pub(crate) fn collect(scraped: &Scraped<'_>) -> Vec<Metric> {
    let mut metrics = Vec::with_capacity(128);
    let stats = scraped.broker.stats();
    of_broker(&stats, &mut metrics);
    of_lanes(&stats, &mut metrics);
    of_api(scraped, &stats, &mut metrics);
    let sources: Vec<_> = scraped.sources.read().iter().map(Arc::clone).collect();
    for source in sources {
        source.collect(&mut metrics);
    }
    metrics
}

fn of_broker(stats: &BrokerStats, out: &mut Vec<Metric>) {
    let counter = Metric::counter;
    let gauge = |name, help, value: usize| Metric::gauge(name, help, value as u64);
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
        Metric::histogram(
            "delivery_seconds",
            "Time from taking a message to its last write to a subscriber's socket or queue; at most one message in 10 ms is timed",
            stats.delivery_times,
        ),
        gauge("channels", "Channels with a subscriber or a recorded message", stats.channels),
        gauge("wildcard_filters", "Distinct filters with wildcards", stats.wildcard_filters),
        gauge("filter_bytes", "Bytes of the filters of all subscriptions", stats.filter_bytes),
        gauge("subscribers", "Sessions, streams and in-process subscriptions", stats.subscribers),
        gauge("subscriptions", "Subscriptions of all subscribers", stats.subscriptions),
        gauge("retained_messages", "Retained messages", stats.retained_messages),
        gauge("retained_bytes", "Bytes of the retained messages", stats.retained_bytes),
    ]);
    for of in &stats.namespaces {
        let name = of.name.to_string();
        let messages = gauge(
            "log_messages",
            "Messages in the log, by configured namespace; * are all others",
            of.log_messages,
        );
        let bytes =
            gauge("log_bytes", "Bytes of the log, by configured namespace; * are all others", of.log_bytes);
        out.extend([messages.with("namespace", name.clone()), bytes.with("namespace", name)]);
    }
}

fn of_lanes(stats: &BrokerStats, out: &mut Vec<Metric>) {
    let gauge = |name, help, value: usize| Metric::gauge(name, help, value as u64);
    out.push(gauge("lanes", "Tasks that deliver", stats.lanes.len()));
    for (lane, of) in stats.lanes.iter().enumerate() {
        let numbers = [
            gauge("lane_waiting_deliveries", "Deliveries that wait in a lane", of.waiting_deliveries),
            gauge("lane_waiting_bytes", "Payload bytes that wait in a lane", of.waiting_bytes),
            gauge("lane_subscribers", "Subscribers that a lane delivers to", of.subscribers),
        ];
        out.extend(numbers.map(|number| number.with("lane", lane.to_string())));
    }
}

fn of_api(scraped: &Scraped<'_>, broker: &BrokerStats, out: &mut Vec<Metric>) {
    let stats = scraped.stats;
    let intake = scraped.unfinished.stats();
    let (counter, gauge) = (Metric::counter, Metric::gauge);
    out.extend([
        counter("http_requests", "Requests answered by the HTTP API", stats.requests),
        refused("http", "rights", stats.refused_rights),
        refused("http", "busy", stats.refused_busy),
        refused("http", "other", stats.failed),
        counter("http_published_messages", "Messages published over HTTP", stats.published),
        counter("http_duplicates", "Publishes answered from an idempotency key", stats.duplicates),
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
        gauge("http_idempotency_keys", "Idempotency keys remembered", broker.idempotency_keys as u64),
        counter(
            "http_idempotency_forgotten_early",
            "Idempotency keys forgotten before their time, of whoever held most",
            broker.idempotency_forgotten_early,
        ),
    ]);
    for (route, times) in scraped.times.by_route() {
        let help = "Time from a request to its answer, by what it asks for; of POSTs one in 16 is timed, requests that \
                    are held are not";
        out.push(Metric::histogram("http_request_seconds", help, times.durations()).with("route", route));
    }
}
