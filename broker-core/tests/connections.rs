//! Attached clients: finding, listing and addressing them.

mod support;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use broker_core::{
    Broker, Class, CloseCause, Config, Connection, Deliver, Delivery, Details, Filter, ForcedError,
    OutboxConfig, OutboxPolicy, Peer, Principal, Publish, Queued, Rights, Rule, SendError, Sink, Start,
    Subscribed, Subscriber, SubscriberKey,
};
use support::*;

/// Writes payloads as they are; queues by itself nothing.
struct Plain;

impl Deliver for Plain {
    fn deliver(&self, delivery: &Delivery, _: &[u32], sink: &mut Sink<'_>) {
        if delivery.message().channel().as_str() == "unspeakable" {
            return sink.refuse(SendError::Inexpressible);
        }
        sink.send(delivery.message().payload(), Class::Droppable);
    }
}

struct Client {
    subscriber: Subscriber,
    principal: Principal,
    closed: OnceLock<CloseCause>,
}

impl Client {
    fn attach(broker: &Broker, outbox: OutboxConfig, filters: &[&str]) -> Arc<Client> {
        let principal = Principal::user_with("ann", Rights::all().deny(Rule::all(filter("secret/#"))));
        let subscriber = broker.attach_as(Arc::new(Plain), outbox, &principal);
        for (text, tag) in filters.iter().zip(0..) {
            subscriber.subscribe(&filter(text), tag, Start::Live).unwrap();
        }
        let client = Arc::new(Client { subscriber, principal, closed: OnceLock::new() });
        client.subscriber.register_connection(&client);
        client
    }

    fn new(broker: &Broker, filters: &[&str]) -> Arc<Client> {
        Client::attach(broker, OutboxConfig::default(), filters)
    }

    fn key(&self) -> SubscriberKey {
        self.subscriber.key()
    }

    fn waiting(&self) -> Vec<bytes::Bytes> {
        self.subscriber.outbox().take(usize::MAX)
    }
}

impl Connection for Client {
    fn peer(&self) -> Option<Peer> {
        let principal = self.principal.clone();
        let open = self.closed.get().is_none();
        open.then_some(Peer::new(principal, "test", "none", 1))
    }

    fn details(&self) -> Details {
        let subscriptions = self.subscriber.subscriptions().iter().map(Filter::to_string).collect();
        let mut details = Details::default();
        details.client_id = Some("c".to_owned());
        details.subscriptions = subscriptions;
        details
    }

    fn queued(&self) -> Queued {
        self.subscriber.outbox().queued()
    }

    fn close(&self, why: &CloseCause) {
        _ = self.closed.set(why.clone());
    }

    fn subscribe(&self, filter: &Filter) -> Result<Subscribed, ForcedError> {
        Ok(self.subscriber.subscribe(filter, 9, Start::Live)?)
    }

    fn unsubscribe(&self, filter: &Filter) -> bool {
        self.subscriber.unsubscribe_all(filter)
    }
}

fn message(name: &str, payload: &str) -> Publish {
    Publish::new(channel(name), payload.to_owned())
}

#[tokio::test]
async fn a_connection_is_found_by_its_key_until_it_is_dropped() {
    let mut config = Config::default();
    config.lanes = Some(1);
    let broker = Broker::new(config);
    let client = Client::new(&broker, &[]);
    let key = client.key();
    assert_eq!(broker.connection(key).unwrap().peer().unwrap().principal.user(), Some("ann"));
    drop(client);
    assert!(broker.connection(key).is_none());
    broker.drained().await;
    let next = Client::new(&broker, &[]);
    assert_ne!(next.key(), key, "the slot is used again, the key is not");
    assert!(broker.connection(key).is_none());
    assert!(broker.connection(SubscriberKey::from_u128(u128::MAX)).is_none());
}

#[tokio::test]
async fn pages_go_over_all_connections_once_in_a_stable_order() {
    let mut config = Config::default();
    config.lanes = Some(3);
    let broker = Broker::new(config);
    let mut clients: Vec<_> = (0..3_100).map(|_| Client::new(&broker, &[])).collect();
    let _unregistered = broker.attach(Arc::new(Plain), OutboxConfig::default());
    let walk = |limit| {
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let page = broker.connections(after, limit);
            keys.extend(page.iter().map(|(key, _)| *key));
            if page.len() < limit {
                return keys;
            }
            after = keys.last().copied();
        }
    };
    let all = walk(7);
    assert_eq!(all.len(), 3_100);
    assert!(all.is_sorted());
    assert_eq!(walk(5_000), all);
    clients.retain(|client| client.key().to_u128() % 3 != 0);
    let left: HashSet<_> = clients.iter().map(|client| client.key()).collect();
    assert_eq!(walk(7).into_iter().collect::<HashSet<_>>(), left);
}

#[tokio::test]
async fn presence_finds_everybody_once_by_name_wildcard_and_group() {
    let mut config = Config::default();
    config.lanes = Some(2);
    let broker = Broker::new(config);
    let twice = Client::new(&broker, &["a/b", "a/*", "#"]);
    let literal = Client::new(&broker, &["a/b"]);
    let rest = Client::new(&broker, &["a/**"]);
    let members: Vec<_> = (0..3).map(|_| Client::new(&broker, &[])).collect();
    for member in &members {
        member.subscriber.join_group("g", &filter("a/b"), 0, &Default::default()).unwrap();
        member.subscriber.join_group("h", &filter("a/*"), 1, &Default::default()).unwrap();
    }
    let _other = Client::new(&broker, &["a", "b/*", "*"]);
    let mut expected: Vec<_> =
        [&twice, &literal, &rest].into_iter().chain(&members).map(|client| client.key()).collect();
    expected.sort();
    assert_eq!(broker.subscribers_of(&channel("a/b")), expected);
    drop(literal);
    assert_eq!(broker.subscribers_of(&channel("a/b")).len(), expected.len() - 1);
    assert_eq!(broker.subscribers_of(&channel("$SYS/x")), []);
}

#[tokio::test]
async fn a_direct_message_reaches_one_client_behind_what_was_published_before() {
    let mut config = Config::default();
    config.lanes = Some(1);
    let broker = Broker::new(config);
    let client = Client::new(&broker, &["a"]);
    let other = Client::new(&broker, &["a", "b"]);
    for number in 0..5 {
        publish(&broker, "a", format!("live {number}"));
        let queued = broker.send_to(client.key(), message("b", &format!("direct {number}"))).await.unwrap();
        assert_eq!(queued.messages, 2 * number + 2);
    }
    let waiting = client.waiting();
    assert_eq!(&waiting[..4], &["live 0", "direct 0", "live 1", "direct 1"]);
    broker.drained().await;
    assert_eq!(other.waiting().len(), 5);
    // Denying rules are about what the client asks for, not about what is sent to it.
    assert!(broker.send_to(client.key(), message("secret/x", "s")).await.is_ok());
    assert_eq!(broker.history(&filter("#"), Default::default()).messages.len(), 5, "none is recorded");
}

#[tokio::test]
async fn a_direct_message_is_refused_rather_than_lost() {
    let mut config = Config::default();
    config.lanes = Some(1);
    config.max_message_bytes = 100;
    let broker = Broker::new(config);
    let bounds = OutboxConfig::new(1_000, 100, OutboxPolicy::Disconnect);
    let client = Client::attach(&broker, bounds, &["a"]);
    let send = |text: &str| broker.send_to(client.key(), message("b", text));
    let half = "x".repeat(50);
    assert_eq!(send(&half).await.unwrap().bytes, 50);
    assert_eq!(send(&half).await.unwrap().bytes, 100);
    assert_eq!(send("y").await, Err(SendError::Full));
    assert_eq!(client.subscriber.outbox().closed(), None, "a full outbox is no reason to close it");
    assert_eq!(client.waiting().len(), 2);
    assert!(send(&"x".repeat(100)).await.is_ok());
    assert_eq!(send(&"x".repeat(101)).await, Err(SendError::TooLarge { bytes: 101, max: 100 }));
    client.waiting();
    assert_eq!(
        broker.send_to(client.key(), message("unspeakable", "x")).await,
        Err(SendError::Inexpressible)
    );
    assert_eq!(send("").await, Err(SendError::Inexpressible), "an empty frame is nothing");
    client.close(&CloseCause::Expired);
    assert_eq!(send("x").await, Err(SendError::Gone));
    let key = client.key();
    drop(client);
    assert_eq!(broker.send_to(key, message("b", "x")).await, Err(SendError::Gone));
}

#[tokio::test]
async fn an_accepted_direct_message_survives_a_policy_that_drops() {
    let mut config = Config::default();
    config.lanes = Some(1);
    let broker = Broker::new(config);
    let bounds = OutboxConfig::new(3, 1_000, OutboxPolicy::DropOldest);
    let client = Client::attach(&broker, bounds, &["a"]);
    broker.send_to(client.key(), message("b", "direct")).await.unwrap();
    for number in 0..10 {
        publish(&broker, "a", number.to_string());
    }
    broker.drained().await;
    assert_eq!(client.waiting(), ["direct", "8", "9"]);
}

#[tokio::test]
async fn a_forced_subscription_is_one_like_any_other() {
    let mut config = Config::default();
    config.lanes = Some(1);
    let broker = Broker::new(config);
    let client = Client::new(&broker, &["a/*"]);
    let connection = broker.connection(client.key()).unwrap();
    assert_eq!(connection.subscribe(&filter("b")), Ok(Subscribed::ADDED));
    publish(&broker, "b", "1");
    assert!(connection.unsubscribe(&filter("b")) && !connection.unsubscribe(&filter("b")));
    assert!(connection.unsubscribe(&filter("a/*")), "its own too");
    publish(&broker, "b", "2");
    publish(&broker, "a/1", "3");
    broker.drained().await;
    assert_eq!(client.waiting(), ["1"]);
    assert_eq!(broker.stats().subscriptions, 0);
}

#[tokio::test]
async fn who_is_there_is_told_page_by_page_by_channel_and_by_filter() {
    let mut config = Config::default();
    config.lanes = Some(2);
    let broker = Broker::new(config);
    let clients: Vec<_> = ["chat/a", "chat/*", "other", "#", "chat/a"]
        .into_iter()
        .map(|text| Client::new(&broker, &[text]))
        .collect();
    let _in_process = broker.subscribe(filter("chat/a")).unwrap();
    clients[4].close(&CloseCause::Expired);
    for (asked, expected) in [
        ("chat/a", &[0, 1, 3][..]),
        ("chat/b", &[1, 3]),
        ("chat/**", &[0, 1, 3]),
        ("other", &[2, 3]),
        ("#", &[0, 1, 2, 3]),
    ] {
        for limit in [0, 1, 2, usize::MAX] {
            let (mut seen, mut after, mut pages) = (HashSet::new(), None, 0);
            loop {
                let page = broker.presence(&filter(asked), after, limit).await;
                assert!(page.members.len() <= limit.max(1), "{asked} {limit}");
                for member in &page.members {
                    assert!(seen.insert(member.key), "each once");
                    assert_eq!(member.principal.user(), Some("ann"));
                    assert_eq!((member.protocol, member.client_id.as_deref()), ("test", Some("c")));
                }
                (after, pages) = (page.next, pages + 1);
                if after.is_none() {
                    break;
                }
            }
            let expected: HashSet<_> = expected.iter().map(|number| clients[*number].key()).collect();
            assert_eq!(seen, expected, "{asked} {limit}");
            assert_eq!(
                pages,
                expected.len().div_ceil(limit.max(1)).max(1),
                "no empty page at the end: {asked}"
            );
        }
    }
}
