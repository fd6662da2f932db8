//! How dead connections are found.

use std::sync::atomic::Ordering::Relaxed;

use super::config::ServeConfig;
use super::watch::Watch;

/// Finds connections that go nowhere, by comparing what it saw a period ago: no clock is read per request.
pub(crate) struct Watchdog<'a> {
    watch: &'a Watch,
    idle_periods: u32,
    max_idle_periods: u32,
    requests: u64,
    progress: u64,
    blocked: bool,
    head_begun: bool,
}

pub(crate) enum Verdict {
    Fine,
    Dead,
}

impl<'a> Watchdog<'a> {
    pub(crate) fn new(watch: &'a Watch, config: &ServeConfig) -> Self {
        let period = config.header_read_timeout.as_millis().max(1);
        Watchdog {
            watch,
            idle_periods: 0,
            max_idle_periods: match u32::try_from(config.idle_timeout.as_millis().div_ceil(period)) {
                Ok(0) | Err(_) => u32::MAX,
                Ok(periods) => periods,
            },
            requests: 0,
            progress: 0,
            blocked: false,
            head_begun: false,
        }
    }

    pub(crate) fn look(&mut self) -> Verdict {
        let requests = self.watch.requests.load(Relaxed);
        let progress = self.watch.progress.load(Relaxed);
        let busy = self.watch.busy.load(Relaxed) > 0;
        let blocked = self.watch.blocked.load(Relaxed);
        let head_begun = !busy && self.watch.head_begun.load(Relaxed);

        let stuck = blocked && self.blocked && progress == self.progress;
        let slow_head = head_begun && self.head_begun && requests == self.requests;
        let silent = !busy && requests == 0;
        self.idle_periods = if busy || requests != self.requests || progress != self.progress {
            0
        } else {
            self.idle_periods.saturating_add(1)
        };
        let idle = self.idle_periods >= self.max_idle_periods;

        (self.requests, self.progress) = (requests, progress);
        (self.blocked, self.head_begun) = (blocked, head_begun);
        if stuck || slow_head || silent || idle { Verdict::Dead } else { Verdict::Fine }
    }
}
