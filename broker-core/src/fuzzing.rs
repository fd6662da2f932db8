//! What the fuzzer of `fuzz/` calls. Its corpus runs as an ordinary test as well, so that what a fuzzer has found once
//! is looked at on every run.

use std::collections::BTreeMap;

use crate::{Broker, Channel, Config, Filter, Publish, Subscription};

/// Every name up to here must be taken; deeper ones may be refused, and must be by a broker that bounds them.
const TAKEN_LEVELS: usize = 128;

/// Steps of one run, and of them those with a long name: more would only take longer.
const MAX_STEPS: usize = 64;
const MAX_LONG: usize = 8;

/// Filters that are subscribed and dropped, channels that are published to, retained and cleared, of one level and of
/// ten thousands: what a ten-line matcher says is what happens. Each step is a byte for what is done, then a name: how
/// many levels are repeated, and a byte for each of the others.
pub fn names(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let mut run = Run {
            data,
            broker: Broker::new(Config { lanes: Some(1), ..Config::default() }),
            subscribed: Vec::new(),
            retained: BTreeMap::new(),
            long: 0,
        };
        for _ in 0..MAX_STEPS {
            if run.data.is_empty() {
                break;
            }
            run.step();
        }
        run.subscribed.clear();
        assert_eq!(run.broker.stats().subscriptions, 0);
        assert_eq!(run.broker.stats().wildcard_filters, 0);
        for name in run.retained.keys() {
            assert!(run.cleared(&Channel::parse(name).expect("it was taken")));
        }
        assert_eq!((run.broker.stats().retained_messages, run.broker.stats().retained_bytes), (0, 0));
    });
}

struct Run<'a> {
    data: &'a [u8],
    broker: Broker,
    subscribed: Vec<(String, Subscription)>,
    retained: BTreeMap<String, ()>,
    long: usize,
}

impl Run<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.data.split_first() else { return 0 };
        self.data = rest;
        first
    }

    fn step(&mut self) {
        match self.byte() % 8 {
            0..=2 => self.subscribe(),
            3 if !self.subscribed.is_empty() => {
                let at = usize::from(self.byte()) % self.subscribed.len();
                self.subscribed.swap_remove(at);
            }
            4 | 5 => self.publish(false),
            6 => self.publish(true),
            _ => self.ask(),
        }
    }

    fn subscribe(&mut self) {
        let text = self.name(&["a", "*", "b", "*", "", "$x"], &["a", "*", "**", "#", "b"]);
        let Ok(filter) = Filter::parse(&text) else { return };
        // Filters of each other agree with what they match.
        for (other, _) in &self.subscribed {
            let other = Filter::parse(other).expect("it was taken");
            assert!(!filter.covers(&other) || filter.overlaps(&other));
            assert_eq!(filter.overlaps(&other), other.overlaps(&filter));
        }
        match self.broker.subscribe(filter) {
            Ok(subscription) => self.subscribed.push((text, subscription)),
            Err(error) => assert!(levels(&text) > TAKEN_LEVELS, "{error}"),
        }
    }

    fn publish(&mut self, retain: bool) {
        let name = self.name(&["a", "b", "", "$x"], &["a", "b"]);
        let Ok(channel) = Channel::parse(&name) else { return };
        match self.broker.publish(Publish::new(channel.clone(), "x").retain(retain)) {
            Ok(receipt) => {
                let expected = self.subscribed.iter().filter(|(filter, _)| matches(filter, &name)).count();
                assert_eq!(receipt.receivers, expected as u64, "{} levels", levels(&name));
                if retain {
                    self.retained.insert(name, ());
                    assert!(self.broker.retained(&channel).is_some());
                }
            }
            Err(error) => assert!(levels(&name) > TAKEN_LEVELS, "{error}"),
        }
    }

    /// What is retained below a filter; then one of these is cleared.
    fn ask(&mut self) {
        let text = self.name(&["a", "*", "b", ""], &["a", "*", "**", "#"]);
        let Ok(filter) = Filter::parse(&text) else { return };
        let found = self.broker.retained_matching(&filter);
        let mut found: Vec<_> = found.iter().map(|message| message.channel().as_str()).collect();
        found.sort_unstable();
        let expected: Vec<_> = self.retained.keys().filter(|name| matches(&text, name)).cloned().collect();
        assert_eq!(found, expected);
        if let Some(name) = expected.first() {
            let channel = Channel::parse(name).expect("it was taken");
            assert!(self.cleared(&channel));
            assert!(!self.cleared(&channel));
            self.retained.remove(name);
        }
    }

    fn cleared(&self, channel: &Channel) -> bool {
        let cleared = self.broker.clear_retained(channel).if_now().expect("nobody else keeps it");
        cleared.expect("memory never refuses")
    }

    /// Up to six levels, of which one may be there thousands of times.
    fn name(&mut self, middle: &[&str], last: &[&str]) -> String {
        let shape = self.byte();
        let mut repeats = 1;
        if shape & 0x80 != 0 && self.long < MAX_LONG {
            self.long += 1;
            repeats = (usize::from(self.byte()) + 1) * 60;
        }
        let mut levels = Vec::new();
        for at in 0..usize::from(shape % 6) {
            let level = middle[usize::from(self.byte()) % middle.len()];
            levels.extend(std::iter::repeat_n(level, if at == 0 { repeats } else { 1 }));
        }
        levels.push(last[usize::from(self.byte()) % last.len()]);
        levels.join("/")
    }
}

fn levels(name: &str) -> usize {
    name.split('/').count()
}

/// The rules as one would write them on paper, without recursion.
fn matches(filter: &str, channel: &str) -> bool {
    let is_wild = |level: &str| matches!(level, "*" | "**" | "#");
    if channel.starts_with('$') && filter.split('/').next().is_some_and(is_wild) {
        return false;
    }
    let mut levels = channel.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("**", level) => return level.is_some(),
            (_, Some(level)) if wanted == "*" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn any_names_are_matched_as_on_paper(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            super::names(&bytes);
        }
    }

    /// On a stack that holds no recursion by level, as deep as names can be.
    #[test]
    fn the_corpus_of_names_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/broker_names");
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 5, "{folder}");
        for file in files {
            println!("{}", file.display());
            let bytes = std::fs::read(&file).unwrap();
            let run = std::thread::Builder::new().stack_size(256 << 10).spawn(move || super::names(&bytes));
            run.unwrap().join().unwrap();
        }
    }
}
