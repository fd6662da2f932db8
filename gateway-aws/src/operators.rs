//! `/v1/gateways`: APIs for operators, and whether their functions are called.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use envelope::write_string;
use front::Task;
use gateway::delivery::BreakerState;
use gateway::resource::{Door, json, only};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_edge::{Body, Peer, Problem, Response};

use crate::api::ApiState;
use crate::client::Target;
use crate::front::Front;

/// The resource of APIs, in front of the HTTP API. It needs the right `manage` on all channels.
#[derive(Clone)]
pub struct Operators {
    front: Option<Front>,
    door: Door,
}

impl Operators {
    /// For the APIs of this front; without one there are none.
    pub fn new(front: Option<Front>, door: Door) -> Self {
        Self { front, door }
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response, Problem> {
        let (parts, _) = request.into_parts();
        self.door.admit_manager(&parts).await?;
        self.shown(&parts)
    }

    fn shown(&self, parts: &Parts) -> Result<Response, Problem> {
        only(parts, &[Method::GET, Method::HEAD], "GET, HEAD")?;
        let mut out = b"{\"gateways\":[".to_vec();
        for (at, state) in self.front.iter().flat_map(|front| &front.0.apis).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            show(state, &mut out);
        }
        out.extend_from_slice(b"]}");
        Ok(json(StatusCode::OK, out))
    }
}

fn show(state: &ApiState, out: &mut Vec<u8>) {
    let number = |counter: &AtomicU64| counter.load(Relaxed);
    let texts = [
        ("{\"id\":", format!("aws:{}", state.api.name)),
        (",\"path\":", state.api.path.clone()),
        (",\"stage\":", state.api.stage.clone()),
    ];
    for (name, text) in texts {
        out.extend_from_slice(name.as_bytes());
        write_string(&text, out);
    }
    let figures = format!(
        ",\"connections\":{},\"queue\":{},\"dead_letters\":{},\"functions\":[",
        number(&state.connections),
        number(&state.queued),
        state.dead_letters.len(),
    );
    out.extend_from_slice(figures.as_bytes());
    let integrations = state.integrations.iter().map(|(name, target)| (name.clone(), target));
    let authorizers =
        state.authorizers.iter().map(|(name, (target, _))| (format!("authorizer:{name}"), target));
    for (at, (name, target)) in integrations.chain(authorizers).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        show_function(&name, target, out);
    }
    out.extend_from_slice(b"]}");
}

fn show_function(name: &str, target: &Target, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"name\":");
    write_string(name, out);
    out.extend_from_slice(b",\"url\":");
    // A query may be a secret.
    let url = target.url().to_string();
    write_string(url.split('?').next().unwrap_or_default(), out);
    let state = match target.breaker_state() {
        BreakerState::Closed => "open",
        _ => "failing",
    };
    out.extend_from_slice(b",\"state\":");
    write_string(state, out);
    out.extend_from_slice(format!(",\"in_flight\":{}}}", target.counted.in_flight.load(Relaxed)).as_bytes());
}

impl front::Front for Operators {
    fn name(&self) -> &'static str {
        "gateways"
    }

    fn claims(&self, path: &str) -> bool {
        matches!(path, "/v1/gateways" | "/v1/gateways/")
    }

    fn handle(&self, peer: Option<Peer>, request: Request<Body>) -> Task<Response> {
        let (operators, request) = (self.clone(), front::with_peer(peer, request));
        Box::pin(async move { operators.answer(request).await.unwrap_or_else(|problem| problem.response()) })
    }
}

impl fmt::Debug for Operators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Operators").field(&self.front).finish()
    }
}
