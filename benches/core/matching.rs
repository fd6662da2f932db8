//! What wildcards add to a publish: the same channels published without any, and with 100 thousand filters.
//!
//! The difference of the two lines is the match, with about 20 hits, and handing those hits to the lanes.

use std::collections::HashSet;
use std::time::Duration;

use broker_core::{Channel, Filter};
use criterion::{Criterion, criterion_group, criterion_main};
use fanwire_benches::{Bed, Recording};

const FILTERS: usize = 100_000;
const LEVELS: usize = 5;
/// Names per level: more would leave most filters without a topic, fewer cannot make 100 thousand distinct filters.
const NAMES: u64 = 16;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn topics() -> Vec<Channel> {
    let mut random = Random(7);
    let mut name =
        || (0..LEVELS).map(|level| format!("l{level}n{}", random.below(NAMES))).collect::<Vec<_>>().join("/");
    (0..10_000).map(|_| Channel::parse(&name()).expect("a valid channel")).collect()
}

/// Distinct filters over the same names, a level is a wildcard with one chance in seventeen, one in forty is
/// open-ended.
fn filters() -> Vec<Filter> {
    let mut random = Random(11);
    let mut found = HashSet::with_capacity(FILTERS);
    while found.len() < FILTERS {
        let open_end = random.below(40) == 0;
        let levels = if open_end { 1 + random.below(LEVELS as u64 - 1) as usize } else { LEVELS };
        let mut parts: Vec<String> = (0..levels)
            .map(|level| match random.below(NAMES + 1) {
                NAMES => "*".to_owned(),
                name => format!("l{level}n{name}"),
            })
            .collect();
        if open_end {
            parts.push(["#", "**"][random.below(2) as usize].to_owned());
        }
        if parts.iter().any(|part| matches!(part.as_str(), "*" | "#" | "**")) {
            found.insert(parts.join("/"));
        }
    }
    found.into_iter().map(|text| Filter::parse(&text).expect("a valid filter")).collect()
}

fn matching(criterion: &mut Criterion) {
    let topics = topics();
    let mut group = criterion.benchmark_group("wildcards");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    for (name, filters) in
        [("publish without filters", Vec::new()), ("publish with 100000 filters", filters())]
    {
        let mut bed = Bed::new(Recording::On);
        bed.attach(1_000);
        bed.subscribe(filters).expect("limits are not reached");
        println!("{name}: {:.1} hits on average", bed.mean_receivers(&topics));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| bed.publish(&topics, 1, iterations));
        });
    }
    group.finish();
}

criterion_group!(benches, matching);
criterion_main!(benches);
