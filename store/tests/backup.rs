//! Copies of a store, and what a broker over one of them says.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    After, Broker, Channel, Config, Event, Filter, HistoryQuery, IdempotencyKey, KeyedReceipt, MessageId,
    Publish, StartFrom, SubscribeOptions,
};
use store::{BackupError, OpenError, Report, Settings, Store, backup, check};

fn open(directory: &Path) -> (Arc<Store>, Broker) {
    let mut settings = Settings::new(directory);
    settings.min_free_bytes = 0;
    let store = Arc::new(Store::open(settings).expect("it opens"));
    let broker = Broker::with_engine(Config::default(), Arc::clone(&store) as _);
    (store, broker)
}

async fn end((store, broker): (Arc<Store>, Broker)) {
    soon(broker.drained()).await;
    broker.close();
    store.close();
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it does not come")
}

fn publish(channel: &str, payload: &str) -> Publish {
    Publish::new(Channel::parse(channel).unwrap(), payload.to_owned())
}

async fn put(broker: &Broker, channel: &str, payload: &str) -> MessageId {
    soon(broker.publish_wait(publish(channel, payload))).await.unwrap().id.unwrap()
}

async fn history(broker: &Broker, text: &str, after: Option<MessageId>) -> (Vec<String>, bool) {
    let mut query = HistoryQuery::default();
    (query.after, query.limit) = (after.map(Into::into), 100_000);
    let history = soon(broker.read_history(&Filter::parse(text).unwrap(), query)).await.unwrap();
    let payloads =
        history.messages.iter().map(|message| String::from_utf8_lossy(message.payload()).into_owned());
    (payloads.collect(), history.gap)
}

/// A copy, made on a thread of its own, as it waits for whoever has the store.
async fn copied(from: &Path, to: &Path) -> Result<Report, BackupError> {
    let (from, to) = (from.to_owned(), to.to_owned());
    soon(tokio::task::spawn_blocking(move || backup(&from, &to))).await.unwrap()
}

#[tokio::test]
async fn a_copy_has_everything_and_no_offset_is_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("store"), folder.path().join("deep/copy"));
    let life = open(&from);
    let mut ids = Vec::new();
    for n in 0..500 {
        ids.push(put(&life.1, &format!("orders/{}", n % 7), &n.to_string()).await);
    }
    soon(life.1.publish_wait(publish("state", "on").retain(true))).await.unwrap();
    let key = IdempotencyKey::new("17");
    let first = soon(life.1.submit_once(publish("keyed", "x"), &key)).await.unwrap();
    end(life).await;
    let report = copied(&from, &to).await.unwrap();
    assert!(report.damaged.is_empty() && report.to_string().contains("orders messages=500 "), "{report}");
    assert_eq!(check(&to).unwrap().to_string(), report.to_string());

    // The first one goes on, and so does the copy.
    let life = open(&from);
    let later = put(&life.1, "orders/0", "later").await;
    end(life).await;
    let life = open(&to);
    let all: Vec<_> = (0..500).map(|n| n.to_string()).collect();
    assert_eq!(history(&life.1, "orders/*", None).await, (all.clone(), false));
    assert_eq!(history(&life.1, "orders/*", Some(ids[99])).await, (all[100..].to_vec(), false));
    assert_eq!(life.1.stats().retained_messages, 1);
    let again = soon(life.1.submit_once(publish("keyed", "x"), &key)).await.unwrap();
    assert_eq!(again, KeyedReceipt::again(first.receipt));
    let new = put(&life.1, "orders/0", "new").await;
    assert!(new.epoch() == later.epoch() && new.offset() > later.offset());
    // Who has seen what the copy does not know is told so; who has not misses nothing of the copy.
    for text in ["orders/0", "orders/*", "#"] {
        assert_eq!(history(&life.1, text, Some(later)).await, (vec!["new".to_owned()], true), "{text}");
        let (payloads, gap) = history(&life.1, text, Some(ids[499])).await;
        assert!(!gap && payloads.last().is_some_and(|last| last == "new"), "{text}: {payloads:?}");
        assert!(!history(&life.1, text, Some(new)).await.1, "{text}");
        let mut options = SubscribeOptions::default();
        options.from = StartFrom::Log(After::Id(later));
        let mut stream = life.1.subscribe_with(&[Filter::parse(text).unwrap()], options).unwrap();
        assert!(
            matches!(soon(stream.next()).await, Some(Event::Gap(gap)) if gap.requested == later),
            "{text}"
        );
        assert!(
            matches!(soon(stream.next()).await, Some(Event::Message(message)) if message.payload() == &b"new"[..])
        );
    }
    end(life).await;
    // A copy of a copy.
    let twice = folder.path().join("twice");
    copied(&to, &twice).await.unwrap();
    let life = open(&twice);
    assert!(history(&life.1, "#", Some(later)).await.1);
    assert!(put(&life.1, "orders/0", "x").await.offset() > new.offset());
    end(life).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_in_use_is_sent_as_it_is_between_two_batches() {
    let folder = tempfile::tempdir().unwrap();
    // Longer than the address of a socket may be.
    let from = folder.path().join("a".repeat(120)).join("store");
    let life = open(&from);
    let sending = tokio::spawn({
        let store = Arc::clone(&life.0);
        async move { store.answer_backups().await }
    });
    const EACH: usize = 400;
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let broker = life.1.clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    // The retained message is as new as the newest of the channel's history, in one batch with it.
                    let publish = publish(&format!("orders/{publisher}"), &n.to_string()).retain(true);
                    soon(broker.publish_wait(publish)).await.unwrap();
                }
            })
        })
        .collect();
    let mut copies = Vec::new();
    for number in 0..5 {
        let to = folder.path().join(format!("copy{number}"));
        let report = loop {
            // Until it listens.
            match copied(&from, &to).await {
                Ok(report) => break report,
                Err(BackupError::NotSent { .. }) if copies.is_empty() => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        };
        assert!(report.damaged.is_empty(), "{report:?}");
        copies.push(to);
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let last = folder.path().join("last");
    copied(&from, &last).await.unwrap();
    copies.push(last);
    sending.abort();
    end(life).await;
    let mut lengths = Vec::new();
    for copy in copies {
        let life = open(&copy);
        let mut length = 0;
        for publisher in 0..4 {
            let channel = format!("orders/{publisher}");
            let (payloads, _) = history(&life.1, &channel, None).await;
            assert!(
                payloads.iter().enumerate().all(|(at, payload)| *payload == at.to_string()),
                "{payloads:?}"
            );
            length += payloads.len();
            let retained = life.1.retained(&Channel::parse(&channel).unwrap());
            let retained = retained.map(|message| String::from_utf8_lossy(message.payload()).into_owned());
            assert_eq!(retained.as_ref(), payloads.last(), "one moment of all");
        }
        lengths.push(length);
        end(life).await;
    }
    assert!(lengths.is_sorted() && lengths.last() == Some(&(4 * EACH)), "{lengths:?}");
}

#[tokio::test]
async fn what_cannot_be_copied_is_refused_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (from, to) = (path("store"), path("copy"));
    assert!(matches!(copied(&from, &to).await, Err(BackupError::Open(OpenError::Missing(_)))));
    let life = open(&from);
    put(&life.1, "orders", "x").await;
    // Nobody answers there.
    match copied(&from, &to).await {
        Err(BackupError::NotSent { holder, .. }) => assert_eq!(holder, std::process::id().to_string()),
        other => panic!("{other:?}"),
    }
    end(life).await;
    for inside in [from.join("copy"), from.join("db/a/b"), from.clone(), path("store/../store/x")] {
        assert!(matches!(copied(&from, &inside).await, Err(BackupError::Inside(_))), "{inside:?}");
    }
    std::fs::write(path("file"), "x").unwrap();
    assert!(matches!(copied(&from, &path("file")).await, Err(BackupError::Io { .. })));
    std::fs::create_dir(path("full")).unwrap();
    std::fs::write(path("full/x"), "x").unwrap();
    assert!(matches!(copied(&from, &path("full")).await, Err(BackupError::NotEmpty(_))));
    assert!(!to.exists() && std::fs::read_dir(path("full")).unwrap().count() == 1);
    copied(&from, &to).await.unwrap();
    assert!(matches!(copied(&from, &to).await, Err(BackupError::NotEmpty(_))), "no copy is written over");
    let life = open(&to);
    assert!(matches!(copied(&from, &to).await, Err(BackupError::NotEmpty(_))));
    end(life).await;
}

#[tokio::test]
async fn a_copy_that_did_not_end_is_no_store_and_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("store"), folder.path().join("copy"));
    let life = open(&from);
    put(&life.1, "orders", "x").await;
    end(life).await;
    std::fs::create_dir_all(to.join("db.unfinished/keyspaces")).unwrap();
    std::fs::write(to.join("LOCK"), "1\n").unwrap();
    for opened in [Store::open(Settings::new(&to)).map(drop), check(&to).map(drop)] {
        assert!(matches!(opened, Err(OpenError::Unfinished(_))), "{opened:?}");
    }
    copied(&from, &to).await.unwrap();
    assert_eq!(check(&to).unwrap().damaged, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_damaged_is_told_of_and_copied_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("store"), folder.path().join("copy"));
    let life = open(&from);
    let ids = [put(&life.1, "orders", "x").await, put(&life.1, "orders", "y").await];
    end(life).await;
    let db = fjall::Database::builder(from.join("db")).open().unwrap();
    let bucket = db.list_keyspace_names().into_iter().find(|name| name.starts_with("h.")).unwrap();
    let bucket = db.keyspace(&bucket, fjall::KeyspaceCreateOptions::default).unwrap();
    bucket.insert([&b"b"[..], &ids[1].offset().to_be_bytes()].concat(), b"not what was written").unwrap();
    drop((bucket, db));
    let report = copied(&from, &to).await.unwrap();
    assert_eq!(report.damaged, [format!("block {} of \"\"", ids[1].offset())]);
    assert_eq!(check(&to).unwrap().damaged, report.damaged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_closes_ends_the_copy() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("store");
    let life = open(&from);
    // More than sockets hold.
    let payload = "x".repeat(100_000);
    for _ in 0..50 {
        put(&life.1, "orders", &payload).await;
    }
    let sending = tokio::spawn({
        let store = Arc::clone(&life.0);
        async move { store.answer_backups().await }
    });
    let mut socket = loop {
        match tokio::net::UnixStream::connect(from.join("backup.sock")).await {
            Ok(socket) => break socket,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let mut greeting = [0; 16];
    soon(tokio::io::AsyncReadExt::read_exact(&mut socket, &mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"fanwire store 1\n");
    // Nobody reads the rest.
    soon(tokio::task::spawn_blocking({
        let life = life.clone();
        move || life.0.close()
    }))
    .await
    .unwrap();
    sending.abort();
    drop(life);
    drop(socket);
    let mut settings = Settings::new(&from);
    settings.min_free_bytes = 0;
    // What was being copied is let go a moment later.
    let opened = (0..600).find_map(|_| match Store::open(settings.clone()) {
        Ok(store) => Some(store),
        Err(_) => {
            std::thread::sleep(Duration::from_millis(50));
            None
        }
    });
    assert!(opened.is_some());
}
