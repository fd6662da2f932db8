//! Who sees a message: rights that are known late, that change, and that are not asked without need.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel as pair};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_core::{
    Action, After, Broker, Class, Config, Deliver, Delivery, GRANTED_TAG, Outbox, OutboxConfig, Principal,
    Publish, Rights, Rule, Sink, Start, Subscriber,
};
use bytes::Bytes;
use support::*;

/// A front's session: it remembers what it was shown and by which tags, and whose connection it is now.
#[derive(Default)]
struct Session {
    seen: Mutex<Vec<(String, Vec<u32>)>>,
    now: Mutex<Option<(Arc<Outbox>, Principal)>>,
}

impl Deliver for Session {
    fn deliver(&self, delivery: &Delivery, tags: &[u32], sink: &mut Sink<'_>) {
        if let Some((outbox, principal)) = &*self.now.lock().unwrap()
            && !sink.redirect_as(outbox, Some(principal), tags)
        {
            return;
        }
        let payload = delivery.message().payload();
        let text = String::from_utf8(payload.to_vec()).unwrap();
        self.seen.lock().unwrap().push((text, tags.to_vec()));
        sink.send(payload, Class::Droppable);
    }
}

impl Session {
    fn attach(broker: &Broker) -> (Arc<Self>, Subscriber) {
        let session = Arc::new(Self::default());
        let subscriber = broker.attach(session.clone(), OutboxConfig::default());
        (session, subscriber)
    }

    fn take(&self) -> Vec<(String, Vec<u32>)> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    fn texts(&self) -> Vec<String> {
        self.take().into_iter().map(|(text, _)| text).collect()
    }
}

/// Holds the lane at each message until it is let go.
struct Held(Mutex<(Sender<()>, Receiver<()>)>);

impl Deliver for Held {
    fn deliver(&self, _: &Delivery, _: &[u32], _: &mut Sink<'_>) {
        let held = self.0.lock().unwrap();
        held.0.send(()).unwrap();
        held.1.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}

/// A broker whose only lane stands still, until a message is sent to what is returned.
fn held_broker() -> (Broker, impl FnOnce(), Subscriber) {
    let mut config = Config::default();
    config.lanes = Some(1);
    let broker = Broker::new(config);
    let ((come, has_come), (let_go, gone)) = (pair(), pair());
    let holder = broker.attach(Arc::new(Held(Mutex::new((come, gone)))), OutboxConfig::default());
    holder.subscribe(&filter("hold"), 0, Start::Live).unwrap();
    publish(&broker, "hold", "");
    has_come.recv_timeout(Duration::from_secs(10)).unwrap();
    (broker, move || let_go.send(()).unwrap(), holder)
}

fn may(rights: &[&str], denied: &[&str]) -> Principal {
    let rule = |text: &&str| Rule::new([Action::Subscribe], filter(text));
    let rights = rights.iter().map(rule).fold(Rights::none(), Rights::allow);
    Principal::anonymous(denied.iter().map(rule).fold(rights, Rights::deny))
}

#[tokio::test]
async fn rights_that_are_known_after_attaching_hold_whatever_way_a_message_comes() {
    let broker = Broker::new(Config::default());
    let publish_all = |what: &str, retain: bool| {
        for name in ["a", "a/secret", "a/open", "b"] {
            let publish = Publish::new(channel(name), format!("{what} {name}")).retain(retain);
            broker.publish(publish).unwrap();
        }
    };
    publish_all("old", true);
    for start in [Start::Live, Start::Retained] {
        let (session, subscriber) = Session::attach(&broker);
        subscriber.set_rights(&may(&["a/**"], &["a/secret/#"]));
        subscriber.subscribe(&filter("a/#"), 0, start).unwrap();
        subscriber.subscribe(&filter("a/secret"), 1, start).unwrap();
        subscriber.join_group("g", &filter("a/*"), 2, &Default::default()).unwrap();
        publish_all("new", false);
        broker.drained().await;
        let mut expected = vec![("new a/open".to_owned(), vec![0, 2])];
        if start == Start::Retained {
            expected.insert(0, ("old a/open".to_owned(), vec![0]));
        }
        let mut seen = session.take();
        seen.iter_mut().for_each(|(_, tags)| tags.sort_unstable());
        assert_eq!(seen, expected, "{start:?}");
    }
    let (session, subscriber) = Session::attach(&broker);
    subscriber.set_rights(&may(&["a/**"], &["a/secret/#"]));
    let replay = subscriber.subscribe_after(&[(filter("#"), 0)], After::Earliest).unwrap();
    replay.run(|_| {}).await;
    assert_eq!(session.texts(), ["old a/open", "new a/open", "new a/open"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_lane_is_judged_by_the_rights_of_its_time() {
    let (broker, let_go, _holder) = held_broker();
    let (session, subscriber) = Session::attach(&broker);
    subscriber.set_rights(&may(&["#"], &[]));
    subscriber.subscribe(&filter("#"), 0, Start::Live).unwrap();
    let publish_both = |when: &str| {
        publish(&broker, "secret/x", format!("secret {when}"));
        publish(&broker, "open", format!("open {when}"));
    };
    publish_both("before");
    subscriber.set_rights(&may(&["#"], &["secret/#"]));
    publish_both("narrowed");
    subscriber.set_rights(&may(&["#"], &[]));
    publish_both("widened");
    let heard = subscriber.heard();
    let_go();
    heard.await;
    let expected = ["secret before", "open before", "open narrowed", "secret widened", "open widened"];
    assert_eq!(session.texts(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_changes_hands_shows_its_new_client_nothing_by_the_rights_of_the_last_one() {
    let (broker, let_go, _holder) = held_broker();
    let (session, subscriber) = Session::attach(&broker);
    let (first, second) = (may(&["#"], &[]), may(&["#"], &["secret/#"]));
    subscriber.set_rights(&first);
    *session.now.lock().unwrap() = Some((subscriber.outbox(), first));
    subscriber.subscribe(&filter("#"), 0, Start::Live).unwrap();
    publish(&broker, "secret/x", "secret before");
    publish(&broker, "open", "open before");
    // The next connection has come with an outbox of its own.
    let outbox = broker.attach(Arc::new(Session::default()), OutboxConfig::default()).outbox();
    subscriber.set_rights(&second);
    subscriber.adopt_outbox(&outbox);
    *session.now.lock().unwrap() = Some((outbox.clone(), second));
    publish(&broker, "secret/x", "secret after");
    publish(&broker, "open", "open after");
    let_go();
    broker.drained().await;
    assert_eq!(session.texts(), ["open before", "open after"]);
    assert_eq!(outbox.queued().messages, 2);
    assert!(Arc::ptr_eq(&subscriber.outbox(), &outbox));
}

#[tokio::test]
async fn what_is_granted_beside_the_rights_is_seen_but_for_what_they_deny() {
    let mut config = Config::default();
    config.lanes = Some(1);
    let broker = Broker::new(config);
    let (session, subscriber) = Session::attach(&broker);
    subscriber.set_rights(&may(&["a/**"], &["*/secret/#"]));
    subscriber.subscribe(&filter("a/#"), 0, Start::Live).unwrap();
    subscriber.subscribe(&filter("*/#"), GRANTED_TAG, Start::Live).unwrap();
    for name in ["a", "a/b", "a/secret", "b/secret/c", "b/c"] {
        publish(&broker, name, name.to_owned());
    }
    broker.drained().await;
    let mut seen = session.take();
    seen.iter_mut().for_each(|(_, tags)| tags.sort_unstable());
    let granted = |name: &str| (name.to_owned(), vec![GRANTED_TAG]);
    assert_eq!(seen, [granted("a"), ("a/b".to_owned(), vec![0, GRANTED_TAG]), granted("b/c")]);
}

/// Shares one frame among all, and counts what it is asked beside that.
#[derive(Default)]
struct Sharing(AtomicUsize);

impl Deliver for Sharing {
    fn deliver(&self, delivery: &Delivery, _: &[u32], sink: &mut Sink<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        sink.send(delivery.message().payload(), Class::Droppable);
    }

    fn shared_frame<'d>(&self, delivery: &'d Delivery, _: &[u32], _: &Arc<Outbox>) -> Option<&'d Bytes> {
        Some(delivery.message().payload())
    }
}

#[tokio::test]
async fn a_burst_is_one_write_unless_something_of_it_is_hidden() {
    for (text, names, shown, one_by_one) in [
        ("a/open/#", [&["a/open/1"; 20][..], &["a/open"; 20]].concat(), 40, 0),
        ("a/#", ["a/open/1"; 20].to_vec(), 20, 0),
        ("a/#", ["a/secret"; 20].to_vec(), 0, 0),
    ] {
        let broker = Broker::new({
            let mut config = Config::default();
            config.lanes = Some(1);
            config
        });
        let sharing = Arc::new(Sharing::default());
        let subscriber = broker.attach_as(
            sharing.clone(),
            OutboxConfig::default(),
            &may(&["a/#"], &["a/secret/#", "other/#"]),
        );
        subscriber.subscribe(&filter(text), 0, Start::Live).unwrap();
        for name in &names {
            publish(&broker, name, "x");
        }
        broker.drained().await;
        assert_eq!(subscriber.outbox().queued().messages, shown, "{text} {}", names[0]);
        assert_eq!(sharing.0.load(Ordering::Relaxed), one_by_one, "{text} {}", names[0]);
    }
}

/// Panics once.
struct Bad(AtomicUsize);

impl Deliver for Bad {
    fn deliver(&self, delivery: &Delivery, _: &[u32], sink: &mut Sink<'_>) {
        assert!(self.0.fetch_add(1, Ordering::Relaxed) > 0, "as told");
        sink.send(delivery.message().payload(), Class::Control);
    }
}

#[tokio::test]
async fn a_session_that_panicked_has_its_next_try_with_the_rights_that_it_has_then() {
    let mut config = Config::default();
    config.lanes = Some(1);
    let broker = Broker::new(config);
    let subscriber = broker.attach(Arc::new(Bad(AtomicUsize::new(0))), OutboxConfig::default());
    subscriber.set_rights(&may(&["#"], &[]));
    subscriber.subscribe(&filter("#"), 0, Start::Live).unwrap();
    publish(&broker, "secret", "x");
    broker.drained().await;
    assert!(subscriber.outbox().closed().is_some());
    subscriber.set_rights(&may(&["#"], &["secret"]));
    let outbox = subscriber.renew_outbox(OutboxConfig::default());
    for name in ["secret", "open"] {
        publish(&broker, name, "y");
    }
    broker.drained().await;
    assert_eq!(outbox.queued().messages, 1);
}
