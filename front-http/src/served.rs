//! The front as its server sees it.

use std::sync::Arc;
use std::time::Duration;

use front::{MetricSource, Task};
use http::{Request, Uri};
use http_edge::{Body, Cookies, OriginPolicy, Peer, Response, below};

use crate::front::Front;
use crate::front::asks_to_wait;

impl front::Front for Front {
    fn name(&self) -> &'static str {
        "http"
    }

    fn claims(&self, path: &str) -> bool {
        let own = [&*self.config().path, "/healthz", "/readyz", "/metrics"];
        own.into_iter().any(|mount| below(path, mount).is_some())
    }

    fn names_answers(&self) -> bool {
        true
    }

    fn handle(&self, peer: Option<Peer>, request: Request<Body>) -> Task<Response> {
        Box::pin(self.handle_from(peer, request))
    }

    fn readers(&self) -> Option<(&OriginPolicy, Cookies)> {
        Some((&self.config().origins, self.cookies()))
    }

    /// All is answered at once, but history with `wait`.
    fn holds(&self, uri: &Uri) -> bool {
        let rest = below(uri.path(), &self.config().path);
        rest.is_some_and(|rest| rest.starts_with("history/")) && asks_to_wait(uri)
    }

    fn show(&self, source: Arc<dyn MetricSource>) {
        self.add_metrics(source);
    }

    fn set_ready(&self, ready: bool) {
        Front::set_ready(self, ready);
    }

    fn shut_down(&self, window: Duration) -> Task {
        let front = self.clone();
        Box::pin(async move { front.shutdown(window).await })
    }
}
