//! Subscribe and unsubscribe, one pair, while nothing is published: CPU time of the calling thread.

use std::time::Duration;

use broker_core::{Filter, Start};
use criterion::{Criterion, criterion_group, criterion_main};
use fanwire_benches::{Bed, Recording, channels, thread_cpu};

fn subscribe(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("subscribe and unsubscribe");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for count in [10_000, 1_000_000] {
        let filters: Vec<Filter> = channels(count).into_iter().map(Filter::literal).collect();
        let mut bed = Bed::new(Recording::On);
        bed.attach(1_000);
        bed.subscribe(filters.iter().cloned()).expect("limits are not reached");
        pair(&mut group, &format!("{count} channels, one subscriber each"), &mut bed, &filters);
    }
    for count in [10_000, 100_000] {
        let crowd = channels(1).into_iter().map(Filter::literal).collect::<Vec<_>>();
        let mut bed = Bed::new(Recording::On);
        bed.attach(count);
        bed.subscribe((0..count).map(|_| crowd[0].clone())).expect("limits are not reached");
        pair(&mut group, &format!("one channel with {count} subscribers"), &mut bed, &crowd);
    }
    let wild: Vec<Filter> =
        (0..100_000).map(|number| Filter::parse(&format!("w/{number}/*")).expect("a valid filter")).collect();
    let mut bed = Bed::new(Recording::On);
    bed.attach(1_000);
    bed.subscribe(wild.iter().cloned()).expect("limits are not reached");
    pair(&mut group, "100000 wildcard filters", &mut bed, &wild);
    group.finish();
}

fn pair(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    name: &str,
    bed: &mut Bed,
    filters: &[Filter],
) {
    bed.attach(1);
    let Some(subscriber) = bed.subscribers.last() else { return };
    let _guard = bed.runtime.enter();
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let before = thread_cpu();
            for number in 0..iterations {
                // A stride that is no divisor of the counts visits all filters out of order.
                let filter = &filters[(number as usize * 7_919) % filters.len()];
                subscriber.subscribe(filter, 1, Start::Live).expect("limits are not reached");
                subscriber.unsubscribe(filter, 1);
            }
            thread_cpu() - before
        });
    });
}

criterion_group!(benches, subscribe);
criterion_main!(benches);
