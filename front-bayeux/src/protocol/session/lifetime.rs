//! How long a session lives, and what keeps it alive.

use std::time::{Duration, Instant};

use super::options::SessionTiming;
use crate::config::Timing;

/// See the module.
#[derive(Debug)]
pub(super) struct Lifetime {
    /// When it expires. `None` while its connect is held, or a reply is on its way to its client.
    expires: Option<Instant>,
    /// When the credentials of the handshake run out.
    credentials_end: Option<Instant>,
    /// The last message, of those that the activity extension counts.
    active: Instant,
    own_timing: Option<Box<SessionTiming>>,
    /// How long its client waits before its next connect, in milliseconds.
    interval_ms: u32,
    /// Requests in progress, connects aside. Meanwhile it does not expire.
    requests: u32,
}

impl Lifetime {
    /// Of a session that has just shaken hands. One that does nothing else expires too.
    pub(super) fn new(now: Instant, timing: Timing) -> Self {
        Self {
            expires: Some(now + timing.interval + timing.max_interval),
            credentials_end: None,
            active: now,
            own_timing: None,
            interval_ms: millis(timing.interval),
            requests: 0,
        }
    }

    /// The session ends when its credentials do.
    pub(super) fn limit_to(&mut self, credentials_end: Instant) {
        self.credentials_end = Some(credentials_end);
    }

    pub(super) fn set_timing(&mut self, timing: SessionTiming) {
        self.own_timing = (timing != SessionTiming::default()).then(|| Box::new(timing));
    }

    /// The times of the session, where those of its transport are these.
    pub(super) fn timing(&self, transport: Timing) -> Timing {
        self.own_timing.as_ref().map_or(transport, |own| own.over(transport))
    }

    /// Its client says how long it waits before its next connect.
    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval_ms = millis(interval);
    }

    /// The next connect may come that much later.
    pub(super) fn wait_at_least(&mut self, interval: Duration) {
        self.interval_ms = self.interval_ms.max(millis(interval));
    }

    /// How long it lives without a connect.
    pub(super) fn span(&self, timing: Timing) -> Duration {
        Duration::from_millis(self.interval_ms.into()) + timing.max_interval
    }

    /// It expires at this time, unless something comes.
    pub(super) fn expire_at(&mut self, at: Instant) {
        self.expires = Some(at);
    }

    /// It does not expire until its time [is set](Self::expire_at) again.
    pub(super) fn suspend(&mut self) {
        self.expires = None;
    }

    pub(super) fn is_running(&self) -> bool {
        self.expires.is_some()
    }

    /// When it expires, whatever is in progress.
    pub(super) fn expires(&self) -> Option<Instant> {
        self.expires
    }

    /// When it expires, unless a request of it is in progress.
    pub(super) fn expires_when_idle(&self) -> Option<Instant> {
        self.expires.filter(|_| self.requests == 0)
    }

    pub(super) fn credentials_end(&self) -> Option<Instant> {
        self.credentials_end
    }

    pub(super) fn begin_request(&mut self) {
        self.requests += 1;
    }

    pub(super) fn end_request(&mut self) {
        self.requests = self.requests.saturating_sub(1);
    }

    pub(super) fn has_requests(&self) -> bool {
        self.requests > 0
    }

    /// #650: who publishes between two connects is alive.
    pub(super) fn extend(&mut self, now: Instant, timing: Timing) {
        if let Some(expires) = &mut self.expires {
            *expires = (*expires).max(now + timing.max_interval);
        }
    }

    pub(super) fn note_active(&mut self, now: Instant) {
        self.active = now;
    }

    /// When it has not been active for so long.
    pub(super) fn inactive_at(&self, max: Duration) -> Instant {
        self.active + max
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
