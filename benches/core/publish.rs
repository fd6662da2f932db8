//! `publish()` on random channels, each with one silent subscriber: CPU time per publish of the publishing threads.

use std::hint::black_box;
use std::time::Duration;

use broker_core::Filter;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fanwire_benches::{Bed, Recording, channels};

fn publish(criterion: &mut Criterion) {
    for count in [10_000, 1_000_000] {
        let channels = channels(count);
        for recording in [Recording::On, Recording::Off] {
            let mut group = criterion.benchmark_group(format!("publish/{count} channels/log {recording:?}"));
            group.sample_size(10).measurement_time(Duration::from_secs(5));
            let mut bed = Bed::new(recording);
            bed.attach(1_000);
            bed.subscribe(channels.iter().cloned().map(Filter::literal)).expect("limits are not reached");
            for threads in [1, 2, 4, 8] {
                group.bench_function(BenchmarkId::from_parameter(format!("{threads} threads")), |bencher| {
                    // CPU per publish: the threads' sum over their number, since each does `iterations`.
                    bencher.iter_custom(|iterations| {
                        let each = iterations.div_ceil(threads);
                        black_box(bed.publish(&channels, threads, each))
                            .mul_f64(iterations as f64 / (each * threads) as f64)
                    });
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, publish);
criterion_main!(benches);
