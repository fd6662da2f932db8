//! Somebody who keeps messages beneath the broker, at a pace of its own.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use broker_core::{
    Accepted, After, Answer, Broker, Channel, Claim, Claimed, Config, Engine, Event, Filter, HistoryQuery,
    IdempotencyKey, Ingest, Kept, KeptKey, KeyedReceipt, LogConfig, LogPage, Message, MessageId,
    NamespaceConfig, Op, Order, Position, Publish, PublishError, PublishOnceError, Read, Receipt,
    RecordError, Refused, Reject, Rejected, SessionRecord, StartFrom, SubscribeError, SubscribeOptions,
    Unavailable,
};
use parking_lot::Mutex;

/// Keeps all but the namespace `memory`, and does what it was asked for when the test says so.
#[derive(Default)]
struct Slow {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ingest: Option<Arc<dyn Ingest>>,
    waiting: Vec<Op>,
    refuses: Option<Reject>,
    interest: HashMap<String, i32>,
    keys: HashMap<KeptKey, Receipt>,
    /// What it has accepted, in all its lives.
    log: Vec<Accepted>,
    /// What stood up to here is gone.
    first: u64,
    reads: usize,
    cannot_read: bool,
    retained: Option<Kept<Arc<Message>>>,
    sessions: HashMap<String, Claimed>,
}

/// Of its log: older than any broker's own.
const EPOCH: u64 = 40;

const LATER: Unavailable = Unavailable::new(Duration::from_secs(7));

impl Engine for Slow {
    fn keeps(&self, namespace: &str) -> bool {
        namespace != "memory"
    }

    fn head(&self) -> MessageId {
        MessageId::new(EPOCH, self.state.lock().log.last().map_or(0, |last| last.offset))
    }

    fn start(&self, ingest: Arc<dyn Ingest>) {
        let mut state = self.state.lock();
        let is_retained = |kept: &&Accepted| Accepted::clone(kept).into_message(EPOCH).retain();
        ingest.restore(state.log.iter().filter(is_retained).cloned().collect());
        state.ingest = Some(ingest);
    }

    fn submit(&self, op: Op) -> Result<(), Rejected> {
        let mut state = self.state.lock();
        if let Some(why) = state.refuses {
            return Err(Rejected::new(why, op));
        }
        state.waiting.push(op);
        Ok(())
    }

    /// One message at a time.
    fn read(&self, read: Read) -> Answer<'static, Result<LogPage, Unavailable>> {
        let mut state = self.state.lock();
        state.reads += 1;
        assert!(state.reads < 10_000, "{read:?}");
        let (first, cannot_read) = (state.first, state.cannot_read);
        let in_range = |kept: &&Accepted| kept.offset > read.after.max(first) && kept.offset <= read.through;
        let mut in_range: Vec<_> = state.log.iter().filter(in_range).cloned().collect();
        let next = if read.order == Order::Oldest {
            in_range.reverse();
            in_range.pop()
        } else {
            in_range.pop()
        };
        let page = match next {
            None => LogPage::new(
                Vec::new(),
                if read.order == Order::Oldest { read.through } else { read.after },
                first,
            ),
            Some(kept) => {
                let through = if read.order == Order::Oldest { kept.offset } else { kept.offset - 1 };
                let message = Arc::new(kept.into_message(EPOCH));
                let is_wanted = read.filters.iter().any(|filter| filter.matches(message.channel()));
                LogPage::new(Vec::from_iter(is_wanted.then_some(message)), through, first)
            }
        };
        Answer::later(async move { if cannot_read { Err(LATER) } else { Ok(page) } })
    }

    fn retained(&self, _: &Channel) -> Answer<'static, Kept<Arc<Message>>> {
        let retained = self.state.lock().retained.clone();
        Answer::later(async move { retained.unwrap_or(Ok(None)) })
    }

    fn claim(&self, session: &str, claim: Claim) -> Answer<'static, Result<Claimed, Unavailable>> {
        let mut state = self.state.lock();
        let claimed = state.sessions.entry(session.to_owned()).or_default();
        claimed.fence.0 += 1;
        if claim != Claim::Resume {
            claimed.record = None;
        }
        let claimed = claimed.clone();
        Answer::later(async move { Ok(claimed) })
    }

    fn interest(&self, filter: &Filter, wanted: bool) {
        *self.state.lock().interest.entry(filter.to_string()).or_default() += if wanted { 1 } else { -1 };
    }

    fn settled(&self, filter: &Filter) -> Answer<'static, Result<(), Unavailable>> {
        let wanted = self.state.lock().interest.get(&filter.to_string()).copied().unwrap_or_default();
        assert!(wanted > 0, "it was told of {filter}");
        let is_cut_off = filter.to_string().starts_with("cut");
        Answer::later(async move { if is_cut_off { Err(LATER) } else { Ok(()) } })
    }
}

impl Slow {
    /// Does all that waits.
    fn commit(&self) {
        let (ingest, waiting) = {
            let mut state = self.state.lock();
            (state.ingest.clone().unwrap(), std::mem::take(&mut state.waiting))
        };
        for op in waiting {
            match op {
                Op::Publish { publish, key, done, .. } => {
                    let known = key.as_ref().and_then(|key| self.state.lock().keys.get(key).copied());
                    let keyed = match known {
                        Some(receipt) => KeyedReceipt::again(receipt),
                        None => KeyedReceipt::first(ingest.release(vec![self.accept(*publish)]).remove(0)),
                    };
                    if let Some(key) = key {
                        self.state.lock().keys.insert(key, keyed.receipt);
                    }
                    done.complete(Ok(keyed));
                }
                Op::ClearRetained { channel, done } => done.complete(Ok(ingest.clear_retained(&channel))),
                Op::Session { session, fence, record, done } => {
                    let mut state = self.state.lock();
                    let claimed = state.sessions.get_mut(&*session).unwrap();
                    if claimed.fence == fence {
                        claimed.record = record.map(|record| *record);
                        done.complete(Ok(()));
                    } else {
                        done.complete(Err(RecordError::Fenced));
                    }
                }
                Op::Barrier(done) => done.complete(()),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Offsets with holes, as those of a store are.
    fn accept(&self, publish: Publish) -> Accepted {
        let mut state = self.state.lock();
        let offset = state.log.last().map_or(0, |last| last.offset) + 3;
        let time_ms = broker_core::unix_ms();
        let accepted = Accepted::new(publish, offset, time_ms);
        state.log.push(accepted.clone());
        accepted
    }

    /// Gives up all that waits; what became of it, nobody knows.
    fn forget(&self) {
        self.state.lock().waiting.clear();
    }

    fn refuse(&self, why: Option<Reject>) {
        self.state.lock().refuses = why;
    }
}

fn slow() -> (Broker, Arc<Slow>) {
    let engine = Arc::new(Slow::default());
    (life_of(&engine), engine)
}

/// A broker on what the engine has kept.
fn life_of(engine: &Arc<Slow>) -> Broker {
    let mut config = Config::default();
    config.namespaces = vec![NamespaceConfig::new("memory", LogConfig::default())];
    Broker::with_engine(config, Arc::clone(engine) as Arc<dyn Engine>)
}

fn publish(channel: &str, payload: &'static str) -> Publish {
    Publish::new(Channel::parse(channel).unwrap(), payload)
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

/// What a future answers before it has to wait.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it does not come")
}

#[tokio::test]
async fn what_is_kept_is_released_once_it_is_accepted_and_in_that_order() {
    let (broker, engine) = slow();
    let mut early = broker.subscribe(filter("a")).unwrap();
    let mut answers: Vec<_> = ["1", "2", "3"].map(|payload| broker.submit(publish("a", payload))).into();
    assert!(answers.iter_mut().all(|answer| poll_once(answer).is_pending()));
    assert_eq!(kept_head(&broker), 0, "nothing is recorded before it is accepted");
    let mut late = broker.subscribe(filter("*")).unwrap();
    engine.commit();
    let mut ids = Vec::new();
    for answer in answers {
        let receipt = soon(answer).await.unwrap();
        assert_eq!(receipt.receivers, 2, "who came before the release is counted");
        ids.push(receipt.id.unwrap().offset());
    }
    assert_eq!(ids, [3, 6, 9]);
    for stream in [&mut early, &mut late] {
        for payload in ["1", "2", "3"] {
            assert_eq!(soon(stream.message()).await.unwrap().payload(), payload);
        }
    }
    assert_eq!(broker.stats().published, 3);
}

#[tokio::test]
async fn channels_in_memory_are_answered_at_once_whatever_the_engine_does() {
    let (broker, engine) = slow();
    engine.refuse(Some(Reject::Unavailable(LATER)));
    for channel in ["memory/a", "memory", "$SYS/a"] {
        let receipt = broker.publish(publish(channel, "x")).unwrap();
        assert_eq!(broker.submit(publish(channel, "x")).if_now().unwrap().unwrap().receivers, 0, "{channel}");
        let later = broker.publish_wait(publish(channel, "y")).await.unwrap();
        assert_eq!(later.id.unwrap().offset(), receipt.id.unwrap().offset() + 2);
        let key = IdempotencyKey::new("k");
        assert!(!broker.submit_once(publish(channel, "x"), &key).if_now().unwrap().unwrap().duplicate);
    }
    assert_eq!(broker.publish(publish("a", "x")), Err(PublishError::Durable));
    let key = IdempotencyKey::new("k");
    let durable = Err(PublishOnceError::Publish(PublishError::Durable));
    assert_eq!(broker.publish_once(publish("a", "x"), &key), durable);
    assert!(engine.state.lock().waiting.is_empty());
}

#[tokio::test]
async fn a_refusal_is_told_and_what_is_worth_another_try_comes_back() {
    let (broker, engine) = slow();
    engine.refuse(Some(Reject::Unavailable(LATER)));
    let Err(Refused { error, publish: again, .. }) = broker.submit(publish("a", "x")).await else { panic!() };
    let expected = PublishError::Unavailable { what: "store", retry_after: LATER.retry_after };
    assert_eq!((error, again.is_some()), (expected.clone(), false));
    assert_eq!(broker.clear_retained(&Channel::parse("a").unwrap()).await, Err(expected));
    engine.refuse(Some(Reject::Busy(LATER)));
    let Err(Refused { error, publish: again, .. }) = broker.submit(publish("a", "x")).await else { panic!() };
    assert_eq!(error, PublishError::Busy { retry_after: LATER.retry_after });
    assert_eq!(again.unwrap().payload(), "x");
    let waiting = tokio::spawn({
        let broker = broker.clone();
        async move { broker.publish_wait(publish("a", "x")).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    engine.refuse(None);
    while engine.state.lock().waiting.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    engine.commit();
    assert!(soon(waiting).await.unwrap().is_ok());
    // Bounds are the broker's, and looked at before anything is kept.
    let large = Publish::new(Channel::parse("a").unwrap(), vec![0; 8 << 20]);
    let Err(Refused { error: PublishError::TooLarge { .. }, .. }) = broker.submit(large).await else {
        panic!()
    };
    assert!(engine.state.lock().waiting.is_empty());
    let stats = broker.stats();
    assert!(stats.refused_busy >= 2 && stats.refused == 2, "{stats:?}");
}

#[tokio::test]
async fn an_outcome_that_nobody_knows_is_said_to_be_unknown() {
    let (broker, engine) = slow();
    let answer = broker.submit(publish("a", "x"));
    let key = IdempotencyKey::new("k");
    let keyed = broker.submit_once(publish("a", "x"), &key);
    let cleared = broker.clear_retained(&Channel::parse("a").unwrap());
    engine.forget();
    assert_eq!(soon(answer).await.map_err(|refused| refused.error), Err(PublishError::Unknown));
    assert_eq!(soon(keyed).await, Err(PublishOnceError::Publish(PublishError::Unknown)));
    assert_eq!(soon(cleared).await, Err(PublishError::Unknown));
}

#[tokio::test]
async fn a_key_goes_with_its_message() {
    let (broker, engine) = slow();
    let mut key = IdempotencyKey::new("order-17");
    key.user = "shop";
    let answers = [(); 3].map(|()| broker.submit_once(publish("a", "x"), &key));
    engine.commit();
    let mut receipts = Vec::new();
    for answer in answers {
        receipts.push(soon(answer).await.unwrap());
    }
    let duplicates: Vec<_> = receipts.iter().map(|keyed| keyed.duplicate).collect();
    assert_eq!(duplicates, [false, true, true]);
    assert!(receipts.iter().all(|keyed| keyed.receipt == receipts[0].receipt));
    assert_eq!((kept_head(&broker), broker.stats().idempotency_keys), (3, 0));
}

#[tokio::test]
async fn retained_messages_are_set_and_cleared_when_that_is_accepted() {
    let (broker, engine) = slow();
    let channel = Channel::parse("a").unwrap();
    let set = broker.submit(publish("a", "x").retain(true));
    assert!(broker.retained(&channel).is_none());
    engine.commit();
    soon(set).await.unwrap();
    assert_eq!(broker.retained(&channel).unwrap().payload(), "x");
    assert_eq!(soon(broker.read_retained(&channel)).await.unwrap().unwrap().payload(), "x");
    let cleared = broker.clear_retained(&channel);
    assert!(broker.retained(&channel).is_some());
    engine.commit();
    assert_eq!(soon(cleared).await, Ok(true));
    assert!(broker.retained(&channel).is_none());
    let again = broker.clear_retained(&channel);
    engine.commit();
    assert_eq!(soon(again).await, Ok(false));
    engine.state.lock().retained = Some(Err(LATER));
    assert_eq!(soon(broker.read_retained(&channel)).await.unwrap_err(), LATER);
}

/// Publishes and commits; the id.
async fn keep(broker: &Broker, engine: &Slow, channel: &str, payload: &'static str) -> MessageId {
    let answer = broker.submit(publish(channel, payload));
    engine.commit();
    soon(answer).await.unwrap().id.unwrap()
}

fn kept_head(broker: &Broker) -> u64 {
    broker.position().in_epoch(EPOCH).unwrap()
}

/// What a subscription brings from a position on: payloads, and gaps as `!`.
async fn brought(broker: &Broker, text: &str, after: After, count: usize) -> Vec<String> {
    let mut options = SubscribeOptions::default();
    options.from = StartFrom::Log(after);
    let mut stream = broker.subscribe_with(&[filter(text)], options).unwrap();
    let mut brought = Vec::new();
    while brought.len() < count {
        match soon(stream.next()).await.unwrap() {
            Event::Message(message) => brought.push(String::from_utf8_lossy(message.payload()).into_owned()),
            Event::Gap(_) => brought.push("!".to_owned()),
            other => panic!("{other:?}"),
        }
    }
    brought
}

#[tokio::test]
async fn a_position_holds_in_the_next_life_and_offsets_go_on() {
    let engine = Arc::new(Slow::default());
    let broker = life_of(&engine);
    let mut ids = Vec::new();
    for payload in ["1", "2", "3"] {
        ids.push(keep(&broker, &engine, "a/b", payload).await);
        keep(&broker, &engine, "other", "x").await;
    }
    assert_eq!(engine.state.lock().reads, 0, "what is in memory is asked of nobody");
    broker.close();
    let broker = life_of(&engine);
    assert_eq!(kept_head(&broker), ids[2].offset() + 3);
    for text in ["a/b", "a/*"] {
        for (from, expected) in [
            (After::Id(ids[0]), &["2", "3", "4"][..]),
            (After::Earliest, &["1", "2", "3", "4"]),
            (After::Id(ids[2]), &["4"]),
        ] {
            return_to(&engine, 6);
            let broker = life_of(&engine);
            let stream = tokio::spawn({
                let (broker, count) = (broker.clone(), expected.len());
                async move { brought(&broker, text, from, count).await }
            });
            tokio::task::yield_now().await;
            let new = keep(&broker, &engine, "a/b", "4").await;
            assert_eq!((new.offset(), new.epoch()), (ids[2].offset() + 6, EPOCH));
            assert_eq!(soon(stream).await.unwrap(), expected, "{text} {from:?}");
        }
    }
}

/// Forgets what came after the first few.
fn return_to(engine: &Slow, messages: usize) {
    engine.state.lock().log.truncate(messages);
}

#[tokio::test]
async fn history_goes_on_behind_the_memory() {
    let engine = Arc::new(Slow::default());
    let broker = life_of(&engine);
    let mut ids = Vec::new();
    for payload in ["1", "2", "3", "4"] {
        ids.push(keep(&broker, &engine, "a", payload).await);
        keep(&broker, &engine, "b", "x").await;
    }
    broker.close();
    let broker = life_of(&engine);
    let ask = |after: Option<MessageId>, limit, order| {
        let mut query = HistoryQuery::default();
        (query.after, query.limit, query.order) = (after.map(Position::from), limit, order);
        let broker = &broker;
        async move {
            let history = soon(broker.read_history(&filter("a"), query)).await.unwrap();
            let payloads: String =
                history.messages.iter().map(|message| String::from_utf8_lossy(message.payload())).collect();
            (payloads, history.gap)
        }
    };
    assert_eq!(ask(None, 10, Order::Oldest).await, ("1234".into(), false));
    assert_eq!(ask(None, 2, Order::Newest).await, ("43".into(), false));
    assert_eq!(ask(Some(ids[1]), 10, Order::Oldest).await, ("34".into(), false));
    assert_eq!(ask(Some(ids[1]), 10, Order::Newest).await, ("43".into(), false));
    keep(&broker, &engine, "a", "5").await;
    assert_eq!(ask(Some(ids[2]), 10, Order::Oldest).await, ("45".into(), false));
    // What its retention took is a gap for who was before it, and for nobody else.
    engine.state.lock().first = ids[1].offset();
    assert_eq!(ask(Some(ids[0]), 10, Order::Oldest).await, ("345".into(), true));
    assert_eq!(ask(Some(ids[1]), 10, Order::Oldest).await, ("345".into(), false));
    let foreign = MessageId::new(EPOCH, 1_000);
    assert_eq!(ask(Some(foreign), 10, Order::Oldest).await, ("345".into(), true));
    engine.state.lock().cannot_read = true;
    let query = HistoryQuery::default();
    assert_eq!(soon(broker.read_history(&filter("a"), query)).await.unwrap_err(), LATER);
}

#[tokio::test]
async fn a_filter_over_both_logs_goes_on_in_each() {
    let engine = Arc::new(Slow::default());
    let broker = life_of(&engine);
    broker.publish(publish("memory/a", "m1")).unwrap();
    keep(&broker, &engine, "a", "d1").await;
    let wild = filter("#");
    let position = broker.position_of([&wild]);
    assert_eq!(position.ids().count(), 2);
    assert_eq!(broker.position_of([&filter("memory/#")]).only(), Some(broker.head()));
    assert!(broker.position_of([&filter("a")]).in_epoch(EPOCH).is_some());
    let position: Position = position.to_string().parse().unwrap();
    // In the other order than their offsets: neither hides the other.
    keep(&broker, &engine, "a", "d2").await;
    broker.publish(publish("memory/a", "m2")).unwrap();
    keep(&broker, &engine, "a", "d3").await;
    let mut all = brought(&broker, "#", After::Position(position), 3).await;
    all.sort();
    assert_eq!(all, ["d2", "d3", "m2"]);
    broker.close();
    let broker = life_of(&engine);
    broker.publish(publish("memory/a", "m3")).unwrap();
    let mut all = brought(&broker, "#", After::Position(position), 4).await;
    all.sort();
    assert_eq!(all, ["!", "d2", "d3", "m3"], "the memory's past is gone, and that is told");
}

#[tokio::test]
async fn what_comes_while_it_is_read_comes_once_and_in_order() {
    let engine = Arc::new(Slow::default());
    let broker = life_of(&engine);
    const OLD: usize = 100;
    for n in 0..OLD {
        _ = broker.submit(Publish::new(Channel::parse("a").unwrap(), n.to_string()));
    }
    engine.commit();
    broker.close();
    let broker = life_of(&engine);
    const ALL: usize = 300;
    let readers: Vec<_> = ["a", "#", "a"]
        .into_iter()
        .map(|text| {
            let broker = broker.clone();
            tokio::spawn(async move { brought(&broker, text, After::Earliest, ALL).await })
        })
        .collect();
    for n in OLD..ALL {
        _ = broker.submit(Publish::new(Channel::parse("a").unwrap(), n.to_string()));
        if n % 3 == 0 {
            engine.commit();
            tokio::task::yield_now().await;
        }
    }
    engine.commit();
    let expected: Vec<_> = (0..ALL).map(|n| n.to_string()).collect();
    for reader in readers {
        assert_eq!(soon(reader).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn retained_messages_are_there_in_the_next_life() {
    let engine = Arc::new(Slow::default());
    let broker = life_of(&engine);
    let set = broker.submit(publish("a/b", "kept").retain(true));
    engine.commit();
    soon(set).await.unwrap();
    broker.close();
    let broker = life_of(&engine);
    for text in ["a/b", "a/*"] {
        let mut options = SubscribeOptions::default();
        options.from = StartFrom::Retained;
        let mut stream = broker.subscribe_with(&[filter(text)], options).unwrap();
        assert_eq!(soon(stream.message()).await.unwrap().payload(), "kept", "{text}");
    }
}

#[tokio::test]
async fn what_was_released_is_not_released_again() {
    let (broker, engine) = slow();
    let mut stream = broker.subscribe(filter("a")).unwrap();
    keep(&broker, &engine, "a", "1").await;
    let (ingest, old) = {
        let state = engine.state.lock();
        (state.ingest.clone().unwrap(), state.log.clone())
    };
    assert_eq!(ingest.release(old).len(), 1);
    keep(&broker, &engine, "a", "2").await;
    for payload in ["1", "2"] {
        assert_eq!(soon(stream.message()).await.unwrap().payload(), payload);
    }
}

#[tokio::test]
async fn it_hears_who_is_interested_in_what_and_says_when_publishers_know() {
    let (broker, engine) = slow();
    let one = broker.subscribe(filter("a/*")).unwrap();
    let two = broker.subscribe(filter("a/*")).unwrap();
    let interest = |text: &str| engine.state.lock().interest.get(text).copied().unwrap_or_default();
    assert_eq!((interest("a/*"), interest("b")), (2, 0));
    assert_eq!(soon(broker.settled(&filter("a/*"))).await, Ok(()));
    let cut = broker.subscribe(filter("cut")).unwrap();
    let unavailable = SubscribeError::Unavailable { what: "store", retry_after: LATER.retry_after };
    assert_eq!(soon(broker.settled(&filter("cut"))).await, Err(unavailable));
    drop((one, cut));
    assert_eq!((interest("a/*"), interest("cut")), (1, 0));
    two.subscriber().unsubscribe_all(&filter("a/*"));
    assert_eq!(interest("a/*"), 0);
}

#[tokio::test]
async fn a_session_is_recorded_for_whoever_claimed_it_last() {
    let (broker, engine) = slow();
    let record = |state: &'static str| Some(SessionRecord::new(state, Some(MessageId::new(1, 9))));
    let first = soon(broker.claim_session("ann", Claim::Resume)).await.unwrap();
    assert_eq!(first.record, None);
    let recorded = broker.record_session("ann", first.fence, record("a"));
    engine.commit();
    assert_eq!(soon(recorded).await, Ok(()));
    let second = soon(broker.claim_session("ann", Claim::Resume)).await.unwrap();
    assert!(second.fence > first.fence && second.record == record("a"), "{second:?}");
    let late = broker.record_session("ann", first.fence, record("late"));
    engine.commit();
    assert_eq!(soon(late).await, Err(RecordError::Fenced));
    let lost = broker.record_session("ann", second.fence, None);
    engine.forget();
    assert_eq!(soon(lost).await, Err(RecordError::Unknown));
    engine.refuse(Some(Reject::Busy(LATER)));
    let refused = broker.record_session("ann", second.fence, None);
    assert_eq!(soon(refused).await, Err(RecordError::Unavailable(LATER)));
    let clean = soon(broker.claim_session("ann", Claim::Clean)).await.unwrap();
    assert_eq!(clean.record, None);
    // The memory keeps none, and has nothing to wait for.
    let memory = Broker::new(Config::default());
    let claimed = memory.claim_session("ann", Claim::Resume).if_now().unwrap().unwrap();
    assert_eq!(claimed, Claimed::default());
    assert_eq!(memory.record_session("ann", claimed.fence, record("a")).if_now().unwrap(), Ok(()));
}

#[tokio::test]
async fn what_was_taken_in_is_delivered_before_the_broker_ends() {
    let (broker, engine) = slow();
    let mut stream = broker.subscribe(filter("a")).unwrap();
    let answer = broker.submit(publish("a", "x"));
    broker.wind_down();
    let late = broker.submit(publish("a", "y")).await.unwrap_err();
    assert_eq!(late.error, PublishError::Closed);
    let mut drained = Box::pin(broker.drained());
    assert!(poll_once(&mut drained).is_pending(), "it waits for the engine");
    soon(broker.handed_over()).await;
    assert_eq!(kept_head(&broker), 0, "that waits for the lanes alone");
    engine.commit();
    soon(drained).await;
    broker.close();
    assert!(soon(answer).await.is_ok());
    assert_eq!(soon(stream.message()).await.unwrap().payload(), "x");
    assert!(soon(stream.message()).await.is_none());
}

#[tokio::test]
async fn an_engine_does_not_keep_its_broker() {
    let (broker, engine) = slow();
    let mut stream = broker.subscribe(filter("a")).unwrap();
    let answer = broker.submit(publish("a", "x"));
    drop((answer, broker));
    assert!(soon(stream.message()).await.is_none());
    drop(stream);
    tokio::time::sleep(Duration::from_millis(20)).await;
    // Nobody is there to release to, and an engine need not know.
    engine.commit();
}
