//! Who hears of clients hears all of it, in order, once.

mod support;

use std::sync::{Arc, Weak};

use broker_core::{
    Account, Broker, Class, CloseCause, Config, Connection, Deliver, Delivery, Details, Filter, ForcedError,
    Interest, LeaveReason, Left, Lifecycle, OutboxConfig, Peer, Principal, Queued, Rights, Room, Sink, Start,
    Subscribed, Subscriber, SubscriberKey,
};
use parking_lot::Mutex;
use support::*;

struct Plain;

impl Deliver for Plain {
    fn deliver(&self, delivery: &Delivery, _: &[u32], sink: &mut Sink<'_>) {
        sink.send(delivery.message().payload(), Class::Droppable);
    }
}

struct Client(Subscriber);

impl Client {
    fn new(broker: &Broker) -> Arc<Client> {
        let client = Arc::new(Client(broker.attach(Arc::new(Plain), OutboxConfig::default())));
        client.0.register_connection(&client);
        client
    }

    fn subscribe(&self, text: &str) {
        self.0.subscribe(&filter(text), 0, Start::Live).unwrap();
    }
}

impl Connection for Client {
    fn peer(&self) -> Option<Peer> {
        let principal = Principal::user_with("ann", Rights::all());
        Some(Peer::new(principal, "test", "none", 0))
    }
    fn details(&self) -> Details {
        Details::default()
    }
    fn queued(&self) -> Queued {
        Queued::default()
    }
    fn close(&self, _: &CloseCause) {}
    fn subscribe(&self, _: &Filter) -> Result<Subscribed, ForcedError> {
        Err(ForcedError::Gone)
    }
    fn unsubscribe(&self, _: &Filter) -> bool {
        false
    }
}

/// Writes down what it hears, and asks the broker meanwhile, which must not lock anybody up.
struct Ears {
    heard: Mutex<Vec<String>>,
    broker: Broker,
}

impl Ears {
    fn of(broker: &Broker) -> Arc<Ears> {
        let ears = Arc::new(Ears { heard: Mutex::default(), broker: broker.clone() });
        broker.hear(Arc::clone(&ears) as Arc<dyn Lifecycle>);
        ears
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.lock())
    }

    fn note(&self, text: String) {
        _ = self.broker.connections(None, 10);
        self.heard.lock().push(text);
    }
}

impl Lifecycle for Ears {
    fn joined(&self, _: SubscriberKey, connection: &Arc<dyn Connection>) {
        let peer = connection.peer().expect("somebody is there");
        self.note(format!("joined {}", peer.principal.user().expect("a name")));
    }
    fn subscribed(&self, _: SubscriberKey, Interest { filter, group, .. }: Interest<'_>) {
        self.note(format!("subscribed {filter} {group:?}"));
    }
    fn unsubscribed(&self, _: SubscriberKey, Interest { filter, group, .. }: Interest<'_>) {
        self.note(format!("unsubscribed {filter} {group:?}"));
    }
    fn left(&self, _: SubscriberKey, how: Left, account: &Account<'_>) {
        let away = if account.was_here { "" } else { ", away" };
        self.note(format!("left {} {}{away}", how.why, how.stays));
    }
}

#[tokio::test]
async fn a_life_is_told_in_order() {
    let broker = Broker::new(Config::default());
    let ears = Ears::of(&broker);
    let client = Client::new(&broker);
    client.subscribe("a");
    assert!(ears.take().is_empty(), "nobody is there yet");
    client.0.join();
    client.subscribe("a");
    client.subscribe("b/*");
    client.0.join_group("g", &filter("c"), 1, &Arc::new(Room::default())).unwrap();
    client.0.unsubscribe(&filter("b/*"), 0);
    client.0.unsubscribe(&filter("b/*"), 0);
    client.0.leave_group("g", &filter("c"), 1);
    client.0.leave(Left::for_good(LeaveReason::TooSlow), &Account::default());
    client.0.leave(Left::for_good(LeaveReason::Client), &Account::default());
    client.subscribe("late");
    drop(client);
    let expected = [
        "joined ann",
        "subscribed a None",
        "subscribed b/* None",
        "subscribed c Some(\"g\")",
        "unsubscribed b/* None",
        "unsubscribed c Some(\"g\")",
        "left too_slow false",
    ];
    assert_eq!(ears.take(), expected);
}

#[tokio::test]
async fn who_comes_back_joins_again_and_leaves_for_good_once() {
    let broker = Broker::new(Config::default());
    let ears = Ears::of(&broker);
    let client = Client::new(&broker);
    client.subscribe("a");
    client.0.join();
    client.0.leave(Left::for_now(LeaveReason::Lost), &Account::default());
    client.0.leave(Left::for_now(LeaveReason::Lost), &Account::default());
    client.0.join();
    // Another connection takes the session from one that is still there.
    client.0.join();
    drop(client);
    let expected = [
        "joined ann",
        "subscribed a None",
        "left lost true",
        "joined ann",
        "left taken_over true",
        "joined ann",
        "left lost false",
    ];
    assert_eq!(ears.take(), expected);
    let client = Client::new(&broker);
    client.0.join();
    client.0.leave(Left::for_now(LeaveReason::Client), &Account::default());
    client.0.leave(Left::for_good(LeaveReason::Expired), &Account::default());
    drop(client);
    assert_eq!(ears.take(), ["joined ann", "left client true", "left expired false, away"]);
}

#[tokio::test]
async fn who_was_there_before_is_not_told_of_and_in_process_subscriptions_are_nobody() {
    let broker = Broker::new(Config::default());
    let before = Client::new(&broker);
    before.0.join();
    let ears = Ears::of(&broker);
    before.subscribe("a");
    drop(before);
    drop(broker.subscribe(filter("a")).unwrap());
    assert!(ears.take().is_empty());
}

#[tokio::test]
async fn a_listener_that_panics_ends_nobody() {
    struct Broken;
    impl Lifecycle for Broken {
        fn joined(&self, _: SubscriberKey, _: &Arc<dyn Connection>) {
            panic!("as a test");
        }
    }
    let broker = Broker::new(Config::default());
    broker.hear(Arc::new(Broken));
    let ears = Ears::of(&broker);
    let client = Client::new(&broker);
    client.0.join();
    assert_eq!(ears.take(), ["joined ann"], "the others still hear");
    let weak: Weak<Client> = Arc::downgrade(&client);
    drop(client);
    assert!(weak.upgrade().is_none());
}
