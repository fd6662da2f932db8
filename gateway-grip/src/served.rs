//! The front as its server sees it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use front::{Accepted, Metric, Task};
use http::Request;
use http_edge::{Body, Peer, Response, below};

use crate::front::Front;
use crate::publishing::PATH;
use crate::route::RouteState;

impl front::Front for Front {
    fn name(&self) -> &'static str {
        "route"
    }

    fn claims(&self, path: &str) -> bool {
        below(path, PATH).is_some() || self.0.now().table.has_path(path)
    }

    fn names_answers(&self) -> bool {
        true
    }

    fn handle(&self, peer: Option<Peer>, request: Request<Body>) -> Task<Response> {
        let (front, request) = (self.clone(), front::with_peer(peer, request));
        Box::pin(async move { Front::handle(&front, request).await })
    }

    fn listens(&self) -> Option<SocketAddr> {
        self.1.control
    }

    fn serve(&self, accepted: Accepted) -> Task {
        Box::pin(self.clone().serve_control(accepted))
    }

    fn collect(&self, out: &mut Vec<Metric>) {
        let desk = &self.1.publishing.desk;
        for (outcome, counter) in [("published", &desk.published), ("duplicate", &desk.duplicates)] {
            let number = counter.load(Relaxed);
            out.push(Metric::counter("grip_items", "Items of GRIP", number).with("outcome", outcome));
        }
        let about = "Items of GRIP that wait for those before them";
        out.push(Metric::gauge("grip_waiting_items", about, desk.waiting() as u64));
        let stats = self.1.hub.stats();
        out.push(Metric::gauge("grip_sockets", "WebSockets whose events origins get", stats.open));
        for (outcome, number) in [
            ("answered", stats.answered),
            ("retried", stats.retried),
            ("failed", stats.failed),
            ("refused", stats.refused),
        ] {
            let about = "Requests to origins with events of WebSockets";
            out.push(Metric::counter("grip_socket_requests", about, number).with("outcome", outcome));
        }
        self.1.holds.collect(out);
        for state in self.0.now().table.all() {
            collect(state, out);
        }
    }

    fn shut_down(&self, window: Duration) -> Task {
        let front = self.clone();
        Box::pin(async move { front.shutdown(window).await })
    }
}

fn collect(state: &RouteState, out: &mut Vec<Metric>) {
    let number = |counter: &AtomicU64| counter.load(Relaxed);
    let about = "Requests and WebSockets of routes that are under way";
    let connections = Metric::gauge("route_connections", about, state.activity.open());
    out.push(connections.with("route", state.route.id.clone()));
    let dialect = state.route.dialect.name();
    let own = |metric: Metric| metric.with("route", state.route.id.clone()).with("dialect", dialect);
    let counted = &state.upstream.counted;
    for (outcome, counter) in [
        ("answered", &counted.answered),
        ("failed", &counted.failed),
        ("timeout", &counted.timed_out),
        ("refused", &counted.refused),
    ] {
        out.push(own(gateway::metrics::requests(number(counter), outcome)));
    }
    out.push(own(gateway::metrics::request_seconds(&counted.seconds)));
    out.push(own(gateway::metrics::in_flight(number(&counted.in_flight))));
    let about = "Bytes of events of WebSockets that wait for their origins";
    out.push(own(Metric::gauge("gateway_queue_bytes", about, number(&counted.queue_bytes))));
    for (origin, breaker) in state.upstream.breakers() {
        out.push(own(gateway::metrics::breaker_state(breaker)).with("origin", origin.authority().to_owned()));
    }
}
