//! One source: what is wanted of it, and how it is.

use std::sync::atomic::{AtomicBool, Ordering};

use gateway::webhook::Webhooks;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::settings::{Goal, Settings};
use crate::state::{Condition, Phase, State};

/// A message for a WebSocket, from a backend.
#[derive(Debug)]
#[non_exhaustive]
pub enum Upstream {
    /// A text message.
    Text(String),
    /// A binary one.
    Binary(bytes::Bytes),
}

impl From<&str> for Upstream {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// One source.
#[derive(Debug)]
pub(crate) struct Source {
    settings: Settings,
    /// Whether its URL stands in the configuration file.
    pub(crate) is_trusted: bool,
    state: Mutex<State>,
    wanted: watch::Sender<bool>,
    /// Where messages for it are taken, while it is an open WebSocket.
    upstream: Mutex<Option<mpsc::Sender<Upstream>>>,
    /// Somebody has subscribed since the whole was published last.
    has_newcomer: AtomicBool,
    /// Who is told of its states, and the last one.
    webhooks: Option<Webhooks>,
    told: Mutex<Option<Phase>>,
}

impl Source {
    pub(crate) fn new(settings: Settings, is_trusted: bool, webhooks: Option<Webhooks>) -> Self {
        Self {
            settings,
            is_trusted,
            state: Mutex::new(State::new(Phase::Connecting)),
            wanted: watch::Sender::new(true),
            upstream: Mutex::default(),
            has_newcomer: AtomicBool::new(false),
            webhooks,
            told: Mutex::new(None),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn state(&self) -> State {
        self.state.lock().clone()
    }

    pub(crate) fn receives(&self) {
        self.state.lock().received += 1;
    }

    pub(crate) fn drops(&self, messages: u64) {
        self.state.lock().dropped += messages;
    }

    /// It answers.
    pub(crate) fn opened(&self) {
        let mut state = self.state.lock();
        (state.attempts, state.error) = (0, None);
        self.enter(&mut state, Phase::Open);
    }

    pub(crate) fn note_last_id(&self, id: &str) {
        self.state.lock().last_id = Some(id.to_owned());
    }

    /// Somebody subscribed to its channel.
    pub(crate) fn note_newcomer(&self) {
        self.has_newcomer.store(true, Ordering::Release);
    }

    /// Whether somebody has since the last call.
    pub(crate) fn take_newcomer(&self) -> bool {
        self.has_newcomer.swap(false, Ordering::AcqRel)
    }

    /// Takes messages for it from now on; the returned end has them.
    pub(crate) fn take_upstream(&self, waiting: usize) -> mpsc::Receiver<Upstream> {
        let (sender, receiver) = mpsc::channel(waiting);
        *self.upstream.lock() = Some(sender);
        receiver
    }

    /// Where its messages are taken.
    pub(crate) fn upstream(&self) -> Option<mpsc::Sender<Upstream>> {
        let state = self.state.lock();
        if state.phase == Phase::Open { self.upstream.lock().clone() } else { None }
    }

    /// Lets it rest. False if it does already.
    pub(crate) fn pause(&self) {
        self.wanted.send_replace(false);
        self.enter(&mut self.state.lock(), Phase::Paused);
    }

    /// Has it go on, also after it was left alone.
    pub(crate) fn resume(&self) {
        {
            let mut state = self.state.lock();
            if matches!(state.phase, Phase::Paused | Phase::Failed) {
                state.attempts = 0;
                self.enter(&mut state, Phase::Connecting);
            }
        }
        self.wanted.send_replace(true);
    }

    fn enter(&self, state: &mut State, phase: Phase) {
        if !state.enter(phase) {
            return;
        }
        self.tell(state);
        let (id, why) = (&self.settings.id, state.error.as_ref());
        let (condition, error) = why.map_or(("", ""), |(condition, detail)| (condition.name(), detail));
        match phase {
            Phase::Open => tracing::info!(source = id, "a source is open"),
            Phase::Failed => tracing::warn!(source = id, condition, error, "a source is left alone"),
            Phase::Backoff if !condition.is_empty() => {
                tracing::info!(source = id, condition, error, "a source failed and is tried again");
            }
            _ => {}
        }
    }

    /// Tells webhooks, but for what goes by with each try.
    fn tell(&self, state: &State) {
        let Some(webhooks) = self.webhooks.as_ref().filter(|_| state.phase != Phase::Connecting) else {
            return;
        };
        if self.told.lock().replace(state.phase) == Some(state.phase) {
            return;
        }
        webhooks.tell_of_source(&self.settings.id, |data| {
            let channel = match &self.settings.goal {
                Goal::Channel(channel) => Some(channel.as_str()),
                Goal::Pointer(_) => None,
            };
            data.text("source", &self.settings.id).text("kind", self.settings.kind.name());
            data.optional("channel", channel).text("state", state.phase.name());
            data.number("attempts", state.attempts.into()).number("received", state.received);
            match &state.error {
                Some((condition, detail)) => data.object("error", |error| {
                    error.text("condition", condition.name()).text("detail", detail);
                }),
                None => data.optional("error", None),
            };
        });
    }

    /// Whether it is to be read.
    pub(crate) fn wanted(&self) -> watch::Receiver<bool> {
        self.wanted.subscribe()
    }

    /// It is being reached. With the messages that it has brought so far.
    pub(crate) fn begins(&self) -> u64 {
        let mut state = self.state.lock();
        state.attempts = state.attempts.saturating_add(1);
        self.enter(&mut state, Phase::Connecting);
        state.received
    }

    /// Its connection is over. Whether it brought something since `received`.
    pub(crate) fn ended(&self, received: u64) -> bool {
        *self.upstream.lock() = None;
        self.state.lock().received > received
    }

    /// It is read no more, unless somebody has resumed it since.
    pub(crate) fn rests(&self) {
        let mut state = self.state.lock();
        if !*self.wanted.borrow() {
            self.enter(&mut state, Phase::Paused);
        }
    }

    /// It waits for its next try; why, if something went wrong.
    pub(crate) fn backs_off(&self, error: Option<(Condition, String)>) {
        let mut state = self.state.lock();
        if error.is_some() {
            state.error = error;
        }
        self.enter(&mut state, Phase::Backoff);
    }

    /// Nobody asks it again until somebody resumes it.
    pub(crate) fn is_left_alone(&self, error: (Condition, String)) {
        self.wanted.send_replace(false);
        let mut state = self.state.lock();
        state.error = Some(error);
        self.enter(&mut state, Phase::Failed);
    }
}
