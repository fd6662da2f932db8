//! Publishes with a key: once for each, whoever asks how often.

use broker_core::{
    Broker, Channel, Config, Filter, HistoryQuery, IdempotencyConfig, IdempotencyKey, NamespaceConfig,
    Publish, PublishError, PublishOnceError,
};

fn publish(channel: &str, payload: &'static str) -> Publish {
    Publish::new(Channel::parse(channel).unwrap(), payload)
}

fn kept(broker: &Broker, channel: &str) -> usize {
    broker.history(&Filter::parse(channel).unwrap(), HistoryQuery::default()).messages.len()
}

#[tokio::test]
async fn a_repeat_is_answered_with_the_first_receipt_and_publishes_nothing() {
    let broker = Broker::new(Config::default());
    let key = IdempotencyKey::new("order-17");
    let first = broker.publish_once(publish("a", "x"), &key).unwrap();
    assert!(!first.duplicate && first.receipt.id.is_some());
    let again = broker.publish_once(publish("a", "x"), &key).unwrap();
    let mut given = first;
    given.duplicate = true;
    assert_eq!(again, given);
    assert_eq!(kept(&broker, "a"), 1);
    let elsewhere = broker.publish_once(publish("b", "x"), &key).unwrap();
    assert!(!elsewhere.duplicate, "the channel is part of the key");
    let mut other = key;
    other.user = "ann";
    assert!(!broker.publish_once(publish("a", "x"), &other).unwrap().duplicate, "so is the user");
    assert_eq!(broker.stats().idempotency_keys, 3);
    assert_eq!(broker.stats().published, 3);
}

#[tokio::test]
async fn another_message_under_a_key_is_a_conflict() {
    let broker = Broker::new(Config::default());
    let key = IdempotencyKey::new("k");
    broker.publish_once(publish("a", "x"), &key).unwrap();
    for other in [publish("a", "y"), publish("a", "x").json(), publish("a", "x").retain(true)] {
        assert_eq!(broker.publish_once(other, &key), Err(PublishOnceError::Conflict));
    }
    assert_eq!(kept(&broker, "a"), 1);
}

#[tokio::test]
async fn what_is_refused_is_not_remembered() {
    let mut config = Config::default();
    config.max_message_bytes = 1;
    let broker = Broker::new(config);
    let key = IdempotencyKey::new("k");
    let refused = broker.publish_once(publish("a", "xy"), &key);
    assert_eq!(refused, Err(PublishOnceError::Publish(PublishError::TooLarge { bytes: 2, max: 1 })));
    assert_eq!((broker.stats().refused, broker.stats().idempotency_keys), (1, 0));
    assert!(!broker.publish_once(publish("a", "x"), &key).unwrap().duplicate);
    broker.close();
    assert!(broker.publish_once(publish("a", "x"), &key).unwrap().duplicate, "it is known all the same");
    let late = broker.publish_once(publish("b", "x"), &key);
    assert_eq!(late, Err(PublishOnceError::Publish(PublishError::Closed)));
}

#[tokio::test]
async fn a_holder_has_a_budget_and_channels_without_a_log_have_keys_too() {
    let mut idempotency = IdempotencyConfig::default();
    idempotency.max_keys_per_holder = 1;
    let off = NamespaceConfig::new("off", broker_core::LogConfig::OFF);
    let mut config = Config::default();
    config.idempotency = idempotency;
    config.namespaces = vec![off];
    let broker = Broker::new(config);
    let first = broker.publish_once(publish("off/a", "x"), &IdempotencyKey::new("1")).unwrap();
    assert_eq!(first.receipt.id, None);
    assert!(broker.publish_once(publish("off/a", "x"), &IdempotencyKey::new("1")).unwrap().duplicate);
    let full = broker.publish_once(publish("off/a", "x"), &IdempotencyKey::new("2"));
    assert_eq!(full, Err(PublishOnceError::Full));
    broker.publish(publish("off/a", "x")).unwrap();
}
