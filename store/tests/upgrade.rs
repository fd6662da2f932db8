//! A store that an older version wrote: in schema 1 each message had two rows of its own, in schema 2 each batch one for
//! each of its channels.

use std::collections::BTreeMap;
use std::path::Path;

use broker_core::{Broker, Channel, Filter, HistoryQuery, MessageId, Order, Publish};
use fjall::{Database, KeyspaceCreateOptions};
use store::{backup, check};

use self::lives::{end, open, soon};

mod lives;

async fn put(broker: &Broker, channel: &str, payload: &str) -> MessageId {
    let publish = Publish::new(Channel::parse(channel).unwrap(), payload.to_owned());
    soon(broker.publish_wait(publish)).await.unwrap().id.unwrap()
}

async fn history(broker: &Broker, text: &str, after: Option<MessageId>, order: Order) -> Vec<String> {
    let mut query = HistoryQuery::default();
    (query.after, query.limit, query.order) = (after.map(Into::into), 1_000, order);
    let history = soon(broker.read_history(&Filter::parse(text).unwrap(), query)).await.unwrap();
    assert!(!history.gap);
    history.messages.iter().map(|message| String::from_utf8_lossy(message.payload()).into_owned()).collect()
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap()))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Writes a store as a version before this one did.
fn write_back(directory: &Path, schema: u32) {
    let db = Database::builder(directory.join("db")).open().unwrap();
    let meta = db.keyspace("meta", KeyspaceCreateOptions::default).unwrap();
    assert_eq!(*meta.get("schema").unwrap().unwrap(), 3_u32.to_be_bytes());
    meta.insert("schema", schema.to_be_bytes()).unwrap();
    for row in meta.prefix("b") {
        let (key, value) = row.into_inner().unwrap();
        assert_eq!(value.len(), 56);
        let held =
            if schema == 1 { value[..40].to_vec() } else { [&value[..40], &2_u64.to_be_bytes()].concat() };
        meta.insert(key, held).unwrap();
    }
    for name in db.list_keyspace_names().into_iter().filter(|name| name.starts_with("h.")) {
        let bucket = db.keyspace(&name, KeyspaceCreateOptions::default).unwrap();
        let rows: Vec<_> = bucket.iter().map(|row| row.into_inner().unwrap()).collect();
        for (key, _) in &rows {
            bucket.remove(key.clone()).unwrap();
        }
        for (key, value) in rows.into_iter().filter(|(key, _)| key[0] == b'b') {
            let (first, count) = (u64_at(&key, 1), u16_at(&value, 6) as usize);
            let (table, records) = value[8..].split_at(14 * count);
            let (mut lines, mut runs, mut begin) = (Vec::new(), BTreeMap::<_, Vec<u8>>::new(), 0);
            for line in table.chunks(14) {
                let (channel, line) = line.split_at(8);
                let end = u32::from_be_bytes(line[2..].try_into().unwrap()) as usize;
                let offset = first + u16_at(line, 0);
                lines.extend_from_slice(line);
                runs.entry(channel.to_vec()).or_default().extend([line[0], line[1], 0, 0]);
                if schema == 1 {
                    bucket.insert([&b"m"[..], &offset.to_be_bytes()].concat(), &records[begin..end]).unwrap();
                    bucket.insert([&b"c"[..], channel, &offset.to_be_bytes()].concat(), []).unwrap();
                }
                begin = end;
            }
            if schema == 2 {
                let summed = [&value[4..8], &lines].concat();
                let row = [&crc32fast::hash(&summed).to_be_bytes()[..], &summed, records].concat();
                bucket.insert(key, row).unwrap();
                for (channel, run) in runs {
                    bucket.insert([&b"i"[..], &channel, &first.to_be_bytes()].concat(), run).unwrap();
                }
            }
        }
    }
}

#[tokio::test]
async fn what_schema_1_wrote_is_read_and_goes_on_as_of_now() {
    goes_on_after(1).await;
}

#[tokio::test]
async fn what_schema_2_wrote_is_read_and_goes_on_as_of_now() {
    goes_on_after(2).await;
}

async fn goes_on_after(schema: u32) {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let life = open(&path);
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(put(&life.1, &format!("orders/{}", n % 2), &n.to_string()).await);
    }
    end(life).await;
    write_back(&path, schema);

    // Looking changes nothing.
    for _ in 0..2 {
        let report = check(&path).unwrap();
        assert!(
            report.damaged.is_empty() && report.to_string().starts_with("orders messages=20 "),
            "{report:?}"
        );
    }
    backup(&path, &copy).unwrap();
    for path in [&path, &copy] {
        let life = open(path);
        let all = history(&life.1, "orders/*", None, Order::Oldest).await;
        assert_eq!(all, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
        for n in 20..40 {
            put(&life.1, &format!("orders/{}", n % 2), &n.to_string()).await;
        }
        end(life).await;
        let life = open(path);
        let mut odd: Vec<_> = (0..40).filter(|n| n % 2 == 1).map(|n| n.to_string()).collect();
        assert_eq!(history(&life.1, "orders/1", None, Order::Oldest).await, odd);
        // Over the seam in both ways of looking.
        assert_eq!(history(&life.1, "orders/1", Some(ids[15]), Order::Oldest).await, odd[8..]);
        let behind: Vec<_> = (16..40).map(|n| n.to_string()).collect();
        assert_eq!(history(&life.1, "#", Some(ids[15]), Order::Oldest).await, behind);
        odd.reverse();
        assert_eq!(history(&life.1, "orders/1", None, Order::Newest).await, odd);
        end(life).await;
        let report = check(path).unwrap();
        assert!(
            report.damaged.is_empty() && report.to_string().starts_with("orders messages=40 "),
            "{report:?}"
        );
        let db = Database::builder(path.join("db")).open().unwrap();
        let meta = db.keyspace("meta", KeyspaceCreateOptions::default).unwrap();
        assert_eq!(*meta.get("schema").unwrap().unwrap(), 3_u32.to_be_bytes(), "older versions refuse it");
        assert_eq!(meta.prefix("b").count(), 2, "the old bucket is not written to any more");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_many_publish_at_once_is_found_by_channel_and_by_filter_from_any_position() {
    let folder = tempfile::tempdir().unwrap();
    let life = open(folder.path());
    let mut publishing = tokio::task::JoinSet::new();
    for writer in 0..40 {
        let broker = life.1.clone();
        publishing.spawn(async move {
            let mut ids = Vec::new();
            for n in 0..50 {
                let channel = format!("orders/{}/{}", writer % 5, n % 3);
                // Nobody waits for some of them.
                if n % 4 == 3 {
                    let publish = Publish::new(Channel::parse(&channel).unwrap(), format!("{writer} {n}"));
                    broker.post(publish).unwrap();
                } else {
                    ids.push((
                        put(&broker, &channel, &format!("{writer} {n}")).await,
                        channel,
                        format!("{writer} {n}"),
                    ));
                }
            }
            ids
        });
    }
    let mut all = Vec::new();
    while let Some(ids) = publishing.join_next().await {
        all.extend(ids.unwrap());
    }
    all.sort_by_key(|(id, ..)| id.offset());
    end(life).await;
    let life = open(folder.path());
    for (filter, channels) in [("orders/1/2", "orders/1/2"), ("orders/*/0", "/0"), ("orders/**", "orders")] {
        for (at, _) in all.iter().enumerate().step_by(97) {
            let after = all[at].0;
            let expected: Vec<_> = all[at + 1..]
                .iter()
                .filter(|(_, channel, _)| {
                    channel.contains(channels) && (channels != "/0" || channel.ends_with("/0"))
                })
                .collect();
            let mut found = history(&life.1, filter, Some(after), Order::Oldest).await;
            let position = |text: &str| found.iter().position(|found| found == text);
            let places: Vec<_> = expected.iter().take(300).map(|(_, _, text)| position(text)).collect();
            assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{filter} {at}");
            let mut newest = history(&life.1, filter, None, Order::Newest).await;
            newest.truncate(found.len());
            newest.reverse();
            if newest.len() < 1_000 {
                assert_eq!(newest, found, "{filter} {at}");
            }
            found.dedup();
        }
    }
    let report = check(folder.path());
    assert!(report.is_err(), "it is open");
    end(life).await;
    let report = check(folder.path()).unwrap();
    assert!(
        report.damaged.is_empty() && report.to_string().starts_with("orders messages=2000 "),
        "{report:?}"
    );
}
