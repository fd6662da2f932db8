//! What the benches share: a broker with silent subscribers, channel names, CPU time of threads.
//!
//! Figures are CPU time of the measured threads (`CLOCK_THREAD_CPUTIME_ID`), not wall time: with more threads than
//! cores wall time measures the scheduler.

use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    Broker, Channel, Config, Deliver, Delivery, Filter, LogConfig, OutboxConfig, Publish, PublishError, Sink,
    Start, SubscribeError, Subscriber,
};
use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};

/// The same allocator as the server's binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Publishes between two waits for the lanes: below the lanes' back-pressure limit.
pub const BATCH: u64 = 20_000;

/// CPU time the calling thread has used.
pub fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Whether messages are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recording {
    /// The default log: 64 MiB, 5 minutes.
    On,
    /// No log.
    Off,
}

/// A subscriber that takes every delivery and does nothing with it.
#[derive(Debug)]
pub struct Silent;

impl Deliver for Silent {
    fn deliver(&self, _: &Delivery, _: &[u32], _: &mut Sink<'_>) {}
}

/// A broker on a runtime of its own.
pub struct Bed {
    /// Where the lanes run.
    pub runtime: Runtime,
    /// The broker.
    pub broker: Broker,
    /// Keep their subscriptions alive.
    pub subscribers: Vec<Subscriber>,
}

impl Bed {
    /// A broker without subscribers, on two workers.
    ///
    /// # Panics
    /// When the runtime cannot be built.
    pub fn new(recording: Recording) -> Self {
        Self::on(Builder::new_multi_thread().worker_threads(2), recording, None)
    }

    /// A broker with one silent subscriber and one lane, which runs only while somebody waits: [`Bed::settle`]. All of
    /// it on the calling thread, so that what is counted is the same every time.
    ///
    /// # Panics
    /// When the runtime cannot be built.
    pub fn alone(recording: Recording) -> Self {
        let mut bed = Self::on(&mut Builder::new_current_thread(), recording, Some(1));
        bed.attach(1);
        bed
    }

    fn on(runtime: &mut Builder, recording: Recording, lanes: Option<usize>) -> Self {
        let runtime = runtime.enable_time().build().expect("a runtime can be built");
        let log = match recording {
            Recording::On => LogConfig::default(),
            Recording::Off => LogConfig::OFF,
        };
        let guard = runtime.enter();
        let mut config = Config::default();
        config.log = log;
        config.lanes = lanes;
        let broker = Broker::new(config);
        drop(guard);
        Self { runtime, broker, subscribers: Vec::new() }
    }

    /// Adds `count` silent subscribers without subscriptions.
    pub fn attach(&mut self, count: usize) {
        let _guard = self.runtime.enter();
        let attach = || self.broker.attach(Arc::new(Silent), OutboxConfig::default());
        self.subscribers.extend((0..count).map(|_| attach()));
    }

    /// Subscribes the silent subscribers in turn, one to each filter.
    ///
    /// # Errors
    /// The broker's.
    pub fn subscribe(&self, filters: impl IntoIterator<Item = Filter>) -> Result<(), SubscribeError> {
        let _guard = self.runtime.enter();
        for (number, filter) in filters.into_iter().enumerate() {
            let subscriber = &self.subscribers[number % self.subscribers.len()];
            subscriber.subscribe(&filter, number as u32, Start::Live)?;
        }
        Ok(())
    }

    /// Waits until the lanes have delivered everything.
    pub fn settle(&self) {
        self.runtime.block_on(self.broker.drained());
    }

    /// Subscriptions that a message on one of `channels` reaches, on average over all of them.
    pub fn mean_receivers(&self, channels: &[Channel]) -> f64 {
        let mut sum = 0;
        for batch in channels.chunks(BATCH as usize) {
            let receipts = batch
                .iter()
                .filter_map(|channel| self.broker.publish(Publish::new(channel.clone(), "")).ok());
            sum += receipts.map(|receipt| receipt.receivers).sum::<u64>();
            self.settle();
        }
        sum as f64 / channels.len().max(1) as f64
    }

    /// Has `threads` threads publish `each` messages on random channels; the CPU time of all of them.
    ///
    /// # Panics
    /// When the broker refuses a message: the batch would be too large.
    pub fn publish(&self, channels: &[Channel], threads: u64, each: u64) -> Duration {
        let payload = Bytes::from_static(&[b'.'; 64]);
        let mut used = Duration::ZERO;
        let mut done = 0;
        while done < each {
            let batch = (BATCH / threads).clamp(1, each - done);
            let spent: Vec<Duration> = std::thread::scope(|scope| {
                let handles: Vec<_> = (0..threads)
                    .map(|thread| {
                        let payload = payload.clone();
                        let seed = done * threads + thread + 1;
                        scope.spawn(move || publish_batch(&self.broker, channels, &payload, batch, seed))
                    })
                    .collect();
                handles.into_iter().map(|handle| handle.join().expect("publishers do not panic")).collect()
            });
            used += spent.into_iter().sum::<Duration>();
            done += batch;
            self.settle();
        }
        used
    }
}

fn publish_batch(broker: &Broker, channels: &[Channel], payload: &Bytes, count: u64, seed: u64) -> Duration {
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let before = thread_cpu();
    for _ in 0..count {
        // xorshift64: cheap, and no prefetcher guesses the next channel.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let channel = &channels[(random >> 33) as usize % channels.len()];
        match broker.publish(Publish::new(channel.clone(), payload.clone())) {
            Ok(_) => {}
            Err(PublishError::Busy { .. }) => std::thread::yield_now(),
            Err(error) => panic!("publish failed: {error}"),
        }
    }
    thread_cpu() - before
}

/// `count` channels `bench/<group>/<number>`.
///
/// # Panics
/// Never: the names are valid.
pub fn channels(count: usize) -> Vec<Channel> {
    let name = |number: usize| format!("bench/{}/{number}", number % 100);
    (0..count).map(|number| Channel::parse(&name(number)).expect("a valid channel")).collect()
}
