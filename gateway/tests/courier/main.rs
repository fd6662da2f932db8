//! Couriers and a backend on loopback: what arrives, in which order, and what does not.

mod bounds;
mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gateway::client::{Answer, Caller};
use gateway::courier::{Courier, Receiver};
use gateway::delivery::{Bounds, Cause, Dead, Event};
use http::{Request, Uri};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::server::{start, status, with_body};

/// A dialect of lines: an event's id, and in an answer those that failed.
struct Lines {
    url: Uri,
    dead: Mutex<Vec<(String, Cause)>>,
}

impl Receiver for Lines {
    fn url(&self) -> &Uri {
        &self.url
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn request(&self, events: &[Arc<Event>]) -> Request<Bytes> {
        let lines: Vec<_> = events.iter().map(|event| event.id.as_str()).collect();
        Request::post(self.url.clone()).body(lines.join("\n").into()).unwrap()
    }

    fn failures(&self, _: &[Arc<Event>], answer: &Answer) -> Vec<String> {
        String::from_utf8_lossy(&answer.body).lines().map(str::to_owned).collect()
    }

    fn buried(&self, dead: Vec<Dead>) {
        self.dead.lock().extend(dead.into_iter().map(|dead| (dead.event.id.clone(), dead.cause)));
    }
}

fn courier(address: std::net::SocketAddr, bounds: Bounds) -> (Courier, Arc<Lines>) {
    let url = format!("http://{address}/").parse().unwrap();
    let lines = Arc::new(Lines { url, dead: Mutex::default() });
    let courier = Courier::start(bounds, Caller::new(None), lines.clone(), Arc::new(Semaphore::new(64)));
    (courier, lines)
}

fn event(id: usize, order: &str) -> Event {
    Event::new(id.to_string(), order, Bytes::from_static(b"{}"), Instant::now())
}

/// An address where nobody listens.
async fn nobody() -> std::net::SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn drained(courier: &Courier) {
    timeout(Duration::from_secs(60), courier.drained()).await.expect("everything is told or given up");
}

#[tokio::test]
async fn each_order_arrives_in_order() {
    let (address, came) = start(|_, _| status(204)).await;
    let (courier, lines) = courier(address, Bounds::default());
    (0..200).for_each(|id| courier.push(event(id, &format!("{}", id % 7))));
    drained(&courier).await;
    let came: Vec<usize> = came.lock().iter().map(|came| came.body.parse().unwrap()).collect();
    assert_eq!(came.len(), 200);
    for order in 0..7 {
        let of: Vec<_> = came.iter().filter(|id| *id % 7 == order).collect();
        assert!(of.is_sorted(), "{of:?}");
    }
    assert!(lines.dead.lock().is_empty());
}

#[tokio::test]
async fn one_bad_event_of_a_batch_of_a_hundred_is_the_only_one_that_is_lost() {
    let (address, came) = start(|_, came| match came.body.lines().any(|id| id == "67") {
        true => status(422),
        false => status(200),
    })
    .await;
    let bounds = {
        let mut bounds = Bounds::default();
        bounds.batch = 100;
        bounds
    };
    let (courier, lines) = courier(address, bounds);
    (0..100).for_each(|id| courier.push(event(id, "a")));
    drained(&courier).await;
    assert_eq!(*lines.dead.lock(), [("67".to_owned(), Cause::Rejected)]);
    let came = came.lock();
    assert!(came.len() <= 15, "{} calls", came.len());
    let ids = |came: &server::Came| came.body.lines().map(|id| id.parse().unwrap()).collect::<Vec<usize>>();
    let arrived: Vec<_> = came.iter().map(ids).filter(|ids| !ids.contains(&67)).flatten().collect();
    assert_eq!(arrived, (0..100).filter(|id| *id != 67).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_answer_that_names_what_failed_has_it_sent_again_alone() {
    let (address, came) = start(|number, _| if number == 0 { with_body("1") } else { status(200) }).await;
    let bounds = {
        let mut bounds = Bounds::default();
        bounds.batch = 10;
        bounds
    };
    let (courier, lines) = courier(address, bounds);
    (0..3).for_each(|id| courier.push(event(id, "a")));
    drained(&courier).await;
    let came: Vec<_> = came.lock().iter().map(|came| came.body.clone()).collect();
    assert_eq!(came, ["0\n1\n2", "1"]);
    assert!(lines.dead.lock().is_empty());
}

#[tokio::test]
async fn what_a_backend_that_broke_off_may_have_read_is_sent_again() {
    let (address, came) = start(|number, _| if number == 0 { String::new() } else { status(200) }).await;
    let (courier, _) = courier(address, Bounds::default());
    courier.push(event(1, "a"));
    drained(&courier).await;
    assert_eq!(came.lock().len(), 2);
}

#[tokio::test]
async fn a_backend_that_is_gone_gets_nothing_more_until_it_is_opened_again() {
    let (address, came) = start(|number, _| if number == 0 { status(410) } else { status(200) }).await;
    let (courier, lines) = courier(address, Bounds::default());
    courier.push(event(1, "a"));
    drained(&courier).await;
    assert_eq!(*lines.dead.lock(), [("1".to_owned(), Cause::Rejected)]);
    assert!(courier.load().is_closed);
    courier.push(event(2, "a"));
    let waits = timeout(Duration::from_millis(200), courier.drained()).await;
    assert!(waits.is_err() && came.lock().len() == 1);
    courier.reopen();
    drained(&courier).await;
    assert_eq!(came.lock().len(), 2);
}

#[tokio::test]
async fn while_a_host_is_left_alone_events_wait_untried_and_grow_old() {
    let address = nobody().await;
    let bounds = {
        let mut bounds = Bounds::default();
        bounds.max_age = Duration::from_secs(2);
        bounds
    };
    let (courier, lines) = courier(address, bounds);
    // Five connections that do not come about, then it is left alone for longer than events live.
    (0..20).for_each(|id| courier.push(event(id, &id.to_string())));
    drained(&courier).await;
    let dead = lines.dead.lock();
    assert_eq!(dead.len(), 20);
    assert!(dead.iter().all(|(_, cause)| *cause == Cause::Expired), "{dead:?}");
}
