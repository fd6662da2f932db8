//! While the disk is slow, what has nothing to do with it goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use broker_core::{
    Broker, Channel, Claim, Config, Ends, Fence, MessageId, NamespaceConfig, Publish, SessionRecord, unix_ms,
};
use parking_lot::Mutex;
use store::{Durability, Namespace, Settings, Store};

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it does not come")
}

/// A disk that can be stopped: the next commit says that it has come, and waits to be told to go on.
struct Gate {
    is_shut: AtomicBool,
    come: SyncSender<()>,
    go: Mutex<Receiver<()>>,
}

impl Gate {
    fn pass(&self) {
        if self.is_shut.swap(false, Ordering::SeqCst) {
            _ = self.come.send(());
            _ = self.go.lock().recv_timeout(Duration::from_secs(60));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_waits_while_sessions_that_are_over_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(folder.path());
    settings.min_free_bytes = 0;
    settings.namespaces = vec![Namespace::new("memory", Durability::Memory)];
    let (come, has_come) = sync_channel(1);
    let (go, goes) = sync_channel(1);
    let gate = Arc::new(Gate { is_shut: AtomicBool::new(false), come, go: Mutex::new(goes) });
    let store = Arc::new(
        Store::open_on(settings, {
            let gate = gate.clone();
            move || gate.pass()
        })
        .unwrap(),
    );
    let mut config = Config::default();
    config.namespaces = vec![NamespaceConfig::new("memory", Default::default())];
    let broker = Broker::with_engine(config, Arc::clone(&store) as _);
    let head = broker.kept_head().map(|head| MessageId::new(head.epoch(), head.offset()));
    let record = |ends| Some(SessionRecord::new("state", head).ending(ends));

    let old = soon(broker.claim_session("old", Claim::Resume)).await.unwrap();
    soon(broker.record_session("old", old.fence, record(Ends::At(unix_ms() + 1)))).await.unwrap();
    // From here on the next that writes is whoever deletes it, within a second.
    gate.is_shut.store(true, Ordering::SeqCst);
    let waiting = tokio::task::spawn_blocking(move || has_come.recv_timeout(Duration::from_secs(30)));
    soon(waiting).await.unwrap().expect("it is deleted");

    // On threads of their own, so that one that waits shows.
    let done = tokio::task::spawn_blocking({
        let (broker, store) = (broker.clone(), Arc::clone(&store));
        move || {
            let claimed = broker.claim_session("new", Claim::Resume);
            let publish = Publish::new(Channel::parse("memory/chat").unwrap(), "x");
            (claimed, broker.publish(publish).is_ok(), store.stats().sessions)
        }
    });
    let (claimed, is_published, sessions) = soon(done).await.unwrap();
    assert!(is_published && sessions == 1);
    assert_ne!(soon(claimed).await.unwrap().fence, Fence::default());
    let again = tokio::spawn(broker.claim_session("old", Claim::Resume));
    go.send(()).unwrap();
    let again = soon(again).await.unwrap().unwrap();
    assert_eq!(again.record, None, "its time was over");
    soon(broker.record_session("old", again.fence, record(Ends::Never))).await.unwrap();
    soon(broker.drained()).await;
    broker.close();
    store.close();
}
