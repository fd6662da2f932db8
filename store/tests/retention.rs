//! What is too old, too much and too many goes, whole buckets at a time, while a store is open and when it is opened.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{Broker, Channel, Config, Filter, HistoryQuery, LogConfig, NamespaceConfig, Publish};
use store::{Durability, Kept, Namespace, Retention, Settings, Store, check};

struct Life {
    broker: Broker,
    store: Arc<Store>,
}

impl Life {
    /// With bounds of all, and of the namespace `own`.
    fn begin(directory: &Path, all: Retention, own: Option<Retention>) -> Self {
        let mut settings = Settings::new(directory);
        settings.min_free_bytes = 0;
        settings.durability = Durability::Os;
        settings.retention = all;
        if let Some(own) = own {
            let mut namespace = Namespace::new("own", Durability::Os);
            namespace.retention = Some(own);
            settings.namespaces = vec![namespace];
        }
        let store = Arc::new(Store::open(settings).expect("it opens"));
        let mut config = Config::default();
        // The memory in front of it holds little, so that the disk is asked.
        let mut log = LogConfig::default();
        log.max_bytes = 16 << 10;
        config.log = log;
        config.namespaces = vec![NamespaceConfig::new("own", log)];
        Self { broker: Broker::with_engine(config, Arc::clone(&store) as _), store }
    }

    async fn publish(&self, channel: &str, count: usize, bytes: usize) {
        let channel = Channel::parse(channel).expect("a name");
        let answers: Vec<_> = (0..count)
            .map(|_| self.broker.submit(Publish::new(channel.clone(), vec![b'x'; bytes])))
            .collect();
        for answer in answers {
            soon(answer).await.expect("it is kept");
        }
    }

    fn kept(&self, namespace: &str) -> Kept {
        let named = |kept: &Kept| kept.namespace.as_deref().unwrap_or("*") == namespace;
        self.store.stats().kept.into_iter().find(named).expect("it keeps it")
    }

    /// Until as much is gone as is to go; buckets are looked at once a second.
    async fn becomes(&self, namespace: &str, wanted: impl Fn(&Kept) -> bool) -> Kept {
        soon(async {
            loop {
                let kept = self.kept(namespace);
                if wanted(&kept) {
                    return kept;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    async fn count(&self, filter: &str) -> u64 {
        let mut query = HistoryQuery::default();
        query.limit = 1_000_000;
        let filter = Filter::parse(filter).expect("a filter");
        soon(self.broker.read_history(&filter, query)).await.expect("it is read").messages.len() as u64
    }

    async fn end(self) {
        soon(self.broker.drained()).await;
        self.broker.close();
        self.store.close();
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it does not come")
}

fn bounds(change: impl FnOnce(&mut Retention)) -> Retention {
    let mut bounds = Retention::default();
    change(&mut bounds);
    bounds
}

#[tokio::test]
async fn what_is_too_old_goes_also_when_nothing_comes() {
    let directory = tempfile::tempdir().expect("a directory");
    let short = bounds(|bounds| bounds.max_age = Duration::from_millis(300));
    let life = Life::begin(directory.path(), Retention::default(), Some(short));
    life.publish("own/a", 20, 100).await;
    life.publish("other", 5, 100).await;
    let kept = life.becomes("own", |kept| kept.messages == 0).await;
    assert_eq!((kept.bytes, kept.oldest_ms), (0, None));
    assert_eq!(life.count("other").await, 5);
    life.publish("own/a", 1, 100).await;
    assert!(life.kept("own").oldest_ms.is_some());
    life.end().await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let life = Life::begin(directory.path(), Retention::default(), Some(short));
    life.becomes("own", |kept| kept.messages == 0).await;
    assert_eq!((life.count("own/a").await, life.count("other").await), (0, 5));
    life.end().await;
}

#[tokio::test]
async fn what_is_too_much_goes_from_the_namespace_and_from_all() {
    let directory = tempfile::tempdir().expect("a directory");
    let own = bounds(|bounds| bounds.max_bytes = 40_000);
    let life = Life::begin(directory.path(), bounds(|bounds| bounds.max_bytes = 400_000), Some(own));
    for _ in 0..10 {
        life.publish("own/a", 10, 1_000).await;
        life.publish("other", 10, 1_000).await;
    }
    let kept = life.becomes("own", |kept| kept.bytes <= 40_000).await;
    assert!(kept.bytes > 30_000, "no more than a bucket too much goes: {kept:?}");
    assert_eq!(life.kept("*").messages, 100, "that is none of the others' business");
    // All together: the largest gives.
    life.publish("other", 400, 1_000).await;
    let others = life.becomes("*", |kept| kept.bytes + life.kept("own").bytes <= 400_000).await;
    assert!(others.bytes > 250_000, "{others:?}");
    assert!(life.kept("own").bytes > 30_000);
    let (others, own) = (life.count("other").await, life.count("own/a").await);
    assert_eq!((others, own), (life.kept("*").messages, life.kept("own").messages));
    life.end().await;
    // With less for all, as it is opened.
    let life = Life::begin(directory.path(), bounds(|bounds| bounds.max_bytes = 100_000), None);
    let sum = |life: &Life| life.store.stats().kept.iter().map(|kept| kept.bytes).sum::<u64>();
    life.becomes("*", |_| sum(&life) <= 100_000).await;
    assert!(sum(&life) > 0 && life.count("other").await < others);
    life.end().await;
    let report = check(directory.path()).expect("it opens");
    assert!(report.damaged.is_empty(), "{report:?}");
}

#[tokio::test]
async fn how_much_there_ever_was_is_not_what_it_takes() {
    let directory = tempfile::tempdir().expect("a directory");
    let few = bounds(|bounds| bounds.max_messages = 80);
    let life = Life::begin(directory.path(), few, None);
    for _ in 0..4 {
        life.publish("orders", 400, 2_000).await;
        life.becomes("*", |kept| kept.messages <= 80).await;
    }
    assert!(life.kept("*").messages > 30, "half of it at least: {:?}", life.kept("*"));
    // Not in a rush they are small again.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    life.publish("orders", 30, 2_000).await;
    life.becomes("*", |kept| kept.messages <= 80).await;
    assert_eq!(life.count("orders").await, life.kept("*").messages);
    life.end().await;
    let db = fjall::Database::builder(directory.path().join("db")).open().expect("it opens");
    let buckets = db.list_keyspace_names().iter().filter(|name| name.starts_with("h.")).count();
    assert!((3..=12).contains(&buckets), "{buckets}");
    drop(db);
    // With a smaller bound, as it is opened.
    let life = Life::begin(directory.path(), bounds(|bounds| bounds.max_messages = 30), None);
    life.becomes("*", |kept| kept.messages <= 30).await;
    assert!(life.count("orders").await <= 30);
    life.end().await;
}
