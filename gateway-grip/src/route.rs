//! One route at work.

use std::sync::Arc;

use gateway::client::Caller;
use tokio::sync::watch;

use crate::activity::Activity;
use crate::config::Route;
use crate::upstream::Upstream;

/// One route at work. Who came by it keeps it, whatever becomes of the configuration.
#[derive(Debug)]
pub(crate) struct RouteState {
    pub(crate) route: Route,
    pub(crate) upstream: Upstream,
    pub(crate) activity: Arc<Activity>,
    /// The server stops.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl RouteState {
    pub(crate) fn start(route: Route, caller: &Caller, stopping: watch::Receiver<bool>) -> Self {
        let (upstream, activity) = (Upstream::new(&route), Activity::start(&route, caller));
        Self { route, upstream, activity, stopping }
    }
}
