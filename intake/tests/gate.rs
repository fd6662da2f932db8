//! What the gate asks of every publish, and what it says of each.

use std::sync::Arc;
use std::time::Duration;

use broker_core::{
    Action, AllowAll, Broker, Config, Filter, HistoryQuery, Principal, Rights, Rule, Source, Throttle,
    unix_ms,
};
use bytes::Bytes;
use intake::{Error, Gate, Item, Outcome, Publication, Published, Publisher, Reading, Turn, target};

fn gate() -> (Broker, Gate) {
    let broker = Broker::new(Config::default());
    (broker.clone(), Gate::new(broker, Arc::new(AllowAll)))
}

/// Without a policy nobody is asked who would have to be waited for.
fn now<T>(answer: broker_core::Answer<'_, T>) -> T {
    answer.if_now().expect("nobody is asked")
}

fn as_principal(principal: Principal) -> Publisher {
    Publisher::new(principal, "test")
}

fn anybody() -> Publisher {
    as_principal(Principal::anonymous(Rights::all()))
}

fn message<'a>(channel: &str, key: Option<&'a str>) -> Publication<'a> {
    let mut publication = Publication::new(target(channel).unwrap(), Bytes::from_static(b"x"));
    publication.retain = false;
    publication.key = key.map(Into::into);
    publication
}

fn read(text: &str) -> Result<Item<'_>, Error> {
    let reading = Reading::new(2, |_| None);
    Item::read(text.as_bytes(), &Bytes::copy_from_slice(text.as_bytes()), reading)
}

#[tokio::test]
async fn a_right_is_asked_for_and_who_has_shown_nothing_is_asked_for_credentials() {
    let (broker, gate) = gate();
    let rule = Rule::new([Action::Publish], Filter::parse("mine/**").unwrap());
    let known = as_principal(Principal::user_with("ann", Rights::none().allow(rule.clone())));
    assert!(now(gate.publish(&known, message("mine/a", None))).is_ok());
    let refused = now(gate.publish(&known, message("other", None)));
    assert!(matches!(refused, Err(Error::Forbidden { action: "publish to", name }) if name == "other"));
    let nobody = Principal::anonymous(Rights::none().allow(rule)).from_source(Source::default());
    let refused = now(gate.publish(&as_principal(nobody), message("other", None)));
    assert!(matches!(refused, Err(Error::Unidentified { .. })));
    assert_eq!(broker.stats().published, 1);
}

#[derive(Debug)]
struct Never;

impl Throttle for Never {
    fn admit(&self, _: u32) -> Result<(), Duration> {
        Err(Duration::from_secs(3))
    }
}

#[tokio::test]
async fn credentials_that_are_over_and_a_rate_that_is_used_up_publish_nothing() {
    let (broker, gate) = gate();
    let over = Principal::anonymous(Rights::all()).expiring_at(unix_ms());
    assert!(matches!(now(gate.publish(&as_principal(over), message("a", None))), Err(Error::Expired)));
    let throttled = Principal::anonymous(Rights::all()).throttled(Arc::new(Never));
    let refused = now(gate.publish(&as_principal(throttled), message("a", None)));
    assert!(matches!(refused, Err(Error::RateLimited(wait)) if wait == Duration::from_secs(3)));
    assert_eq!(broker.stats().published, 0);
}

#[tokio::test]
async fn a_key_publishes_once_and_both_are_counted() {
    let (_, gate) = gate();
    let publisher = anybody();
    let first = now(gate.publish(&publisher, message("a", Some("k")))).unwrap();
    let again = now(gate.publish(&publisher, message("a", Some("k")))).unwrap();
    assert_eq!((first.duplicate, again.duplicate, again.receipt), (false, true, first.receipt));
    let mut other = message("a", Some("k"));
    other.payload = Bytes::from_static(b"y");
    assert!(matches!(now(gate.publish(&publisher, other)), Err(Error::KeyConflict)));
    assert_eq!((gate.stats().published, gate.stats().duplicates), (1, 1));
}

#[tokio::test]
async fn of_several_channels_a_bad_one_harms_no_other() {
    let (broker, gate) = gate();
    let item = read(r#"{"channels":["a/*","b"],"text":"x","event":"e","key":"k"}"#).unwrap();
    let outcome = gate.publish_item(&anybody(), &item, &mut Turn::new()).await.unwrap();
    let Outcome::Several(results) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(results[0], Err(Error::Inexpressible { .. })));
    assert!(matches!(&results[1], Ok(Published { channel, .. }) if channel.as_str() == "b"));
    let kept = broker.history(&Filter::parse("b").unwrap(), HistoryQuery::default()).messages;
    assert_eq!((kept[0].payload().as_ref(), kept[0].event()), (&b"x"[..], Some("e")));
    let item = read(r#"{"channel":"a/*","text":"x"}"#).unwrap();
    assert!(gate.publish_item(&anybody(), &item, &mut Turn::new()).await.is_err());
}

#[test]
fn an_item_says_what_is_wrong_with_it() {
    for (text, expected) in [
        ("{", "the body is not valid JSON"),
        ("[]", "an item is an object"),
        (r#"{"channel":"a"}"#, "one of `data`, `text` and `base64` is missing"),
        (r#"{"channel":"a","data":1,"text":"x"}"#, "exclude one another"),
        (r#"{"data":1}"#, "`channel` or `channels` is missing"),
        (r#"{"channel":"a","channels":["b"],"data":1}"#, "exclude one another"),
        (r#"{"channels":["a","b","c"],"data":1}"#, "more than 2"),
        (r#"{"channels":[1],"data":1}"#, "an array of strings"),
        (r#"{"channel":"a","data":1,"key":""}"#, "parameter `Idempotency-Key`"),
        (r#"{"channel":"a","data":1,"ttl":-1}"#, "parameter `ttl`"),
        (r#"{"channel":"a","data":1,"event":"gap"}"#, "parameter `event`"),
        (r#"{"channel":"a","data":1,"exclude":"?"}"#, "parameter `exclude`"),
        (r#"{"channel":"a","base64":"*"}"#, "is not base64"),
    ] {
        let error = read(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert_eq!(
        read(r#"{"channel":"a","data":1}"#).unwrap().or_key(Some("k".into())).key.as_deref(),
        Some("k")
    );
    let own = read(r#"{"channel":"a","data":1,"key":"own"}"#).unwrap();
    assert_eq!(own.or_key(Some("k".into())).key.as_deref(), Some("own"));
}
