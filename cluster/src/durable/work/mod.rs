//! The work of groups: durable messages that members on several nodes share.
//!
//! ```text
//! a group's consumer ─▶ a node that asks for more ─▶ Task ─▶ a member
//!          ▲                   │ finish: acknowledged, once all of its frame is
//!          └── given back ◀────┤ give back, or silent for long: another node gets it
//!                              └ still with a member: said again and again
//! ```
//!
//! Consumers know frames, so one with several messages is a node's as a whole. What was finished of one that is given back is
//! told to the others, so that it is not done twice.

mod consumer;
pub(crate) mod held;
pub(crate) mod place;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use async_nats::jetstream;
use async_nats::{StatusCode, Subject, Subscriber};
use broker_core::{Answer, Filter, Gap, Task, Terms, Work, WorkError};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use self::consumer::{Opened, begins_at, lasts, name_of};
use self::held::{Held, Outcome, Partly, Places, State};
use self::place::Verdict;
use super::frame;
use super::records::Trouble;
use super::stream::{SOON, Streams};
use crate::control::Control;
use crate::desk::{Peer, Service};
use crate::groups::GroupId;
use crate::stats::one_more;

/// What nodes tell each other under this name.
const SERVICE: &str = "work";

/// How long a question for more stands.
const ASK_FOR: Duration = Duration::from_secs(5);

/// How soon is asked again where the consumer did not answer.
const AWAY_PAUSE: Duration = Duration::from_millis(200);

/// How often is said that messages are with members still. Some times within what JetStream waits.
const STILL_EVERY: Duration = Duration::from_secs(5);

/// So often another node may be faster with the same.
const MAX_TRIES: usize = 4;

/// How often is looked where a group stands, in looks of the above.
const PLACE_EVERY: u64 = 6;

/// The same where messages are not kept for long: some times before one is too old that has just come.
fn place_every(max_age: Duration) -> u64 {
    if max_age.is_zero() {
        return PLACE_EVERY;
    }
    (max_age.as_secs() / (4 * STILL_EVERY.as_secs())).clamp(1, PLACE_EVERY)
}

/// The work of all groups that have members here.
pub(crate) struct Works {
    streams: Arc<Streams>,
    workers: Mutex<AHashMap<GroupId, Known>>,
    /// A word for each frame that is held, at most, and what is held is bounded by what members have room for.
    saying: mpsc::UnboundedSender<Saying>,
    /// The node has left: nothing is said any more.
    is_closed: AtomicBool,
}

struct Known {
    worker: Arc<Worker>,
    part: Weak<Part>,
}

/// What JetStream is told of a frame, and where.
struct Saying {
    to: Subject,
    word: Word,
    /// What others are told before.
    partly: Option<Partly>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Done,
    GivenBack,
    Still,
}

impl Word {
    fn bytes(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Done => b"+ACK",
            // After a moment, in which a node that ends is gone and does not get it once more.
            Self::GivenBack => br#"-NAK {"delay":200000000}"#,
            Self::Still => b"+WPI",
        })
    }
}

impl Works {
    pub(crate) fn new(streams: Arc<Streams>) -> (Self, Said) {
        let (saying, said) = mpsc::unbounded_channel();
        let is_closed = AtomicBool::new(false);
        (Self { streams, workers: Mutex::default(), saying, is_closed }, Said(said))
    }

    /// Opens the work of a group.
    pub(crate) async fn open(self: Arc<Self>, id: GroupId, terms: Terms) -> Result<Arc<dyn Work>, WorkError> {
        let streams = &self.streams;
        if !streams.node.is_connected() {
            return Err(SOON.into());
        }
        let opened = {
            let head = streams.own_reach().await?.last;
            let from = begins_at(&terms, streams.epoch, head);
            let lasts = lasts(&terms, streams.node.settings.max_age);
            streams.open_consumer(&id, from, lasts).await.map(|opened| (head, from, opened))
        };
        let (head, from, Opened { lasts, is_new }) = opened.inspect_err(|error| {
            if matches!(error, WorkError::Full { .. }) {
                one_more(&streams.node.counters.groups_refused);
            }
        })?;
        let mut workers = self.workers.lock();
        if let Some(known) = workers.get(&id) {
            known.worker.state.lock().lasts = lasts;
            if let Some(part) = known.part.upgrade() {
                return Ok(part);
            }
        }
        let known = workers.entry(id.clone()).or_insert_with(|| {
            let worker = Worker {
                name: name_of(&id),
                works: Arc::downgrade(&self),
                streams: Arc::clone(streams),
                id,
                state: Mutex::new(State::new(head, from, lasts)),
                pulls: Turn::default(),
            };
            Known { worker: Arc::new(worker), part: Weak::new() }
        });
        let part = Arc::new(Part(Arc::clone(&known.worker)));
        known.part = Arc::downgrade(&part);
        let looking = Arc::clone(&known.worker);
        tokio::spawn(looking.look_for_place(Why::Opened { made_at: is_new.then_some(from) }));
        Ok(part)
    }

    /// Groups whose work is open here.
    pub(crate) fn open_groups(&self) -> usize {
        self.workers.lock().len()
    }

    fn say(&self, to: Subject, word: Word, partly: Option<Partly>) {
        if !self.is_closed.load(Relaxed) {
            // The task is gone only when the node is.
            _ = self.saying.send(Saying { to, word, partly });
        }
    }

    /// The node leaves: what its members have not finished is for others.
    pub(crate) async fn close(&self) {
        self.is_closed.store(true, Relaxed);
        let workers: Vec<_> = self.workers.lock().values().map(|known| Arc::clone(&known.worker)).collect();
        for worker in workers {
            let held = std::mem::take(&mut worker.state.lock().held);
            for (sequence, held) in held {
                let partly = worker.partly(sequence, held.done);
                self.tell(Saying { to: held.reply, word: Word::GivenBack, partly }).await;
            }
        }
    }

    async fn tell(&self, Saying { to, word, partly }: Saying) {
        let node = &self.streams.node;
        if let Some(partly) = partly {
            _ = Control::new(Arc::clone(node)).tell(SERVICE, &partly.write()).await;
        }
        _ = node.client.publish(to, word.bytes()).await;
    }

    /// Says what is with members still, and forgets groups that nobody here is in any more.
    fn look(self: &Arc<Self>, looks: u64) {
        let mut over = Vec::new();
        let place_every = place_every(self.streams.node.settings.max_age);
        {
            let mut workers = self.workers.lock();
            workers.retain(|_, known| {
                let is_open = known.part.strong_count() > 0;
                if !is_open {
                    over.push(Arc::clone(&known.worker));
                }
                is_open
            });
            for known in workers.values() {
                let worker = &known.worker;
                if self.streams.node.is_linked() {
                    let held = worker.state.lock().held.values().map(|held| held.reply.clone()).collect();
                    let held: Vec<Subject> = held;
                    held.into_iter().for_each(|reply| self.say(reply, Word::Still, None));
                }
                if looks.is_multiple_of(place_every) {
                    tokio::spawn(Arc::clone(worker).look_for_place(Why::Again));
                }
            }
        }
        for worker in over {
            let streams = Arc::clone(&self.streams);
            tokio::spawn(async move {
                Arc::clone(&worker).look_for_place(Why::Closed).await;
                if !streams.node.groups.read().is_known(&worker.id) {
                    streams.end_consumer(&worker.id).await;
                }
            });
        }
    }
}

/// What is to be said.
pub(crate) struct Said(mpsc::UnboundedReceiver<Saying>);

/// Says what becomes of frames.
pub(crate) async fn run(works: Arc<Works>, mut said: Said) {
    let told = Told(Arc::downgrade(&works));
    works.streams.node.desk.serve(SERVICE, Arc::new(told));
    let (mut looks, mut number) = (interval(STILL_EVERY), 0_u64);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            saying = said.0.recv() => {
                let Some(saying) = saying else { return };
                works.tell(saying).await;
            }
            _ = looks.tick() => {
                number += 1;
                works.look(number);
            }
        }
    }
}

/// Hears what other nodes have finished of frames that they give back.
struct Told(Weak<Works>);

impl Service for Told {
    fn hear(&self, _: &Peer, notice: Bytes) {
        let Some(works) = self.0.upgrade() else { return };
        let Some(Partly { consumer, sequence, done }) = Partly::read(&notice) else {
            return one_more(&works.streams.node.counters.unreadable);
        };
        let workers = works.workers.lock();
        if let Some(known) = workers.values().find(|known| *known.worker.name == *consumer) {
            known.worker.state.lock().remember_part(sequence, done);
        }
    }
}

/// A group, as this node takes part in its work.
struct Worker {
    name: String,
    works: Weak<Works>,
    streams: Arc<Streams>,
    id: GroupId,
    state: Mutex<State>,
    pulls: Turn<Option<Pulls>>,
}

/// What whoever takes part holds.
struct Part(Arc<Worker>);

/// Why it is looked where a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Its work was opened here; a consumer that was made for that begins at this sequence.
    Opened { made_at: Option<u64> },
    /// It is a while ago.
    Again,
    /// Nobody here is in the group any more, and could be told of anything.
    Closed,
}

/// Where messages come to, and what was asked.
struct Pulls {
    inbox: String,
    messages: Subscriber,
    /// So many are still to come of what was asked, until then.
    asked: usize,
    until: Instant,
}

impl Worker {
    fn partly(&self, sequence: u64, done: Places) -> Option<Partly> {
        (!done.is_empty()).then(|| Partly { consumer: self.name.as_str().into(), sequence, done })
    }

    fn settle(&self, offset: u64, is_done: bool) {
        let Some((reply, outcome)) = self.state.lock().settle(offset, is_done) else { return };
        let Some(works) = self.works.upgrade() else { return };
        match outcome {
            Outcome::Done => works.say(reply, Word::Done, None),
            Outcome::GivenBack(done) => {
                one_more(&self.streams.node.counters.groups_returned);
                works.say(reply, Word::GivenBack, self.partly(frame::sequence(offset), done));
            }
        }
    }

    async fn next(self: Arc<Self>, credit: usize) -> Vec<Task> {
        let mut pulls = self.pulls.lock().await;
        if pulls.is_none() && credit > 0 {
            let inbox = self.streams.node.client.new_inbox();
            let Ok(messages) = self.streams.node.client.subscribe(inbox.clone()).await else {
                sleep(AWAY_PAUSE).await;
                return Vec::new();
            };
            *pulls = Some(Pulls { inbox, messages, asked: 0, until: Instant::now() });
        }
        let Some(pulls) = pulls.as_mut() else { return Vec::new() };
        if pulls.asked == 0 || pulls.until <= Instant::now() {
            if credit == 0 {
                pulls.asked = 0;
                return Vec::new();
            }
            if !self.streams.ask_for(&self.name, &pulls.inbox, credit, ASK_FOR).await {
                sleep(AWAY_PAUSE).await;
                return Vec::new();
            }
            (pulls.asked, pulls.until) = (credit, Instant::now() + ASK_FOR + AWAY_PAUSE);
        }
        let mut tasks = Vec::new();
        let patience = pulls.until.saturating_duration_since(Instant::now());
        let first = timeout(patience, pulls.messages.next()).await.ok().flatten();
        let mut next = first;
        while let Some(message) = next {
            match message.status {
                None | Some(StatusCode::OK) => {
                    pulls.asked = pulls.asked.saturating_sub(1);
                    self.take(message, &mut tasks);
                }
                // It is there, and has nothing yet.
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                Some(status) => {
                    pulls.asked = 0;
                    // A question whose time is over. With all others the consumer may be away, or gone.
                    if status != StatusCode::TIMEOUT && status != StatusCode::NOT_FOUND {
                        self.look_for_consumer().await;
                    }
                }
            }
            next = pulls.messages.next().now_or_never().flatten();
        }
        tasks
    }

    /// Something was refused: whether there is a consumer still. One that was deleted is made anew, and begins where this
    /// node knows that it stood.
    async fn look_for_consumer(self: &Arc<Self>) {
        sleep(AWAY_PAUSE).await;
        if let Ok(None) = self.streams.find_consumer(&self.name).await {
            let (from, lasts) = {
                let state = self.state.lock();
                (state.from, state.lasts)
            };
            self.streams.node.tell("a shared subscription's consumer was deleted: it is made anew");
            if self.streams.open_consumer(&self.id, from, lasts).await.is_ok_and(|opened| opened.is_new) {
                Arc::clone(self).look_for_place(Why::Opened { made_at: Some(from) }).await;
            }
        }
    }

    /// Looks where the group is, and notes that, so that it is known when something of it is dropped.
    async fn look_for_place(self: Arc<Self>, why: Why) {
        for _ in 0..MAX_TRIES {
            // Where nobody answers the next look tells.
            let Ok(Some(seen)) = self.streams.see_place(&self.name).await else { return };
            let made_at = if let Why::Opened { made_at } = why { made_at } else { None };
            let Verdict { through, gap } = seen.judge(made_at);
            let is_the_same = seen.known == Some(through);
            {
                let mut state = self.state.lock();
                // In case that the consumer is deleted.
                state.from = state.from.max(seen.acknowledged + 1);
                let is_left = match why {
                    Why::Closed if gap.is_some() => true,
                    Why::Again if gap.is_none() => state.looked.leaves(seen.revision, is_the_same),
                    _ => is_the_same,
                };
                if is_left {
                    return;
                }
            }
            match self.streams.note_place(&self.name, &seen, through).await {
                Ok(revision) => {
                    let mut state = self.state.lock();
                    state.looked.wrote(revision);
                    // Of all nodes this one has moved it over the hole.
                    if let Some(gap) = gap {
                        let requested =
                            state.missed.as_ref().map_or(gap.requested, |before| before.requested);
                        state.missed = Some(Gap::new(requested, gap.first, None));
                    }
                    return;
                }
                // Another one was faster.
                Err(Trouble::Moved) => {}
                Err(_) => return,
            }
        }
    }

    /// A frame that this node was given.
    fn take(&self, message: async_nats::Message, tasks: &mut Vec<Task>) {
        let counters = &self.streams.node.counters;
        let message = jetstream::Message { message, context: self.streams.context.clone() };
        let numbers = message.info().ok().map(|info| (info.stream_sequence, info.delivered));
        let (Some((sequence, delivered)), Some(reply)) = (numbers, message.reply.clone()) else {
            return one_more(&counters.unreadable);
        };
        let Some(works) = self.works.upgrade() else { return };
        let mut state = self.state.lock();
        if let Some(held) = state.held.get_mut(&sequence) {
            // JetStream has not heard of this node for long.
            held.reply = reply;
            return works.say(held.reply.clone(), Word::Still, None);
        }
        if state.finished.all.contains(&sequence) {
            return works.say(reply, Word::Done, None);
        }
        let Ok(frame) = frame::read(&message.payload, sequence) else {
            one_more(&counters.unreadable);
            return works.say(reply, Word::Done, None);
        };
        let done = state.partly.get(&sequence).copied().unwrap_or_default();
        let is_late = sequence <= state.head || delivered > 1;
        let mut left = Places::default();
        for accepted in frame.content.into_messages() {
            let place = frame::place(accepted.offset);
            if done.has(place) || !is_for(self.id.filter(), &accepted) {
                continue;
            }
            left.insert(place);
            one_more(&counters.group_messages);
            tasks.push(Task::new(Arc::new(accepted.into_message(self.streams.epoch)), is_late));
        }
        if left.is_empty() {
            return works.say(reply, Word::Done, None);
        }
        state.held.insert(sequence, Held { reply, left, done, is_given_back: false });
    }
}

/// A server that knows nothing of filters brings more than was asked for, and wildcards at the beginning are not for all.
fn is_for(filter: &Filter, accepted: &broker_core::Accepted) -> bool {
    filter.matches(accepted.publish.channel())
}

impl Work for Part {
    fn next(&self, credit: usize) -> Answer<'static, Vec<Task>> {
        Answer::later(Arc::clone(&self.0).next(credit))
    }

    fn finish(&self, offset: u64) {
        self.0.settle(offset, true);
    }

    fn give_back(&self, offset: u64) {
        self.0.settle(offset, false);
    }

    fn missed(&self) -> Option<Gap> {
        self.0.state.lock().missed.take()
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("group", &self.0.id).finish_non_exhaustive()
    }
}
