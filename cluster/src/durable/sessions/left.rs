//! Sessions of nodes that are gone: that their clients are away is written down, and when something is to be done for them
//! one node hears of it. It is the one of the smallest life, as long as nodes agree on who is there; where they do not, each
//! row is written by one all the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::{Ends, SessionRecord, Unavailable, unix_ms};
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::durable::row::Row;
use crate::durable::stream::{Of, Streams};

/// By then a node that starts has heard of all others.
const FIRST_LOOK: Duration = Duration::from_secs(8);

/// How often it is looked whether a node is gone.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often all rows are looked at even though none is.
const READ_EVERY: Duration = Duration::from_secs(300);

/// Wills that may wait for the front; those beyond are found the next time.
const MAX_WILLS: usize = 65_536;

/// What sessions of nodes that are gone have left to be done, and when.
#[derive(Debug, Default)]
pub(crate) struct Left(Mutex<Vec<(Box<str>, u64)>>);

impl Left {
    /// What was found since.
    pub(crate) fn take(&self) -> Vec<(Box<str>, u64)> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Looks at all rows when a node is gone, and now and then.
pub(crate) async fn run(streams: Arc<Streams>, left: Arc<Left>) {
    sleep(FIRST_LOOK).await;
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut known, mut read) = (BTreeSet::new(), None::<Instant>);
    loop {
        looks.tick().await;
        let now: BTreeSet<u64> = streams.node.peers.lock().all().iter().map(|peer| peer.life).collect();
        if !known.is_subset(&now) || read.is_some_and(|read| read.elapsed() >= READ_EVERY) {
            read = None;
        }
        known = now;
        let is_first = known.first().is_none_or(|life| streams.node.life < *life);
        if is_first
            && read.is_none()
            && streams.node.is_connected()
            && streams.look_at_all(&left).await.is_ok()
        {
            read = Some(Instant::now());
        }
    }
}

impl Streams {
    /// Looks at all rows.
    async fn look_at_all(&self, left: &Left) -> Result<(), Unavailable> {
        let subject = self.node.subjects.sessions();
        let mut next = 1;
        loop {
            let batch = self.batch(Of::Sessions, &subject, next).await?;
            let Some(last) = batch.messages.last() else { return Ok(()) };
            next = last.sequence + 1;
            for stored in &batch.messages {
                if let Some(row) = Row::read(&stored.payload).filter(|row| self.is_gone(row.life)) {
                    self.leave(row, stored.sequence, left).await;
                }
            }
            if batch.is_last {
                return Ok(());
            }
        }
    }

    fn is_gone(&self, life: u64) -> bool {
        life != self.node.life && self.node.peers.lock().find(life).is_none()
    }

    /// Notes when a session is over whose node is gone. It stays that one's until somebody claims it: a node that was only
    /// away has it still.
    async fn leave(&self, mut row: Row, revision: u64, left: &Left) {
        let Some(record) = &mut row.record else { return };
        let now_ms = unix_ms();
        if row.is_left && record.will.is_none() && matches!(record.ends, Ends::At(at_ms) if at_ms <= now_ms) {
            // What was written since stays.
            _ = self.delete_row(revision).await;
            return;
        }
        let was_here = begin(record, now_ms);
        row.is_left = true;
        let due = record.will.and_then(|will| if let Ends::At(at_ms) = will { Some(at_ms) } else { None });
        // Of two who do this one is faster, and the other's time is as good.
        if was_here && self.write_row(&row, revision).await.is_err() {
            return;
        }
        if let Some(at_ms) = due {
            let mut left = left.0.lock();
            if left.len() < MAX_WILLS {
                left.push((row.name, at_ms));
            }
        }
    }
}

/// What lasts from its client's presence begins to end now; whether anything did.
fn begin(record: &mut SessionRecord, now_ms: u64) -> bool {
    let mut was_here = false;
    for ends in std::iter::once(&mut record.ends).chain(&mut record.will) {
        if let Ends::After(after) = *ends {
            let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            (*ends, was_here) = (Ends::At(now_ms.saturating_add(after)), true);
        }
    }
    was_here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_session_is_counted_from_when_its_node_is_gone() {
        let after = Ends::After(Duration::from_millis(5));
        let mut record = SessionRecord::new("", None).ending(after).with_will(Some(after));
        assert!(begin(&mut record, 10));
        assert_eq!((record.ends, record.will), (Ends::At(15), Some(Ends::At(15))));
        assert!(!begin(&mut record, 20));
        let mut record = SessionRecord::new("", None).with_will(Some(after));
        assert!(begin(&mut record, 10));
        assert_eq!((record.ends, record.will), (Ends::Never, Some(Ends::At(15))));
    }
}
