//! One source, from its first connection to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker_core::Broker;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::ask::{Clients, Failure};
use crate::kinds;
use crate::pace::Pace;
use crate::settings::Settings;
use crate::state::{Condition, Phase, State};

/// The longest time between two tries.
const MAX_BACKOFF: Duration = Duration::from_secs(300);
/// Answers in a row that say that there is nothing for us, after which nobody asks again.
const MAX_REFUSALS: u32 = 5;
/// A connection that was open for so long, or brought something, was well.
const WELL_AFTER: Duration = Duration::from_secs(10);

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
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// As it may: it is connected to again.
    Over,
    /// There is nothing more.
    Stop,
    /// The broker is closed.
    Closed,
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<outgoing::Error> for End {
    fn from(error: outgoing::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<crate::publish::Closed> for End {
    fn from(_: crate::publish::Closed) -> Self {
        Self::Closed
    }
}

/// What a source remembers from one connection to the next.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) pace: Pace,
    /// The last id of an event stream.
    pub(crate) last_id: Option<String>,
    /// When an event stream wants to be asked again.
    pub(crate) retry: Option<Duration>,
    pub(crate) poll: kinds::PollMemory,
}

impl Source {
    pub(crate) fn new(settings: Settings, is_trusted: bool) -> Self {
        Self {
            settings,
            is_trusted,
            state: Mutex::new(State::new(Phase::Connecting)),
            wanted: watch::Sender::new(true),
            upstream: Mutex::default(),
            has_newcomer: AtomicBool::new(false),
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

    /// Reads it for as long as the broker is there.
    pub(crate) async fn keep(self: Arc<Self>, broker: Broker, clients: Clients) {
        let settings = &self.settings;
        let mut memory = Memory {
            pace: Pace::new(settings.messages_per_second, settings.bytes_per_second),
            last_id: None,
            retry: None,
            poll: kinds::PollMemory::default(),
        };
        let mut wanted = self.wanted.subscribe();
        let (mut failures, mut refusals) = (0, 0);
        loop {
            if wanted.wait_for(|wanted| *wanted).await.is_err() {
                return;
            }
            let (began, before) = (Instant::now(), {
                let mut state = self.state.lock();
                state.attempts = state.attempts.saturating_add(1);
                self.enter(&mut state, Phase::Connecting);
                state.received
            });
            let end = tokio::select! {
                end = kinds::read(&self, &broker, &clients, &mut memory) => end,
                _ = wanted.wait_for(|wanted| !*wanted) => {
                    *self.upstream.lock() = None;
                    (failures, refusals) = (0, 0);
                    continue;
                }
            };
            *self.upstream.lock() = None;
            if began.elapsed() >= WELL_AFTER || self.state.lock().received > before {
                (failures, refusals) = (0, 0);
            }
            let mut least = memory.retry.unwrap_or(Duration::ZERO);
            match end {
                End::Closed => return,
                End::Stop => {
                    self.wanted.send_replace(false);
                    self.enter(&mut self.state.lock(), Phase::Paused);
                    continue;
                }
                End::Over => {}
                End::Failed(failure) => {
                    least = least.max(failure.retry_after.unwrap_or(Duration::ZERO)).min(MAX_BACKOFF);
                    let says_no =
                        matches!(failure.status.map(|status| status.as_u16()), Some(401 | 403 | 404 | 410));
                    refusals = if says_no { refusals + 1 } else { 0 };
                    let gives_up = refusals >= MAX_REFUSALS || failure.condition == Condition::Policy;
                    let mut state = self.state.lock();
                    state.error = Some((failure.condition, failure.detail));
                    if gives_up {
                        self.wanted.send_replace(false);
                        self.enter(&mut state, Phase::Failed);
                        refusals = 0;
                        continue;
                    }
                }
            }
            self.enter(&mut self.state.lock(), Phase::Backoff);
            let wait = backoff(failures).max(least);
            failures += 1;
            tokio::select! {
                () = sleep(wait) => {}
                _ = wanted.wait_for(|wanted| !*wanted) => failures = 0,
            }
        }
    }
}

/// A random moment of a time that doubles with each failure (full jitter).
fn backoff(failures: u32) -> Duration {
    let most = Duration::from_secs(1).saturating_mul(1 << failures.min(16)).min(MAX_BACKOFF);
    most.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_five_minutes_and_is_any_moment_of_it() {
        for (failures, most) in [(0, 1), (1, 2), (5, 32), (9, 300), (400, 300)] {
            let all: Vec<_> = (0..200).map(|_| backoff(failures)).collect();
            let most = Duration::from_secs(most);
            assert!(all.iter().all(|wait| *wait <= most), "{failures}");
            assert!(all.iter().any(|wait| *wait < most / 2) && all.iter().any(|wait| *wait > most / 2));
        }
    }
}
