//! How far a long command is, for whoever looks at a terminal.

use std::io::{IsTerminal as _, Write as _, stderr, stdout};
use std::time::{Duration, Instant};

/// How often the line is written.
const PERIOD: Duration = Duration::from_millis(500);

/// One line on standard error that is written again and again; nothing unless that is a terminal and receipts go
/// elsewhere.
#[derive(Debug)]
pub(crate) struct Progress {
    is_shown: bool,
    begun: Instant,
    written: Option<Instant>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let is_shown = stderr().is_terminal() && !stdout().is_terminal();
        Progress { is_shown, begun: Instant::now(), written: None }
    }

    /// So many lines are published.
    pub(crate) fn at(&mut self, count: u64) {
        let now = Instant::now();
        let last = self.written.unwrap_or(self.begun);
        if self.is_shown && now.duration_since(last) >= PERIOD {
            self.written = Some(now);
            let _ = write!(stderr(), "\r{}\u{1b}[K", line(count, now.duration_since(self.begun)));
        }
    }

    /// Takes the line away, before something else is said.
    pub(crate) fn clear(&mut self) {
        if self.written.take().is_some() {
            let _ = write!(stderr(), "\r\u{1b}[K");
        }
    }
}

fn line(count: u64, time: Duration) -> String {
    let rate = count as f64 / time.as_secs_f64().max(0.001);
    format!("fanwire: {count} lines published, {rate:.0} a second")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_count_and_rate() {
        assert_eq!(line(1200, Duration::from_secs(4)), "fanwire: 1200 lines published, 300 a second");
    }
}
