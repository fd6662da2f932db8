//! A broker over a store, and what is there in its next life.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    After, Broker, Channel, Config, Event, Filter, HistoryQuery, IdempotencyKey, KeyedReceipt, LogConfig,
    MessageId, NamespaceConfig, Order, Publish, PublishOnceError, StartFrom, SubscribeOptions,
};
use store::{Durability, Namespace, OpenError, Retention, Settings, State, Store, check};

/// One life of a server.
struct Life {
    broker: Broker,
    store: Arc<Store>,
}

impl Life {
    fn of(settings: Settings) -> Self {
        let store = Arc::new(Store::open(settings).expect("it opens"));
        let namespaces = store_namespaces();
        let mut config = Config::default();
        config.namespaces = namespaces;
        let broker = Broker::with_engine(config, Arc::clone(&store) as _);
        Self { broker, store }
    }

    fn begin(directory: &Path) -> Self {
        Self::of(settings(directory))
    }

    /// As a server ends: nothing is asked of it afterwards.
    async fn end(self) {
        soon(self.broker.drained()).await;
        self.broker.close();
        self.store.close();
    }

    async fn publish(&self, channel: &str, payload: &str) -> MessageId {
        soon(self.broker.publish_wait(publish(channel, payload))).await.unwrap().id.unwrap()
    }

    async fn history(&self, text: &str, query: HistoryQuery) -> (String, bool) {
        let history = soon(self.broker.read_history(&filter(text), query)).await.unwrap();
        let payloads =
            history.messages.iter().map(|message| String::from_utf8_lossy(message.payload()).into_owned());
        (payloads.collect::<Vec<_>>().join(" "), history.gap)
    }

    async fn all(&self, text: &str) -> String {
        self.history(text, asked(None, 100_000, Order::Oldest)).await.0
    }
}

fn store_namespaces() -> Vec<NamespaceConfig> {
    let name = |name: &str| NamespaceConfig::new(name, LogConfig::default());
    vec![name("memory"), name("orders"), name("fast")]
}

fn settings(directory: &Path) -> Settings {
    let mut settings = Settings::new(directory);
    settings.min_free_bytes = 0;
    settings.namespaces =
        vec![Namespace::new("memory", Durability::Memory), Namespace::new("fast", Durability::Os)];
    settings
}

fn settings_with(directory: &Path, change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = settings(directory);
    change(&mut settings);
    settings
}

fn publish(channel: &str, payload: &str) -> Publish {
    Publish::new(Channel::parse(channel).unwrap(), payload.to_owned())
}

fn asked(after: Option<MessageId>, limit: usize, order: Order) -> HistoryQuery {
    let mut query = HistoryQuery::default();
    (query.after, query.limit, query.order) = (after.map(Into::into), limit, order);
    query
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it does not come")
}

/// What a subscription brings: payloads, and gaps as `!`.
async fn brought(broker: &Broker, text: &str, from: StartFrom, count: usize) -> Vec<String> {
    let mut options = SubscribeOptions::default();
    options.from = from;
    let mut stream = broker.subscribe_with(&[filter(text)], options).unwrap();
    let mut brought = Vec::new();
    while brought.len() < count {
        match soon(stream.next()).await.unwrap() {
            Event::Message(message) => brought.push(String::from_utf8_lossy(message.payload()).into_owned()),
            Event::Gap(_) => brought.push("!".to_owned()),
            other => panic!("{other:?}"),
        }
    }
    brought
}

#[tokio::test]
async fn what_was_acknowledged_is_there_in_the_next_life() {
    let directory = tempfile::tempdir().unwrap();
    let life = Life::begin(directory.path());
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(life.publish("orders/a", &n.to_string()).await);
        life.publish("orders/b", "x").await;
        life.publish("fast/c", "y").await;
    }
    let retained = publish("orders/last", "kept").retain(true);
    soon(life.broker.publish_wait(retained)).await.unwrap();
    soon(life.broker.publish_wait(publish("orders/gone", "kept").retain(true))).await.unwrap();
    soon(life.broker.publish_wait(publish("orders/gone", "").retain(true))).await.unwrap();
    soon(life.broker.publish_wait(publish("orders/cleared", "kept").retain(true))).await.unwrap();
    assert_eq!(soon(life.broker.clear_retained(&Channel::parse("orders/cleared").unwrap())).await, Ok(true));
    life.end().await;

    let life = Life::begin(directory.path());
    assert_eq!(life.all("orders/a").await, "0 1 2 3 4");
    assert_eq!(life.all("orders/*").await.matches('x').count(), 5);
    assert_eq!(life.all("#").await.matches('y').count(), 5);
    let ask = |after: MessageId, limit, order| asked(Some(after), limit, order);
    assert_eq!(life.history("orders/a", ask(ids[1], 2, Order::Oldest)).await, ("2 3".into(), false));
    assert_eq!(life.history("orders/a", ask(ids[1], 2, Order::Newest)).await, ("4 3".into(), false));
    for text in ["orders/a", "orders/a/#"] {
        let from = StartFrom::Log(After::Id(ids[2]));
        assert_eq!(brought(&life.broker, text, from, 2).await, ["3", "4"], "{text}");
    }
    assert_eq!(brought(&life.broker, "orders/*", StartFrom::Retained, 1).await, ["kept"]);
    assert_eq!(life.broker.stats().retained_messages, 1);
    // Offsets go on, in the same epoch.
    let new = life.publish("orders/a", "5").await;
    assert!(new.epoch() == ids[4].epoch() && new.offset() > ids[4].offset());
    assert_eq!(life.all("orders/a").await, "0 1 2 3 4 5");
    life.end().await;
}

#[tokio::test]
async fn what_is_in_memory_knows_nothing_of_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let life = Life::begin(directory.path());
    let receipt = life.broker.publish(publish("memory/a", "x")).unwrap();
    assert_eq!(receipt.id.unwrap().epoch(), life.broker.epoch());
    let kept = life.publish("orders/a", "y").await;
    assert_ne!(kept.epoch(), life.broker.epoch());
    let mut all: Vec<_> = brought(&life.broker, "#", StartFrom::Log(After::Earliest), 2).await;
    all.sort();
    assert_eq!(all, ["x", "y"]);
    assert_eq!(life.store.stats().messages, 1);
    life.end().await;
    let life = Life::begin(directory.path());
    assert_eq!((life.all("memory/a").await, life.all("orders/a").await), (String::new(), "y".to_owned()));
    life.end().await;
}

#[tokio::test]
async fn a_key_is_known_in_the_next_life() {
    let directory = tempfile::tempdir().unwrap();
    let mut key = IdempotencyKey::new("17");
    key.user = "shop";
    let life = Life::begin(directory.path());
    let _reader = life.broker.subscribe(filter("orders")).unwrap();
    let answers = [(); 3].map(|()| life.broker.submit_once(publish("orders", "x"), &key));
    let mut receipts = Vec::new();
    for answer in answers {
        receipts.push(soon(answer).await.unwrap());
    }
    assert_eq!(receipts.iter().map(|keyed| keyed.duplicate).collect::<Vec<_>>(), [false, true, true]);
    let first = receipts[0].receipt;
    assert!(receipts.iter().all(|keyed| keyed.receipt == first) && first.receivers == 1);
    life.end().await;

    let life = Life::begin(directory.path());
    let again = soon(life.broker.submit_once(publish("orders", "x"), &key)).await.unwrap();
    assert_eq!(again, KeyedReceipt::again(first));
    let other = soon(life.broker.submit_once(publish("orders", "y"), &key)).await;
    assert_eq!(other, Err(PublishOnceError::Conflict));
    let mut other = key;
    other.user = "else";
    assert!(!soon(life.broker.submit_once(publish("orders", "x"), &other)).await.unwrap().duplicate);
    assert_eq!(life.all("orders").await, "x x");
    life.end().await;
    let window = settings_with(directory.path(), |settings| settings.idempotency_window = Duration::ZERO);
    let life = Life::of(window);
    assert!(!soon(life.broker.submit_once(publish("orders", "x"), &key)).await.unwrap().duplicate);
    life.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batches_that_are_written_while_others_are_released_come_in_one_order() {
    const EACH: usize = 2_000;
    let directory = tempfile::tempdir().unwrap();
    let life = Life::begin(directory.path());
    let mut stream = life.broker.subscribe(filter("orders/#")).unwrap();
    let publishers: Vec<_> = (0..2)
        .map(|publisher| {
            let broker = life.broker.clone();
            tokio::spawn(async move {
                // Far more than a batch, so that the next one always waits.
                let submit =
                    |n: usize| broker.submit(publish(&format!("orders/{publisher}"), &n.to_string()));
                let answers: Vec<_> = (0..EACH).map(submit).collect();
                let mut last = 0;
                for answer in answers {
                    let id = soon(answer).await.unwrap().id.expect("it is recorded");
                    assert!(last < id.offset(), "{last}, {id}");
                    last = id.offset();
                }
            })
        })
        .collect();
    // What nobody waits for, and what looks back at what was written before.
    let beside = life.broker.clone();
    let beside = tokio::spawn(async move {
        for n in 0..EACH {
            beside.post(publish("orders/post", &n.to_string())).unwrap();
            if n % 100 == 0 {
                let key = IdempotencyKey::new("n");
                let answer = soon(beside.submit_once(publish("orders/once", "x"), &key)).await.unwrap();
                assert_eq!((answer.duplicate, answer.receipt.receivers), (n > 0, 1));
            }
        }
    });
    let (mut next, mut last, mut once) = ([0; 3], 0, 0);
    while next != [EACH; 3] || once == 0 {
        let Some(Event::Message(message)) = soon(stream.next()).await else { continue };
        assert!(last < message.offset(), "{last}, {}", message.offset());
        last = message.offset();
        let at = match message.channel().as_str() {
            "orders/0" => 0,
            "orders/1" => 1,
            "orders/post" => 2,
            _ => {
                once += 1;
                continue;
            }
        };
        assert_eq!(String::from_utf8_lossy(message.payload()), next[at].to_string());
        next[at] += 1;
    }
    for task in publishers.into_iter().chain([beside]) {
        soon(task).await.unwrap();
    }
    assert_eq!(once, 1);
    life.end().await;
    let life = Life::begin(directory.path());
    assert_eq!(life.all("orders/#").await.split(' ').count(), 3 * EACH + 1);
    life.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_keep_their_order_and_come_once() {
    let directory = tempfile::tempdir().unwrap();
    let life = Life::begin(directory.path());
    const EACH: usize = 300;
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let broker = life.broker.clone();
            tokio::spawn(async move {
                let mut answers = Vec::new();
                for n in 0..EACH {
                    answers.push(broker.submit(publish(&format!("orders/{publisher}"), &n.to_string())));
                }
                for answer in answers {
                    soon(answer).await.unwrap();
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..4)
        .map(|publisher| {
            let broker = life.broker.clone();
            tokio::spawn(async move {
                brought(&broker, &format!("orders/{publisher}"), StartFrom::Log(After::Earliest), EACH).await
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let expected: Vec<_> = (0..EACH).map(|n| n.to_string()).collect();
    for reader in readers {
        assert_eq!(soon(reader).await.unwrap(), expected);
    }
    assert!(life.store.stats().commits < 4 * EACH as u64, "what waits is one batch");
    life.end().await;
    let life = Life::begin(directory.path());
    for publisher in 0..4 {
        assert_eq!(life.all(&format!("orders/{publisher}")).await, expected.join(" "));
    }
    // Pages of a reader that goes on from the disk to what is new.
    let new = tokio::spawn({
        let broker = life.broker.clone();
        async move { brought(&broker, "orders/#", StartFrom::Log(After::Earliest), 4 * EACH + 10).await }
    });
    for n in 0..10 {
        life.publish("orders/new", &format!("new{n}")).await;
    }
    let all = soon(new).await.unwrap();
    assert_eq!(all.iter().filter(|payload| payload.starts_with("new")).count(), 10);
    life.end().await;
}

#[tokio::test]
async fn the_oldest_buckets_go_and_that_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut few = Retention::default();
    few.max_messages = 40;
    let mut orders = Namespace::new("orders", Durability::Os);
    orders.retention = Some(few);
    let settings = || settings_with(directory.path(), |settings| settings.namespaces = vec![orders.clone()]);
    let life = Life::of(settings());
    let first = life.publish("orders/a", "0").await;
    life.publish("other", "stays").await;
    for n in 1..100 {
        life.publish("orders/a", &n.to_string()).await;
    }
    let newest = life.publish("orders/a", "100").await;
    // Looked at once a second.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    life.end().await;
    let life = Life::of(settings());
    let (left, _) = life.history("orders/a", asked(None, 1_000, Order::Oldest)).await;
    let left: Vec<u32> = left.split(' ').map(|text| text.parse().unwrap()).collect();
    assert!((30..=40).contains(&left.len()) && left.ends_with(&[99, 100]), "{left:?}");
    assert!(left.is_sorted());
    let after = |id: MessageId| asked(Some(id), 1, Order::Oldest);
    assert!(life.history("orders/a", after(first)).await.1, "it is told");
    assert!(!life.history("orders/a", after(newest)).await.1);
    assert!(!life.history("other", after(first)).await.1, "nobody else's loss");
    assert_eq!(life.all("other").await, "stays");
    let told = brought(&life.broker, "orders/a", StartFrom::Log(After::Id(first)), 2).await;
    assert_eq!(told, ["!".to_owned(), left[0].to_string()]);
    life.end().await;
}

#[test]
fn what_is_no_directory_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("file"), folder.path().join("link"));
    std::fs::write(&file, "mine").unwrap();
    std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).unwrap();
    for path in [&file, &link] {
        let refused = Store::open(settings(path)).map(drop).expect_err("it is no directory");
        assert!(matches!(&refused, OpenError::NoDirectory(named) if named == path), "{refused}");
        assert!(refused.to_string().starts_with(&format!("{} is no directory", path.display())));
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), "mine");
}

#[tokio::test]
async fn one_process_has_it_and_no_older_version() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert!(matches!(check(path), Err(OpenError::Missing(_))));
    let life = Life::begin(path);
    life.publish("orders", "x").await;
    for refused in [Store::open(settings(path)).map(drop), check(path).map(drop)] {
        match refused {
            Err(OpenError::InUse { holder, .. }) => assert_eq!(holder, std::process::id().to_string()),
            other => panic!("{other:?}"),
        }
    }
    life.end().await;
    let report = check(path).unwrap();
    assert!(report.damaged.is_empty(), "{report:?}");
    let text = report.to_string();
    // What whoever reads it by a program goes by.
    let forms: Vec<String> = text
        .lines()
        .map(|line| {
            let fields = line.split(' ').map(|field| field.split('=').next().unwrap_or_default());
            fields.collect::<Vec<_>>().join(" ")
        })
        .collect();
    let expected = ["orders messages bytes oldest newest", "ok epoch head retained sessions keys"];
    assert_eq!(forms, expected, "{text}");
    assert!(text.starts_with("orders messages=1 "), "{text}");
    let db = fjall::Database::builder(path.join("db")).open().unwrap();
    let meta = db.keyspace("meta", fjall::KeyspaceCreateOptions::default).unwrap();
    meta.insert("schema", 7_u32.to_be_bytes()).unwrap();
    drop((meta, db));
    match Store::open(settings(path)) {
        Err(error @ OpenError::NewerSchema { found: 7, known: 3 }) => {
            let text = error.to_string();
            assert!(text.contains("schema 7") && text.contains("knows 3"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_store_without_room_refuses_and_the_memory_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let life = Life::of(settings_with(directory.path(), |settings| settings.min_free_bytes = u64::MAX));
    assert!(matches!(life.store.state(), State::Refusing(_)));
    let refused = life.broker.submit(publish("orders", "x")).await.unwrap_err();
    assert!(matches!(refused.error, broker_core::PublishError::Unavailable { what: "store", .. }));
    assert!(life.broker.publish(publish("memory/a", "x")).is_ok());
    assert_eq!(life.store.stats().refused, 1);
    life.end().await;
}

#[tokio::test]
async fn more_retained_than_may_be_is_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let life = Life::begin(directory.path());
    for n in 0..3 {
        soon(life.broker.publish_wait(publish(&format!("r/{n}"), "x").retain(true))).await.unwrap();
    }
    life.end().await;
    let few = settings_with(directory.path(), |settings| settings.max_retained_messages = 2);
    assert!(matches!(Store::open(few), Err(OpenError::TooManyRetained { messages: 3, .. })));
}

#[tokio::test]
async fn damage_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let life = Life::begin(directory.path());
    let id = life.publish("orders", "x").await;
    life.end().await;
    let db = fjall::Database::builder(directory.path().join("db")).open().unwrap();
    let name = db.list_keyspace_names().into_iter().find(|name| name.starts_with("h.")).unwrap();
    let bucket = db.keyspace(&name, fjall::KeyspaceCreateOptions::default).unwrap();
    let key = [&b"b"[..], &id.offset().to_be_bytes()].concat();
    let mut value = bucket.get(&key).unwrap().unwrap().to_vec();
    *value.last_mut().unwrap() ^= 1;
    bucket.insert(key, value).unwrap();
    drop((bucket, db));
    let report = check(directory.path()).unwrap();
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    assert!(report.to_string().starts_with("damaged epoch="), "no whole message is there: {report}");
    let life = Life::begin(directory.path());
    let read = soon(life.broker.read_history(&filter("orders"), HistoryQuery::default())).await;
    assert!(read.is_err(), "it is not passed over in silence");
    life.end().await;
}

/// The journal that a store writes to, and where a text stands in it.
fn in_journal(directory: &Path, text: &str) -> (std::path::PathBuf, usize) {
    let files = std::fs::read_dir(directory.join("db")).unwrap().map(|entry| entry.unwrap().path());
    let mut journals = files.filter(|file| file.extension().is_some_and(|end| end == "jnl"));
    let found = journals.find_map(|file| {
        let bytes = std::fs::read(&file).unwrap();
        let at = bytes.windows(text.len()).position(|window| window == text.as_bytes())?;
        Some((file, at))
    });
    found.expect("it is in a journal")
}

#[tokio::test]
async fn a_torn_batch_is_cut_and_damage_before_whole_ones_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let strict = || settings_with(directory.path(), |settings| settings.namespaces.truncate(1));
    let life = Life::of(strict());
    for payload in ["first payload", "second payload", "third payload", "fourth payload"] {
        life.publish("orders/a", payload).await;
    }
    life.end().await;
    // As a crash leaves it in the middle of a write.
    let (journal, at) = in_journal(directory.path(), "fourth");
    std::fs::OpenOptions::new().write(true).open(&journal).unwrap().set_len(at as u64 + 3).unwrap();
    let life = Life::of(strict());
    assert_eq!(life.all("orders/a").await, "first payload second payload third payload");
    let (journal, at) = in_journal(directory.path(), "second");
    life.end().await;
    // As a disk forgets.
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&journal, &bytes).unwrap();
    match Store::open(strict()) {
        Err(OpenError::Damaged(what)) => assert!(what.contains("whole batches lie behind it"), "{what}"),
        other => panic!("{other:?}"),
    }
    for _ in 0..2 {
        let report = check(directory.path()).unwrap();
        assert!(report.damaged.len() == 1 && report.to_string().starts_with("damaged"), "{report:?}");
    }
    assert_eq!(std::fs::read(&journal).unwrap(), bytes, "it changes nothing");
    // Where a power loss may do that, it is given up.
    let life = Life::begin(directory.path());
    assert_eq!(life.all("orders/a").await, "first payload");
    life.end().await;
    assert_eq!(check(directory.path()).unwrap().damaged, Vec::<String>::new());
}
