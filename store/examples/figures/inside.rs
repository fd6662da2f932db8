//! A broker over a store, in this process.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::{Broker, Channel, Config, Event, Filter, Publish, StartFrom, SubscribeOptions};
use store::{Durability, Settings, Store};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::tally::Figures;

/// Who gets each message.
pub(crate) const SUBSCRIBERS: usize = 8;
/// What a message carries; the first of it is when it was published.
pub(crate) const PAYLOAD_BYTES: usize = 256;
/// Channels that acknowledged publishes go to.
const CHANNELS: usize = 64;

/// How much longer its flushes take than they do.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Disk {
    pub(crate) delay: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// No store.
    Nothing,
    Os,
    Interval,
    Always,
}

impl Keeping {
    pub(crate) const ALL: [Self; 4] = [Self::Nothing, Self::Os, Self::Interval, Self::Always];
}

impl fmt::Display for Keeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "no `--data`",
            Self::Os => "`os`",
            Self::Interval => "`interval:100ms`",
            Self::Always => "`always`",
        })
    }
}

/// Whether a publisher waits for its acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    Yes,
    No,
}

/// A broker, what it keeps with, and where.
struct Life {
    broker: Broker,
    store: Option<Arc<Store>>,
    _folder: tempfile::TempDir,
}

impl Life {
    fn begin(below: &Path, disk: Disk, keeping: Keeping) -> Outcome<Self> {
        let folder = tempfile::tempdir_in(below)?;
        let durability = match keeping {
            Keeping::Nothing => {
                return Ok(Self { broker: Broker::new(Config::default()), store: None, _folder: folder });
            }
            Keeping::Os => Durability::Os,
            Keeping::Interval => Durability::Interval(Duration::from_millis(100)),
            Keeping::Always => Durability::Always,
        };
        let mut settings = Settings::new(folder.path());
        settings.durability = durability;
        let store = Arc::new(Store::open_on(settings, move || {
            if disk.delay > Duration::ZERO {
                std::thread::sleep(disk.delay);
            }
        })?);
        let broker = Broker::with_engine(Config::default(), Arc::clone(&store) as _);
        Ok(Self { broker, store: Some(store), _folder: folder })
    }

    async fn end(self) {
        self.broker.drained().await;
        self.broker.close();
        if let Some(store) = self.store {
            store.close();
        }
    }
}

fn publish(channel: &Channel, began: Instant) -> Publish {
    let mut payload = vec![0; PAYLOAD_BYTES];
    let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    payload[..8].copy_from_slice(&nanos.to_be_bytes());
    Publish::new(channel.clone(), payload)
}

/// How long messages take to the last subscriber, `in_flight` at a time, beside so many acknowledged ones in flight.
pub(crate) async fn deliver(
    below: &Path,
    disk: Disk,
    keeping: Keeping,
    asks: Asks,
    in_flight: usize,
    span: Duration,
    beside: usize,
) -> Outcome<Figures> {
    let life = Life::begin(below, disk, keeping)?;
    let broker = &life.broker;
    let channel = Channel::parse("chat/room")?;
    let began = Instant::now();
    let room = Arc::new(Semaphore::new(in_flight));
    let mut readers = JoinSet::new();
    for reader in 0..SUBSCRIBERS {
        let mut options = SubscribeOptions::default();
        options.from = StartFrom::Now;
        let mut stream = broker.subscribe_with(&[Filter::parse("chat/*")?], options)?;
        let room = Arc::clone(&room);
        readers.spawn(async move {
            let mut times = Vec::new();
            while let Some(event) = stream.next().await {
                let Event::Message(message) = event else { continue };
                let sent = message.payload().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                if sent == 0 {
                    break;
                }
                times.push(began.elapsed().saturating_sub(Duration::from_nanos(sent)));
                if reader + 1 == SUBSCRIBERS {
                    room.add_permits(1);
                }
            }
            times
        });
    }
    let mut ledger = JoinSet::new();
    for writer in 0..beside {
        let (broker, channel) = (broker.clone(), Channel::parse(&format!("ledger/{writer}"))?);
        ledger.spawn(async move { while broker.publish_wait(publish(&channel, began)).await.is_ok() {} });
    }
    // What is made once is made now.
    for _ in 0..8 {
        room.acquire().await?.forget();
        broker.publish_wait(publish(&channel, began)).await?;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let start = Instant::now();
    let mut answers = JoinSet::new();
    while start.elapsed() < span {
        room.acquire().await?.forget();
        let publish = publish(&channel, began);
        match asks {
            Asks::No => {
                while broker.post(publish.clone()).is_err() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            Asks::Yes => {
                answers.spawn(broker.submit(publish));
                while answers.try_join_next().is_some() {}
            }
        }
    }
    while answers.join_next().await.is_some() {}
    ledger.abort_all();
    let took = start.elapsed();
    // The end: a message of no time.
    broker.publish_wait(Publish::new(channel, vec![0; 8])).await?;
    let mut all: Vec<Vec<Duration>> = Vec::new();
    while let Some(times) = readers.join_next().await {
        all.push(times?);
    }
    // The slowest reader's time of each message.
    let count = all.iter().map(Vec::len).min().unwrap_or(0);
    let slowest = (8..count).filter_map(|at| all.iter().filter_map(|times| times.get(at).copied()).max());
    let times = slowest.collect();
    life.end().await;
    Ok(Figures::of(times, took))
}

/// Acknowledged publishes, `in_flight` at a time.
pub(crate) async fn acknowledge(
    below: &Path,
    keeping: Keeping,
    in_flight: usize,
    span: Duration,
    flush: Option<Duration>,
    prints_threads: bool,
) -> Outcome<Figures> {
    let before = of_threads("self");
    let disk = Disk { delay: flush.unwrap_or_default() };
    let life = Life::begin(below, disk, keeping)?;
    let start = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..in_flight {
        let channel = Channel::parse(&format!("ledger/{}", writer % CHANNELS))?;
        let broker = life.broker.clone();
        writers.spawn(async move {
            let mut times = Vec::new();
            while start.elapsed() < span {
                let asked = Instant::now();
                broker.publish_wait(publish(&channel, start)).await.map_err(|error| error.to_string())?;
                times.push(asked.elapsed());
                if keeping == Keeping::Nothing {
                    // Nothing made it wait, and the others are to have their turn.
                    tokio::task::yield_now().await;
                }
            }
            Ok::<_, String>(times)
        });
    }
    let mut all = Vec::new();
    while let Some(times) = writers.join_next().await {
        all.extend(times??);
    }
    let took = start.elapsed();
    if prints_threads {
        eprintln!("{}", cost(&before, &of_threads("self"), all.len()));
        if let Some(stats) = life.store.as_ref().map(|store| store.stats()) {
            eprintln!("messages in a batch: {:.0}", stats.messages as f64 / stats.commits as f64);
        }
    }
    life.end().await;
    Ok(Figures::of(all, took))
}

/// What a process's threads have taken of the processor, in nanoseconds, by their names.
pub(crate) fn of_threads(process: &str) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for thread in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let read = |name| std::fs::read_to_string(thread.path().join(name));
        let (Ok(name), Ok(taken)) = (read("comm"), read("schedstat")) else { continue };
        let taken: u64 = taken.split(' ').next().and_then(|taken| taken.parse().ok()).unwrap_or(0);
        *all.entry(name.trim().to_owned()).or_default() += taken;
    }
    all
}

/// What was taken since, for each message.
pub(crate) fn cost(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, messages: usize) -> String {
    let each = |(name, taken): (&String, &u64)| {
        let taken = taken.saturating_sub(before.get(name).copied().unwrap_or(0));
        format!("{name} {:.2}", taken as f64 / 1e3 / messages as f64)
    };
    format!("us of the processor for each message: {}", after.iter().map(each).collect::<Vec<_>>().join(", "))
}
