//! What durable channels do while NATS is killed, frozen, or too fast.

#[allow(unreachable_pub, dead_code, reason = "of the tests alone")]
mod support;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use broker_core::{
    After, Event, Filter, HistoryQuery, MessageId, PublishError, StartFrom, SubscribeOptions, Subscription,
};

use self::support::{Nats, Node, config, keeping, message, soon};

async fn start(nats: &Nats, name: &str) -> Node {
    Node::of(keeping(nats, name), config()).await
}

/// What a subscription to everything gets, until a message says that it is the last.
fn collect(mut stream: Subscription) -> tokio::task::JoinHandle<Vec<(MessageId, String)>> {
    tokio::spawn(async move {
        let mut got = Vec::new();
        loop {
            let Some(Event::Message(message)) = stream.next().await else { panic!("it ends after {got:?}") };
            let text = String::from_utf8_lossy(message.payload()).into_owned();
            if text == "last" {
                return got;
            }
            got.push((message.id().unwrap(), text));
        }
    })
}

/// A subscription that keeps up with whatever comes.
fn follow(node: &Node, filter: &str) -> Subscription {
    let mut options = SubscribeOptions::default();
    options.from = StartFrom::Log(After::Earliest);
    (options.outbox.max_messages, options.outbox.max_bytes) = (1_000_000, 256 << 20);
    node.broker.subscribe_with(&[Filter::parse(filter).unwrap()], options).unwrap()
}

/// What was acknowledged, and what must not be there.
type Told = (HashMap<MessageId, String>, Vec<String>);

/// Until all publishers have their last answers.
async fn until_told(publishers: Vec<tokio::task::JoinHandle<Told>>) -> Told {
    let (mut stored, mut refused) = Told::default();
    for publisher in publishers {
        let (one, not) = tokio::time::timeout(Duration::from_secs(40), publisher).await.unwrap().unwrap();
        stored.extend(one);
        refused.extend(not);
    }
    (stored, refused)
}

/// Publishes one after the other on a channel until the time is over.
fn publish_until(node: &Node, publisher: usize, end: Instant) -> tokio::task::JoinHandle<Told> {
    let broker = node.broker.clone();
    tokio::spawn(async move {
        let (mut stored, mut refused) = (HashMap::new(), Vec::new());
        let mut number = 0;
        while Instant::now() < end {
            number += 1;
            let text = format!("{publisher} {number}");
            match broker
                .submit(message(&format!("c/{publisher}"), &text))
                .await
                .map_err(|refused| refused.error)
            {
                Ok(receipt) => {
                    assert!(stored.insert(receipt.id.unwrap(), text).is_none(), "an id twice");
                }
                Err(PublishError::Unavailable { retry_after, .. }) => {
                    assert!(retry_after > Duration::ZERO);
                    refused.push(text);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(PublishError::Unknown) => {}
                Err(error) => panic!("{error}"),
            }
        }
        (stored, refused)
    })
}

/// All that was acknowledged was delivered once, in order, and is in the stream once; nothing of what was refused is.
async fn check(
    reader: &Node,
    got: Vec<Vec<(MessageId, String)>>,
    stored: &HashMap<MessageId, String>,
    refused: &[String],
) {
    let mut query = HistoryQuery::default();
    query.limit = 1_000_000;
    let history = soon(reader.broker.read_history(&Filter::parse("c/*").unwrap(), query)).await.unwrap();
    let is_last = |message: &&std::sync::Arc<broker_core::Message>| &message.payload()[..] == b"last";
    let messages: Vec<_> = history.messages.iter().filter(|message| !is_last(message)).collect();
    let in_stream: Vec<_> = messages.iter().map(|message| message.id().unwrap()).collect();
    assert!(in_stream.is_sorted_by(|one, other| one.offset() < other.offset()));
    let ids: HashSet<_> = in_stream.iter().copied().collect();
    assert!(stored.keys().all(|id| ids.contains(id)), "what was acknowledged is there");
    let texts: Vec<_> =
        messages.iter().map(|message| String::from_utf8_lossy(message.payload()).into_owned()).collect();
    assert_eq!(texts.iter().collect::<HashSet<_>>().len(), texts.len(), "each is there once");
    let refused: HashSet<_> = refused.iter().collect();
    assert!(!texts.iter().any(|text| refused.contains(text)), "what was refused is not there");
    for got in got {
        assert_eq!(got.iter().map(|(id, _)| *id).collect::<Vec<_>>(), in_stream, "delivered once, in order");
        assert!(got.iter().all(|(id, text)| stored.get(id).is_none_or(|stored| stored == text)));
    }
}

async fn say_last(node: &Node) {
    soon(async {
        while node.broker.submit(message("c/last", "last")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_while_they_publish_loses_nothing() {
    let Some(mut nats) = Nats::keeping() else { return };
    let (here, there) = (start(&nats, "n1").await, start(&nats, "n2").await);
    let streams = [&here, &there].map(|node| collect(follow(node, "c/*")));
    let end = Instant::now() + Duration::from_secs(6);
    let publishers: Vec<_> = (0..8)
        .map(|publisher| publish_until(if publisher % 2 == 0 { &here } else { &there }, publisher, end))
        .collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        nats.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        nats.restart();
    }
    let (stored, refused) = until_told(publishers).await;
    assert!(stored.len() > 100, "{}", stored.len());
    say_last(&here).await;
    let mut got = Vec::new();
    for stream in streams {
        got.push(soon(stream).await.unwrap());
    }
    check(&there, got, &stored, &refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_server_is_frozen_publishes_are_refused_with_when_to_try_again() {
    let Some(mut nats) = Nats::keeping() else { return };
    let (here, there) = (start(&nats, "n1").await, start(&nats, "n2").await);
    let streams = [&here, &there].map(|node| collect(follow(node, "c/*")));
    // They are in the middle of it when it freezes, and wait as long as that is in doubt.
    let publishers: Vec<_> = (0..2)
        .map(|publisher| publish_until(&here, publisher, Instant::now() + Duration::from_millis(500)))
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    nats.freeze();
    here.until(|stats| !stats.connected).await;
    let refused = soon(here.broker.submit(message("c/new", "refused"))).await.unwrap_err().error;
    assert!(
        matches!(refused, PublishError::Unavailable { retry_after, .. } if retry_after > Duration::ZERO),
        "{refused}"
    );
    nats.thaw();
    here.until(|stats| stats.connected).await;
    let (stored, mut not) = until_told(publishers).await;
    not.push("refused".to_owned());
    say_last(&here).await;
    let mut got = Vec::new();
    for stream in streams {
        got.push(soon(stream).await.unwrap());
    }
    check(&there, got, &stored, &not).await;
}

/// What comes faster than it is taken is dropped before it is read: a hole, which is read from the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_is_filled() {
    const EACH: usize = 500;
    let Some(nats) = Nats::keeping() else { return };
    let here = start(&nats, "n1").await;
    let mut few = keeping(&nats, "n2");
    few.max_incoming_messages = 2;
    let there = Node::of(few, config()).await;
    let stream = collect(follow(&there, "c/*"));
    let mut stored = HashMap::new();
    let waiting: Vec<_> = (0..EACH)
        .map(|number| {
            let text = number.to_string();
            (text.clone(), here.broker.submit(message(&format!("c/{}", number % 50), &text)))
        })
        .collect();
    for (text, answer) in waiting {
        stored.insert(soon(answer).await.unwrap().id.unwrap(), text);
    }
    say_last(&here).await;
    let got = tokio::time::timeout(Duration::from_secs(60), stream).await.unwrap().unwrap();
    let stats = there.cluster.stats();
    assert!(stats.overruns > 0 && stats.kept_holes > 0 && stats.kept_filled > 0, "{stats:?}");
    check(&here, vec![got], &stored, &[]).await;
}

/// Three copies: whichever server is killed, the others have all that was acknowledged, and go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_three_servers_may_be_killed() {
    let Some(mut servers) = Nats::three_keeping() else { return };
    let urls: Vec<_> = servers.iter().map(Nats::url).collect();
    let of = |name: &str, first: usize| {
        let mut settings = keeping(&servers[first], name);
        settings.servers = urls[first..].iter().chain(&urls[..first]).cloned().collect();
        settings.replicas = 3;
        settings
    };
    let (here, there) = (Node::of(of("n1", 0), config()).await, Node::of(of("n2", 1), config()).await);
    let streams = [&here, &there].map(|node| collect(follow(node, "c/*")));
    let end = Instant::now() + Duration::from_secs(9);
    let publishers: Vec<_> = (0..4)
        .map(|publisher| publish_until(if publisher % 2 == 0 { &here } else { &there }, publisher, end))
        .collect();
    for server in &mut servers {
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.kill();
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.restart();
    }
    let (stored, refused) = until_told(publishers).await;
    assert!(stored.len() > 100, "{}", stored.len());
    say_last(&there).await;
    let mut got = Vec::new();
    for stream in streams {
        got.push(tokio::time::timeout(Duration::from_secs(40), stream).await.unwrap().unwrap());
    }
    check(&there, got, &stored, &refused).await;
}
