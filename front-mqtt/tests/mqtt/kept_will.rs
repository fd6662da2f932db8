//! Wills of sessions that an engine keeps, after the end of the server they were left with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker_core::{
    Answer, Claim, Claimed, Engine, Ingest, LogPage, MessageId, Op, Read, Reject, Rejected, Unavailable,
};
use conformance::{Ground, PacedGround};

use crate::client::*;
use crate::exact::history;
use crate::kept::life;
use crate::support::Server;
use crate::will::with_will;

/// A life that publishes what an earlier one left, without a client.
async fn next_life(ground: &dyn Ground) -> Server {
    let server = life(ground).await;
    server.front.begin();
    server
}

/// What was published of this client by now.
async fn told(server: &Server, id: &str, count: usize) -> Vec<String> {
    for _ in 0..500 {
        let published = history(server, &format!("w/{id}")).await;
        if published.len() >= count {
            return published;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the will of {id} is not published");
}

/// Longer than any session of these tests that ends.
async fn wait() {
    tokio::time::sleep(Duration::from_millis(2_600)).await;
}

/// A life of a server that ends as by a crash: nothing of it goes on. What is returned ends after it.
fn in_a_life<T>(life: impl Future<Output = T>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let ends_after = runtime.block_on(life);
    runtime.shutdown_background();
    drop(ends_after);
}

async fn come(server: &Server, connect: &[u8], present: bool) -> Client {
    let (client, is_present) = Client::connected_with(server.address, connect).await;
    assert_eq!(is_present, present);
    client
}

#[test]
fn who_was_here_at_a_crash_and_does_not_come_back_leaves_its_will_once() {
    let ground = PacedGround::default();
    let without = |id: &str| connect(5, id, false, 0, &[0x11, 0, 0, 0, 100]);
    in_a_life(async {
        let server = life(&ground).await;
        let mut here = Vec::new();
        // The sessions of two end before the time to come back would.
        for (id, expiry, delay) in [("gone", 1, 0), ("late", 200, 100), ("back", 2, 0), ("bye", 100, 0)] {
            here.push(come(&server, &with_will(5, id, false, 0, expiry, delay), false).await);
        }
        let mut bye = here.pop().unwrap();
        bye.send(DISCONNECT).await;
        bye.expect_closed().await;
        tokio::time::sleep(QUIET).await;
        here
    });
    in_a_life(async {
        let server = next_life(&ground).await;
        let back = come(&server, &without("back"), true).await;
        assert_eq!(told(&server, "gone", 1).await, ["gone"]);
        wait().await;
        for (id, count) in [("gone", 1), ("late", 0), ("back", 0), ("bye", 0)] {
            assert_eq!(history(&server, &format!("w/{id}")).await.len(), count, "{id}");
        }
        // Its session is over.
        (back, come(&server, &without("gone"), false).await)
    });
    in_a_life(async {
        let server = next_life(&ground).await;
        wait().await;
        for (id, count) in [("gone", 1), ("late", 0), ("back", 0), ("bye", 0)] {
            assert_eq!(history(&server, &format!("w/{id}")).await.len(), count, "{id}");
        }
        for id in ["gone", "late", "back", "bye"] {
            come(&server, &without(id), true).await;
        }
    });
}

#[test]
fn a_delayed_will_of_the_absent_keeps_its_time_over_a_crash() {
    let ground = PacedGround::default();
    let without = |id: &str, clean| connect(5, id, clean, 0, &[0x11, 0, 0, 0, 100]);
    in_a_life(async {
        let server = life(&ground).await;
        for (id, delay) in [("soon", 1), ("back", 2), ("later", 100)] {
            drop(come(&server, &with_will(5, id, false, 0, 200, delay), false).await);
        }
        // The ends of the connections are recorded.
        for _ in 0..500 {
            if server.front.stats().connections == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("the connections do not end");
    });
    in_a_life(async {
        let server = next_life(&ground).await;
        let back = come(&server, &without("back", false), true).await;
        assert_eq!(told(&server, "soon", 1).await, ["gone"]);
        wait().await;
        for (id, count) in [("soon", 1), ("back", 0), ("later", 0)] {
            assert_eq!(history(&server, &format!("w/{id}")).await.len(), count, "{id}");
        }
        // Whoever begins anew ends the session that had it.
        let clean = come(&server, &without("later", true), false).await;
        assert_eq!(told(&server, "later", 1).await, ["gone"]);
        // A session is there without its will.
        (back, clean, come(&server, &without("soon", false), true).await)
    });
}

/// The message is there, and that it was published is not recorded when the server goes again.
#[tokio::test]
async fn a_second_crash_publishes_no_will_again() {
    let ground = Forgetful { inner: PacedGround::default(), forgets: Arc::default() };
    let server = life(&ground).await;
    let (_gone, _) = Client::connected_with(server.address, &with_will(5, "gone", false, 0, 1, 0)).await;
    ground.forgets.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let server = next_life(&ground).await;
        assert_eq!(told(&server, "gone", 1).await, ["gone"]);
        wait().await;
        assert_eq!(history(&server, "w/gone").await, ["gone"]);
    }
    ground.forgets.store(false, Ordering::SeqCst);
    let server = next_life(&ground).await;
    wait().await;
    assert_eq!(history(&server, "w/gone").await, ["gone"]);
    assert_eq!(server.broker.wills(), [], "it is recorded at last");
}

/// A connection that is lost while the server lives leaves its will in one life or the other.
#[tokio::test]
async fn a_will_that_was_published_is_not_there_in_the_next_life() {
    let ground = Forgetful { inner: PacedGround::default(), forgets: Arc::default() };
    let server = life(&ground).await;
    let (gone, _) = Client::connected_with(server.address, &with_will(5, "gone", false, 0, 1, 0)).await;
    ground.forgets.store(true, Ordering::SeqCst);
    drop(gone);
    assert_eq!(told(&server, "gone", 1).await, ["gone"]);
    ground.forgets.store(false, Ordering::SeqCst);
    let server = next_life(&ground).await;
    wait().await;
    assert_eq!(history(&server, "w/gone").await, ["gone"]);
}

/// Lives whose engine records no session while it is told so.
struct Forgetful {
    inner: PacedGround,
    forgets: Arc<AtomicBool>,
}

impl Ground for Forgetful {
    fn open(&self) -> Arc<dyn Engine> {
        Arc::new(Forgets { inner: self.inner.open(), forgets: self.forgets.clone() })
    }

    fn end(&self, _: Arc<dyn Engine>) {}
}

struct Forgets {
    inner: Arc<dyn Engine>,
    forgets: Arc<AtomicBool>,
}

impl Engine for Forgets {
    fn keeps(&self, namespace: &str) -> bool {
        self.inner.keeps(namespace)
    }

    fn head(&self) -> MessageId {
        self.inner.head()
    }

    fn start(&self, ingest: Arc<dyn Ingest>) {
        self.inner.start(ingest);
    }

    fn submit(&self, op: Op) -> Result<(), Rejected> {
        if self.forgets.load(Ordering::SeqCst) && matches!(op, Op::Session { .. }) {
            return Err(Rejected::new(Reject::Unavailable(Unavailable::new(Duration::from_secs(1))), op));
        }
        self.inner.submit(op)
    }

    fn claim(&self, session: &str, claim: Claim) -> Answer<'static, Result<Claimed, Unavailable>> {
        self.inner.claim(session, claim)
    }

    fn wills(&self) -> Vec<(Box<str>, u64)> {
        self.inner.wills()
    }

    fn read(&self, read: Read) -> Answer<'static, Result<LogPage, Unavailable>> {
        self.inner.read(read)
    }
}
