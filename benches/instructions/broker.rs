//! Publishing in process, and matching.

use std::hint::black_box;

use broker_core::{Channel, Filter, Publish};
use bytes::Bytes;
use fanwire_benches::{Bed, Recording, channels};

use crate::counted;

/// Few enough that one round fits every bound of a lane: none is run while publishes are counted.
const PUBLISHES: u64 = 5_000;

pub(crate) fn publish_recorded() -> u64 {
    publish(Recording::On)
}

pub(crate) fn publish_unrecorded() -> u64 {
    publish(Recording::Off)
}

/// To 1,000 channels with a subscriber each, which hears nothing as long as it is counted.
fn publish(recording: Recording) -> u64 {
    let bed = Bed::alone(recording);
    let channels = channels(1_000);
    bed.subscribe(channels.iter().cloned().map(Filter::literal)).expect("limits are not reached");
    counted_publishes(&bed, &channels)
}

/// The same with wildcards, of which some dozens match.
pub(crate) fn publish_matched() -> u64 {
    let bed = Bed::alone(Recording::On);
    bed.subscribe(filters()).expect("limits are not reached");
    counted_publishes(&bed, &topics())
}

/// The match alone, and collecting whom it finds.
pub(crate) fn matching() -> u64 {
    let bed = Bed::alone(Recording::On);
    bed.subscribe(filters()).expect("limits are not reached");
    bed.settle();
    let topics = topics();
    counted(2_000, |number| {
        black_box(bed.broker.subscribers_of(&topics[number as usize % topics.len()]));
    })
}

fn counted_publishes(bed: &Bed, channels: &[Channel]) -> u64 {
    let payload = Bytes::from_static(&[b'.'; 64]);
    let _guard = bed.runtime.enter();
    let publish = |number: u64| {
        let channel = channels[number as usize % channels.len()].clone();
        bed.broker.publish(Publish::new(channel, payload.clone())).expect("there is room")
    };
    for number in 0..channels.len() as u64 {
        publish(number);
    }
    bed.settle();
    counted(PUBLISHES, |number| {
        black_box(publish(number));
    })
}

/// A thousand names of four levels.
fn topics() -> Vec<Channel> {
    let mut random = Random(7);
    let name = |random: &mut Random| {
        (0..4).map(|level| format!("l{level}n{}", random.below(10))).collect::<Vec<_>>().join("/")
    };
    (0..1_000).map(|_| Channel::parse(&name(&mut random)).expect("a valid channel")).collect()
}

/// Five thousand filters over the same names: each level is a wildcard with one chance in four, one in ten is
/// open-ended.
fn filters() -> Vec<Filter> {
    let mut random = Random(11);
    let filter = |random: &mut Random| {
        let open_end = random.below(10) == 0;
        let levels = if open_end { 1 + random.below(3) } else { 4 };
        let mut parts: Vec<String> = (0..levels)
            .map(|level| match (random.below(4), random.below(10)) {
                (0, _) => "*".to_owned(),
                (_, name) => format!("l{level}n{name}"),
            })
            .collect();
        parts.extend(open_end.then(|| "**".to_owned()));
        Filter::parse(&parts.join("/")).expect("a valid filter")
    };
    (0..5_000).map(|_| filter(&mut random)).collect()
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
