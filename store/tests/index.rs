//! So many messages that rows which tell where they are are written, and whoever looks meanwhile.

use std::path::Path;
use std::sync::Arc;

use broker_core::{Broker, Channel, Filter, HistoryQuery, Order, Publish};
use store::{backup, check};
use tokio::task::JoinSet;

use self::lives::{end, open, soon};

mod lives;

const WRITERS: usize = 64;
const EACH: usize = 400;
/// Of a channel that is looked through.
const PAGE: usize = 700;

/// Half of them go to channels of their own, the others to one of a few.
fn channel(writer: usize, n: usize) -> String {
    if n.is_multiple_of(2) { format!("orders/{writer}/{n}") } else { format!("orders/hot/{}", writer % 4) }
}

/// All of a channel, page by page.
async fn read(broker: &Broker, text: &str, order: Order) -> Vec<String> {
    let mut query = HistoryQuery::default();
    (query.limit, query.order) = (PAGE, order);
    let mut all = Vec::new();
    loop {
        let history = soon(broker.read_history(&Filter::parse(text).unwrap(), query)).await.unwrap();
        assert!(!history.gap);
        all.extend(
            history.messages.iter().map(|message| String::from_utf8_lossy(message.payload()).into_owned()),
        );
        let Some(last) = history.messages.last().filter(|_| history.messages.len() == PAGE) else {
            return all;
        };
        match order {
            Order::Oldest => query.after = last.id().map(Into::into),
            _ => return all,
        }
    }
}

/// Everything is found by its channel, once and in order.
async fn look(broker: &Broker, published: usize) {
    for hot in 0..4 {
        let all = read(broker, &format!("orders/hot/{hot}"), Order::Oldest).await;
        assert_eq!(all.len(), published / 2 * WRITERS / 4, "{hot}");
        for writer in (hot..WRITERS).step_by(4) {
            let own = all.iter().filter_map(|text| text.strip_prefix(&format!("{writer} ")));
            let own: Vec<usize> = own.map(|n| n.parse().unwrap()).collect();
            assert_eq!(own, (1..published).step_by(2).collect::<Vec<_>>(), "{writer}");
        }
        let mut newest = read(broker, &format!("orders/hot/{hot}"), Order::Newest).await;
        newest.reverse();
        assert_eq!(newest, all[all.len() - newest.len()..], "{hot}");
    }
    for (writer, n) in (0..WRITERS).zip((0..published).step_by(2).cycle().skip(7)) {
        let own = read(broker, &channel(writer, n), Order::Oldest).await;
        assert_eq!(own, [format!("{writer} {n}")]);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let path = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy(&entry.path(), &path),
            kind if kind.is_file() => _ = std::fs::copy(entry.path(), path).unwrap(),
            // The socket.
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_channel_has_is_found_before_and_after_rows_tell_of_it_and_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let (path, crashed, copied) =
        (folder.path().join("store"), folder.path().join("crashed"), folder.path().join("copied"));
    let (store, broker) = open(&path);
    let sending = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.answer_backups().await }
    });
    for quarter in 0..4 {
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let broker = broker.clone();
            writers.spawn(async move {
                for n in quarter * EACH / 4..(quarter + 1) * EACH / 4 {
                    let channel = Channel::parse(&channel(writer, n)).unwrap();
                    let publish = Publish::new(channel, format!("{writer} {n}"));
                    soon(broker.publish_wait(publish)).await.unwrap();
                }
            });
        }
        // Somebody looks while they are written.
        let first = read(&broker, "orders/hot/1", Order::Oldest).await;
        let then = read(&broker, "orders/hot/1", Order::Oldest).await;
        assert_eq!(then[..first.len()], first);
        soon(writers.join_all()).await;
        look(&broker, (quarter + 1) * EACH / 4).await;
    }
    let (from, to) = (path.clone(), copied.clone());
    soon(tokio::task::spawn_blocking(move || backup(&from, &to))).await.unwrap().unwrap();
    copy(&path, &crashed);
    end((store, broker)).await;
    sending.abort();
    _ = sending.await;
    // Of a life that ended in peace nothing is left to be read again.
    let db = fjall::Database::builder(path.join("db")).open().unwrap();
    let meta = db.keyspace("meta", fjall::KeyspaceCreateOptions::default).unwrap();
    for row in meta.prefix("b") {
        let (_, row) = row.into_inner().unwrap();
        let number = |at: usize| u64::from_be_bytes(row[at..at + 8].try_into().unwrap());
        assert!(number(16) <= number(48), "{} of {}", number(48), number(16));
    }
    drop((meta, db));
    for path in [path, crashed, copied] {
        let report = check(&path).unwrap();
        let expected = format!("orders messages={} ", WRITERS * EACH);
        assert!(report.damaged.is_empty() && report.to_string().starts_with(&expected), "{report}");
        let life = open(&path);
        look(&life.1, EACH).await;
        end(life).await;
    }
}
