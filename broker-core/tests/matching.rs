//! The trie agrees with a ten-line matcher, whatever is subscribed, unsubscribed and published.

mod support;

use broker_core::{Broker, Config, Filter, Publish, Segment};
use proptest::prelude::*;
use support::*;

/// The rules as one would write them on paper.
fn matches(filter: &[&str], channel: &[&str]) -> bool {
    match (filter, channel) {
        (["#"], _) => true,
        (["**"], rest) => !rest.is_empty(),
        ([], []) => true,
        ([f, filter @ ..], [c, channel @ ..]) => (*f == "*" || f == c) && matches(filter, channel),
        _ => false,
    }
}

fn oracle(filter: &str, channel: &str) -> bool {
    let (f, c): (Vec<_>, Vec<_>) = (filter.split('/').collect(), channel.split('/').collect());
    !(c[0].starts_with('$') && ["*", "**", "#"].contains(&f[0])) && matches(&f, &c)
}

fn segment() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("c"), Just(""), Just("$x"), Just("é"), Just("+")]
}

fn channels() -> impl Strategy<Value = String> {
    proptest::collection::vec(segment(), 1..5)
        .prop_map(|segments| segments.join("/"))
        .prop_filter("a channel has a character", |name| !name.is_empty())
}

fn filters() -> impl Strategy<Value = String> {
    let middle = prop_oneof![3 => segment(), 1 => Just("*")];
    let last = prop_oneof![2 => segment(), 1 => Just("*"), 1 => Just("**"), 1 => Just("#")];
    (proptest::collection::vec(middle, 0..4), last)
        .prop_map(|(mut segments, last)| {
            segments.push(last);
            segments.join("/")
        })
        .prop_filter("a filter has a character", |text| !text.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_filter_matches_as_the_oracle_says(filter in filters(), channel in channels()) {
        let parsed = Filter::parse(&filter).unwrap();
        prop_assert_eq!(parsed.matches(&support::channel(&channel)), oracle(&filter, &channel));
        prop_assert_eq!(parsed.to_string(), filter);
    }

    #[test]
    fn covering_and_overlapping_agree_with_matching(one in filters(), other in filters(), channel in channels()) {
        let (one, other, channel) = (filter(&one), filter(&other), support::channel(&channel));
        if other.matches(&channel) {
            prop_assert!(!one.covers(&other) || one.matches(&channel));
            prop_assert!(!one.matches(&channel) || one.overlaps(&other));
        }
    }

    #[test]
    fn the_broker_counts_the_subscriptions_that_match(
        subscribed in proptest::collection::vec(filters(), 1..12),
        dropped in proptest::collection::vec(any::<bool>(), 12),
        published in proptest::collection::vec(channels(), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut config = Config::default(); config.lanes = Some(2);
let broker = Broker::new(config);
            let mut held = Vec::new();
            for (text, drop) in subscribed.iter().zip(&dropped) {
                let subscription = broker.subscribe(filter(text)).unwrap();
                if !drop {
                    held.push((text, subscription));
                }
            }
            for name in &published {
                let expected = held.iter().filter(|(text, _)| oracle(text, name)).count() as u64;
                let receipt = broker.publish(Publish::new(support::channel(name), "x")).unwrap();
                assert_eq!(receipt.receivers, expected, "{name} of {held:?}", held = subscribed);
            }
            broker.drained().await;
            for (text, subscription) in &mut held {
                for name in published.iter().filter(|name| oracle(text, name)) {
                    assert_eq!(next(subscription).await.channel().as_str(), name);
                }
            }
            held.clear();
            assert_eq!(broker.stats().wildcard_filters, 0);
            assert_eq!(broker.stats().subscriptions, 0);
        });
    }
}

#[tokio::test]
async fn overlapping_filters_of_one_subscriber_deliver_once() {
    let broker = Broker::new(Config::default());
    let filters = ["a/b", "a/*", "#", "a/#"].map(filter);
    let mut all = broker.subscribe_with(&filters, Default::default()).unwrap();
    let mut one = broker.subscribe(filter("a/*")).unwrap();
    let receipt = broker.publish(Publish::new(channel("a/b"), "1")).unwrap();
    assert_eq!(receipt.receivers, 5);
    publish(&broker, "a/b", "2");
    for subscription in [&mut all, &mut one] {
        assert_eq!(next(subscription).await.payload(), "1");
        assert_eq!(next(subscription).await.payload(), "2");
    }
}

#[test]
fn segments_build_the_filters_that_fronts_need() {
    let rest = Filter::new([Segment::Literal("a".into()), Segment::RestZeroOrMore]).unwrap();
    assert!(rest.matches(&channel("a")) && rest.matches(&channel("a/b/c")));
    let plus = Filter::new([Segment::Literal("*".into())]).unwrap();
    assert_eq!(plus.as_literal().map(|c| c.as_str()), Some("*"));
}
