//! The order of items: what was seen already, and what waits for what comes before it.
//!
//! A publisher that numbers its items can send them twice, or over two ways at once: an id is taken once. One that says
//! which item comes before another has them sent in that order, as far as it takes no longer than [`MAX_WAIT`].
//!
//! Time is an argument, and has to go forward.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::publish::Item;

/// How long an id is remembered.
pub const MEMORY: Duration = Duration::from_secs(60);
/// How long an item waits for the one before it.
pub const MAX_WAIT: Duration = Duration::from_secs(5);
/// Most ids that are remembered, of all channels together.
pub const MAX_IDS: usize = 100_000;
/// Most channels whose last id is known.
pub const MAX_CHANNELS: usize = 100_000;
/// Most items that wait on one channel.
pub const MAX_WAITING: usize = 100;
/// Most bytes that wait on one channel.
pub const MAX_WAITING_BYTES: usize = 1 << 20;
/// Most items that wait on all channels.
pub const MAX_ALL_WAITING: usize = 50_000;
/// Most bytes that wait on all channels. What comes above it is sent as if nothing were known of its order.
pub const MAX_ALL_WAITING_BYTES: usize = 64 << 20;

/// What of an item its order depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place<'a> {
    /// What the publisher calls it.
    pub id: Option<&'a str>,
    /// What it comes after.
    pub prev_id: Option<&'a str>,
    /// It waits for nothing, and nothing waits for it.
    pub no_seq: bool,
    /// How much it counts while it waits.
    pub bytes: usize,
}

impl<'a> Place<'a> {
    /// Where an item stands that counts so many bytes while it waits.
    pub fn of(item: &'a Item, bytes: usize) -> Self {
        Self { id: item.id.as_deref(), prev_id: item.prev_id.as_deref(), no_seq: item.no_seq, bytes }
    }
}

/// What becomes of an item.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<T> {
    /// Its id was seen a while ago: it is not sent, and here it is again.
    Seen(T),
    /// It waits for the one before it. What had to go for that, as there are bounds to waiting, is to be sent now.
    Waits(Vec<T>),
    /// To be sent now, in this order: the item, before it what could not wait any longer, behind it what waited for it.
    Ready(Vec<T>),
}

/// Items on their way. `T` is what the caller sends.
#[derive(Debug)]
pub struct Sequence<T> {
    channels: HashMap<String, Channel<T>>,
    /// Ids by channel, with the time at which each is forgotten.
    seen: HashMap<(String, String), Instant>,
    /// The same in the order of time; what was seen again stands here twice.
    forgotten: VecDeque<(Instant, (String, String))>,
    /// Channels in the order in which something was published; those touched since stand behind once more.
    touched: VecDeque<(u64, String)>,
    clock: u64,
    /// When something begins to have waited too long, and where; in order, as all wait equally long.
    due: VecDeque<(Instant, String)>,
    waiting: usize,
    waiting_bytes: usize,
}

#[derive(Debug)]
struct Channel<T> {
    /// The id of the last item, if it had one.
    last: Option<String>,
    /// In the order of their coming.
    waiting: VecDeque<Waiting<T>>,
    bytes: usize,
    touched: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    id: Option<String>,
    prev_id: String,
    until: Instant,
    bytes: usize,
    item: T,
}

impl<T> Default for Sequence<T> {
    fn default() -> Self {
        Self {
            channels: HashMap::new(),
            seen: HashMap::new(),
            forgotten: VecDeque::new(),
            touched: VecDeque::new(),
            clock: 0,
            due: VecDeque::new(),
            waiting: 0,
            waiting_bytes: 0,
        }
    }
}

impl<T> Sequence<T> {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An item has come.
    pub fn take(&mut self, channel: &str, place: Place<'_>, item: T, now: Instant) -> Taken<T> {
        self.forget(now);
        if let Some(id) = place.id
            && !self.note(channel, id, now)
        {
            return Taken::Seen(item);
        }
        if place.no_seq {
            return Taken::Ready(vec![item]);
        }
        let has_room = self.waiting < MAX_ALL_WAITING
            && self.waiting_bytes + place.bytes <= MAX_ALL_WAITING_BYTES
            && place.bytes <= MAX_WAITING_BYTES;
        let known = self.touch(channel);
        let (count, bytes) = (known.waiting.len(), known.bytes);
        let mut ready = Vec::new();
        while known.would_wait(&place)
            && (known.waiting.len() >= MAX_WAITING || known.bytes + place.bytes > MAX_WAITING_BYTES)
            && known.release(&mut ready)
        {}
        let id = place.id.map(str::to_owned);
        let taken = match place.prev_id {
            Some(prev_id) if has_room && known.would_wait(&place) => {
                let (until, prev_id) = (now + MAX_WAIT, prev_id.to_owned());
                known.bytes += place.bytes;
                known.waiting.push_back(Waiting { id, prev_id, until, bytes: place.bytes, item });
                Taken::Waits(ready)
            }
            _ => {
                known.last = id;
                ready.push(item);
                known.follow(&mut ready);
                Taken::Ready(ready)
            }
        };
        let (count_now, bytes_now) = (known.waiting.len(), known.bytes);
        self.waiting = self.waiting + count_now - count;
        self.waiting_bytes = self.waiting_bytes + bytes_now - bytes;
        if matches!(taken, Taken::Waits(_)) {
            self.due.push_back((now + MAX_WAIT, channel.to_owned()));
        }
        taken
    }

    /// When to call [`Sequence::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.front().filter(|_| self.waiting > 0).map(|(until, _)| *until)
    }

    /// What has waited long enough, and what follows it, with their channels, in order.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<(String, T)> {
        let mut ready = Vec::new();
        while self.due.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, name)) = self.due.pop_front() else { break };
            let Some(channel) = self.channels.get_mut(&name) else { continue };
            let (count, bytes) = (channel.waiting.len(), channel.bytes);
            let mut of_channel = Vec::new();
            while channel.waiting.front().is_some_and(|first| first.until <= now) {
                channel.release(&mut of_channel);
            }
            self.waiting = self.waiting + channel.waiting.len() - count;
            self.waiting_bytes = self.waiting_bytes + channel.bytes - bytes;
            ready.extend(of_channel.into_iter().map(|item| (name.clone(), item)));
        }
        self.forget(now);
        ready
    }

    /// The id of the last item of a channel; `None` if it had none, or nothing is known of it.
    pub fn last_id(&self, channel: &str) -> Option<&str> {
        self.channels.get(channel)?.last.as_deref()
    }

    /// Whether anything is known of a channel, be it that it had no items.
    pub fn knows(&self, channel: &str) -> bool {
        self.channels.contains_key(channel)
    }

    /// What a log has of a channel of which nothing was known, after a start: the ids of its items, and that of the last
    /// one, if that had one.
    pub fn learn<'a>(
        &mut self,
        channel: &str,
        ids: impl IntoIterator<Item = &'a str>,
        last_id: Option<&str>,
        now: Instant,
    ) {
        if self.knows(channel) {
            return;
        }
        for id in ids {
            self.note(channel, id, now);
        }
        self.touch(channel).last = last_id.map(str::to_owned);
    }

    /// The id of the last item of a channel that was sent, if it had one and is known still.
    pub fn last(&self, channel: &str) -> Option<&str> {
        self.channels.get(channel)?.last.as_deref()
    }

    /// What items wait for that does not wait itself, channel by channel: the ids that somebody else may have sent. At most
    /// `limit`.
    pub fn awaited(&self, limit: usize) -> Vec<(String, String)> {
        let (mut awaited, mut seen) = (Vec::new(), HashSet::new());
        for (_, name) in &self.due {
            let Some(channel) = self.channels.get(name).filter(|_| seen.insert(name)) else { continue };
            if awaited.len() >= limit {
                break;
            }
            let waits = |id: &str| channel.waiting.iter().any(|waiting| waiting.id.as_deref() == Some(id));
            let ids = channel.waiting.iter().map(|waiting| &waiting.prev_id).filter(|id| !waits(id));
            awaited.extend(ids.map(|id| (name.clone(), id.clone())));
        }
        awaited.truncate(limit);
        awaited
    }

    /// Whether an item of this id was sent, as far as it is remembered.
    pub fn has_sent(&self, channel: &str, id: &str, now: Instant) -> bool {
        let key = (channel.to_owned(), id.to_owned());
        let waits = |channel: &Channel<T>| channel.waiting.iter().any(|one| one.id.as_deref() == Some(id));
        self.seen.get(&key).is_some_and(|until| *until > now)
            && !self.channels.get(channel).is_some_and(waits)
    }

    /// Somebody else has sent an item of this id, and items that wait here may come after it: those, in order.
    pub fn handle_sent(&mut self, channel: &str, id: &str, now: Instant) -> Vec<T> {
        let is_awaited = |known: &Channel<T>| known.waiting.iter().any(|waiting| waiting.prev_id == id);
        if !self.channels.get(channel).is_some_and(is_awaited) {
            return Vec::new();
        }
        self.go_on_from(channel, id, now)
    }

    /// The same of an id that nothing here waits for yet, if `last` is still what was sent here last.
    pub fn handle_sent_after(&mut self, channel: &str, last: &str, id: &str, now: Instant) -> Vec<T> {
        if self.last(channel) != Some(last) {
            return Vec::new();
        }
        self.go_on_from(channel, id, now)
    }

    fn go_on_from(&mut self, channel: &str, id: &str, now: Instant) -> Vec<T> {
        self.note(channel, id, now);
        let known = self.touch(channel);
        let (count, bytes) = (known.waiting.len(), known.bytes);
        known.last = Some(id.to_owned());
        let mut ready = Vec::new();
        known.follow(&mut ready);
        let (count_now, bytes_now) = (known.waiting.len(), known.bytes);
        self.waiting = self.waiting + count_now - count;
        self.waiting_bytes = self.waiting_bytes + bytes_now - bytes;
        ready
    }

    /// How many items wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Remembers an id; whether it is new.
    fn note(&mut self, channel: &str, id: &str, now: Instant) -> bool {
        let key = (channel.to_owned(), id.to_owned());
        if self.seen.get(&key).is_some_and(|until| *until > now) {
            return false;
        }
        if self.seen.len() >= MAX_IDS {
            self.forget_oldest();
        }
        let until = now + MEMORY;
        self.forgotten.push_back((until, key.clone()));
        self.seen.insert(key, until);
        true
    }

    fn forget(&mut self, now: Instant) {
        while self.forgotten.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_oldest();
        }
        if self.seen.is_empty() {
            self.seen.shrink_to(1_000);
            self.forgotten.shrink_to(1_000);
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((until, key)) = self.forgotten.pop_front()
            && self.seen.get(&key) == Some(&until)
        {
            self.seen.remove(&key);
        }
    }

    /// The channel, as the one that was used last.
    fn touch(&mut self, name: &str) -> &mut Channel<T> {
        if self.channels.len() >= MAX_CHANNELS && !self.channels.contains_key(name) {
            self.make_room();
        }
        if self.touched.len() > 2 * self.channels.len() + 16 {
            let channels = &self.channels;
            let is_last =
                |(at, name): &(u64, String)| channels.get(name).is_some_and(|one| one.touched == *at);
            self.touched.retain(is_last);
        }
        self.clock += 1;
        let clock = self.clock;
        self.touched.push_back((clock, name.to_owned()));
        let new = || Channel { last: None, waiting: VecDeque::new(), bytes: 0, touched: clock };
        let channel = self.channels.entry(name.to_owned()).or_insert_with(new);
        channel.touched = clock;
        channel
    }

    /// Forgets the channel that was not used for longest, of those on which nothing waits; there are always some, as less
    /// can wait than there are channels.
    fn make_room(&mut self) {
        for _ in 0..self.touched.len() {
            let Some((at, name)) = self.touched.pop_front() else { return };
            match self.channels.get(&name) {
                Some(channel) if channel.touched == at && channel.waiting.is_empty() => {
                    self.channels.remove(&name);
                    return;
                }
                Some(channel) if channel.touched == at => self.touched.push_back((at, name)),
                // It was used again since, or is gone.
                _ => {}
            }
        }
    }
}

impl<T> Channel<T> {
    /// Whether another item is known to come before it.
    fn would_wait(&self, place: &Place<'_>) -> bool {
        let Some(prev_id) = place.prev_id else { return false };
        self.last.as_ref().is_some_and(|last| last != prev_id)
    }

    /// All that comes after what was sent last, one after the other. After an item without an id nothing is known, so that
    /// nobody has to wait.
    fn follow(&mut self, ready: &mut Vec<T>) {
        loop {
            let next = match &self.last {
                Some(last) => self.waiting.iter().position(|waiting| waiting.prev_id == *last),
                None => Some(0),
            };
            let Some(next) = next.and_then(|place| self.waiting.remove(place)) else { return };
            self.sent(next, ready);
        }
    }

    /// Sends what waits for longest without what it waits for; whether there was something.
    fn release(&mut self, ready: &mut Vec<T>) -> bool {
        let Some(first) = self.waiting.pop_front() else { return false };
        self.sent(first, ready);
        self.follow(ready);
        true
    }

    fn sent(&mut self, waiting: Waiting<T>, ready: &mut Vec<T>) {
        self.bytes -= waiting.bytes;
        self.last = waiting.id;
        ready.push(waiting.item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place<'a>(id: &'a str, prev_id: &'a str) -> Place<'a> {
        let some = |text: &'a str| Some(text).filter(|text| !text.is_empty());
        Place { id: some(id), prev_id: some(prev_id), no_seq: false, bytes: 10 }
    }

    fn ready<T>(taken: Taken<T>) -> Vec<T> {
        match taken {
            Taken::Ready(ready) => ready,
            Taken::Seen(_) | Taken::Waits(_) => panic!("it is not ready"),
        }
    }

    #[test]
    fn an_item_has_its_place() {
        let text = r#"{"channel":"a","id":"2","prev-id":"1","no-seq":true,"ws-message":{"content":"x"}}"#;
        let item = crate::publish::item(text).unwrap();
        let wanted = Place { id: Some("2"), prev_id: Some("1"), no_seq: true, bytes: 9 };
        assert_eq!(Place::of(&item, 9), wanted);
    }

    #[test]
    fn an_id_is_taken_once_in_a_minute() {
        let (mut sequence, start) = (Sequence::new(), Instant::now());
        assert_eq!(sequence.take("a", place("1", ""), 'x', start), Taken::Ready(vec!['x']));
        assert_eq!(sequence.take("a", place("1", ""), 'y', start), Taken::Seen('y'));
        assert_eq!(
            sequence.take("b", place("1", ""), 'z', start),
            Taken::Ready(vec!['z']),
            "another channel"
        );
        let later = start + MEMORY;
        assert_eq!(sequence.take("a", place("1", ""), 'y', later), Taken::Ready(vec!['y']));
        assert_eq!(sequence.take("a", place("1", ""), 'y', later + MEMORY / 2), Taken::Seen('y'));
    }

    #[test]
    fn items_are_sent_in_their_order() {
        let (mut sequence, now) = (Sequence::new(), Instant::now());
        ready(sequence.take("a", place("1", ""), 1, now));
        assert_eq!(sequence.take("a", place("4", "3"), 4, now), Taken::Waits(vec![]));
        assert_eq!(sequence.take("a", place("3", "2"), 3, now), Taken::Waits(vec![]));
        assert_eq!(sequence.take("a", place("3", "2"), 3, now), Taken::Seen(3), "while it waits");
        assert_eq!(sequence.waiting(), 2);
        assert_eq!(sequence.take("a", place("2", "1"), 2, now), Taken::Ready(vec![2, 3, 4]));
        assert_eq!((sequence.waiting(), sequence.last_id("a")), (0, Some("4")));
        assert_eq!(sequence.poll_timeout(), None);
    }

    #[test]
    fn what_somebody_else_sent_is_waited_for_no_more() {
        let (mut sequence, now) = (Sequence::new(), Instant::now());
        assert_eq!(sequence.awaited(10), []);
        ready(sequence.take("a", place("1", ""), 1, now));
        for (id, prev_id, number) in [("4", "3", 4), ("3", "2", 3), ("7", "6", 7)] {
            assert_eq!(sequence.take("a", place(id, prev_id), number, now), Taken::Waits(vec![]));
        }
        let of = |id: &str| ("a".to_owned(), id.to_owned());
        assert_eq!(sequence.awaited(10), [of("2"), of("6")], "what waits itself comes from here");
        assert_eq!(sequence.awaited(1).len(), 1);
        assert!(sequence.has_sent("a", "1", now) && !sequence.has_sent("a", "3", now));
        assert!(!sequence.has_sent("b", "1", now) && !sequence.has_sent("a", "1", now + MEMORY));
        assert!(sequence.handle_sent("a", "5", now).is_empty(), "nobody waits for that");
        assert_eq!(sequence.handle_sent("a", "2", now), [3, 4]);
        assert_eq!((sequence.last_id("a"), sequence.waiting()), (Some("4"), 1));
        assert_eq!(sequence.handle_sent("a", "6", now), [7]);
        assert_eq!((sequence.waiting(), sequence.poll_timeout()), (0, None));
        assert_eq!(sequence.take("a", place("2", "1"), 2, now), Taken::Seen(2));
        // What was asked about before it came does not wait; what was sent here meanwhile counts more.
        assert!(sequence.handle_sent_after("a", "7", "8", now).is_empty());
        assert_eq!(ready(sequence.take("a", place("9", "8"), 9, now)), [9]);
        assert!(sequence.handle_sent_after("a", "7", "5", now).is_empty());
        assert_eq!(sequence.last_id("a"), Some("9"));
    }

    #[test]
    fn what_is_not_known_holds_nobody_up() {
        let (mut sequence, now) = (Sequence::new(), Instant::now());
        assert_eq!(sequence.last_id("a"), None);
        assert_eq!(ready(sequence.take("a", place("7", "6"), 7, now)), [7]);
        // An item without an id takes the last id away, and those that wait for it go too.
        assert_eq!(sequence.take("a", place("9", "8"), 9, now), Taken::Waits(vec![]));
        assert_eq!(ready(sequence.take("a", place("", ""), 0, now)), [0, 9]);
        assert_eq!(sequence.last_id("a"), Some("9"));
        assert_eq!(ready(sequence.take("a", place("", "9"), 1, now)), [1]);
        assert_eq!(sequence.last_id("a"), None);
    }

    #[test]
    fn after_five_seconds_an_item_is_sent_all_the_same() {
        let (mut sequence, start) = (Sequence::new(), Instant::now());
        ready(sequence.take("a", place("1", ""), 1, start));
        assert_eq!(sequence.take("a", place("3", "2"), 3, start), Taken::Waits(vec![]));
        let second = start + Duration::from_secs(1);
        assert_eq!(sequence.take("a", place("4", "3"), 4, second), Taken::Waits(vec![]));
        assert_eq!(sequence.take("a", place("9", "8"), 9, second), Taken::Waits(vec![]));
        assert_eq!(sequence.poll_timeout(), Some(start + MAX_WAIT));
        assert_eq!(sequence.handle_timeout(start + MAX_WAIT - Duration::from_millis(1)), []);
        let of_a = |items: &[i32]| items.iter().map(|item| ("a".to_owned(), *item)).collect::<Vec<_>>();
        assert_eq!(sequence.handle_timeout(start + MAX_WAIT), of_a(&[3, 4]));
        assert_eq!(sequence.last_id("a"), Some("4"));
        assert_eq!(sequence.poll_timeout(), Some(second + MAX_WAIT));
        assert_eq!(sequence.handle_timeout(second + MAX_WAIT), of_a(&[9]));
        // The one that they waited for comes too late, and is not lost.
        assert_eq!(sequence.take("a", place("2", "1"), 2, second + MAX_WAIT), Taken::Waits(vec![]));
        assert_eq!(sequence.handle_timeout(second + 2 * MAX_WAIT), of_a(&[2]));
    }

    #[test]
    fn no_seq_goes_at_once_and_moves_nothing() {
        let (mut sequence, now) = (Sequence::new(), Instant::now());
        ready(sequence.take("a", place("1", ""), 1, now));
        let mut free = place("x", "w");
        free.no_seq = true;
        assert_eq!(sequence.take("a", free, 5, now), Taken::Ready(vec![5]));
        assert_eq!(sequence.last_id("a"), Some("1"));
        assert_eq!(sequence.take("a", free, 5, now), Taken::Seen(5));
        assert_eq!(ready(sequence.take("a", place("2", "1"), 2, now)), [2]);
    }

    #[test]
    fn over_its_bounds_the_oldest_is_sent_and_none_is_lost() {
        let (mut sequence, now) = (Sequence::new(), Instant::now());
        ready(sequence.take("a", place("1", ""), 0, now));
        let id = |n: usize| format!("i{n}");
        for n in 0..MAX_WAITING {
            let taken = sequence.take("a", place(&id(2 * n + 1), &id(2 * n)), n, now);
            assert_eq!(taken, Taken::Waits(vec![]), "{n}");
        }
        assert_eq!(sequence.take("a", place("z", "y"), 999, now), Taken::Waits(vec![0]));
        assert_eq!(sequence.waiting(), MAX_WAITING);
        // The newcomer may follow what was sent for it.
        let taken = sequence.take("a", place("after", &id(3)), 777, now);
        assert_eq!(taken, Taken::Ready(vec![1, 777]));
        let mut large = place("big", "x");
        large.bytes = MAX_WAITING_BYTES;
        let Taken::Waits(sent) = sequence.take("a", large, 1000, now) else { panic!("it waits") };
        assert_eq!(sent.len(), MAX_WAITING - 1, "all that waited");
        assert_eq!(sequence.waiting(), 1);
        large.bytes += 1;
        large.id = Some("bigger");
        assert_eq!(sequence.take("a", large, 1001, now), Taken::Ready(vec![1000, 1001]));
    }

    #[test]
    fn memory_is_bounded_over_channels_and_ids() {
        let (mut sequence, now) = (Sequence::new(), Instant::now());
        for n in 0..MAX_CHANNELS + 50 {
            let name = format!("c{n}");
            ready(sequence.take(&name, place("1", ""), (), now));
            if n == MAX_CHANNELS - 1 {
                // Used again: not the oldest any more.
                ready(sequence.take("c0", place("2", "1"), (), now));
            }
        }
        assert_eq!(sequence.channels.len(), MAX_CHANNELS);
        assert_eq!(sequence.seen.len(), MAX_IDS);
        assert!(sequence.touched.len() <= 2 * MAX_CHANNELS + 20);
        assert_eq!((sequence.last_id("c0"), sequence.last_id("c1")), (Some("2"), None));
        sequence.handle_timeout(now + MEMORY);
        assert!(sequence.seen.is_empty() && sequence.forgotten.is_empty());
    }

    #[test]
    fn what_waits_on_all_channels_is_bounded() {
        let (mut sequence, now) = (Sequence::new(), Instant::now());
        let mut large = place("2", "0");
        large.bytes = MAX_WAITING_BYTES;
        let fit = MAX_ALL_WAITING_BYTES / MAX_WAITING_BYTES;
        for n in 0..fit + 1 {
            let name = format!("c{n}");
            ready(sequence.take(&name, place("1", ""), n, now));
            let taken = sequence.take(&name, large, n, now);
            assert_eq!(matches!(taken, Taken::Waits(_)), n < fit, "{n}");
        }
        assert_eq!(sequence.handle_timeout(now + MAX_WAIT).len(), fit);
        assert_eq!((sequence.waiting, sequence.waiting_bytes), (0, 0));
    }

    #[test]
    fn a_log_knows_the_last_id_after_a_start() {
        let (mut sequence, now) = (Sequence::new(), Instant::now());
        assert!(!sequence.knows("a"));
        sequence.learn("a", ["6", "7"], Some("7"), now);
        assert_eq!(sequence.last_id("a"), Some("7"));
        assert_eq!(sequence.take("a", place("9", "8"), 9, now), Taken::Waits(vec![]));
        assert_eq!(ready(sequence.take("a", place("8", "7"), 8, now)), [8, 9]);
        for id in ["6", "7"] {
            assert_eq!(sequence.take("a", place(id, "5"), 0, now), Taken::Seen(0));
        }
        sequence.learn("a", ["1"], Some("1"), now);
        assert_eq!(sequence.last_id("a"), Some("9"), "what was published is newer");
    }
}
