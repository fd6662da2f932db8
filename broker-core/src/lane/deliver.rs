//! From a job to the outboxes of those that it hits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use smallvec::SmallVec;

use super::Lane;
use super::command::Job;
use super::connections::SendError;
use super::delivery::{Delivery, Sink};
use super::pending::{MAX_PARKED, Occupant};
use super::worker::{APPEND, WRITE, Worker};
use crate::key::Entry;
use crate::key::SubscriberKey;
use crate::key::is_granted_tag;
use crate::message::Message;
use crate::outbox::{Flush, Sent};
use crate::rights::Principal;
use crate::rights::Sight;

/// Shared frames of a burst on their way to one subscriber.
type Frames<'r> = SmallVec<[(&'r Bytes, &'r Arc<Message>); 16]>;

impl Worker {
    /// Delivers jobs that hit the same lists.
    pub(super) async fn deliver_run(&mut self, run: &[Job], flush: Flush) {
        let delivered = match run {
            [job] if job.lists.len() > 1 => self.deliver_overlapping(job, flush).await,
            run => self.deliver_list(run, flush).await,
        };
        let deliveries = run.iter().map(Job::deliveries).sum();
        let bytes = run.iter().map(|job| job.delivery.message().payload().len()).sum();
        self.lane.delivered.fetch_add(delivered, Ordering::Relaxed);
        self.lane.waiting_deliveries.fetch_sub(deliveries, Ordering::Relaxed);
        self.lane.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Delivers jobs whose one list is the same.
    async fn deliver_list(&mut self, run: &[Job], flush: Flush) -> u64 {
        let Some(list) = run.first().and_then(|job| job.lists.first()) else { return 0 };
        let cost = if flush == Flush::Now { WRITE } else { APPEND } + run.len() as u32 - 1;
        let mut frames = Frames::new();
        self.in_steps(list, cost, |worker, entry| worker.deliver_run_to(run, entry, flush, &mut frames)).await
    }

    /// Goes through a list in steps that fit the budget, so that nothing awaits between two deliveries, and a step is
    /// guarded as a whole: guarding each delivery would cost each.
    async fn in_steps(
        &mut self,
        list: &[Entry],
        cost: u32,
        mut deliver: impl FnMut(&mut Self, Entry) -> u64,
    ) -> u64 {
        let mut delivered = 0;
        let mut rest = list;
        while !rest.is_empty() {
            let (step, later) = rest.split_at(rest.len().min((self.budget / cost).max(1) as usize));
            let mut at = 0;
            while at < step.len() {
                let caught = catch_unwind(AssertUnwindSafe(|| {
                    while let Some(entry) = step.get(at) {
                        delivered += deliver(self, *entry);
                        at += 1;
                    }
                }));
                if caught.is_err()
                    && let Some(entry) = step.get(at)
                {
                    self.end_broken(entry.slot);
                    at += 1;
                }
            }
            rest = later;
            self.spend(cost * step.len() as u32).await;
        }
        delivered
    }

    /// Delivers to one subscriber: its shared frames in one piece if it has only such. `frames` is scratch space.
    #[inline]
    fn deliver_run_to<'r>(
        &mut self,
        run: &'r [Job],
        entry: Entry,
        flush: Flush,
        frames: &mut Frames<'r>,
    ) -> u64 {
        let Some(slot) =
            self.slots.get(entry.slot as usize).filter(|slot| slot.generation == entry.generation)
        else {
            return 0;
        };
        let Some(occupant) = &slot.subscriber else { return 0 };
        if occupant.pending.is_some() || occupant.rights.is_some() && !sees_all(occupant, run, entry) {
            return self.deliver_each(run, entry, flush);
        }
        let sent = if let [job] = run {
            match shared_frame(occupant, job, entry) {
                Some(frame) => occupant.outbox.put_shared_one(frame, job.delivery.message(), flush),
                None => return self.deliver_each(run, entry, flush),
            }
        } else {
            frames.clear();
            for job in run {
                match shared_frame(occupant, job, entry) {
                    Some(frame) => frames.push((frame, job.delivery.message())),
                    None => return self.deliver_each(run, entry, flush),
                }
            }
            occupant.outbox.put_shared(frames, flush)
        };
        match sent {
            Sent::Dirty => self.dirty.push(entry.slot),
            Sent::Dropped(count) => self.lane.note_dropped(entry.slot, count),
            Sent::Taken | Sent::Refused => {}
        }
        run.len() as u64
    }

    /// Delivers by the front's own frames; a burst of them waits for one write too.
    fn deliver_each(&mut self, run: &[Job], entry: Entry, flush: Flush) -> u64 {
        let flush = if run.len() > 1 { Flush::Later } else { flush };
        run.iter().map(|job| self.deliver_entry(job, entry, &[entry.tag], flush)).sum()
    }

    /// Delivers a job whose lists may hit a subscriber more than once.
    async fn deliver_overlapping(&mut self, job: &Job, flush: Flush) -> u64 {
        self.find_overlaps(job);
        let cost = if flush == Flush::Now { WRITE } else { APPEND };
        let mut delivered = 0;
        for list in &job.lists {
            delivered +=
                self.in_steps(list, cost, |worker, entry| worker.deliver_once(job, entry, flush)).await;
        }
        self.job += 1;
        delivered
    }

    /// Delivers at the first of a subscriber's entries, with the tags of all of them.
    fn deliver_once(&mut self, job: &Job, entry: Entry, flush: Flush) -> u64 {
        let Some(slot) = self.slots.get_mut(entry.slot as usize) else { return 0 };
        if slot.job != self.job {
            return 0;
        }
        slot.job += 1;
        let mut tags = std::mem::take(&mut self.tags);
        tags.push(entry.tag);
        let from = self.overlaps.partition_point(|(slot, _)| *slot < entry.slot);
        let same = self.overlaps.iter().skip(from).take_while(|(slot, _)| *slot == entry.slot);
        tags.extend(same.map(|(_, tag)| *tag));
        let delivered = self.deliver_entry(job, entry, &tags, flush);
        tags.clear();
        self.tags = tags;
        delivered
    }

    /// Marks the slots a job hits and notes the tags of those that it hits again.
    fn find_overlaps(&mut self, job: &Job) {
        self.job += 1 - self.job % 2;
        self.overlaps.clear();
        for entry in job.lists.iter().flat_map(|list| list.iter()) {
            let Some(slot) = self.slots.get_mut(entry.slot as usize) else { continue };
            if slot.generation != entry.generation {
                continue;
            }
            if slot.job == self.job {
                self.overlaps.push((entry.slot, entry.tag));
            } else {
                slot.job = self.job;
            }
        }
        self.overlaps.sort_unstable();
    }

    #[inline]
    fn deliver_entry(&mut self, job: &Job, entry: Entry, tags: &[u32], flush: Flush) -> u64 {
        let Some(slot) = self.slots.get_mut(entry.slot as usize) else { return 0 };
        if slot.generation != entry.generation {
            return 0;
        }
        if job.skip.is_some_and(|key| key.slot == entry.slot && key.generation == entry.generation) {
            return 0;
        }
        let Some(occupant) = &mut slot.subscriber else { return 0 };
        if let Some(pending) = &mut occupant.pending {
            let live = pending.sort_out(&job.delivery, tags);
            if pending.parked.len() > MAX_PARKED {
                pending.drop_expired();
                if pending.parked.len() > MAX_PARKED {
                    return self.unpark_all(entry.slot, flush);
                }
            }
            if live.is_empty() {
                return 0;
            }
            return hand_over(&self.lane, occupant, entry.slot, &job.delivery, &live, flush, &mut self.dirty);
        }
        hand_over(&self.lane, occupant, entry.slot, &job.delivery, tags, flush, &mut self.dirty)
    }

    pub(super) fn deliver_to(
        &mut self,
        key: SubscriberKey,
        delivery: &Arc<Delivery>,
        tags: &[u32],
        flush: Flush,
    ) -> u64 {
        let Some(slot) = self.slots.get_mut(key.slot as usize) else { return 0 };
        if slot.generation != key.generation {
            return 0;
        }
        let Some(occupant) = &mut slot.subscriber else { return 0 };
        hand_over(&self.lane, occupant, key.slot, delivery, tags, flush, &mut self.dirty)
    }

    /// Delivers to one subscriber, if there is room for it. What the subscriber is subscribed to, and may be, does not
    /// matter.
    pub(super) fn deliver_directly(
        &mut self,
        key: SubscriberKey,
        delivery: &Arc<Delivery>,
    ) -> Result<(), SendError> {
        let occupant = self.occupant(key).ok_or(SendError::Gone)?;
        let mut sink = Sink::direct(&occupant.outbox, delivery);
        occupant.deliver.deliver(delivery, &[], &mut sink);
        let refused = sink.refused;
        if refused.is_none() {
            self.lane.delivered.fetch_add(1, Ordering::Relaxed);
        }
        refused.map_or(Ok(()), Err)
    }
}

/// The frame that a job amounts to for a subscriber, if that is one that all share.
#[inline]
fn shared_frame<'r>(occupant: &Occupant, job: &'r Job, entry: Entry) -> Option<&'r Bytes> {
    if job.skip.is_some() {
        return None;
    }
    occupant
        .deliver
        .shared_frame(&job.delivery, &[entry.tag], &occupant.outbox)
        .filter(|frame| !frame.is_empty())
}

/// Whether no message of a run is hidden from a subscriber.
#[cold]
fn sees_all(occupant: &Occupant, run: &[Job], entry: Entry) -> bool {
    let sees = |job: &Job, principal: &Principal| {
        principal.sight(job.delivery.message().channel(), &[entry.tag]) == Sight::Whole
    };
    occupant.rights.as_ref().is_none_or(|principal| run.iter().all(|job| sees(job, principal)))
}

/// Where all that matched a subscriber comes by, whatever its kind, but for what is sent to it directly: a message that
/// it may not see ends here.
#[inline]
pub(super) fn hand_over(
    lane: &Lane,
    occupant: &Occupant,
    slot: u32,
    delivery: &Arc<Delivery>,
    tags: &[u32],
    flush: Flush,
    dirty: &mut Vec<u32>,
) -> u64 {
    let granted: SmallVec<[u32; 4]>;
    let sight = occupant.rights.as_ref().map(|principal| principal.sight(delivery.message().channel(), tags));
    let tags = match sight {
        None | Some(Sight::Whole) => tags,
        Some(Sight::Granted) => {
            granted = tags.iter().copied().filter(|tag| is_granted_tag(*tag)).collect();
            &granted
        }
        Some(Sight::Nothing) => return 0,
    };
    let mut sink = Sink::new(&occupant.outbox, delivery, flush);
    occupant.deliver.deliver(delivery, tags, &mut sink);
    if sink.dirty {
        dirty.push(slot);
    }
    if sink.dropped > 0 {
        lane.note_dropped(slot, sink.dropped);
    }
    if sink.lost > 0 {
        lane.drops.note(slot, sink.lost);
    }
    1
}
