//! The routes while they are served: others may take their place at any time.

use std::fmt;
use std::sync::Arc;

use gateway::client::Caller;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::config::{ForwardedFor, Settings};
use crate::keys::ControlKey;
use crate::route::RouteState;
use crate::table::Table;

/// The routes of a server and who may publish by GRIP, to be changed while it serves. A clone is the same.
///
/// Who came by a route that is not there any more, or is another one now, keeps it.
#[derive(Clone)]
pub struct Routes(Arc<Inner>);

struct Inner {
    caller: Caller,
    now: RwLock<Arc<Now>>,
    stopping: watch::Sender<bool>,
}

/// What holds now.
#[derive(Debug, Default)]
pub(crate) struct Now {
    pub(crate) table: Table,
    pub(crate) forwarded_for: ForwardedFor,
    pub(crate) control_keys: Arc<[ControlKey]>,
}

impl Default for Routes {
    fn default() -> Self {
        // Who is told of idle routes stands in the configuration, which is trusted.
        let (stopping, _) = watch::channel(false);
        Self(Arc::new(Inner { caller: Caller::new(None), now: RwLock::default(), stopping }))
    }
}

impl Routes {
    /// These routes from now on, on the current tokio runtime. One that is the same as before goes on as it is.
    pub fn set(&self, settings: Settings) {
        let mut now = self.0.now.write();
        let before = Arc::clone(&now);
        let mut kept = Vec::new();
        let routes = settings.routes.into_iter().map(|route| {
            let same = before.table.all().iter().find(|state| {
                state.route.id == route.id && state.route.version == route.version && route.version != 0
            });
            match same {
                Some(state) => {
                    kept.push(state.route.id.clone());
                    Arc::clone(state)
                }
                None => Arc::new(RouteState::start(route, &self.0.caller, self.0.stopping.subscribe())),
            }
        });
        let table = Table::new(routes.collect());
        *now = Arc::new(Now {
            table,
            forwarded_for: settings.forwarded_for,
            control_keys: settings.control_keys,
        });
        drop(now);
        for state in before.table.all().iter().filter(|state| !kept.contains(&state.route.id)) {
            state.activity.end();
        }
    }

    /// WebSockets end, and nothing begins any more.
    pub(crate) fn stop(&self) {
        self.0.stopping.send_replace(true);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.0.stopping.borrow()
    }

    pub(crate) fn now(&self) -> Arc<Now> {
        Arc::clone(&self.0.now.read())
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("routes", &self.now().table.all().len()).finish()
    }
}
