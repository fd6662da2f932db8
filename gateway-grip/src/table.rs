//! Which route a request takes: that of the longest host, then of the longest path.

use std::cmp::Reverse;
use std::sync::Arc;

use http::header::HOST;
use http::request::Parts;

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
        let ranked = self.routes.iter().filter_map(|state| {
            let route = &state.route;
            let rank = (route.host.rank(host)?, route.path.rank(path)?);
            // One that names methods is nearer than one that takes all.
            let takes = route.methods.is_empty() || route.methods.contains(&parts.method);
            takes.then_some((Reverse((rank, !route.methods.is_empty())), state))
        });
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, state)| state)
    }
}
