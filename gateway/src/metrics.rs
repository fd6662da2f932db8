//! What is counted of requests to backends, whatever dialect they are in: one name and one help for all of them.

use broker_core::Histogram;
use front::Metric;

use crate::delivery::BreakerState;

/// How many requests ended so: `answered`, `failed`, `timeout` or `refused`.
pub fn requests(number: u64, outcome: &'static str) -> Metric {
    let about = "Requests of gateways and routes to functions and origins";
    Metric::counter("gateway_requests", about, number).with("outcome", outcome)
}

/// How long they took to the head of their answer, waiting for a turn included.
pub fn request_seconds(seconds: &Histogram) -> Metric {
    let about = "How long requests to functions and origins took";
    Metric::histogram("gateway_request_seconds", about, seconds.durations())
}

/// How many have no answer yet.
pub fn in_flight(number: u64) -> Metric {
    Metric::gauge("gateway_in_flight", "Requests to functions and origins that have no answer yet", number)
}

/// Whether a function or an origin is called.
pub fn breaker_state(state: BreakerState) -> Metric {
    let about = "Whether a function or an origin is called: 0 yes, 1 one request decides, 2 it is left alone";
    Metric::gauge("gateway_breaker_state", about, state.number())
}
