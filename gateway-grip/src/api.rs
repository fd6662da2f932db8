//! `/v1/routes`: routes for operators, and for what scales their origins.

use envelope::{timestamp, write_string};
use front::{Front, Task};
use gateway::delivery::BreakerState;
use gateway::resource::{Door, json, only};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_edge::{Body, Peer, Problem, Response};

use crate::route::RouteState;
use crate::routes::Routes;

/// The resource of routes, in front of the HTTP API. It needs the right `manage` on all channels.
#[derive(Clone)]
pub struct Api {
    routes: Routes,
    door: Door,
}

impl Api {
    /// For these routes.
    pub fn new(routes: Routes, door: Door) -> Self {
        Self { routes, door }
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response, Problem> {
        let (parts, _) = request.into_parts();
        self.door.admit_manager(&parts).await?;
        self.shown(&parts)
    }

    fn shown(&self, parts: &Parts) -> Result<Response, Problem> {
        only(parts, &[Method::GET, Method::HEAD], "GET, HEAD")?;
        let now = self.routes.now();
        let mut out = Vec::new();
        match id_of(parts.uri.path()) {
            Some("") => {
                out.extend_from_slice(b"{\"routes\":[");
                for (at, state) in now.table.all().iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    show(state, &mut out);
                }
                out.extend_from_slice(b"]}");
            }
            id => {
                let found = now.table.all().iter().find(|state| Some(&*state.route.id) == id);
                show(found.ok_or_else(|| Problem::not_found("no route has this id"))?, &mut out);
            }
        }
        Ok(json(StatusCode::OK, out))
    }
}

/// The id in a path of the resource; empty: of all.
fn id_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v1/routes")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

fn show(state: &RouteState, out: &mut Vec<u8>) {
    let (route, activity) = (&state.route, &state.activity);
    let texts = [
        ("{\"id\":", route.id.clone()),
        (",\"dialect\":", route.dialect.name().to_owned()),
        (",\"host\":", route.host.to_string()),
        (",\"path\":", route.path.to_string()),
        (",\"state\":", activity.state().name().to_owned()),
        (",\"last_active_at\":", timestamp(activity.last_active_ms())),
    ];
    for (name, text) in texts {
        out.extend_from_slice(name.as_bytes());
        write_string(&text, out);
    }
    out.extend_from_slice(format!(",\"connections\":{},\"origins\":[", activity.open()).as_bytes());
    for (at, (origin, breaker)) in state.upstream.breakers().enumerate() {
        out.extend_from_slice(if at > 0 { b",{\"url\":" } else { b"{\"url\":" });
        write_string(&origin.base.to_string(), out);
        let how = if breaker == BreakerState::Closed { "open" } else { "failing" };
        out.extend_from_slice(b",\"state\":");
        write_string(how, out);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

impl Front for Api {
    fn name(&self) -> &'static str {
        "routes"
    }

    fn claims(&self, path: &str) -> bool {
        id_of(path).is_some()
    }

    fn handle(&self, peer: Option<Peer>, request: Request<Body>) -> Task<Response> {
        let (api, request) = (self.clone(), front::with_peer(peer, request));
        Box::pin(async move { api.answer(request).await.unwrap_or_else(|problem| problem.response()) })
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Api").field(&self.routes).finish()
    }
}
