//! What was submitted and is not answered yet: one frame of each channel is on its way at a time, with what has gathered
//! meanwhile in the next one.
//!
//! So a channel's order is kept whatever is sent again, and the way to the stream and back is shared: over channels, and by
//! the messages of a frame.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ahash::AHashMap;
use broker_core::{
    Accepted, Channel, Done, Echo, KeptKey, KeyedReceipt, Op, Publish, PublishError, PublishOnceError,
    Receipt, Reject, Rejected, SubscriberKey, Unavailable, unix_ms,
};
use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, mpsc, oneshot};

use super::frame::{self, MAX_MESSAGES, Origin, Print};
use super::stream::SOON;
use crate::node::Node;
use crate::stats::one_more;
use crate::subject::Reach;

/// What a frame of several messages may weigh.
const MAX_FRAME_BYTES: usize = 256 * 1024;

/// What whoever finds the queue full is told.
const BUSY: Unavailable = Unavailable::new(Duration::from_millis(100));

/// What whoever finds the stream gone is told.
const LATER: Unavailable = Unavailable::new(Duration::from_secs(60));

/// What a publisher waits for.
pub(crate) type Published = Done<Result<KeyedReceipt, PublishOnceError>>;

/// Something that was submitted.
pub(crate) struct Waiting {
    what: What,
    time_ms: u64,
    weight: usize,
}

enum What {
    Publish { publish: Box<Publish>, key: Option<KeptKey>, frame: Option<u64>, done: Published },
    Clear(Done<Result<bool, Unavailable>>),
}

impl Waiting {
    /// Whether it has a frame of its own: what has a name of its own, and what the stream of retained messages takes over.
    fn is_alone(&self) -> bool {
        match &self.what {
            What::Publish { publish, key, frame, .. } => {
                key.is_some() || frame.is_some() || publish.is_retained()
            }
            What::Clear(_) => true,
        }
    }
}

/// Who published a message, which is known here alone.
pub(crate) type Publisher = (Option<SubscriberKey>, Echo);

/// What became of a frame when it came back.
#[derive(Debug)]
pub(crate) enum Released {
    /// By the places of its messages, without those whose time was over.
    Messages(Vec<Option<Receipt>>),
    Cleared(bool),
    /// Nothing is in it: another node has put that there in its place.
    Nothing,
}

/// A frame that has not come back yet.
pub(crate) struct Flight {
    pub(crate) publishers: Vec<Publisher>,
    pub(crate) released: oneshot::Sender<Released>,
}

/// A frame that is to be sent.
pub(crate) struct Outgoing {
    pub(crate) number: u64,
    pub(crate) subject: String,
    /// What the stream knows it by.
    pub(crate) name: String,
    pub(crate) frame: Bytes,
    pub(crate) answers: Answers,
    pub(crate) released: oneshot::Receiver<Released>,
    /// Its message has a number, and another node may be faster under its name.
    pub(crate) is_numbered: bool,
}

/// Who waits for a frame.
pub(crate) enum Answers {
    /// With the times of their messages.
    Publishes(Vec<(u64, Published)>),
    Keyed(Print, u64, Published),
    Clear(Done<Result<bool, Unavailable>>),
}

impl Answers {
    /// Nothing of it was stored.
    pub(crate) fn refuse(self, error: &PublishError) {
        let unavailable = match error {
            PublishError::Unavailable { retry_after, .. } => Unavailable::new(*retry_after),
            _ => SOON,
        };
        match self {
            Self::Publishes(publishes) => {
                for (_, done) in publishes {
                    done.complete(Err(error.clone().into()));
                }
            }
            Self::Keyed(_, _, done) => done.complete(Err(error.clone().into())),
            Self::Clear(done) => done.complete(Err(unavailable)),
        }
    }
}

/// See the module.
pub(crate) struct Queue {
    node: Arc<Node>,
    state: Mutex<State>,
    wakes: mpsc::UnboundedSender<Channel>,
    flights: Mutex<AHashMap<u64, Flight>>,
    numbers: AtomicU64,
    /// The newest sequence that was acknowledged here.
    acknowledged: AtomicU64,
    /// The stream is not what it was: nothing is taken in any more.
    is_lost: AtomicBool,
    /// It may not be what it was: it is to be looked at.
    pub(crate) doubt: Notify,
}

#[derive(Default)]
struct State {
    /// Those that have a frame on its way, with what follows it.
    channels: AHashMap<Channel, VecDeque<Waiting>>,
    /// All that is not answered.
    operations: usize,
    bytes: usize,
    /// Whoever waits until nothing is left.
    barriers: Vec<Done<()>>,
}

impl Queue {
    pub(crate) fn new(node: Arc<Node>) -> (Self, mpsc::UnboundedReceiver<Channel>) {
        let (wakes, woken) = mpsc::unbounded_channel();
        let queue = Self {
            node,
            state: Mutex::default(),
            wakes,
            flights: Mutex::default(),
            numbers: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            is_lost: AtomicBool::new(false),
            doubt: Notify::new(),
        };
        (queue, woken)
    }

    /// Takes in a publish, or that a retained message is to be forgotten.
    pub(crate) fn submit(&self, op: Op) -> Result<(), Rejected> {
        let weight = match &op {
            Op::Publish { publish, .. } => weight_of(publish),
            _ => 256,
        };
        if let Err(why) = self.admit(weight) {
            return Err(Rejected::new(why, op));
        }
        let (channel, what) = match op {
            Op::Publish { publish, key, done, .. } => {
                (publish.channel().clone(), What::Publish { publish, key, frame: None, done })
            }
            Op::ClearRetained { channel, done } => (channel, What::Clear(done)),
            other => {
                self.answered(1, weight);
                return Err(Rejected::new(Reject::Unavailable(LATER), other));
            }
        };
        self.put(channel, Waiting { what, time_ms: unix_ms(), weight });
        Ok(())
    }

    /// Whether there is room for something of this weight, which is then taken: until it is
    /// [answered](Self::answered).
    pub(crate) fn admit(&self, weight: usize) -> Result<(), Reject> {
        if self.is_lost() {
            return Err(Reject::Unavailable(LATER));
        }
        if !self.node.is_connected() {
            one_more(&self.node.counters.kept_refused);
            return Err(Reject::Unavailable(SOON));
        }
        let mut state = self.state.lock();
        let settings = &self.node.settings;
        if state.operations >= settings.max_waiting_messages
            || state.bytes.saturating_add(weight) > settings.max_waiting_bytes && state.operations > 0
        {
            drop(state);
            one_more(&self.node.counters.kept_refused);
            return Err(Reject::Busy(BUSY));
        }
        state.operations += 1;
        state.bytes += weight;
        Ok(())
    }

    /// The number of a frame that is not sent yet.
    pub(crate) fn reserve(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes in a publish that was admitted, as the only one of its frame.
    pub(crate) fn put_alone(&self, publish: Box<Publish>, frame: u64, done: Published) {
        let weight = weight_of(&publish);
        let channel = publish.channel().clone();
        let what = What::Publish { publish, key: None, frame: Some(frame), done };
        self.put(channel, Waiting { what, time_ms: unix_ms(), weight });
    }

    fn put(&self, channel: Channel, waiting: Waiting) {
        let mut state = self.state.lock();
        match state.channels.get_mut(&channel) {
            Some(others) => others.push_back(waiting),
            None => {
                state.channels.insert(channel.clone(), VecDeque::from([waiting]));
                // The task is gone only when the node is.
                _ = self.wakes.send(channel);
            }
        }
    }

    /// Tells once nothing is left.
    pub(crate) fn barrier(&self, done: Done<()>) {
        let mut state = self.state.lock();
        if state.operations == 0 {
            drop(state);
            done.complete(());
        } else {
            state.barriers.push(done);
        }
    }

    /// What is not answered yet, and its bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.operations, state.bytes)
    }

    /// The next frame of a channel, of which none is on its way; `None`: nothing waits there any more.
    pub(crate) fn next(&self, channel: &Channel) -> Option<Vec<Waiting>> {
        let max_bytes = MAX_FRAME_BYTES.min(self.node.client.max_payload().saturating_sub(4_096));
        let mut state = self.state.lock();
        let queue = state.channels.get_mut(channel)?;
        let Some(first) = queue.pop_front() else {
            state.channels.remove(channel);
            return None;
        };
        let (mut bytes, is_alone) = (first.weight, first.is_alone());
        let mut group = vec![first];
        while let Some(next) = queue.front()
            && !is_alone
            && !next.is_alone()
            && group.len() < MAX_MESSAGES
            && bytes + next.weight <= max_bytes
        {
            bytes += next.weight;
            group.extend(queue.pop_front());
        }
        Some(group)
    }

    /// So much was answered.
    pub(crate) fn answered(&self, operations: usize, bytes: usize) {
        let barriers = {
            let mut state = self.state.lock();
            state.operations = state.operations.saturating_sub(operations);
            state.bytes = state.bytes.saturating_sub(bytes);
            if state.operations == 0 { std::mem::take(&mut state.barriers) } else { Vec::new() }
        };
        for done in barriers {
            done.complete(());
        }
    }

    /// Makes a frame of what goes into one. It is known by its number until it has come back or is given up.
    ///
    /// # Errors
    /// Whom to tell that the channel's name is too long.
    pub(crate) fn pack(&self, channel: &Channel, group: Vec<Waiting>) -> Result<Outgoing, Answers> {
        let reserved = group.iter().find_map(|waiting| match waiting.what {
            What::Publish { frame, .. } => frame,
            What::Clear(_) => None,
        });
        let number = reserved.unwrap_or_else(|| self.reserve());
        let origin = Origin { life: self.node.life, number };
        let mut name = origin.name();
        let mut reach = Reach::Wanted;
        let (mut records, mut publishers, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        let (mut answers, mut frame) = (None, Vec::new());
        for Waiting { what, time_ms, .. } in group {
            match what {
                What::Publish { publish, key, done, .. } => {
                    publishers.push(publish.publisher());
                    if publish.is_retained() {
                        reach = Reach::All;
                    }
                    let accepted = Accepted::new(*publish, 0, time_ms);
                    let mut record = Vec::with_capacity(accepted.weight());
                    accepted.write_to(&mut record);
                    if let Some(key) = key {
                        let print = print_of(accepted);
                        name = name_of(&key, channel);
                        frame = frame::keyed(origin, &print, time_ms, &record);
                        answers = Some(Answers::Keyed(print, time_ms, done));
                    } else {
                        waiting.push((time_ms, done));
                        records.push(record);
                    }
                }
                What::Clear(done) => {
                    reach = Reach::All;
                    frame = frame::clear(origin, channel);
                    answers = Some(Answers::Clear(done));
                }
            }
        }
        if answers.is_none() {
            frame = frame::messages(origin, records.iter().map(Vec::as_slice));
        }
        let answers = answers.unwrap_or(Answers::Publishes(waiting));
        let Some(subject) = self.node.subjects.of_kept(channel, reach) else { return Err(answers) };
        let (back, released) = oneshot::channel();
        let mut flights = self.flights.lock();
        // Else it would wait for something that does not come.
        if !self.is_lost() {
            flights.insert(number, Flight { publishers, released: back });
        }
        drop(flights);
        Ok(Outgoing {
            number,
            subject,
            name,
            frame: frame.into(),
            answers,
            released,
            is_numbered: reserved.is_some(),
        })
    }

    /// A frame of this node has come back, or is given up.
    pub(crate) fn land(&self, number: u64) -> Option<Flight> {
        self.flights.lock().remove(&number)
    }

    pub(crate) fn note_acknowledged(&self, sequence: u64) {
        self.acknowledged.fetch_max(sequence, Ordering::Relaxed);
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::SeqCst)
    }

    pub(crate) fn is_on_its_way(&self, number: u64) -> bool {
        self.flights.lock().contains_key(&number)
    }

    /// From now on nothing is taken in. What is on its way comes back no more, and whoever waits for it is told so.
    pub(crate) fn lose(&self) {
        self.is_lost.store(true, Ordering::SeqCst);
        self.flights.lock().clear();
    }
}

/// What a publish counts in the queue.
pub(crate) fn weight_of(publish: &Publish) -> usize {
    publish.payload().len() + publish.channel().as_str().len() + 256
}

/// What answers and bytes a group counts.
pub(crate) fn size_of(group: &[Waiting]) -> (usize, usize) {
    (group.len(), group.iter().map(|waiting| waiting.weight).sum())
}

/// A hash over several texts, whose lengths keep ("a", "bc") and ("ab", "c") apart.
fn hash(texts: &[&[u8]]) -> Print {
    let mut sha = Sha256::new();
    for text in texts {
        sha.update((text.len() as u64).to_be_bytes());
        sha.update(text);
    }
    let all: [u8; 32] = sha.finalize().into();
    let mut hash = Print::default();
    hash.copy_from_slice(&all[..16]);
    hash
}

/// All nodes call a key the same.
fn name_of(key: &KeptKey, channel: &Channel) -> String {
    let hash = hash(&[key.user.as_bytes(), channel.as_str().as_bytes(), key.text.as_bytes()]);
    let mut name = String::with_capacity(34);
    name.push_str("k-");
    for byte in hash {
        name.push(char::from(HEX[usize::from(byte >> 4)]));
        name.push(char::from(HEX[usize::from(byte & 15)]));
    }
    name
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn print_of(mut accepted: Accepted) -> Print {
    let mut record = Vec::with_capacity(accepted.weight());
    accepted.time_ms = 0;
    accepted.write_to(&mut record);
    hash(&[&record])
}

#[cfg(test)]
mod tests {
    use broker_core::IdempotencyKey;

    use super::*;

    #[test]
    fn a_key_has_a_name_for_each_user_and_channel() {
        let (a, b) = (Channel::parse("a").unwrap(), Channel::parse("b").unwrap());
        let mut key = IdempotencyKey::new("k");
        let name = name_of(&KeptKey::from(&key), &a);
        assert_eq!((name.len(), &name), (34, &name_of(&KeptKey::from(&key), &a)));
        assert_ne!(name, name_of(&KeptKey::from(&key), &b));
        key.user = "ann";
        assert_ne!(name, name_of(&KeptKey::from(&key), &a));
    }

    #[test]
    fn a_message_is_known_by_all_but_its_time() {
        let publish = |text: &str| Publish::new(Channel::parse("a").unwrap(), text.to_owned());
        let print = |text, time_ms| print_of(Accepted::new(publish(text), 0, time_ms));
        assert_eq!(print("x", 1), print("x", 2));
        assert_ne!(print("x", 1), print("y", 1));
        let short = publish("x").ttl(Duration::from_secs(1));
        assert_ne!(print("x", 1), print_of(Accepted::new(short, 0, 1)));
    }
}
