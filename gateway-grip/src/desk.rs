//! Where items are published: each is one message of its channel, in the order that publishers say.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use broker_core::{
    Action, Broker, Channel, Client, ContentType, Denied, Filter, HistoryQuery, Order, Principal, Properties,
    Publish, PublishError, Refused,
};
use bytes::Bytes;
use grip::publish::{ID_PROPERTY, ITEM_PROPERTY, Item};
use grip::sequence::{Place, Sequence, Taken};
use parking_lot::Mutex;
use websocket_over_http::{id_of, outline_of};

use crate::elsewhere::{Elsewhere, MAX_ASKED, Nodes, PAUSES, Told, until_behind};
use crate::secret::Secret;

/// What clients of a gateway are called in listings.
const PROTOCOL: &str = "grip";

/// How far back the log is read for the ids of a channel of which nothing is known, in messages.
const LEARNED: usize = 1_000;

/// What a hint has in its metadata that tells of a gap.
pub(crate) const GAP: &str = "fanwire-gap";

/// How often an item is tried again for which the broker had no room.
const TRIES: u32 = 20;

/// Why items are not published.
#[derive(Debug)]
pub(crate) enum Unpublished {
    /// No right to a channel.
    Forbidden { index: usize, is_unidentified: bool },
    /// More than may come; when to come back.
    TooFast(Duration),
    /// What cannot be said of a channel or a message here.
    Wrong { index: usize, why: String },
    /// A policy says no.
    Denied { index: usize, why: String },
    /// Not now.
    Later { why: String, wait: Duration },
    /// The broker refuses it.
    Refused(PublishError),
}

/// What became of one item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) receivers: u64,
    pub(crate) is_duplicate: bool,
}

/// One item on its way.
struct Prepared {
    request: u64,
    index: usize,
    /// What it is called, where there are other nodes.
    id: Option<String>,
    what: What,
}

/// What an item is here.
#[derive(Clone)]
enum What {
    /// A message of its channel.
    Message(Publish),
    /// It only instructs clients of a gateway, or is meant for them alone: those that are there now get it. With the item's
    /// own text, for clients of other nodes.
    Direct(Publish, String),
}

/// Takes items of all requests.
pub(crate) struct Desk {
    broker: Broker,
    secret: Secret,
    sequence: Mutex<Sequence<Prepared>>,
    requests: AtomicU64,
    pub(crate) elsewhere: Arc<Elsewhere>,
    pub(crate) published: AtomicU64,
    pub(crate) duplicates: AtomicU64,
}

impl Desk {
    pub(crate) fn new(broker: Broker, secret: Secret) -> Self {
        Self {
            broker,
            secret,
            sequence: Mutex::new(Sequence::new()),
            requests: AtomicU64::new(0),
            elsewhere: Arc::default(),
            published: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
        }
    }

    /// Publishes items, all or none; what became of each.
    pub(crate) async fn publish(
        self: &Arc<Self>,
        client: &Client<'_>,
        principal: &Principal,
        items: &[(Item, &str)],
    ) -> Result<Vec<Outcome>, Unpublished> {
        self.secret.keep();
        let mut channels = Vec::with_capacity(items.len());
        for (index, (item, _)) in items.iter().enumerate() {
            let wrong = |why: String| Unpublished::Wrong { index, why };
            let channel = Channel::parse(&item.channel).map_err(|error| wrong(error.to_string()))?;
            if channel.is_reserved() {
                return Err(wrong(format!("channel {:?} is the broker's own", item.channel)));
            }
            if !principal.allows(Action::Publish, &channel) {
                return Err(Unpublished::Forbidden { index, is_unidentified: principal.is_unidentified() });
            }
            channels.push(channel);
        }
        principal.admit(u32::try_from(items.len()).unwrap_or(u32::MAX)).map_err(Unpublished::TooFast)?;
        let mut prepared = Vec::with_capacity(items.len());
        for (index, ((item, text), channel)) in items.iter().zip(channels).enumerate() {
            prepared.push(match message(item, text, channel) {
                direct @ What::Direct(..) => direct,
                What::Message(publish) => What::Message(self.decided(client, publish, index).await?),
            });
        }
        self.learn(items).await;
        self.learn_elsewhere(items).await;
        self.take(items, prepared).await
    }

    /// Asks other nodes whether they have published what items come after that did not come here: else such an item waits, and
    /// what comes behind it in the same request and says nothing of its order does not.
    async fn learn_elsewhere(&self, items: &[(Item, &str)]) {
        if !self.elsewhere.is_joined() {
            return;
        }
        let (mut wanted, mut lasts, mut before) = (Vec::new(), HashMap::new(), HashSet::new());
        for (item, _) in items {
            if let Some(prev_id) = item.prev_id.as_ref().filter(|_| !item.no_seq && wanted.len() < MAX_ASKED)
                && !before.contains(&(&*item.channel, prev_id))
                && let Some(last) = self.last_of(&item.channel)
                && last != *prev_id
            {
                wanted.push((item.channel.clone(), prev_id.clone()));
                lasts.insert(item.channel.clone(), last);
            }
            before.extend(item.id.as_ref().map(|id| (&*item.channel, id)));
        }
        if wanted.is_empty() {
            return;
        }
        let known = self.elsewhere.ask(wanted).await;
        let since = Instant::now();
        for (channel, id) in known {
            let Some(last) = lasts.get(&channel) else { continue };
            let Ok(name) = Channel::parse(&channel) else { continue };
            until_behind(&self.broker, &name, Some(&id), since).await;
            let started = {
                let mut sequence = self.sequence.lock();
                let ready = sequence.handle_sent_after(&channel, last, &id, Instant::now());
                self.start(ready, Some(id))
            };
            self.finish(started).await;
        }
    }

    /// Reads in the log what it knows of channels of which nothing is known here: after a start, or a long while.
    async fn learn(&self, items: &[(Item, &str)]) {
        for (item, _) in items {
            let has_ids = item.id.is_some() || item.prev_id.is_some();
            if !has_ids || self.sequence.lock().knows(&item.channel) {
                continue;
            }
            let Ok(channel) = Channel::parse(&item.channel) else { continue };
            let mut query = HistoryQuery::default();
            (query.limit, query.order) = (LEARNED, Order::Newest);
            let history = self.broker.read_history(&Filter::literal(channel), query).await;
            let messages = history.map(|history| history.messages).unwrap_or_default();
            // Messages of other protocols have no place in the order of items.
            let last = messages.iter().find(|message| outline_of(message).is_some());
            let ids = messages.iter().rev().filter_map(|message| id_of(message));
            let last = last.and_then(|message| id_of(message));
            self.sequence.lock().learn(&item.channel, ids, last, Instant::now());
        }
    }

    /// What a policy makes of a message.
    async fn decided(
        &self,
        client: &Client<'_>,
        publish: Publish,
        index: usize,
    ) -> Result<Publish, Unpublished> {
        let Some(policy) = self.broker.policy() else { return Ok(publish) };
        policy.publish(client, publish).await.map_err(|denied| match denied {
            Denied::Unavailable { retry_after } => Unpublished::Later {
                why: "whoever decides about publishing does not answer".to_owned(),
                wait: retry_after,
            },
            Denied::Forbidden(why) => Unpublished::Denied { index, why: why.to_string() },
            _ => Unpublished::Denied { index, why: "a policy denies it".to_owned() },
        })
    }

    /// Has each published at its turn, and waits until those that had theirs have their place in the log.
    async fn take(
        self: &Arc<Self>,
        items: &[(Item, &str)],
        prepared: Vec<What>,
    ) -> Result<Vec<Outcome>, Unpublished> {
        let request = self.requests.fetch_add(1, Relaxed);
        let mut outcomes = vec![Outcome::default(); items.len()];
        let mut waits = false;
        for (index, ((item, text), what)) in items.iter().zip(prepared).enumerate() {
            let id = item.id.clone().filter(|_| self.elsewhere.is_joined());
            let prepared = Prepared { request, index, id, what };
            let started = {
                let mut sequence = self.sequence.lock();
                let is_told = self.elsewhere.is_joined();
                let before = sequence.last(&item.channel).filter(|_| is_told).map(str::to_owned);
                let taken =
                    sequence.take(&item.channel, Place::of(item, text.len()), prepared, Instant::now());
                let ready = match taken {
                    Taken::Seen(_) => {
                        self.duplicates.fetch_add(1, Relaxed);
                        if let Some(outcome) = outcomes.get_mut(index) {
                            outcome.is_duplicate = true;
                        }
                        continue;
                    }
                    Taken::Waits(ready) => {
                        waits = true;
                        ready
                    }
                    Taken::Ready(ready) => ready,
                };
                // Under the lock, so that the broker has them in this order.
                self.start(ready, before)
            };
            for (of, at, answer) in started {
                let receivers = self.published(answer).await.map_err(Unpublished::Refused)?;
                if of == request
                    && let Some(outcome) = outcomes.get_mut(at)
                {
                    outcome.receivers = receivers;
                }
            }
        }
        if waits {
            let desk = Arc::clone(self);
            tokio::spawn(async move { desk.wait_out().await });
            self.elsewhere.awaited.notify_one();
            if self.elsewhere.is_to_ask() {
                let desk = Arc::clone(self);
                tokio::spawn(async move { desk.ask_elsewhere().await });
            }
        }
        Ok(outcomes)
    }

    /// Begins what is ready on one channel, whose last item before it was `last`.
    fn start(&self, ready: Vec<Prepared>, mut last: Option<String>) -> Vec<(u64, usize, Started)> {
        let start = |prepared: Prepared| {
            let started = match prepared.what {
                What::Message(publish) => Started::Submitted(self.broker.submit(publish)),
                What::Direct(publish, text) => {
                    let receivers = self.send(&publish);
                    self.elsewhere.tell_item(&text, last.take());
                    Started::Sent(receivers)
                }
            };
            last = prepared.id;
            (prepared.request, prepared.index, started)
        };
        ready.into_iter().map(start).collect()
    }

    /// Sends to each client of a gateway that is on the channel, behind what its lane has for it; to how many.
    fn send(&self, publish: &Publish) -> u64 {
        let mut receivers = 0;
        for key in self.broker.subscribers_of(publish.channel()) {
            let peer = self.broker.connection(key).and_then(|connection| connection.peer());
            if peer.is_none_or(|peer| peer.protocol != PROTOCOL) {
                continue;
            }
            let sending = pin!(self.broker.send_to(key, publish.clone()));
            // Its lane has it from the first poll on, in this order; nobody waits for what it says.
            let polled = sending.poll(&mut Context::from_waker(Waker::noop()));
            receivers += u64::from(!matches!(polled, Poll::Ready(Err(_))));
        }
        receivers
    }

    async fn published(&self, started: Started) -> Result<u64, PublishError> {
        let answer = match started {
            Started::Submitted(answer) => answer,
            Started::Sent(receivers) => return Ok(receivers),
        };
        let mut result = answer.await;
        let mut tries = 0;
        // Its id is known by now: sent again it would be taken for a repeat.
        while let Err(Refused { error: PublishError::Busy { retry_after }, publish: Some(publish), .. }) =
            result
        {
            tries += 1;
            if tries == TRIES {
                return Err(PublishError::Busy { retry_after });
            }
            tokio::time::sleep(retry_after.min(Duration::from_millis(250))).await;
            result = self.broker.submit(*publish).await;
        }
        let receipt = result.map_err(|refused| refused.error)?;
        self.published.fetch_add(1, Relaxed);
        Ok(receipt.receivers)
    }

    /// Publishes what has waited long enough for what comes before it.
    async fn wait_out(self: Arc<Self>) {
        loop {
            let Some(until) = self.sequence.lock().poll_timeout() else { return };
            tokio::time::sleep_until(until.into()).await;
            let started = {
                let mut sequence = self.sequence.lock();
                let ready = sequence.handle_timeout(Instant::now());
                let mut told = None;
                for (channel, _) in &ready {
                    if told.replace(channel) != Some(channel) {
                        self.tell_of_gap(channel);
                    }
                }
                self.start(ready.into_iter().map(|(_, prepared)| prepared).collect(), None)
            };
            self.finish(started).await;
        }
    }

    /// Tells streams that what comes next on a channel has another item before it that never came: those with a next link
    /// ask it for that.
    fn tell_of_gap(&self, channel: &str) {
        let mut text = b"{\"channel\":".to_vec();
        envelope::write_string(channel, &mut text);
        text.extend_from_slice(b",\"http-stream\":{\"action\":\"hint\"},\"meta\":{\"");
        text.extend_from_slice(GAP.as_bytes());
        text.extend_from_slice(b"\":\"1\"}}");
        let Ok(text) = String::from_utf8(text) else { return };
        let (Ok(item), Ok(channel)) = (grip::publish::item(&text), Channel::parse(channel)) else { return };
        if let What::Direct(publish, _) = message(&item, &text, channel) {
            self.send(&publish);
        }
    }

    /// Asks other nodes for what items wait for here, until nothing does.
    async fn ask_elsewhere(self: Arc<Self>) {
        let mut pause = PAUSES.0;
        loop {
            let wanted = self.sequence.lock().awaited(MAX_ASKED);
            let is_over = || self.sequence.lock().waiting() == 0;
            if wanted.is_empty() && self.elsewhere.has_asked(is_over) {
                return;
            }
            let known = if wanted.is_empty() { wanted } else { self.elsewhere.ask(wanted).await };
            let follow = |(channel, id)| Box::pin(self.follow(channel, id));
            let mut following: Vec<_> = known.into_iter().map(follow).collect();
            // At the same time, as each may wait a moment.
            std::future::poll_fn(|context| {
                following.retain_mut(|one| one.as_mut().poll(context).is_pending());
                if following.is_empty() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            match tokio::time::timeout(pause, self.elsewhere.awaited.notified()).await {
                Ok(()) => pause = PAUSES.0,
                Err(_) => pause = (pause * 2).min(PAUSES.1),
            }
        }
    }

    /// Publishes what has waited for an item that another node has published, once that is here.
    async fn follow(&self, channel: String, id: String) {
        let Ok(name) = Channel::parse(&channel) else { return };
        until_behind(&self.broker, &name, Some(&id), Instant::now()).await;
        let started = {
            let mut sequence = self.sequence.lock();
            let ready = sequence.handle_sent(&channel, &id, Instant::now());
            self.start(ready, Some(id))
        };
        self.finish(started).await;
    }

    /// From now on there are other nodes; what they tell is done.
    pub(crate) fn join(self: &Arc<Self>, nodes: Arc<dyn Nodes>) {
        if !self.elsewhere.join(nodes) {
            return;
        }
        self.elsewhere.tell_key();
        let desk = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(elsewhere) = desk.upgrade().map(|desk| Arc::clone(&desk.elsewhere)) {
                let Some(told) = elsewhere.next_told().await else { continue };
                let Some(desk) = desk.upgrade() else { return };
                desk.obey(&told).await;
            }
        });
    }

    /// The answer to a question of another node.
    pub(crate) fn answer_node(&self, question: &[u8]) -> Option<Vec<u8>> {
        Elsewhere::answer(question, |channel, id| self.sequence.lock().has_sent(channel, id, Instant::now()))
    }

    /// Does what another node tells: an item for clients of a gateway, once they have what came before it.
    async fn obey(&self, told: &Told) {
        let Ok(item) = grip::publish::item(&told.text) else { return };
        let Ok(channel) = Channel::parse(&item.channel) else { return };
        if self.broker.subscribers_of(&channel).is_empty() {
            return;
        }
        if let What::Direct(publish, _) = message(&item, &told.text, channel) {
            until_behind(&self.broker, publish.channel(), told.after.as_deref(), told.since).await;
            self.send(&publish);
        }
    }

    async fn finish(&self, started: Vec<(u64, usize, Started)>) {
        for (_, _, answer) in started {
            if let Err(error) = self.published(answer).await {
                tracing::warn!(target: "fanwire::gateway", %error, "an item that had waited was not published");
            }
        }
    }

    /// The id of the last item of a channel, as far as it is known.
    pub(crate) fn last_of(&self, channel: &str) -> Option<String> {
        self.sequence.lock().last(channel).map(str::to_owned)
    }

    /// Items that wait for those before them.
    pub(crate) fn waiting(&self) -> usize {
        self.sequence.lock().waiting()
    }
}

type Submitted = Result<broker_core::Receipt, Refused>;

/// What was begun for an item.
enum Started {
    Submitted(broker_core::Answer<'static, Submitted>),
    /// It was sent, to so many.
    Sent(u64),
}

/// What an item is: the message that readers of its channel get, or nothing to others than the clients of a gateway.
fn message(item: &Item, text: &str, channel: Channel) -> What {
    // What each kind of client gets of it stands there, and nothing is made up for a kind that it does not speak to.
    let shown = item.elsewhere();
    let payload = shown.as_ref().map(|shown| shown.payload.clone()).unwrap_or_default();
    let told = websocket_over_http::sealed(channel.as_str(), text, &payload);
    let mut properties = Properties::default();
    let event_id = shown.as_ref().and_then(|shown| shown.event_id.as_deref());
    let own =
        [(ITEM_PROPERTY, told.as_deref()), (ID_PROPERTY, item.id.as_deref()), ("grip_event_id", event_id)];
    properties.user =
        own.into_iter().filter_map(|(name, value)| Some((name.into(), value?.into()))).collect();
    let Some(shown) = shown else {
        return What::Direct(Publish::new(channel, Bytes::new()).properties(properties), text.to_owned());
    };
    let mut publish =
        Publish::new(channel, shown.payload).content_type(ContentType::new(&shown.content_type));
    if let Some(event) = &shown.event {
        publish = publish.event(event);
    }
    What::Message(if properties.user.is_empty() { publish } else { publish.properties(properties) })
}
