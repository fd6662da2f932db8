//! The front as its server sees it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use front::{Metric, Task};
use http::Request;
use http_edge::{Body, Peer, Response};

use crate::client::Target;
use crate::connections;
use crate::front::Front;

impl front::Front for Front {
    fn name(&self) -> &'static str {
        "gateway"
    }

    fn claims(&self, path: &str) -> bool {
        self.find(path).is_some() || (!self.0.apis.is_empty() && connections::split(path).is_some())
    }

    fn handle(&self, peer: Option<Peer>, request: Request<Body>) -> Task<Response> {
        let (front, request) = (self.clone(), front::with_peer(peer, request));
        Box::pin(async move { Front::handle(&front, request).await })
    }

    fn wants_raw_heads(&self) -> bool {
        !self.0.apis.is_empty()
    }

    fn collect(&self, out: &mut Vec<Metric>) {
        let number = |counter: &AtomicU64| counter.load(Relaxed);
        for state in &self.0.apis {
            let gateway = format!("aws:{}", state.api.name);
            let own = |metric: Metric| metric.with("gateway", gateway.clone());
            let about = "Connections of gateways, those that are opening among them";
            out.push(own(Metric::gauge("gateway_connections", about, number(&state.connections))));
            let about = "Messages of gateways' clients that wait for those before them";
            out.push(own(Metric::gauge("gateway_queue", about, number(&state.queued))));
            let about = "Clients that a gateway's functions did not let in";
            out.push(own(Metric::counter("gateway_refused_connections", about, number(&state.refused))));
            let about = "Events that a gateway could tell nobody";
            out.push(own(Metric::counter("gateway_dead", about, number(&state.dead))));
            let integrations = state.integrations.iter().map(|(name, target)| (name.clone(), target));
            let authorizers =
                state.authorizers.iter().map(|(name, (target, _))| (format!("authorizer:{name}"), target));
            for (name, target) in integrations.chain(authorizers) {
                collect(target, &gateway, &name, out);
            }
        }
    }

    fn shut_down(&self, window: Duration) -> Task {
        let front = self.clone();
        Box::pin(async move { front.shutdown(window).await })
    }
}

fn collect(target: &Target, gateway: &str, name: &str, out: &mut Vec<Metric>) {
    let own = |metric: Metric| {
        let metric = metric.with("gateway", gateway.to_owned()).with("integration", name.to_owned());
        metric.with("dialect", "aws")
    };
    let counted = &target.counted;
    for (outcome, counter) in [
        ("answered", &counted.answered),
        ("failed", &counted.failed),
        ("timeout", &counted.timed_out),
        ("refused", &counted.refused),
    ] {
        out.push(own(gateway::metrics::requests(counter.load(Relaxed), outcome)));
    }
    out.push(own(gateway::metrics::request_seconds(&counted.seconds)));
    out.push(own(gateway::metrics::in_flight(counted.in_flight.load(Relaxed))));
    out.push(own(gateway::metrics::breaker_state(target.breaker_state())));
}
