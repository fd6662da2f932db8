//! Two and three nodes over a real NATS server: what a publish on one is on the others.

#[allow(unreachable_pub, dead_code, reason = "of the tests alone")]
mod support;

use std::time::Duration;

use broker_core::{
    Channel, Config, ContentType, Filter, Properties, Publish, Qos, StartFrom, SubscribeOptions,
};
use cluster::{Cluster, JoinError, Login, Settings};

use self::support::{Nats, Node, message, next, settings, soon, take};

#[tokio::test]
async fn a_publish_reaches_subscribers_on_all_nodes_once() {
    let Some(nats) = Nats::start(&[]) else { return };
    let nodes =
        [Node::start(&nats, "n1").await, Node::start(&nats, "n2").await, Node::start(&nats, "n3").await];
    let mut streams = Vec::new();
    for node in &nodes {
        streams.push(node.subscribe("chat/room1").await);
    }
    for (number, node) in nodes.iter().enumerate() {
        node.publish("chat/room1", &format!("from {number}"));
        for stream in &mut streams {
            assert_eq!(
                next(stream).await,
                format!("chat/room1 from {number}"),
                "no copy of another comes before"
            );
        }
    }
    for node in &nodes {
        node.until(|stats| stats.received == 2 && stats.nodes == 3).await;
        let stats = node.cluster.stats();
        assert_eq!((stats.sent, stats.repeats, stats.unreadable, stats.refused), (1, 0, 0, 0), "{stats:?}");
    }
}

#[tokio::test]
async fn what_nobody_wants_on_a_node_does_not_come_there() {
    let Some(nats) = Nats::start(&[]) else { return };
    let (here, there) = (Node::start(&nats, "n1").await, Node::start(&nats, "n2").await);
    let mut wanted = there.subscribe("wanted/#").await;
    for number in 0..50 {
        here.publish("unwanted/a", &number.to_string());
        here.publish("wanted.b", "another name, not another level");
    }
    here.publish("wanted", "last");
    assert_eq!(next(&mut wanted).await, "wanted last");
    assert_eq!(there.cluster.stats().received, 1);
    drop(wanted);
    there.until(|stats| stats.filters == 0).await;
    here.publish("wanted", "nobody is left");
    let mut other = there.subscribe("other").await;
    here.publish("other", "x");
    assert_eq!(next(&mut other).await, "other x");
    assert_eq!(there.cluster.stats().received, 2, "the one in between did not come");
}

#[tokio::test]
async fn names_that_nats_has_other_uses_for_are_names() {
    let Some(nats) = Nats::start(&[]) else { return };
    let (here, there) = (Node::start(&nats, "n1").await, Node::start(&nats, "n2").await);
    let long = format!("long/{}", "x".repeat(3_000));
    let names = ["a.b", "a b/c", "/", "a//b", "a/", ">", "ü/ß", "=", "$own/x", &long];
    for name in names {
        let literal = Filter::literal(Channel::parse(name).unwrap());
        let mut stream = there.broker.subscribe(literal.clone()).unwrap();
        soon(there.broker.settled(&literal)).await.unwrap();
        here.publish(name, "x");
        assert_eq!(next(&mut stream).await, format!("{name} x"));
    }
}

#[tokio::test]
async fn a_message_is_there_what_it_was_here() {
    let Some(nats) = Nats::start(&[]) else { return };
    let (here, there) = (Node::start(&nats, "n1").await, Node::start(&nats, "n2").await);
    let filter = Filter::parse("a/*").unwrap();
    let mut stream = there.broker.subscribe(filter.clone()).unwrap();
    soon(there.broker.settled(&filter)).await.unwrap();
    let mut properties = Properties::default();
    properties.user.push(("name".into(), "value".into()));
    properties.reply_to = Some("answers".into());
    let publish = Publish::new(Channel::parse("a/b").unwrap(), vec![0, 255])
        .content_type(ContentType::new("application/x-own"))
        .event("made")
        .properties(properties.clone())
        .qos(Qos::AtLeastOnce)
        .ttl(Duration::from_secs(60));
    let receipt = here.broker.publish(publish).unwrap();
    let Some(broker_core::Event::Message(got)) = soon(stream.next()).await else { panic!("no message") };
    assert_eq!((&got.payload()[..], got.event()), (&[0, 255][..], Some("made")));
    assert_eq!(got.content_type(), Some(&ContentType::new("application/x-own")));
    assert_eq!((got.properties(), got.qos(), got.retain()), (Some(&properties), Qos::AtLeastOnce, false));
    assert_eq!(got.time_ms(), receipt.time_ms, "the time of its publish");
    let left = got.remaining(broker_core::steady_ms()).unwrap();
    assert!(left <= Duration::from_secs(60) && left > Duration::from_secs(30), "{left:?}");
    let history = there.broker.history(&filter, broker_core::HistoryQuery::default());
    assert_eq!(history.messages.len(), 1, "it is in the log of the node that wanted it");
}

/// Filters of all kinds that match the same channels: NATS brings several copies, and each subscriber gets one, in order.
#[tokio::test]
async fn overlapping_filters_bring_each_message_once_and_in_order() {
    const EACH: usize = 400;
    let Some(nats) = Nats::start(&[]) else { return };
    let (here, there) = (Node::start(&nats, "n1").await, Node::start(&nats, "n2").await);
    let third = Node::start(&nats, "n3").await;
    let filters = ["a/b", "a/*", "a/#", "#", "*/b"];
    let mut streams = Vec::new();
    let mut publishers = Vec::new();
    for (name, node) in [("here", &here), ("third", &third)] {
        let broker = node.broker.clone();
        publishers.push(async move {
            for number in 0..EACH {
                // Some are retained: those come by one way more.
                let publish = message("a/b", &format!("{name} {number}")).retain(number % 7 == 0);
                broker.publish_wait(publish).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
    }
    for filter in filters {
        streams.push(there.subscribe(filter).await);
    }
    let [one, two] = <[_; 2]>::try_from(publishers).ok().unwrap();
    tokio::join!(one, two);
    for (stream, filter) in streams.iter_mut().zip(filters) {
        let all = take(stream, 2 * EACH).await;
        for name in ["here", "third"] {
            let own: Vec<_> = all.iter().filter(|text| text.contains(name)).collect();
            let expected: Vec<_> = (0..EACH).map(|number| format!("a/b {name} {number}")).collect();
            assert!(own.into_iter().eq(expected.iter()), "{filter} {name}");
        }
    }
    let stats = there.cluster.stats();
    assert_eq!((stats.received, stats.overruns), (2 * EACH as u64, 0), "{stats:?}");
    assert!(stats.repeats >= 4 * 2 * EACH as u64, "{stats:?}");
}

/// Subscriptions that come and go on a node beside one that stays: that one misses nothing and sees nothing twice.
#[tokio::test]
async fn a_subscriber_is_not_disturbed_by_others_that_come_and_go() {
    const ALL: usize = 3_000;
    let Some(nats) = Nats::start(&[]) else { return };
    let (here, there) = (Node::start(&nats, "n1").await, Node::start(&nats, "n2").await);
    let mut stays = there.subscribe("a/*").await;
    let broker = here.broker.clone();
    let publishing = tokio::spawn(async move {
        for number in 0..ALL {
            broker.publish_wait(message("a/b", &number.to_string())).await.unwrap();
            if number % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let mut others = Vec::new();
    for filter in ["a/b", "#", "*/b", "a/#", "**", "a/**", "*/#", "*/*", "*/**"] {
        others.push(there.subscribe(filter).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(others);
    soon(publishing).await.unwrap();
    let expected: Vec<_> = (0..ALL).map(|number| format!("a/b {number}")).collect();
    assert_eq!(take(&mut stays, ALL).await, expected);
}

#[tokio::test]
async fn retained_messages_are_on_all_nodes_and_the_later_one_stays() {
    let Some(nats) = Nats::start(&[]) else { return };
    let (here, there) = (Node::start(&nats, "n1").await, Node::start(&nats, "n2").await);
    // It takes what is retained before it hears of others.
    there.until(|stats| stats.nodes == 2).await;
    here.broker.publish(message("lamp", "on").retain(true)).unwrap();
    there.until(|stats| stats.received == 1).await;
    let retained = |node: &Node| {
        let lamp = Channel::parse("lamp").unwrap();
        node.broker.retained(&lamp).map(|message| message.payload().clone())
    };
    assert_eq!(retained(&there).as_deref(), Some(&b"on"[..]), "nobody is subscribed there");
    let mut options = SubscribeOptions::default();
    options.from = StartFrom::Retained;
    let lamp = Filter::parse("lamp").unwrap();
    let mut late = there.broker.subscribe_with(std::slice::from_ref(&lamp), options).unwrap();
    soon(there.broker.settled(&lamp)).await.unwrap();
    assert_eq!(next(&mut late).await, "lamp on");
    there.broker.publish(message("lamp", "off").retain(true)).unwrap();
    here.until(|stats| stats.received == 1).await;
    assert_eq!(retained(&here).as_deref(), Some(&b"off"[..]));
    assert_eq!(next(&mut late).await, "lamp off");
    // An empty one ends it, and so does what operators do, of which nobody is told.
    here.broker.publish(message("lamp", "").retain(true)).unwrap();
    assert_eq!(next(&mut late).await, "lamp ");
    assert_eq!((retained(&here), retained(&there)), (None, None));
    here.broker.publish(message("lamp", "again").retain(true)).unwrap();
    assert_eq!(next(&mut late).await, "lamp again");
    assert!(soon(here.broker.clear_retained(&Channel::parse("lamp").unwrap())).await.unwrap());
    here.publish("lamp", "behind it");
    assert_eq!(next(&mut late).await, "lamp behind it");
    assert_eq!(retained(&there), None);
}

#[tokio::test]
async fn what_the_broker_says_of_itself_stays_on_its_node() {
    let Some(nats) = Nats::start(&[]) else { return };
    let (here, there) = (Node::start(&nats, "n1").await, Node::start(&nats, "n2").await);
    let mut stream = there.subscribe("$SYS/#").await;
    let mut ordinary = there.subscribe("a").await;
    here.publish("$SYS/clients", "1");
    here.publish("a", "x");
    assert_eq!(next(&mut ordinary).await, "a x");
    there.publish("$SYS/clients", "2");
    assert_eq!(next(&mut stream).await, "$SYS/clients 2");
    assert_eq!((here.cluster.stats().sent, there.cluster.stats().filters), (1, 1));
}

#[tokio::test]
async fn clusters_of_other_prefixes_know_nothing_of_each_other() {
    let Some(nats) = Nats::start(&[]) else { return };
    let mut other = settings(&nats, "n1");
    other.prefix = "other".to_owned();
    let (ours, theirs) = (Node::start(&nats, "n1").await, Node::with(other).await);
    let same = Node::start(&nats, "n2").await;
    let (mut a, mut b) = (same.subscribe("a").await, theirs.subscribe("a").await);
    ours.publish("a", "ours");
    assert_eq!(next(&mut a).await, "a ours");
    theirs.publish("a", "theirs");
    assert_eq!(next(&mut b).await, "a theirs", "and not ours before");
    ours.until(|stats| stats.nodes == 2).await;
    theirs.until(|stats| stats.nodes == 1).await;
}

#[tokio::test]
async fn beyond_its_filters_a_node_takes_all_and_each_once() {
    let Some(nats) = Nats::start(&[]) else { return };
    let mut few = settings(&nats, "n2");
    few.max_filters = 3;
    let (here, there) = (Node::start(&nats, "n1").await, Node::with(few).await);
    let mut streams = Vec::new();
    for number in 0..8 {
        streams.push(there.subscribe(&format!("c/{number}")).await);
    }
    let stats = there.cluster.stats();
    assert_eq!((stats.filters, stats.takes_all), (4, true));
    for (number, stream) in streams.iter_mut().enumerate() {
        for text in ["x", "y"] {
            here.publish(&format!("c/{number}"), text);
            assert_eq!(next(stream).await, format!("c/{number} {text}"));
        }
    }
    drop(streams);
    there.until(|stats| stats.filters == 0 && !stats.takes_all).await;
}

#[tokio::test]
async fn what_does_not_fit_the_bounds_of_a_node_is_counted_there() {
    let Some(nats) = Nats::start(&[]) else { return };
    let mut small = Config::default();
    small.max_message_bytes = 100;
    let here = Node::start(&nats, "n1").await;
    let there = Node::of(settings(&nats, "n2"), small).await;
    let mut stream = there.subscribe("a").await;
    here.publish("a", &"x".repeat(101));
    here.publish("a", "fits");
    assert_eq!(next(&mut stream).await, "a fits");
    let stats = there.cluster.stats();
    assert_eq!((stats.received, stats.refused), (1, 1));
}

#[tokio::test]
async fn what_is_larger_than_the_server_takes_stays_on_its_node() {
    let Some(nats) = Nats::start(&[]) else { return };
    let mut large = Config::default();
    large.max_message_bytes = 4 << 20;
    let here = Node::of(settings(&nats, "n1"), large).await;
    let there = Node::start(&nats, "n2").await;
    let mut stream = there.subscribe("a").await;
    let mut own = here.subscribe("a").await;
    here.publish("a", &"x".repeat(2 << 20));
    here.publish("a", "fits");
    assert_eq!(next(&mut stream).await, "a fits");
    assert_eq!(next(&mut own).await.len(), 2 + (2 << 20), "its own subscribers get it");
    assert_eq!(here.cluster.stats().unsent_large, 1);
}

#[tokio::test]
async fn what_no_node_sends_is_counted_and_harms_nobody() {
    let Some(nats) = Nats::start(&[]) else { return };
    let node = Node::start(&nats, "n1").await;
    let mut stream = node.subscribe("a").await;
    let stranger = async_nats::connect(nats.url()).await.unwrap();
    for garbage in [&b""[..], b"\x01", b"\x02\x01aaaaaaaabbbbbbbb", &[1; 18], &[255; 4_096]] {
        for subject in ["fw.m.v.a", "fw.m.r.a", "fw.c.hello"] {
            stranger.publish(subject, garbage.to_vec().into()).await.unwrap();
        }
    }
    stranger.flush().await.unwrap();
    node.until(|stats| stats.unreadable >= 15).await;
    node.publish("a", "still here");
    assert_eq!(next(&mut stream).await, "a still here");
}

#[tokio::test]
async fn a_node_that_is_not_let_in_says_why() {
    let Some(nats) = Nats::start(&["--user", "fan", "--pass", "secret"]) else { return };
    let refused = Cluster::join(settings(&nats, "n1")).await.unwrap_err();
    assert!(matches!(refused, JoinError::Refused(_)), "{refused:?}");
    let mut known = settings(&nats, "n1");
    known.login = Login::User { user: "fan".to_owned(), password: "secret".to_owned() };
    let node = Node::with(known).await;
    assert!(node.cluster.is_connected());
    for (servers, prefix, text) in [
        (vec![], "fw", "no NATS server is named"),
        (vec!["nats://[".to_owned()], "fw", "\"nats://[\" is no address of a NATS server"),
        (vec![nats.url()], "a.b", "\"a.b\" cannot begin subjects of NATS"),
    ] {
        let mut settings = Settings::new(servers);
        settings.prefix = prefix.to_owned();
        let error = Cluster::join(settings).await.unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");
    }
}
