//! When a failed event is tried again.

use std::time::Duration;

/// The waits between attempts: the first after the first failure. An event that fails once more after the last of them
/// is given up.
pub const SCHEDULE: [Duration; 7] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(2 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
];

/// Longest `Retry-After` that is followed; a longer one counts as this.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// How long to wait after failure number `failures` (from 0), a fifth more or less at random, so that what failed
/// together does not come back together. `Retry-After` lengthens it and never shortens it. `None`: give up.
pub(super) fn wait(
    schedule: &[Duration],
    failures: usize,
    retry_after: Option<Duration>,
    random: &mut fastrand::Rng,
) -> Option<Duration> {
    let planned = schedule.get(failures)?.mul_f64(0.8 + 0.4 * random.f64());
    Some(planned.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_a_receiver_may_ask_for_more_but_not_for_less() {
        let mut random = fastrand::Rng::with_seed(1);
        for (failures, planned) in SCHEDULE.iter().enumerate() {
            for _ in 0..100 {
                let chosen = wait(&SCHEDULE, failures, None, &mut random).unwrap();
                assert!(chosen >= planned.mul_f64(0.8) && chosen <= planned.mul_f64(1.2), "{chosen:?}");
            }
        }
        assert_eq!(wait(&SCHEDULE, 7, None, &mut random), None);
        let asked = |secs| Some(Duration::from_secs(secs));
        assert_eq!(wait(&SCHEDULE, 0, asked(60), &mut random), asked(60));
        assert!(wait(&SCHEDULE, 2, asked(1), &mut random) >= asked(24));
        assert_eq!(wait(&SCHEDULE, 0, asked(86_400), &mut random), Some(MAX_RETRY_AFTER));
    }
}
