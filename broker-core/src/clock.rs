//! The two clocks: one that measures, one that is shown.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Now, in milliseconds since 1970 as they were when the process began, and counted by the monotonic clock since then.
/// What is measured by it lasts as long as it should, whether or not somebody sets the time of day.
pub fn steady_ms() -> u64 {
    static BEGAN: LazyLock<(Instant, u64)> = LazyLock::new(|| (Instant::now(), unix_ms()));
    let (began, at_ms) = *BEGAN;
    at_ms.saturating_add(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// Now, in milliseconds since 1970, by the time of day: for what people and other systems are shown, and for tokens,
/// whose ends are times of day.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
