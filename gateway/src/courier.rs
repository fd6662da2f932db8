//! Brings a receiver its notifications: the task around a [`Queue`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Uri};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use crate::client::{Answer, CallError, Caller, Permit};
use crate::delivery::{Attempt, Bounds, Dead, Event, Failure, Outcome, Queue};
use crate::kept::Kept;

/// How often what grew too old is looked for while nothing can be sent.
const SWEEP: Duration = Duration::from_secs(5);

/// Who is told, in words of its own: how events become a request, and what an answer means for them.
pub trait Receiver: Send + Sync + 'static {
    /// Where it is.
    fn url(&self) -> &Uri;

    /// How long a call may take.
    fn timeout(&self) -> Duration;

    /// Most bytes of an answer.
    fn max_answer_bytes(&self) -> usize {
        64 << 10
    }

    /// Whether an answer of 410 says that it wants nothing more.
    fn can_leave(&self) -> bool {
        true
    }

    /// The request that carries these events, at least one. Asked anew for each attempt.
    fn request(&self, events: &[Arc<Event>]) -> Request<Bytes>;

    /// Which of the events an answer of 2xx names as not done, by their ids.
    fn failures(&self, events: &[Arc<Event>], answer: &Answer) -> Vec<String> {
        let _ = (events, answer);
        Vec::new()
    }

    /// What came of an attempt, for who counts.
    fn told(&self, events: &[Arc<Event>], outcome: &Outcome, took: Duration) {
        let _ = (events, outcome, took);
    }

    /// These will not be delivered.
    fn buried(&self, dead: Vec<Dead>);
}

/// Delivers events to one receiver, in order for each connection or channel, until the last handle is dropped.
#[derive(Clone)]
pub struct Courier(Arc<Handle>);

/// The task ends with it.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }
}

struct Shared {
    queue: Mutex<Queue>,
    /// Where what waits outlives a crash.
    kept: Option<Kept>,
    wake: Notify,
    /// Something was delivered, or given up.
    settled: Notify,
    is_over: AtomicBool,
    caller: Caller,
    receiver: Arc<dyn Receiver>,
    turns: Arc<Semaphore>,
}

/// What a courier holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// Events that wait or are being sent.
    pub events: usize,
    /// Bytes of them.
    pub bytes: usize,
    /// How long ago the oldest happened that is not being sent.
    pub oldest: Duration,
    /// Whether the receiver said that it wants nothing more (410).
    pub is_closed: bool,
}

impl Courier {
    /// Starts one, on the current tokio runtime. `turns` are the calls that the receiver gets at a time, whoever makes
    /// them.
    pub fn start(bounds: Bounds, caller: Caller, receiver: Arc<dyn Receiver>, turns: Arc<Semaphore>) -> Self {
        Self::begin(bounds, caller, receiver, turns, None, Vec::new())
    }

    /// The same, with what waits noted so that it outlives a crash, and with what is `left` of an earlier life first.
    pub(crate) fn start_kept(
        bounds: Bounds,
        caller: Caller,
        receiver: Arc<dyn Receiver>,
        turns: Arc<Semaphore>,
        kept: &Kept,
        left: Vec<Event>,
    ) -> Self {
        Self::begin(bounds, caller, receiver, turns, Some(kept.clone()), left)
    }

    fn begin(
        bounds: Bounds,
        caller: Caller,
        receiver: Arc<dyn Receiver>,
        turns: Arc<Semaphore>,
        kept: Option<Kept>,
        left: Vec<Event>,
    ) -> Self {
        let mut queue = Queue::new(bounds, fastrand::u64(..));
        let over = left.into_iter().flat_map(|event| queue.push(event)).collect();
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            kept,
            wake: Notify::new(),
            settled: Notify::new(),
            is_over: AtomicBool::new(false),
            caller,
            receiver,
            turns,
        });
        shared.bury(over);
        tokio::spawn(run(Arc::clone(&shared)));
        Self(Arc::new(Handle(shared)))
    }

    /// Takes an event. Never waits: what had to make room for it is buried.
    pub fn push(&self, event: Event) {
        let shared = &self.0.0;
        if let Some(kept) = &shared.kept {
            kept.note(&event);
        }
        let dead = shared.queue.lock().push(event);
        shared.bury(dead);
        shared.wake.notify_one();
    }

    /// What it holds now.
    pub fn load(&self) -> Load {
        let queue = self.0.0.queue.lock();
        Load {
            events: queue.len(),
            bytes: queue.bytes(),
            oldest: queue.oldest().map(|made| made.elapsed()).unwrap_or_default(),
            is_closed: queue.is_closed(),
        }
    }

    /// Sends again after the receiver wanted nothing more.
    pub fn reopen(&self) {
        self.0.0.queue.lock().reopen();
        self.0.0.wake.notify_one();
    }

    /// Takes out what is not being sent, in its order. What is being sent ends as it ends.
    pub fn take(&self) -> Vec<Event> {
        let events = self.0.0.queue.lock().take_waiting();
        self.0.0.settled.notify_waiters();
        events
    }

    /// Resolves when everything that was taken has been delivered or given up.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn drained(&self) {
        loop {
            let settled = self.0.0.settled.notified();
            if self.0.0.queue.lock().is_empty() {
                return;
            }
            settled.await;
        }
    }
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Courier").field("load", &self.load()).finish_non_exhaustive()
    }
}

impl Shared {
    fn bury(&self, dead: Vec<Dead>) {
        if !dead.is_empty() {
            self.receiver.buried(dead);
            self.settled.notify_waiters();
        }
    }

    /// Sends what can be sent now; when to come again, if nothing else happens.
    fn pump(self: &Arc<Self>) -> Option<Instant> {
        loop {
            let now = Instant::now();
            match self.queue.lock().poll_timeout() {
                Some(at) if at <= now => {}
                later => return later,
            }
            // Before anything is taken out: what waits for a host that fails has not been tried.
            let permit = match self.caller.permit(self.receiver.url()) {
                Ok(permit) => permit,
                Err(error) => {
                    let dead = self.queue.lock().sweep(now);
                    self.bury(dead);
                    let CallError::Open(until) = error else { return Some(now + SWEEP) };
                    return Some(until.min(now + SWEEP).max(now + Duration::from_millis(10)));
                }
            };
            let (attempt, dead) = self.queue.lock().poll(now);
            self.bury(dead);
            match attempt {
                Some(attempt) => drop(tokio::spawn(Arc::clone(self).make(attempt, permit))),
                // What was due had grown too old.
                None => continue,
            }
        }
    }

    async fn make(self: Arc<Self>, attempt: Attempt, permit: Permit) {
        let Ok(_turn) = self.turns.acquire().await else { return };
        let (receiver, began) = (&self.receiver, Instant::now());
        let request = receiver.request(&attempt.events);
        let call = self.caller.call_with(permit, request, receiver.max_answer_bytes(), receiver.timeout());
        let outcome = match call.await {
            Ok(answer) if answer.status == 410 && !receiver.can_leave() => {
                Outcome::Rejected(failure(&answer))
            }
            Ok(answer) => meant(answer, |answer| receiver.failures(&attempt.events, answer)),
            Err(CallError::Forbidden(why)) => Outcome::Rejected(Failure::of_policy(why)),
            Err(CallError::Unreachable(why)) => Outcome::Unreachable(Failure::new(None, why)),
            Err(error) => Outcome::Failed(Failure::new(None, error.to_string()), None),
        };
        receiver.told(&attempt.events, &outcome, began.elapsed());
        if let (Some(kept), Outcome::Delivered { failed }) = (&self.kept, &outcome) {
            let delivered = attempt.events.iter().filter(|event| !failed.contains(&event.id));
            delivered.for_each(|event| kept.forget(&event.id));
        }
        let dead = self.queue.lock().handle(Instant::now(), attempt.number, outcome);
        self.bury(dead);
        self.settled.notify_waiters();
        self.wake.notify_one();
    }
}

/// What an answer means, by its status.
fn meant(answer: Answer, failures: impl FnOnce(&Answer) -> Vec<String>) -> Outcome {
    match answer.status {
        200..=299 => Outcome::Delivered { failed: failures(&answer) },
        410 => Outcome::Gone(failure(&answer)),
        408 | 425 | 429 | 500.. => Outcome::Failed(failure(&answer), answer.retry_after),
        _ => Outcome::Rejected(failure(&answer)),
    }
}

fn failure(answer: &Answer) -> Failure {
    Failure::new(Some(answer.status), format!("status {}", answer.status))
}

async fn run(shared: Arc<Shared>) {
    loop {
        let woken = shared.wake.notified();
        if shared.is_over.load(Ordering::Acquire) {
            return;
        }
        match shared.pump() {
            Some(at) => {
                let at = tokio::time::Instant::from_std(at);
                let _ = tokio::time::timeout_at(at, woken).await;
            }
            None => woken.await,
        }
    }
}
