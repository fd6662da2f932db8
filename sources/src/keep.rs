//! The task of one source: it is connected to, read, and connected to again.

use std::sync::Arc;
use std::time::Duration;

use broker_core::Broker;
use tokio::time::{Instant, sleep};

use crate::ask::Clients;
use crate::kinds::{self, End, Memory};
use crate::positions::Positions;
use crate::source::Source;
use crate::state::Condition;

/// The longest time between two tries.
const MAX_BACKOFF: Duration = Duration::from_secs(300);
/// Answers in a row that say that there is nothing for us, after which nobody asks again.
const MAX_REFUSALS: u32 = 5;
/// A connection that was open for so long, or brought something, was well.
const WELL_AFTER: Duration = Duration::from_secs(10);

/// Reads it for as long as the broker is there.
pub(crate) async fn keep(source: Arc<Source>, broker: Broker, clients: Clients, positions: Arc<Positions>) {
    let mut memory = Memory::new(source.settings(), positions);
    if let Some(id) = &memory.last_id {
        source.note_last_id(id);
    }
    let mut wanted = source.wanted();
    let (mut failures, mut refusals) = (0, 0);
    loop {
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        let (began, received) = (Instant::now(), source.begins());
        let end = tokio::select! {
            end = kinds::read(&source, &broker, &clients, &mut memory) => end,
            _ = wanted.wait_for(|wanted| !*wanted) => {
                source.ended(received);
                source.rests();
                (failures, refusals) = (0, 0);
                continue;
            }
        };
        if source.ended(received) || began.elapsed() >= WELL_AFTER {
            (failures, refusals) = (0, 0);
        }
        let mut least = memory.retry.unwrap_or(Duration::ZERO);
        match end {
            End::Closed => return,
            End::Stop => {
                source.pause();
                continue;
            }
            End::Over => source.backs_off(None),
            End::Failed(failure) => {
                least = least.max(failure.retry_after.unwrap_or(Duration::ZERO)).min(MAX_BACKOFF);
                let status = failure.status.map(|status| status.as_u16());
                refusals = if matches!(status, Some(401 | 403 | 404 | 410)) { refusals + 1 } else { 0 };
                let error = (failure.condition, failure.detail);
                if refusals >= MAX_REFUSALS || failure.condition == Condition::Policy {
                    source.is_left_alone(error);
                    refusals = 0;
                    continue;
                }
                source.backs_off(Some(error));
            }
        }
        let wait = backoff(failures).max(least);
        failures += 1;
        tokio::select! {
            () = sleep(wait) => {}
            _ = wanted.wait_for(|wanted| !*wanted) => failures = 0,
        }
    }
}

/// A random moment of a time that doubles with each failure (full jitter).
fn backoff(failures: u32) -> Duration {
    let most = Duration::from_secs(1).saturating_mul(1 << failures.min(16)).min(MAX_BACKOFF);
    most.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_five_minutes_and_is_any_moment_of_it() {
        for (failures, most) in [(0, 1), (1, 2), (5, 32), (9, 300), (400, 300)] {
            let all: Vec<_> = (0..200).map(|_| backoff(failures)).collect();
            let most = Duration::from_secs(most);
            assert!(all.iter().all(|wait| *wait <= most), "{failures}");
            assert!(all.iter().any(|wait| *wait < most / 2) && all.iter().any(|wait| *wait > most / 2));
        }
    }
}
