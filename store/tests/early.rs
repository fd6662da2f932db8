//! What nobody waits for, while the disk is at something else.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use broker_core::{
    After, Broker, Channel, Config, Event, Filter, HistoryQuery, MessageId, Publish, StartFrom,
    SubscribeOptions, Subscription,
};
use store::{Settings, Store};

/// A disk that waits to be told.
#[derive(Default)]
struct Gate {
    /// Whether it is shut, and how many have come to it since then.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
    once: AtomicBool,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        let (state, waited) = self
            .changed
            .wait_timeout_while(state, Duration::from_secs(30), |(is_shut, _)| {
                *is_shut && !self.once.swap(false, Ordering::SeqCst)
            })
            .unwrap();
        assert!(!waited.timed_out(), "nobody opens the gate");
        drop(state);
    }

    fn shut(&self) {
        *self.state.lock().unwrap() = (true, 0);
    }

    /// Lets through who stands before it, and nobody else.
    fn open_once(&self) {
        let mut state = self.state.lock().unwrap();
        *state = (true, 0);
        self.once.store(true, Ordering::SeqCst);
        self.changed.notify_all();
    }

    fn open(&self) {
        self.state.lock().unwrap().0 = false;
        self.changed.notify_all();
    }

    /// Until the store stands before it.
    fn has_come(&self) {
        let state = self.state.lock().unwrap();
        let waiting = self.changed.wait_timeout_while(state, Duration::from_secs(30), |(_, come)| *come == 0);
        assert!(!waiting.unwrap().1.timed_out(), "nobody comes to the gate");
    }
}

struct Life {
    broker: Broker,
    store: Arc<Store>,
    gate: Arc<Gate>,
}

impl Life {
    fn begin(directory: &Path) -> Self {
        let gate = Arc::new(Gate::default());
        let mut settings = Settings::new(directory);
        settings.min_free_bytes = 0;
        let before_sync = Arc::clone(&gate);
        let store = Arc::new(Store::open_on(settings, move || before_sync.pass()).unwrap());
        let broker = Broker::with_engine(Config::default(), Arc::clone(&store) as _);
        Self { broker, store, gate }
    }

    /// One to which unacknowledged publishes have come before.
    async fn begin_used(directory: &Path) -> Self {
        let life = Self::begin(directory);
        life.broker.post(publish("other", "")).unwrap();
        soon(life.broker.publish_wait(publish("other", ""))).await.unwrap();
        life
    }

    /// Something waits for the disk, which does not come back.
    fn hold_up(&self, publish: Publish) -> tokio::task::JoinHandle<MessageId> {
        self.gate.shut();
        let broker = self.broker.clone();
        let waiting = tokio::spawn(async move { broker.publish_wait(publish).await.unwrap().id.unwrap() });
        tokio::task::block_in_place(|| self.gate.has_come());
        waiting
    }

    fn follow(&self, texts: &[&str], from: StartFrom) -> Subscription {
        let mut options = SubscribeOptions::default();
        options.from = from;
        let filters: Vec<_> = texts.iter().map(|text| Filter::parse(text).unwrap()).collect();
        self.broker.subscribe_with(&filters, options).unwrap()
    }

    async fn history(&self, text: &str) -> Vec<String> {
        let mut query = HistoryQuery::default();
        query.limit = 10_000;
        let history = soon(self.broker.read_history(&Filter::parse(text).unwrap(), query)).await.unwrap();
        history
            .messages
            .iter()
            .map(|message| String::from_utf8_lossy(message.payload()).into_owned())
            .collect()
    }

    async fn end(self) {
        soon(self.broker.drained()).await;
        self.broker.close();
        self.store.close();
    }
}

fn publish(channel: &str, payload: &str) -> Publish {
    Publish::new(Channel::parse(channel).unwrap(), payload.to_owned())
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it does not come")
}

/// The next message; that there is no gap before it.
async fn next(stream: &mut Subscription) -> (String, MessageId) {
    match soon(stream.next()).await {
        Some(Event::Message(message)) => {
            (String::from_utf8_lossy(message.payload()).into_owned(), message.id().unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_delivered_before_the_disk_answers() {
    let directory = tempfile::tempdir().unwrap();
    let life = Life::begin_used(directory.path()).await;
    let mut stream = life.follow(&["chat", "ledger"], StartFrom::Now);
    let waiting = life.hold_up(publish("ledger", "1"));
    for text in ["a", "b"] {
        life.broker.post(publish("chat", text)).unwrap();
    }
    let (a, b) = (next(&mut stream).await, next(&mut stream).await);
    assert_eq!((&*a.0, &*b.0), ("a", "b"));
    assert!(!waiting.is_finished());
    life.gate.open();
    let ledger = soon(waiting).await.unwrap();
    assert_eq!(next(&mut stream).await, ("1".to_owned(), ledger));
    // Who goes on after what was delivered early gets what was on its way meanwhile.
    assert!(a.1.offset() < b.1.offset() && b.1.offset() < ledger.offset());
    let mut resumed = life.follow(&["chat", "ledger"], StartFrom::Log(After::Id(a.1)));
    assert_eq!((next(&mut resumed).await, next(&mut resumed).await), (b, ("1".to_owned(), ledger)));
    life.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_overtakes_nothing_on_its_channel() {
    let directory = tempfile::tempdir().unwrap();
    let life = Life::begin_used(directory.path()).await;
    let mut stream = life.follow(&["chat", "ledger"], StartFrom::Now);
    let waiting = life.hold_up(publish("ledger", "1"));
    // Nor does the one behind it, nor one that is retained.
    for text in ["2", "3"] {
        life.broker.post(publish("ledger", text)).unwrap();
    }
    life.broker.post(publish("chat", "kept").retain(true)).unwrap();
    life.broker.post(publish("chat", "behind it")).unwrap();
    life.broker.post(publish("other", "free")).unwrap();
    life.broker.handed_over().await;
    let none = tokio::time::timeout(Duration::from_millis(50), stream.next()).await;
    assert!(none.is_err(), "{none:?}");
    life.gate.open();
    soon(waiting).await.unwrap();
    let mut got = Vec::new();
    for _ in 0..5 {
        got.push(next(&mut stream).await);
    }
    assert_eq!(got.iter().map(|(text, _)| &**text).collect::<Vec<_>>(), ["1", "2", "3", "kept", "behind it"]);
    assert!(got.is_sorted_by_key(|(_, id)| id.offset()), "{got:?}");
    life.end().await;
}

/// Once what was before it is released; else a channel that has waited once would wait for ever another flush.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_had_to_wait_does_not_wait_for_the_next_batch_too() {
    let directory = tempfile::tempdir().unwrap();
    let life = Life::begin_used(directory.path()).await;
    let mut stream = life.follow(&["chat"], StartFrom::Now);
    let waiting = life.hold_up(publish("chat", "1"));
    for text in ["2", "3"] {
        life.broker.post(publish("chat", text)).unwrap();
    }
    let next_batch = tokio::spawn(life.broker.submit(publish("ledger", "")));
    let behind = tokio::spawn(life.broker.submit(publish("chat", "4")));
    life.broker.post(publish("chat", "5")).unwrap();
    life.gate.open_once();
    soon(waiting).await.unwrap();
    tokio::task::block_in_place(|| life.gate.has_come());
    // The gate is shut, and what waits before it is delivered already.
    let mut got = Vec::new();
    for _ in 0..3 {
        got.push(next(&mut stream).await);
    }
    assert_eq!(got.iter().map(|(text, _)| &**text).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(!next_batch.is_finished() && !behind.is_finished());
    life.gate.open();
    soon(next_batch).await.unwrap().unwrap();
    for _ in 0..2 {
        got.push(next(&mut stream).await);
    }
    assert_eq!(got[3..].iter().map(|(text, _)| &**text).collect::<Vec<_>>(), ["4", "5"]);
    assert!(got.is_sorted_by_key(|(_, id)| id.offset()), "{got:?}");
    assert_eq!(life.history("chat").await, ["1", "2", "3", "4", "5"]);
    life.end().await;
    let life = Life::begin(directory.path());
    assert_eq!(life.history("chat").await, ["1", "2", "3", "4", "5"]);
    life.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_a_crash_forgot_is_a_position() {
    let directory = tempfile::tempdir().unwrap();
    let crashed = tempfile::tempdir().unwrap();
    let life = Life::begin_used(directory.path()).await;
    let mut stream = life.follow(&["chat", "ledger"], StartFrom::Now);
    let waiting = life.hold_up(publish("ledger", "1"));
    life.broker.post(publish("chat", "forgotten")).unwrap();
    let (_, forgotten) = next(&mut stream).await;
    copy(directory.path(), crashed.path());
    life.gate.open();
    soon(waiting).await.unwrap();
    life.end().await;

    let life = Life::begin(crashed.path());
    assert_eq!(life.history("chat").await, [""; 0]);
    let mut resumed = life.follow(&["chat", "ledger"], StartFrom::Log(After::Id(forgotten)));
    let new = soon(life.broker.publish_wait(publish("chat", "new"))).await.unwrap().id.unwrap();
    assert_eq!(next(&mut resumed).await, ("new".to_owned(), new));
    assert!(new.epoch() == forgotten.epoch() && new.offset() > forgotten.offset());
    life.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_stored_when_a_life_ends_in_peace() {
    let directory = tempfile::tempdir().unwrap();
    let life = Life::begin_used(directory.path()).await;
    for n in 0..2_000 {
        life.broker.post(publish("chat", &n.to_string())).unwrap();
        if n % 100 == 50 {
            soon(life.broker.publish_wait(publish("ledger", ""))).await.unwrap();
        }
    }
    life.end().await;
    let life = Life::begin(directory.path());
    assert_eq!(life.history("chat").await, (0..2_000).map(|n| n.to_string()).collect::<Vec<_>>());
    life.end().await;
    assert!(store::check(directory.path()).unwrap().damaged.is_empty());
}

/// What is there of files that somebody still writes to.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}
