//! Which route a request takes: that of the longest host, then of the longest path.

use std::cmp::Reverse;
use std::sync::Arc;

use http::header::HOST;
use http::request::Parts;
use http_edge::Https;
use http_edge::websocket::is_opening;

use crate::config::{Protocol, Scheme};
use crate::pattern::host_name;
use crate::route::RouteState;

/// All routes, as they are now.
#[derive(Debug, Default)]
pub(crate) struct Table {
    routes: Vec<Arc<RouteState>>,
}

impl Table {
    pub(crate) fn new(routes: Vec<Arc<RouteState>>) -> Self {
        Self { routes }
    }

    pub(crate) fn all(&self) -> &[Arc<RouteState>] {
        &self.routes
    }

    /// Whether any route is for a path, of whatever host.
    pub(crate) fn has_path(&self, path: &str) -> bool {
        self.routes.iter().any(|state| state.route.path.rank(path).is_some())
    }

    /// The route of a request.
    pub(crate) fn find(&self, parts: &Parts) -> Option<&Arc<RouteState>> {
        let field = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let (host, path) = (host_name(field), parts.uri.path());
        let (is_websocket, is_https) = (is_opening(parts), Https::is_known(&parts.extensions));
        let ranked = self.routes.iter().filter_map(|state| {
            let route = &state.route;
            let rank = (route.host.rank(host)?, route.path.rank(path)?);
            let takes = (route.methods.is_empty() || route.methods.contains(&parts.method))
                && route.protocol.is_none_or(|protocol| (protocol == Protocol::WebSocket) == is_websocket)
                && route.scheme.is_none_or(|scheme| (scheme == Scheme::Https) == is_https);
            // One that names methods, a protocol or a scheme is nearer than one that takes all.
            let named = [!route.methods.is_empty(), route.protocol.is_some(), route.scheme.is_some()];
            let named = named.iter().filter(|is_named| **is_named).count();
            takes.then_some((Reverse((rank, named)), state))
        });
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, state)| state)
    }
}
