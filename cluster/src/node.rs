//! What the tasks of a node share.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::connection::State;
use broker_core::{Channel, Done, Filter, Message, Sparing, Telling};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc};

use crate::desk::Desk;
use crate::groups::Groups;
use crate::interests::{Asked, Interests};
use crate::link::Events;
use crate::peers::Peers;
use crate::settings::Settings;
use crate::stats::{Counters, one_more};
use crate::subject::Subjects;

/// Without an answer of NATS for so long this node is alone.
const SILENCE: Duration = Duration::from_secs(5);

/// What is to be sent to other nodes.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Message(Arc<Message>),
    Forget(Channel),
    /// All before is to be on its way.
    Barrier(Done<()>),
}

/// What the tasks of a node share.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) subjects: Subjects,
    /// Drawn at the start: other nodes know this one's messages by it.
    pub(crate) life: u64,
    pub(crate) client: Client,
    pub(crate) events: Arc<Events>,
    pub(crate) counters: Counters,
    pub(crate) peers: Mutex<Peers>,
    /// What nodes ask each other.
    pub(crate) desk: Arc<Desk>,
    pub(crate) interests: Mutex<Interests>,
    pub(crate) groups: RwLock<Groups>,
    /// Groups that have their first member here, or have had their last.
    pub(crate) changed_groups: Notify,
    /// Others are to be told of all groups that have members here.
    pub(crate) tell_groups: Notify,
    /// Another filter is settled.
    pub(crate) settled: Notify,
    pub(crate) asks: mpsc::UnboundedSender<Asked>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    waiting_messages: AtomicUsize,
    waiting_bytes: AtomicUsize,
    /// When NATS answered last.
    answered: OnceLock<Mutex<Instant>>,
    told: Mutex<Sparing<&'static str>>,
}

/// What the tasks of a node take.
pub(crate) struct Inboxes {
    pub(crate) asks: mpsc::UnboundedReceiver<Asked>,
    pub(crate) outgoing: mpsc::UnboundedReceiver<Outgoing>,
}

impl Node {
    pub(crate) fn new(settings: Settings, client: Client, events: Arc<Events>, life: u64) -> (Self, Inboxes) {
        let (asks, to_ask) = mpsc::unbounded_channel();
        let (outgoing, to_send) = mpsc::unbounded_channel();
        let node = Self {
            subjects: Subjects::new(&settings.prefix),
            interests: Mutex::new(Interests::new(settings.max_filters)),
            life,
            client,
            events,
            counters: Counters::default(),
            peers: Mutex::default(),
            desk: Arc::default(),
            groups: RwLock::default(),
            changed_groups: Notify::new(),
            tell_groups: Notify::new(),
            settled: Notify::new(),
            asks,
            outgoing,
            waiting_messages: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            answered: OnceLock::new(),
            told: Mutex::new(Sparing::new(8)),
            settings,
        };
        (node, Inboxes { asks: to_ask, outgoing: to_send })
    }

    /// Whether there is a connection, as far as this side knows.
    pub(crate) fn is_linked(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Whether NATS answers.
    pub(crate) fn is_connected(&self) -> bool {
        self.is_linked() && self.answered.get().is_some_and(|answered| answered.lock().elapsed() < SILENCE)
    }

    /// NATS has answered a question that took so long.
    pub(crate) fn note_answer(&self, round_trip: Duration) {
        let now = Instant::now();
        *self.answered.get_or_init(|| Mutex::new(now)).lock() = now;
        let micros = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        self.counters.round_trip_us.store(micros, Relaxed);
    }

    /// Gives something to the task that sends, if there is room.
    pub(crate) fn send(&self, outgoing: Outgoing) {
        let bytes = weight(&outgoing);
        // What goes to waste anyway need not wait.
        if !self.is_linked() && !matches!(outgoing, Outgoing::Barrier(_)) {
            one_more(&self.counters.unsent_away);
            return;
        }
        let messages = self.waiting_messages.fetch_add(1, Relaxed);
        let waiting = self.waiting_bytes.fetch_add(bytes, Relaxed);
        let is_full = messages >= self.settings.max_waiting_messages
            || waiting.saturating_add(bytes) > self.settings.max_waiting_bytes;
        if is_full && !matches!(outgoing, Outgoing::Barrier(_)) {
            self.let_go(bytes);
            one_more(&self.counters.unsent_full);
            self.tell("more is published here than NATS takes: some of it stays on this node");
            return;
        }
        if self.outgoing.send(outgoing).is_err() {
            self.let_go(bytes);
        }
    }

    /// Something has been taken out of the queue.
    pub(crate) fn took(&self, outgoing: &Outgoing) {
        self.let_go(weight(outgoing));
    }

    fn let_go(&self, bytes: usize) {
        self.waiting_messages.fetch_sub(1, Relaxed);
        self.waiting_bytes.fetch_sub(bytes, Relaxed);
    }

    /// Messages that wait to be sent, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.waiting_messages.load(Relaxed), self.waiting_bytes.load(Relaxed))
    }

    /// Asks the server something that only it answers: it has done all that it was sent before.
    pub(crate) async fn round_trip(&self) -> bool {
        let asked = Instant::now();
        let answer = self.client.request(self.subjects.nobody(), Default::default()).await;
        let is_there = match answer {
            // Somebody else's service answers whatever it is asked: that shows the same.
            Ok(_) => true,
            Err(error) => error.kind() == async_nats::RequestErrorKind::NoResponders,
        };
        if is_there {
            self.note_answer(asked.elapsed());
        }
        is_there
    }

    /// Resolves once what others publish reaches a subscriber to `filter`.
    pub(crate) async fn until_settled(&self, filter: &Filter) {
        loop {
            let mut changed = std::pin::pin!(self.settled.notified());
            changed.as_mut().enable();
            if self.interests.lock().is_settled(filter) {
                return;
            }
            changed.await;
        }
    }

    /// Tells operators of something, once a minute.
    pub(crate) fn tell(&self, what: &'static str) {
        let telling = self.told.lock().note(what, 1, Instant::now());
        if let Telling::Now(times) = telling {
            tracing::warn!(what, times, "not everything goes its way between nodes");
        }
    }
}

fn weight(outgoing: &Outgoing) -> usize {
    match outgoing {
        Outgoing::Message(message) => message.weight(),
        Outgoing::Forget(channel) => channel.as_str().len(),
        Outgoing::Barrier(_) => 0,
    }
}
