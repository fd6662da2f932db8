//! What peers have begun to send and not finished: bodies of requests, packets, messages in frames.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How much of what is not finished may be held, and how slowly it may come.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct IntakeConfig {
    /// Bytes of everything that is unfinished, together. Default 256 MiB: a thousand uploads at a time, a quarter of a
    /// small machine. With more, those go whose peers make the least progress: an upload that stands still before one
    /// that moves, a large one before a small one. It should be several times the largest body and packet.
    pub max_bytes: usize,
    /// How long something may take, however little of it comes. Default 30 s.
    pub grace: Duration,
    /// What must come on average from then on, in bytes per second: something of a million bytes may take 2,000 s more.
    /// Default 500, which every modem does. 0: no least rate.
    pub min_bytes_per_second: u32,
}

impl Default for IntakeConfig {
    fn default() -> Self {
        Self { max_bytes: 256 << 20, grace: Duration::from_secs(30), min_bytes_per_second: 500 }
    }
}

/// Counters and gauges of an [`Intake`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct IntakeStats {
    /// Bytes held now, without what is too small to be counted.
    pub held_bytes: usize,
    /// Things that hold them.
    pub unfinished: usize,
    /// Things given up because all together held too much.
    pub shed: u64,
    /// Things given up because they came too slowly.
    pub slow: u64,
}

/// The one account of all that is unfinished. Clones are handles to the same; [`Intake::default`] is that of the
/// process, which whoever makes a front without saying otherwise shares.
///
/// ```
/// use std::time::Instant;
/// use link::{Intake, IntakeConfig, Unfinished};
///
/// let intake = Intake::new(IntakeConfig::default());
/// let mut upload = Unfinished::default();
/// upload.hold(&intake, 100_000, Instant::now());
/// assert_eq!(intake.stats().held_bytes, 100_000);
/// upload.finish();
/// assert_eq!(intake.stats().held_bytes, 0);
/// ```
#[derive(Clone)]
pub struct Intake(Arc<Shared>);

struct Shared {
    config: IntakeConfig,
    table: Mutex<Table>,
    shed: AtomicU64,
    slow: AtomicU64,
}

#[derive(Default)]
struct Table {
    held: usize,
    entries: BTreeMap<u64, Entry>,
    last_id: u64,
}

struct Entry {
    held: usize,
    /// Bytes that came lately: each counts half after [`HALF_LIFE`].
    recent: f64,
    at: Instant,
    waker: Option<Waker>,
}

/// Up to here nothing is counted, so that the usual request and packet costs nothing.
pub const FREE_BYTES: usize = 16 << 10;

const HALF_LIFE: Duration = Duration::from_secs(5);

/// Once too much is held, this part of the bound is made free: looking for who must go is not to be repeated for each
/// byte.
const ROOM_MADE: usize = 16;

impl Default for Intake {
    fn default() -> Self {
        static OF_THE_PROCESS: LazyLock<Intake> = LazyLock::new(|| Intake::new(IntakeConfig::default()));
        OF_THE_PROCESS.clone()
    }
}

impl Intake {
    /// An account of its own.
    pub fn new(config: IntakeConfig) -> Self {
        let table = Mutex::default();
        Self(Arc::new(Shared { config, table, shed: AtomicU64::new(0), slow: AtomicU64::new(0) }))
    }

    /// What it was made with.
    pub fn config(&self) -> &IntakeConfig {
        &self.0.config
    }

    /// As it is now.
    pub fn stats(&self) -> IntakeStats {
        let table = self.0.table.lock();
        let (held_bytes, unfinished) = (table.held, table.entries.len());
        drop(table);
        IntakeStats {
            held_bytes,
            unfinished,
            shed: self.0.shed.load(Relaxed),
            slow: self.0.slow.load(Relaxed),
        }
    }

    fn enter(&self, now: Instant) -> u64 {
        let mut table = self.0.table.lock();
        table.last_id += 1;
        let id = table.last_id;
        table.entries.insert(id, Entry { held: 0, recent: 0.0, at: now, waker: None });
        id
    }

    fn update(&self, id: u64, held: usize, now: Instant) {
        let mut table = self.0.table.lock();
        // One that must go is not there any more.
        let Some(entry) = table.entries.get_mut(&id) else { return };
        let before = std::mem::replace(&mut entry.held, held);
        entry.recent = (entry.recent_at(now) + held.saturating_sub(before) as f64).min(held as f64);
        entry.at = now;
        table.held = table.held - before + held;
        if table.held <= self.0.config.max_bytes {
            return;
        }
        let gone = table.shed(self.0.config.max_bytes, now);
        drop(table);
        self.0.shed.fetch_add(gone.len() as u64, Relaxed);
        for waker in gone.into_iter().flatten() {
            waker.wake();
        }
    }

    fn leave(&self, id: u64) {
        let mut table = self.0.table.lock();
        if let Some(entry) = table.entries.remove(&id) {
            table.held -= entry.held;
        }
    }
}

impl Table {
    /// Takes out those with the least progress until there is room again, and gives what wakes their tasks.
    fn shed(&mut self, max_bytes: usize, now: Instant) -> Vec<Option<Waker>> {
        let mut order: Vec<_> =
            self.entries.iter().map(|(id, entry)| (entry.standstill(now), entry.held, *id)).collect();
        order.sort_unstable();
        let target = max_bytes - max_bytes / ROOM_MADE;
        let mut gone = Vec::new();
        while self.held > target
            && let Some((_, _, id)) = order.pop()
        {
            if let Some(entry) = self.entries.remove(&id) {
                self.held -= entry.held;
                gone.push(entry.waker);
            }
        }
        gone
    }
}

impl Entry {
    fn recent_at(&self, now: Instant) -> f64 {
        let halves = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.recent * (-halves).exp2()
    }

    /// How often what came lately goes into what is held, as a power of two: 0 for what has just begun. Roughly, so
    /// that of those who move alike the largest goes first.
    fn standstill(&self, now: Instant) -> u32 {
        let recent = (self.recent_at(now) as usize).max(1);
        (self.held / recent).max(1).ilog2()
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("config", &self.0.config).field("stats", &self.stats()).finish()
    }
}

/// One thing that a peer has begun to send: a place in the account once it holds more than [`FREE_BYTES`]. Owned by the
/// one task that reads it.
#[derive(Debug, Default)]
pub struct Unfinished(Option<Box<Begun>>);

#[derive(Debug)]
struct Begun {
    at: Instant,
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    intake: Intake,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.intake.leave(self.id);
    }
}

impl Unfinished {
    /// So many bytes of it are held now; the first call says that it has begun. Others may have to go for it, or it
    /// itself.
    pub fn hold(&mut self, intake: &Intake, bytes: usize, now: Instant) {
        let begun = self.0.get_or_insert_with(|| Box::new(Begun { at: now, place: None }));
        if bytes <= FREE_BYTES && begun.place.is_none() {
            return;
        }
        let place =
            begun.place.get_or_insert_with(|| Place { intake: intake.clone(), id: intake.enter(begun.at) });
        place.intake.update(place.id, bytes, now);
    }

    /// It is whole, or given up. The next [`hold`](Self::hold) begins anew.
    pub fn finish(&mut self) {
        self.0 = None;
    }

    /// Nothing was read until now, which is not the peer's fault.
    pub fn restart(&mut self, now: Instant) {
        if let Some(begun) = &mut self.0 {
            begun.at = now;
        }
    }

    /// When it will have come too slowly, if `bytes` of it have come.
    pub fn due(&self, intake: &Intake, bytes: usize) -> Option<Instant> {
        let config = intake.config();
        if config.min_bytes_per_second == 0 {
            return None;
        }
        let more = bytes as f64 / f64::from(config.min_bytes_per_second);
        self.0.as_ref()?.at.checked_add(config.grace)?.checked_add(Duration::try_from_secs_f64(more).ok()?)
    }

    /// Whether it has come too slowly, which is counted.
    pub fn is_late(&self, intake: &Intake, bytes: usize, now: Instant) -> bool {
        let late = self.due(intake, bytes).is_some_and(|due| due <= now);
        if late {
            intake.0.slow.fetch_add(1, Relaxed);
        }
        late
    }

    /// Ready once it has to go to make room for others.
    pub fn poll_shed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(place) = self.0.as_ref().and_then(|begun| begun.place.as_ref()) else {
            return Poll::Pending;
        };
        let mut table = place.intake.0.table.lock();
        match table.entries.get_mut(&place.id) {
            None => Poll::Ready(()),
            Some(entry) => {
                match &mut entry.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => entry.waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    const MIB: usize = 1 << 20;

    fn intake(max_bytes: usize) -> Intake {
        Intake::new(IntakeConfig { max_bytes, ..IntakeConfig::default() })
    }

    fn is_shed(unfinished: &Unfinished) -> bool {
        unfinished.poll_shed(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn held(intake: &Intake, bytes: usize, now: Instant) -> Unfinished {
        let mut unfinished = Unfinished::default();
        unfinished.hold(intake, bytes, now);
        unfinished
    }

    #[test]
    fn what_is_small_has_no_place_and_what_ends_gives_it_back() {
        let (intake, now) = (intake(MIB), Instant::now());
        let small: Vec<_> = (0..100).map(|_| held(&intake, FREE_BYTES, now)).collect();
        assert_eq!(intake.stats(), IntakeStats::default());
        let mut large = held(&intake, FREE_BYTES + 1, now);
        large.hold(&intake, 500_000, now);
        assert_eq!((intake.stats().held_bytes, intake.stats().unfinished), (500_000, 1));
        large.hold(&intake, 100, now);
        assert_eq!(intake.stats().held_bytes, 100);
        large.finish();
        assert_eq!(intake.stats(), IntakeStats::default());
        drop((small, held(&intake, MIB, now)));
        assert_eq!(intake.stats(), IntakeStats::default());
    }

    #[test]
    fn those_that_stand_still_go_before_those_that_move() {
        let (intake, start) = (intake(16 * MIB), Instant::now());
        let later = start + Duration::from_secs(40);
        let mut silent: Vec<_> = (0..10).map(|_| held(&intake, MIB, start)).collect();
        // Half a megabyte each that came over all that time.
        let mut moving: Vec<_> = (0..8).map(|_| held(&intake, 20_000, start)).collect();
        for second in 1..=40u32 {
            for one in &mut moving {
                one.hold(
                    &intake,
                    20_000 + second as usize * 12_000,
                    start + Duration::from_secs(second.into()),
                );
            }
        }
        // The silent ones do not save themselves with a byte a second.
        for one in &mut silent {
            one.hold(&intake, MIB + 40, later);
        }
        let newest = held(&intake, 3 * MIB, later);
        assert!(!is_shed(&newest) && !moving.iter().any(is_shed));
        let gone = silent.iter().filter(|one| is_shed(one)).count();
        assert!((1..10).contains(&gone), "{gone}");
        assert_eq!(intake.stats().shed, gone as u64);
        assert!(intake.stats().held_bytes <= 16 * MIB);
    }

    #[test]
    fn of_those_that_move_alike_the_largest_goes_first() {
        let (intake, now) = (intake(10 * MIB), Instant::now());
        let large: Vec<_> = (0..3).map(|_| held(&intake, 3 * MIB, now)).collect();
        let small: Vec<_> = (0..20).map(|_| held(&intake, 100_000, now)).collect();
        assert_eq!(large.iter().filter(|one| is_shed(one)).count(), 1);
        assert!(!small.iter().any(is_shed));
    }

    #[test]
    fn no_number_of_peers_holds_more_than_the_bound() {
        let (intake, start) = (intake(4 * MIB), Instant::now());
        let mut all = Vec::new();
        for index in 0..1000u64 {
            all.push(held(&intake, 60_000, start + Duration::from_millis(index)));
            assert!(intake.stats().held_bytes <= 4 * MIB);
        }
        let stats = intake.stats();
        assert_eq!(all.iter().filter(|one| is_shed(one)).count() as u64, stats.shed);
        assert_eq!(stats.unfinished as u64 + stats.shed, 1000);
        // Alone it may be as large as the bound and no larger.
        drop(all);
        assert!(!is_shed(&held(&intake, 4 * MIB, start)));
        assert!(is_shed(&held(&intake, 4 * MIB + 1, start)));
    }

    #[test]
    fn the_task_of_what_must_go_is_woken() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let (intake, now) = (intake(MIB), Instant::now());
        let first = held(&intake, MIB, now);
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        assert!(first.poll_shed(&mut Context::from_waker(&waker)).is_pending());
        let second = held(&intake, 100_000, now);
        assert_eq!(count.0.load(Relaxed), 1);
        assert!(is_shed(&first) && !is_shed(&second));
    }

    #[test]
    fn the_least_rate_holds_over_the_whole_length() {
        let (intake, start) = (intake(MIB), Instant::now());
        let after = |secs| start + Duration::from_secs(secs);
        let mut body = held(&intake, 1, start);
        let cases = [(1, 30, false), (1, 31, true), (10_000, 49, false), (10_000, 50, true)];
        for (bytes, secs, late) in cases {
            assert_eq!(body.is_late(&intake, bytes, after(secs)), late, "{bytes} bytes after {secs} s");
        }
        assert_eq!(intake.stats().slow, 2);
        body.restart(after(1000));
        assert!(!body.is_late(&intake, 1, after(1030)));
        body.finish();
        assert_eq!(body.due(&intake, 1), None);
        let patient = Intake::new(IntakeConfig { min_bytes_per_second: 0, ..IntakeConfig::default() });
        assert_eq!(held(&patient, 1, start).due(&patient, 1), None);
    }

    #[test]
    fn who_says_nothing_shares_the_account_of_the_process() {
        assert!(Arc::ptr_eq(&Intake::default().0, &Intake::default().0));
        assert_eq!(size_of::<Unfinished>(), 8);
    }
}
