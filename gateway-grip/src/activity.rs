//! How much is under way on a route, and who is told when nothing is any more.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use broker_core::{steady_ms, unix_ms};
use bytes::Bytes;
use envelope::{timestamp, write_string};
use gateway::client::Caller;
use gateway::courier::{Courier, Receiver};
use gateway::delivery::{Bounds, Dead, Event};
use gateway::sign::Secrets;
use http::{Request, Uri, header};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::config::Route;

/// How long whoever is told may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is under way on one route.
pub(crate) struct Activity {
    route: String,
    max: u64,
    open: AtomicU64,
    /// When something passed last, by the clock that measures.
    last_ms: AtomicU64,
    state: Mutex<State>,
    is_over: AtomicBool,
    on_idle: Option<Courier>,
    on_first: Option<Courier>,
}

/// What was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing yet.
    Unknown,
    Active,
    Idle,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Active => "active",
            Self::Idle => "idle",
        }
    }
}

/// Something that is under way: a request until the end of its answer, a WebSocket.
#[derive(Debug)]
pub(crate) struct Place {
    activity: Arc<Activity>,
    /// When something passed here last.
    last_ms: AtomicU64,
}

impl Place {
    /// Something has passed.
    pub(crate) fn touch(&self) {
        let now = steady_ms();
        self.last_ms.store(now, Relaxed);
        self.activity.last_ms.store(now, Relaxed);
    }

    /// How long nothing has passed.
    pub(crate) fn idle(&self) -> Duration {
        Duration::from_millis(steady_ms().saturating_sub(self.last_ms.load(Relaxed)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.touch();
        self.activity.open.fetch_sub(1, Relaxed);
    }
}

impl Activity {
    /// Of a route, on the current tokio runtime where somebody is to be told.
    pub(crate) fn start(route: &Route, caller: &Caller) -> Arc<Self> {
        let courier = |url: &Uri| {
            let receiver =
                Told { url: url.clone(), secrets: route.notify_secrets.clone(), route: route.id.clone() };
            let mut bounds = Bounds::default();
            bounds.max_events = 100;
            Courier::start(bounds, caller.clone(), Arc::new(receiver), Arc::new(Semaphore::new(1)))
        };
        let on_idle = route.on_idle.as_ref().map(courier);
        // By one, so that they come in their order.
        let on_first = match (&route.on_first, &route.on_idle) {
            (Some(first), Some(idle)) if first == idle => on_idle.clone(),
            (first, _) => first.as_ref().map(courier),
        };
        let is_watched = on_idle.is_some() || on_first.is_some();
        let activity = Arc::new(Self {
            route: route.id.clone(),
            max: route.max_connections as u64,
            open: AtomicU64::new(0),
            last_ms: AtomicU64::new(steady_ms()),
            state: Mutex::new(State::Unknown),
            is_over: AtomicBool::new(false),
            on_idle,
            on_first,
        });
        if is_watched {
            tokio::spawn(watch(Arc::downgrade(&activity), route.scale_down_after));
        }
        activity
    }

    /// A place for what begins; `None` if there are as many as may be.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Place> {
        let entered = self.open.fetch_update(Relaxed, Relaxed, |open| (open < self.max).then_some(open + 1));
        entered.ok()?;
        let place = Place { activity: Arc::clone(self), last_ms: AtomicU64::new(0) };
        place.touch();
        if self.on_first.is_some() || self.on_idle.is_some() {
            let mut state = self.state.lock();
            if *state != State::Active {
                *state = State::Active;
                self.tell(self.on_first.as_ref(), "route.first");
            }
        }
        Some(place)
    }

    /// What is under way.
    pub(crate) fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    pub(crate) fn state(&self) -> State {
        *self.state.lock()
    }

    /// When something passed last, in milliseconds since 1970.
    pub(crate) fn last_active_ms(&self) -> u64 {
        unix_ms().saturating_sub(steady_ms().saturating_sub(self.last_ms.load(Relaxed)))
    }

    /// The route is gone: nobody is told anything any more.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Relaxed);
    }

    fn tell(&self, courier: Option<&Courier>, kind: &str) {
        let Some(courier) = courier else { return };
        let id = format!("evt_{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let mut body = b"{\"type\":".to_vec();
        for (name, value) in [
            ("", kind),
            (",\"id\":", &id),
            (",\"timestamp\":", &timestamp(unix_ms())),
            (",\"data\":{\"route\":", &self.route),
        ] {
            body.extend_from_slice(name.as_bytes());
            write_string(value, &mut body);
        }
        body.extend_from_slice(format!(",\"connections\":{},\"last_active_at\":", self.open()).as_bytes());
        write_string(&timestamp(self.last_active_ms()), &mut body);
        body.extend_from_slice(b"}}");
        courier.push(Event::new(id, &*self.route, body, Instant::now()));
    }
}

impl fmt::Debug for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activity").field("open", &self.open()).field("state", &self.state()).finish()
    }
}

/// Tells that a route is idle, each time that it has become so.
async fn watch(activity: Weak<Activity>, after: Duration) {
    loop {
        let Some(now) = activity.upgrade() else { return };
        if now.is_over.load(Relaxed) {
            return;
        }
        let idle = Duration::from_millis(steady_ms().saturating_sub(now.last_ms.load(Relaxed)));
        let mut wait = after.saturating_sub(idle);
        if wait.is_zero() {
            // Under the lock that who begins needs, so that the two are told in their order.
            let mut state = now.state.lock();
            if now.open() == 0 && *state != State::Idle {
                *state = State::Idle;
                now.tell(now.on_idle.as_ref(), "route.idle");
            }
            wait = after;
        }
        drop(now);
        tokio::time::sleep(wait.clamp(Duration::from_millis(10), Duration::from_secs(60))).await;
    }
}

/// Who is told.
struct Told {
    url: Uri,
    secrets: Secrets,
    route: String,
}

impl Receiver for Told {
    fn url(&self) -> &Uri {
        &self.url
    }

    fn timeout(&self) -> Duration {
        TIMEOUT
    }

    fn can_leave(&self) -> bool {
        false
    }

    fn request(&self, events: &[Arc<Event>]) -> Request<Bytes> {
        let (id, body) = events.first().map(|event| (&*event.id, event.body.clone())).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut request = Request::post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now);
        let signature = self.secrets.sign(id, now, &body);
        if !signature.is_empty() {
            request = request.header("webhook-signature", signature);
        }
        request.body(body).unwrap_or_default()
    }

    fn buried(&self, dead: Vec<Dead>) {
        tracing::warn!(
            target: "fanwire::gateway", route = %self.route, events = dead.len(),
            "whoever scales a route could not be told"
        );
    }
}
