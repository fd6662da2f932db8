//! The events of one receiver: what waits, what is being sent, what is over.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::line::{Line, Suspects, Waiting};
use super::retry;

/// Something that happened, as it is told to a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The same on every attempt, so that a receiver can tell a repeat.
    pub id: String,
    /// What it is about, the connection or the channel: events with one `order` arrive in the order of their making.
    pub order: Arc<str>,
    /// JSON, as it is sent.
    pub body: Bytes,
    /// When it happened.
    pub made: Instant,
}

impl Event {
    /// One that is to be told now or later.
    pub fn new(
        id: impl Into<String>,
        order: impl Into<Arc<str>>,
        body: impl Into<Bytes>,
        made: Instant,
    ) -> Self {
        Self { id: id.into(), order: order.into(), body: body.into(), made }
    }

    /// What it takes of a queue's budget: its text, and 256 for what holds it.
    fn weight(&self) -> usize {
        self.body.len() + self.id.len() + 256
    }
}

/// What a queue may hold, and how it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// Most events. Default: 100,000.
    pub max_events: usize,
    /// Most bytes of them, each with 256 of its own. Default: 64 MiB.
    pub max_bytes: usize,
    /// Older ones are not delivered any more. Default: 5 min.
    pub max_age: Duration,
    /// Most events of one request. Default: 1.
    pub batch: usize,
    /// Most bytes of their text; a single event may have more. Default: 256 KiB.
    pub batch_bytes: usize,
    /// How long an event waits for others, where [`Bounds::batch`] is more than 1. Default: 50 ms.
    pub linger: Duration,
    /// Whether a batch has events of one order only. Default: no.
    pub apart: bool,
    /// Most requests at a time. Default: 64.
    pub max_in_flight: usize,
    /// The waits between attempts, each a fifth more or less. Default: [`SCHEDULE`](super::SCHEDULE).
    pub retry: Vec<Duration>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_events: 100_000,
            max_bytes: 64 << 20,
            max_age: Duration::from_secs(5 * 60),
            batch: 1,
            batch_bytes: 256 << 10,
            linger: Duration::from_millis(50),
            apart: false,
            max_in_flight: 64,
            retry: retry::SCHEDULE.to_vec(),
        }
    }
}

/// What to send: one request.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attempt {
    /// Its name for [`Queue::handle`].
    pub number: u64,
    /// What it carries, at least one.
    pub events: Vec<Arc<Event>>,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// 2xx. `failed` are the ids that the receiver's answer names as not done.
    Delivered {
        /// `{"failures": […]}`, or empty.
        failed: Vec<String>,
    },
    /// A status that asking again will not change: 4xx but for 408, 425 and 429, and 3xx, as redirects are not followed.
    Rejected(Failure),
    /// 410: the receiver wants nothing more.
    Gone(Failure),
    /// Another time it may work: 408, 425, 429, 5xx, no answer in time, an answer that broke off.
    Failed(Failure, Option<Duration>),
    /// The request was not sent: no connection came about.
    Unreachable(Failure),
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// In words, without secrets.
    pub error: String,
    /// Nothing was sent, as the host's address may not be called.
    pub is_policy: bool,
}

impl Failure {
    /// In words, with the status of the answer if there was one.
    pub fn new(status: Option<u16>, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), is_policy: false }
    }

    /// In words, of a host whose address may not be called.
    pub fn of_policy(error: impl Into<String>) -> Self {
        Self { is_policy: true, ..Self::new(None, error) }
    }
}

/// An event that was not delivered and will not be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Dead {
    /// Which.
    pub event: Arc<Event>,
    /// How often it was sent.
    pub attempts: u32,
    /// What came of the last attempt.
    pub last: Option<Failure>,
    /// Why it was not tried again.
    pub cause: Cause,
}

impl Dead {
    /// An event that was sent so often, and what came of it last.
    pub fn new(event: Arc<Event>, attempts: u32, last: Option<Failure>, cause: Cause) -> Self {
        Self { event, attempts, last, cause }
    }
}

/// Why an event is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// All attempts failed.
    GaveUp,
    /// It grew too old.
    Expired,
    /// The receiver refused it.
    Rejected,
    /// The queue was full, and it was the oldest.
    Overflow,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::GaveUp, Self::Expired, Self::Rejected, Self::Overflow];

    /// Its name in answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Cause::GaveUp => "gave_up",
            Cause::Expired => "expired",
            Cause::Rejected => "rejected",
            Cause::Overflow => "overflow",
        }
    }
}

/// The events of one receiver.
///
/// # A receiver that is slow or away
/// A failing event holds up its own connection's or channel's events and no others. Nothing older than
/// [`Bounds::max_age`] is sent. Over its bounds the queue gives up its oldest event that is not being sent.
#[derive(Debug)]
pub struct Queue {
    bounds: Bounds,
    lines: HashMap<Arc<str>, Line>,
    /// Lines with something to do, by when: to send, to try again, to find that their first event is too old.
    due: BTreeMap<(Instant, u64), Arc<str>>,
    /// Events that are not being sent, the oldest first.
    ages: BTreeMap<u64, Arc<str>>,
    flights: HashMap<u64, Vec<(Arc<str>, usize)>>,
    /// Events that failed together and are told apart, by the number of their group.
    suspects: HashMap<u64, Suspects>,
    /// When the receiver last took something.
    taken_at: Option<Instant>,
    events: usize,
    bytes: usize,
    next: u64,
    is_closed: bool,
    random: fastrand::Rng,
}

impl Queue {
    /// An empty one. `seed` makes the random part of its waits.
    pub fn new(bounds: Bounds, seed: u64) -> Self {
        Self {
            bounds,
            lines: HashMap::new(),
            due: BTreeMap::new(),
            ages: BTreeMap::new(),
            flights: HashMap::new(),
            suspects: HashMap::new(),
            taken_at: None,
            events: 0,
            bytes: 0,
            next: 0,
            is_closed: false,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Events that wait or are being sent.
    pub fn len(&self) -> usize {
        self.events
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// What they take of [`Bounds::max_bytes`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest that is not being sent was made.
    pub fn oldest(&self) -> Option<Instant> {
        let (number, order) = self.ages.first_key_value()?;
        let line = self.lines.get(order)?;
        line.events.get(line.position(*number)?).map(|waiting| waiting.event.made)
    }

    /// Whether the receiver said that it wants nothing more ([`Outcome::Gone`]). What waits then waits for
    /// [`Queue::reopen`], or its end.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Sends again, what waited first.
    pub fn reopen(&mut self) {
        self.is_closed = false;
        let orders: Vec<_> = self.lines.keys().cloned().collect();
        orders.iter().for_each(|order| self.place(order));
    }

    /// Takes an event. What had to make room for it is returned.
    pub fn push(&mut self, event: Event) -> Vec<Dead> {
        let number = self.number();
        self.events += 1;
        self.bytes += event.weight();
        let order = Arc::clone(&event.order);
        self.ages.insert(number, Arc::clone(&order));
        let waiting =
            Waiting { event: Arc::new(event), number, attempts: 0, failures: 0, suspects: None, last: None };
        self.lines.entry(Arc::clone(&order)).or_default().events.push_back(waiting);
        self.place(&order);
        let mut dead = Vec::new();
        while self.events > self.bounds.max_events || self.bytes > self.bounds.max_bytes {
            let Some((number, order)) = self.ages.first_key_value().map(|(n, order)| (*n, Arc::clone(order)))
            else {
                break;
            };
            dead.extend(self.take(&order, number, Cause::Overflow));
            self.place(&order);
        }
        dead
    }

    /// Takes out what is not being sent, the oldest first.
    pub fn take_waiting(&mut self) -> Vec<Event> {
        let waiting: Vec<_> = self.ages.iter().map(|(number, order)| (*number, Arc::clone(order))).collect();
        let mut events = Vec::with_capacity(waiting.len());
        for (number, order) in waiting {
            events.extend(self.remove(&order, number).map(|waiting| Event::clone(&waiting.event)));
            self.place(&order);
        }
        events
    }

    /// What to send now, if anything, and what is too old for it.
    pub fn poll(&mut self, now: Instant) -> (Option<Attempt>, Vec<Dead>) {
        let mut dead = Vec::new();
        if !self.is_closed && self.flights.len() >= self.bounds.max_in_flight {
            return (None, dead);
        }
        let mut batch: Vec<Arc<Event>> = Vec::new();
        let mut lines = Vec::new();
        let (mut most, mut bytes, mut group) = (self.bounds.batch.max(1), 0, None);
        let mut from = Bound::Unbounded;
        while batch.len() < most {
            let next = self.due.range((from, Bound::Included((now, u64::MAX)))).next();
            let Some((place, order)) = next.map(|(place, order)| (*place, Arc::clone(order))) else { break };
            from = Bound::Excluded(place);
            let expired = self.expire(now, &order);
            let has_changed = !expired.is_empty();
            dead.extend(expired);
            let Some(line) = self.lines.get_mut(&order) else { continue };
            let rests = self.is_closed || line.rests_until.is_some_and(|until| until > now);
            for waiting in line.events.iter_mut().filter(|_| !rests) {
                let suspects = waiting.suspects.and_then(|group| self.suspects.get(&group));
                let own_group = suspects.and(waiting.suspects);
                if batch.is_empty() {
                    group = own_group;
                    most = suspects.map_or(most, |suspects| most.min(suspects.most_together));
                }
                // Suspects among themselves, or it would say nothing of them that a batch is taken.
                let is_too_much = bytes + waiting.event.body.len() > self.bounds.batch_bytes;
                if batch.len() >= most || own_group != group || (is_too_much && !batch.is_empty()) {
                    break;
                }
                bytes += waiting.event.body.len();
                waiting.attempts = waiting.attempts.saturating_add(1);
                self.ages.remove(&waiting.number);
                batch.push(Arc::clone(&waiting.event));
                line.in_flight += 1;
            }
            let taken = line.in_flight;
            if taken > 0 {
                lines.push((Arc::clone(&order), taken));
            }
            // What keeps its place is not met again in this round.
            if taken > 0 || has_changed {
                self.place(&order);
            }
            if taken > 0 && self.bounds.apart {
                break;
            }
        }
        if batch.is_empty() {
            return (None, dead);
        }
        let number = self.number();
        self.flights.insert(number, lines);
        (Some(Attempt { number, events: batch }), dead)
    }

    /// Takes out what grew too old and is not being sent, while nothing is sent for a reason of the sender's own. Looks at
    /// all lines: for now and then.
    pub fn sweep(&mut self, now: Instant) -> Vec<Dead> {
        let old = |order: &&Arc<str>| self.too_old(now, order).is_some();
        let orders: Vec<_> = self.lines.keys().filter(old).cloned().collect();
        let mut dead = Vec::new();
        for order in orders {
            dead.extend(self.expire(now, &order));
            self.place(&order);
        }
        dead
    }

    /// When to poll again, if nothing else happens. In the past: at once.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.is_closed && self.flights.len() >= self.bounds.max_in_flight {
            return None;
        }
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes what came of an attempt. What it ended is returned.
    pub fn handle(&mut self, now: Instant, attempt: u64, outcome: Outcome) -> Vec<Dead> {
        let Some(lines) = self.flights.remove(&attempt) else { return Vec::new() };
        let size: usize = lines.iter().map(|(_, count)| count).sum();
        let group = self.number();
        self.is_closed |= matches!(outcome, Outcome::Gone(_));
        if matches!(&outcome, Outcome::Delivered { failed } if failed.len() < size) {
            self.taken_at = Some(now);
        }
        let mut dead = Vec::new();
        for (order, count) in lines {
            let numbers: Vec<u64> = match self.lines.get_mut(&order) {
                Some(line) => {
                    line.in_flight = 0;
                    line.rests_until = None;
                    line.events.iter().take(count).map(|waiting| waiting.number).collect()
                }
                None => continue,
            };
            match &outcome {
                Outcome::Delivered { failed } => {
                    let failed: HashSet<&str> = failed.iter().map(String::as_str).collect();
                    for number in numbers {
                        dead.extend(self.delivered(now, &order, number, &failed));
                    }
                }
                Outcome::Gone(failure) => {
                    for number in numbers {
                        self.note(&order, number, failure);
                        dead.extend(self.take(&order, number, Cause::Rejected));
                    }
                }
                Outcome::Rejected(failure) if size == 1 => {
                    for number in numbers {
                        self.note(&order, number, failure);
                        dead.extend(self.take(&order, number, Cause::Rejected));
                    }
                }
                Outcome::Rejected(failure) => {
                    dead.extend(self.failed(now, &order, &numbers, failure, None, Some((size, group))));
                }
                Outcome::Failed(failure, retry_after) => {
                    let batch = Some((size, group));
                    dead.extend(self.failed(now, &order, &numbers, failure, *retry_after, batch));
                }
                Outcome::Unreachable(failure) => {
                    dead.extend(self.failed(now, &order, &numbers, failure, None, None));
                }
            }
            self.place(&order);
        }
        dead
    }

    /// One event of a batch that was answered with 2xx.
    fn delivered(
        &mut self,
        now: Instant,
        order: &Arc<str>,
        number: u64,
        failed: &HashSet<&str>,
    ) -> Option<Dead> {
        let line = self.lines.get_mut(order)?;
        let position = line.position(number)?;
        let waiting = line.events.get_mut(position)?;
        if failed.contains(waiting.event.id.as_str()) {
            let failure = Failure::new(None, "the receiver named it as failed");
            // The receiver knows which it is: it need not be looked for, and it is no less sure of it the second time.
            if waiting.failures > 0 {
                waiting.last = Some(failure);
                return self.take(order, number, Cause::GaveUp);
            }
            let before = waiting.suspects.replace(number);
            self.suspects.insert(number, Suspects::new(1, None));
            self.clear(before, 1);
            return self.failed(now, order, &[number], &failure, None, Some((1, number))).pop();
        }
        if let Some(Waiting { suspects: Some(group), .. }) = self.remove(order, number)
            && let Some(suspects) = self.suspects.get_mut(&group)
        {
            // It is among the others then, and half of those go next.
            *suspects = Suspects::new(suspects.left, suspects.since);
        }
        None
    }

    /// Events of one line that were sent together and failed. `batch` is the size of their batch, and the number of the
    /// group that they make if one of them may be why.
    fn failed(
        &mut self,
        now: Instant,
        order: &Arc<str>,
        numbers: &[u64],
        failure: &Failure,
        retry_after: Option<Duration>,
        batch: Option<(usize, u64)>,
    ) -> Vec<Dead> {
        let (mut over, mut cleared) = (Vec::new(), Vec::new());
        let mut rests = now;
        if let Some(line) = self.lines.get_mut(order) {
            for number in numbers {
                let Some(position) = line.position(*number) else { continue };
                let Some(waiting) = line.events.get_mut(position) else { continue };
                waiting.last = Some(failure.clone());
                self.ages.insert(*number, Arc::clone(order));
                let before = waiting.failures;
                waiting.failures += 1;
                let suspected = waiting.suspects.and_then(|group| self.suspects.get(&group));
                let looked_for = suspected.map(|suspects| suspects.since);
                if let Some((_, group)) = batch.filter(|(size, _)| *size > 1)
                    && (looked_for.is_some() || waiting.failures >= 2)
                {
                    // Which of them it was is found by halves, at once.
                    let since = looked_for.unwrap_or(Some(now));
                    cleared.extend(waiting.suspects.replace(group));
                    waiting.failures = 0;
                    let suspects = self.suspects.entry(group).or_insert(Suspects::new(0, since));
                    *suspects = Suspects::new(suspects.left + 1, suspects.since.min(since));
                    continue;
                }
                // It is alone, and the receiver has taken others while it was looked for: it is this one, and nothing
                // waits for it any longer. Where nothing was taken the receiver may be down, and it begins its patience.
                let is_the_one = looked_for.flatten().is_some_and(|since| self.taken_at >= Some(since));
                if batch.is_some() && is_the_one && retry_after.is_none() && failure.status != Some(429) {
                    over.push(*number);
                    continue;
                }
                match retry::wait(&self.bounds.retry, before, retry_after, &mut self.random) {
                    Some(wait) => rests = rests.max(now + wait),
                    None => over.push(*number),
                }
            }
            line.rests_until = (rests > now).then_some(rests);
        }
        // Those that did not fail with them were taken along: it is not among them.
        cleared.into_iter().for_each(|group| self.clear(Some(group), usize::MAX));
        over.into_iter().filter_map(|number| self.take(order, number, Cause::GaveUp)).collect()
    }

    /// So many of a group are not among it any more; without any, it is none.
    fn clear(&mut self, group: Option<u64>, count: usize) {
        let Some(group) = group else { return };
        let Some(suspects) = self.suspects.get_mut(&group) else { return };
        suspects.left = suspects.left.saturating_sub(count);
        if suspects.left == 0 {
            self.suspects.remove(&group);
        }
    }

    fn note(&mut self, order: &Arc<str>, number: u64, failure: &Failure) {
        let Some(line) = self.lines.get_mut(order) else { return };
        let Some(position) = line.position(number) else { return };
        if let Some(waiting) = line.events.get_mut(position) {
            waiting.last = Some(failure.clone());
        }
    }

    /// Takes the events at the head of a line that are too old and are not being sent.
    fn expire(&mut self, now: Instant, order: &Arc<str>) -> Vec<Dead> {
        let mut dead = Vec::new();
        while let Some(number) = self.too_old(now, order) {
            dead.extend(self.take(order, number, Cause::Expired));
        }
        dead
    }

    /// The first event of a line, if it is too old and not being sent.
    fn too_old(&self, now: Instant, order: &Arc<str>) -> Option<u64> {
        let line = self.lines.get(order).filter(|line| line.in_flight == 0)?;
        let first = line.events.front()?;
        (first.event.made + self.bounds.max_age <= now).then_some(first.number)
    }

    /// Takes an event out, as a dead letter.
    fn take(&mut self, order: &Arc<str>, number: u64, cause: Cause) -> Option<Dead> {
        let waiting = self.remove(order, number)?;
        if cause == Cause::Rejected || cause == Cause::GaveUp {
            // It was the one.
            self.clear(waiting.suspects, usize::MAX);
        }
        Some(Dead { event: waiting.event, attempts: waiting.attempts, last: waiting.last, cause })
    }

    fn remove(&mut self, order: &Arc<str>, number: u64) -> Option<Waiting> {
        let line = self.lines.get_mut(order)?;
        let position = line.position(number)?;
        let waiting = line.events.remove(position)?;
        self.ages.remove(&number);
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(waiting.event.weight());
        self.clear(waiting.suspects, 1);
        Some(waiting)
    }

    /// Notes when a line has something to do next, or forgets it.
    fn place(&mut self, order: &Arc<str>) {
        let Some(line) = self.lines.get_mut(order) else { return };
        if let Some(place) = line.due.take() {
            self.due.remove(&place);
        }
        if line.in_flight > 0 {
            return;
        }
        let Some(first) = line.events.front() else {
            self.lines.remove(order);
            return;
        };
        let waits = self.bounds.batch > line.events.len()
            && line.events.iter().map(|waiting| waiting.event.body.len()).sum::<usize>()
                < self.bounds.batch_bytes;
        let linger = if waits { self.bounds.linger } else { Duration::ZERO };
        let sends = line.rests_until.unwrap_or(first.event.made + linger);
        let ends = first.event.made + self.bounds.max_age;
        let at = if self.is_closed { ends } else { sends.min(ends) };
        let place = (at, self.next);
        self.next += 1;
        line.due = Some(place);
        self.due.insert(place, Arc::clone(order));
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }
}

#[cfg(test)]
mod tests;
