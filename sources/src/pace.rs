//! How fast a source is read.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Two allowances that fill up by the second: messages and bytes.
#[derive(Debug)]
pub(crate) struct Pace {
    messages: Allowance,
    bytes: Allowance,
}

#[derive(Debug)]
struct Allowance {
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Pace {
    pub(crate) fn new(messages_per_second: u32, bytes_per_second: usize) -> Self {
        let now = Instant::now();
        let full = |per_second: f64| Allowance { per_second, left: per_second, at: now };
        Self { messages: full(f64::from(messages_per_second)), bytes: full(bytes_per_second as f64) }
    }

    /// Waits until one more message of this size may be published.
    pub(crate) async fn admit(&mut self, bytes: usize) {
        let now = Instant::now();
        let wait = self.messages.take(1.0, now).max(self.bytes.take(bytes as f64, now));
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}

impl Allowance {
    /// Takes it, and says how long it has to be waited for. What is taken may be more than a second brings.
    fn take(&mut self, amount: f64, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + passed * self.per_second).min(self.per_second) - amount;
        Duration::try_from_secs_f64(-self.left / self.per_second).unwrap_or(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_saved_up_and_what_is_too_much_is_waited_for() {
        let start = Instant::now();
        let mut allowance = Allowance { per_second: 100.0, left: 100.0, at: start };
        for _ in 0..100 {
            assert_eq!(allowance.take(1.0, start), Duration::ZERO);
        }
        assert_eq!(allowance.take(1.0, start), Duration::from_millis(10));
        assert_eq!(allowance.take(1.0, start), Duration::from_millis(20));
        // Two seconds later it is full, but for what is taken now.
        assert_eq!(allowance.take(100.0, start + Duration::from_secs(2)), Duration::ZERO);
        assert_eq!(allowance.take(500.0, start + Duration::from_secs(2)), Duration::from_secs(5));
    }
}
