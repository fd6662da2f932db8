//! Which channels are occupied on other nodes, so that backends are told once per cluster: no IO, and no clock.
//!
//! Nodes tell each other when a channel gets its first subscriber with them, and when it has had none for a while. Whoever was
//! first tells `occupied`, whoever is last `vacated`, a moment later: so that words that crossed on their way are known.
//! Each word has a time, of the clock or just behind the latest that was heard of, and a node's life.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use broker_core::Channel;

use super::event::Kind;

/// How long words of other nodes are waited for.
pub(super) const SETTLE: Duration = Duration::from_millis(150);

/// Channels of other nodes that are remembered, over all of them. Of those beyond it backends may be told twice.
const MAX_CHANNELS: usize = 262_144;

/// When something was so, and where.
type Stamp = (u64, u64);

/// What nodes tell each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// What was told before counts no more.
    Reset,
    Has(Channel, u64),
    HasNot(Channel, u64),
}

impl Word {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let (code, channel, time_ms) = match self {
            Word::Reset => return out.push(0),
            Word::Has(channel, time_ms) => (1, channel, time_ms),
            Word::HasNot(channel, time_ms) => (2, channel, time_ms),
        };
        out.push(code);
        out.extend_from_slice(&time_ms.to_be_bytes());
        let name = channel.as_str();
        out.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
    }

    /// The first one, and the rest; `None` for what no node of this version tells.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (code, rest) = bytes.split_first()?;
        if *code == 0 {
            return Some((Word::Reset, rest));
        }
        let (time_ms, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_at_checked(u32::from_be_bytes(*length).try_into().ok()?)?;
        let channel = Channel::parse(std::str::from_utf8(name).ok()?).ok()?;
        let time_ms = u64::from_be_bytes(*time_ms);
        match code {
            1 => Some((Word::Has(channel, time_ms), rest)),
            2 => Some((Word::HasNot(channel, time_ms), rest)),
            _ => None,
        }
    }
}

/// What is to be told of a channel unless another node is to.
#[derive(Debug)]
struct Pending {
    place: (Instant, u64),
    kind: Kind,
    stamp: Stamp,
    /// Of one that is vacant: since when it had been occupied.
    since: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Elsewhere {
    life: u64,
    latest_ms: u64,
    /// The channels that are occupied here, and since when.
    own: HashMap<Channel, u64>,
    nodes: HashMap<u64, HashMap<Channel, u64>>,
    pending: HashMap<Channel, Pending>,
    due: BTreeMap<(Instant, u64), Channel>,
    next: u64,
}

impl Elsewhere {
    /// Of a node of this life.
    pub(super) fn new(life: u64) -> Self {
        Self {
            life,
            latest_ms: 0,
            own: HashMap::new(),
            nodes: HashMap::new(),
            pending: HashMap::new(),
            due: BTreeMap::new(),
            next: 0,
        }
    }

    fn stamp(&mut self, unix_ms: u64) -> u64 {
        self.latest_ms = unix_ms.max(self.latest_ms.saturating_add(1));
        self.latest_ms
    }

    pub(super) fn is_occupied(&self, channel: &Channel) -> bool {
        self.nodes.values().any(|channels| channels.contains_key(channel))
    }

    /// The channel has its first subscriber here. What others are to be told.
    pub(super) fn handle_occupied(&mut self, now: Instant, unix_ms: u64, channel: &Channel) -> Word {
        // If it was not told yet that it is vacant, it never was.
        let since = self.cancel(channel).and_then(|pending| pending.since);
        let time_ms = since.unwrap_or_else(|| self.stamp(unix_ms));
        self.own.insert(channel.clone(), time_ms);
        if since.is_none() {
            self.pend(now, channel, Kind::Occupied, time_ms, None);
        }
        Word::Has(channel.clone(), time_ms)
    }

    /// It has had none for a while. What others are to be told.
    pub(super) fn handle_vacated(&mut self, now: Instant, unix_ms: u64, channel: &Channel) -> Word {
        let time_ms = self.stamp(unix_ms);
        let since = self.own.remove(channel);
        if self.cancel(channel).is_none() {
            self.pend(now, channel, Kind::Vacated, time_ms, since);
        }
        Word::HasNot(channel.clone(), time_ms)
    }

    fn pend(&mut self, now: Instant, channel: &Channel, kind: Kind, time_ms: u64, since: Option<u64>) {
        let place = (now + SETTLE, self.next);
        self.next += 1;
        self.due.insert(place, channel.clone());
        self.pending.insert(channel.clone(), Pending { place, kind, stamp: (time_ms, self.life), since });
    }

    fn cancel(&mut self, channel: &Channel) -> Option<Pending> {
        let pending = self.pending.remove(channel)?;
        self.due.remove(&pending.place);
        Some(pending)
    }

    /// Another node tells something.
    pub(super) fn hear(&mut self, life: u64, word: Word) {
        match word {
            Word::Reset => _ = self.nodes.remove(&life),
            Word::Has(channel, time_ms) => {
                self.latest_ms = self.latest_ms.max(time_ms);
                let known: usize = self.nodes.values().map(HashMap::len).sum();
                if known < MAX_CHANNELS {
                    self.nodes.entry(life).or_default().insert(channel, time_ms);
                }
            }
            Word::HasNot(channel, time_ms) => {
                self.latest_ms = self.latest_ms.max(time_ms);
                let since = self.nodes.get_mut(&life).and_then(|channels| channels.remove(&channel));
                // That node was there when this one came, or is there longer than this one was: it has told, or will.
                let is_theirs = |own: &Pending| {
                    (time_ms, life) > own.stamp
                        && (own.kind == Kind::Vacated || since.is_some_and(|since| (since, life) < own.stamp))
                };
                if self.pending.get(&channel).is_some_and(is_theirs) {
                    self.cancel(&channel);
                }
            }
        }
    }

    /// Another node is gone without a word, and `others` are there still. The channels that are vacant with it, if this node
    /// is to tell so.
    pub(super) fn handle_left(&mut self, life: u64, others: &[u64]) -> Vec<Channel> {
        let channels = self.nodes.remove(&life).unwrap_or_default();
        if others.iter().any(|other| *other < self.life) {
            return Vec::new();
        }
        let is_vacant = |channel: &Channel| !self.own.contains_key(channel) && !self.is_occupied(channel);
        channels.into_keys().filter(is_vacant).collect()
    }

    /// What nobody else is to tell, as soon as it is due.
    pub(super) fn poll(&mut self, now: Instant) -> Option<(Kind, Channel)> {
        while self.poll_timeout().is_some_and(|at| at <= now) {
            let (_, channel) = self.due.pop_first()?;
            let pending = self.pending.remove(&channel)?;
            // Whoever had it before is there still: it was told by then, or will be.
            let is_theirs = |(life, channels): (&u64, &HashMap<Channel, u64>)| {
                channels.get(&channel).is_some_and(|since| (*since, *life) < pending.stamp)
            };
            if !self.nodes.iter().any(is_theirs) {
                return Some((pending.kind, channel));
            }
        }
        None
    }

    /// When to ask again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// All that others are to know of this node.
    pub(super) fn words(&self) -> Vec<Word> {
        let has = |(channel, time_ms): (&Channel, &u64)| Word::Has(channel.clone(), *time_ms);
        std::iter::once(Word::Reset).chain(self.own.iter().map(has)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> Channel {
        Channel::parse(name).unwrap()
    }

    #[test]
    fn what_is_told_is_read() {
        let words = [Word::Reset, Word::Has(channel("a/ü"), 7), Word::HasNot(channel("b"), u64::MAX)];
        let mut bytes = Vec::new();
        words.iter().for_each(|word| word.write(&mut bytes));
        let mut rest = &bytes[..];
        for word in &words {
            let (read, behind) = Word::read(rest).unwrap();
            assert_eq!(read, *word);
            rest = behind;
        }
        assert!(rest.is_empty());
        let mut cut = Vec::new();
        words[1].write(&mut cut);
        for length in 0..cut.len() {
            assert_eq!(Word::read(&cut[..length]), None, "{length}");
        }
    }

    /// Nodes whose words take a while, and what all of them tell backends of one channel.
    struct Cluster {
        now: Instant,
        nodes: Vec<Elsewhere>,
        on_the_way: Vec<(Instant, usize, Word)>,
        told: Vec<Kind>,
    }

    impl Cluster {
        fn new(nodes: u64) -> Self {
            let nodes = (0..nodes).map(Elsewhere::new).collect();
            Self { now: Instant::now(), nodes, on_the_way: Vec::new(), told: Vec::new() }
        }

        /// `latency` is how long the word takes.
        fn change(&mut self, node: usize, is_occupied: bool, unix_ms: u64, latency: u64) {
            let (now, a) = (self.now, channel("a"));
            let word = if is_occupied {
                self.nodes[node].handle_occupied(now, unix_ms, &a)
            } else {
                self.nodes[node].handle_vacated(now, unix_ms, &a)
            };
            self.on_the_way.push((now + Duration::from_millis(latency), node, word));
        }

        fn run(&mut self, millis: u64) {
            for _ in 0..millis {
                self.now += Duration::from_millis(1);
                let now = self.now;
                let arrived: Vec<_> = self.on_the_way.extract_if(.., |(at, ..)| *at <= now).collect();
                for (_, from, word) in arrived {
                    for (number, node) in self.nodes.iter_mut().enumerate() {
                        if number != from {
                            node.hear(from as u64, word.clone());
                        }
                    }
                }
                for node in &mut self.nodes {
                    while let Some((kind, _)) = node.poll(now) {
                        self.told.push(kind);
                    }
                }
            }
        }
    }

    #[test]
    fn backends_are_told_once_by_whoever_is_first_and_last() {
        let mut cluster = Cluster::new(3);
        for node in 0..3 {
            cluster.change(node, true, 1_000, 5);
            cluster.run(1_000);
        }
        assert_eq!(cluster.told, [Kind::Occupied]);
        for node in 0..3 {
            cluster.change(node, false, 2_000, 5);
            cluster.run(1_000);
        }
        assert_eq!(cluster.told, [Kind::Occupied, Kind::Vacated]);
    }

    #[test]
    fn words_that_cross_on_their_way_are_told_once() {
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..2_000 {
            let mut cluster = Cluster::new(3);
            let mut unix_ms = 1_000;
            for is_occupied in [true, false] {
                let mut order = [0, 1, 2];
                random.shuffle(&mut order);
                for node in order {
                    // Clocks of nodes differ.
                    cluster.change(node, is_occupied, unix_ms + random.u64(0..50), random.u64(1..20));
                    let pause = random.u64(0..30);
                    cluster.run(pause);
                    unix_ms += pause;
                }
                cluster.run(500);
                unix_ms += 500;
            }
            assert_eq!(cluster.told, [Kind::Occupied, Kind::Vacated], "round {round}");
        }
    }

    #[test]
    fn who_comes_back_before_it_was_told_was_never_gone() {
        let mut cluster = Cluster::new(2);
        cluster.change(0, true, 1_000, 1);
        cluster.run(500);
        cluster.change(0, false, 2_000, 1);
        cluster.run(10);
        cluster.change(0, true, 2_010, 1);
        cluster.run(500);
        assert_eq!(cluster.told, [Kind::Occupied]);
    }

    #[test]
    fn of_a_node_that_is_gone_one_other_tells() {
        let mut cluster = Cluster::new(3);
        cluster.change(2, true, 1_000, 1);
        cluster.run(500);
        let told = [cluster.nodes[0].handle_left(2, &[1]), cluster.nodes[1].handle_left(2, &[0])];
        assert_eq!(told, [vec![channel("a")], vec![]]);
        cluster.change(2, true, 1_000, 1);
        cluster.change(1, true, 1_000, 1);
        cluster.run(500);
        assert_eq!(cluster.nodes[0].handle_left(2, &[1]), [], "it is occupied elsewhere");
    }
}
