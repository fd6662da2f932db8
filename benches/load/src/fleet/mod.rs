//! The client side of a run: subscribers over one or more processes, publishers in this one.
//!
//! ```text
//! scenario ─▶ Fleet ─▶ Crowd + Engine      subscribers of this process, and all publishers
//!                  └─▶ Worker ═pipe═▶ worker process: Crowd + Engine
//!          └─▶ Storm ═pipe═▶ process of clients that shake hands: Engine
//! ```

mod crowd;
mod handshakes;
mod publishers;
mod worker;

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dialect::{Security, Spoken};
use crate::engine::{ClientTls, Dial, Engine, Ramp, RampLimits, Waiting};
use crate::measure::stamp::Stamp;
use crate::measure::tally::Tally;
use crate::sys::affinity::Cpus;
use crate::sys::clock::{Deadline, now_ns};
use crowd::Crowd;
pub(crate) use handshakes::{Kind, Shaken, Storm, run as run_handshakes};
use publishers::Publishers;
use worker::Worker;
pub(crate) use worker::run as run_worker;

/// Connections one process takes before another is started.
pub(crate) const MAX_PER_PROCESS: usize = 18_000;
/// Ports connections come from; servers listen on 127.0.0.1 only, which is never a source.
const SOURCE_PORTS: Range<u16> = 10_000..60_000;
/// What the kernel takes for a subscriber that never reads: little, so that the server feels it soon.
const STALLED_RECEIVE_BUFFER: usize = 4 * 1_024;
/// Silence after which missing deliveries are given up as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who subscribes to what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// A name of [`Spoken`].
    pub(crate) dialect: String,
    pub(crate) target: SocketAddr,
    /// Where subscribers go instead of `target`, in turn; none if all go there.
    pub(crate) places: Vec<SocketAddr>,
    pub(crate) publish_target: SocketAddr,
    /// The publishers' [`Spoken`].
    pub(crate) publish_dialect: String,
    /// Whose certificates TLS believes; none believes everybody.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) channels: u32,
    /// Part of the channels' names: what a server remembers of an earlier fleet must not reach this one.
    pub(crate) epoch: u32,
    /// Subscribers over all channels and processes; number `i` subscribes to channel `i % channels`.
    pub(crate) subscribers: usize,
    /// Every how many-th subscriber never reads; 0 for none.
    pub(crate) stalled_every: usize,
    /// Addresses 127.0.0.2 and up that connections come from; 0 leaves it to the kernel.
    pub(crate) sources: u8,
    /// Number of the first address and port pair; fleets that follow one another take different ones, so that none
    /// meets the TIME_WAIT of another.
    pub(crate) first_slot: u64,
    pub(crate) in_flight: usize,
    /// This process takes the subscribers whose number has this remainder ...
    pub(crate) process: usize,
    /// ... when divided by this.
    pub(crate) processes: usize,
    pub(crate) ramp_limit: Duration,
    pub(crate) waiting: Waiting,
}

impl Plan {
    /// The channel with this number, as core text.
    fn channel(&self, number: u32) -> String {
        format!("load/{}/{number}", self.epoch)
    }

    fn spoken(&self) -> io::Result<Spoken> {
        self.dialect.parse().map_err(io::Error::other)
    }

    /// What connections of one kind share, if they are inside of TLS.
    fn tls(&self, spoken: Spoken) -> io::Result<Option<Arc<ClientTls>>> {
        match spoken.security {
            Security::Plain => Ok(None),
            Security::Tls => Ok(Some(Arc::new(ClientTls::new(self.ca.as_deref(), None)?))),
        }
    }

    /// Numbers of this process's subscribers.
    fn mine(&self) -> impl Iterator<Item = usize> + use<> {
        (self.process..self.subscribers).step_by(self.processes.max(1))
    }

    fn channel_of(&self, subscriber: usize) -> u32 {
        (subscriber % self.channels.max(1) as usize) as u32
    }

    /// Where a subscriber goes.
    fn target_of(&self, subscriber: usize) -> SocketAddr {
        let place = subscriber.checked_rem(self.places.len()).and_then(|place| self.places.get(place));
        place.copied().unwrap_or(self.target)
    }

    fn is_stalled(&self, subscriber: usize) -> bool {
        self.stalled_every > 0 && subscriber % self.stalled_every == self.stalled_every - 1
    }

    /// Where a subscriber connects from. Chosen here, because the kernel's own search for a free port becomes slow
    /// once many ports are in use or in TIME_WAIT.
    fn source(&self, subscriber: usize) -> Option<SocketAddrV4> {
        let addresses = u64::from(self.sources);
        let slot = self.first_slot + subscriber as u64;
        let host = 2 + slot.checked_rem(addresses)? as u8;
        let port = SOURCE_PORTS.start + (slot / addresses % SOURCE_PORTS.len() as u64) as u16;
        Some(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), port))
    }

    /// Per channel, in how many processes other than the first somebody reads it.
    fn remote_parts(&self) -> Vec<u32> {
        let channels = self.channels as usize;
        let mut heard = vec![false; channels * self.processes];
        for number in (0..self.subscribers).filter(|number| !self.is_stalled(*number)) {
            heard[number % self.processes * channels + self.channel_of(number) as usize] = true;
        }
        let mut parts = vec![0; channels];
        for (place, _) in heard.iter().enumerate().skip(channels).filter(|(_, heard)| **heard) {
            parts[place % channels] += 1;
        }
        parts
    }
}

/// Messages to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) messages: u64,
    pub(crate) payload_bytes: usize,
    pub(crate) pace: Pace,
}

/// When the next message is published.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// So many are on their way; the next goes when one has reached everybody.
    Window(usize),
    /// So many go at once, in one write of each publisher; the next go when all of them have reached everybody.
    Burst(usize),
    /// So many per second, whatever the deliveries do.
    PerSecond(f64),
}

/// One measured span of messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) completed: u64,
    pub(crate) elapsed_ns: u64,
}

pub(crate) struct Fleet {
    plan: Plan,
    engine: Engine,
    crowd: Crowd,
    workers: Vec<Worker>,
    publishers: Publishers,
    payload: Vec<u8>,
}

impl Fleet {
    /// Opens all subscribers and reports how that went; publishers come with [`Fleet::add_publishers`].
    ///
    /// # Errors
    /// When this side fails: a worker process, epoll. Failed connections are in the report.
    pub(crate) fn open(plan: Plan, client_cpus: &Cpus) -> io::Result<(Self, Ramp)> {
        let mut workers = (1..plan.processes)
            .map(|process| Worker::start(&Plan { process, ..plan.clone() }, client_cpus))
            .collect::<io::Result<Vec<_>>>()?;
        let parts = if workers.is_empty() { Vec::new() } else { plan.remote_parts() };
        let mut crowd = Crowd::new(&plan, parts);
        let mut engine = Engine::new(plan.waiting)?;
        let started = now_ns();
        for worker in &mut workers {
            worker.command("ramp")?;
        }
        let mut ramp = open_share(&plan, &mut engine, &mut crowd)?;
        for (number, worker) in workers.iter_mut().enumerate() {
            let theirs = worker.ramped(plan.ramp_limit)?;
            ramp.opened += theirs.opened;
            ramp.failed += theirs.failed;
            engine.watch(worker.output(), number)?;
        }
        if !workers.is_empty() {
            ramp.elapsed_ns = now_ns() - started;
        }
        Ok((
            Self { plan, engine, crowd, workers, publishers: Publishers::default(), payload: Vec::new() },
            ramp,
        ))
    }

    /// Opens `count` publishing connections.
    pub(crate) fn add_publishers(&mut self, count: usize) -> io::Result<Ramp> {
        let spoken: Spoken = self.plan.publish_dialect.parse().map_err(io::Error::other)?;
        let tls = self.plan.tls(spoken)?;
        let target = self.plan.publish_target;
        let first = self.engine.next_number();
        let limits = RampLimits { in_flight: 64, deadline: Deadline::after(self.plan.ramp_limit) };
        let dial = |_| {
            let session = spoken.dialect.publisher();
            Dial { target, source: None, session, tls: tls.clone(), receive_buffer: None }
        };
        let ramp = self.engine.ramp(count, dial, limits, &mut self.crowd)?;
        let windows = (first..first + count).map(|number| self.engine.window(number));
        self.publishers = Publishers::new(first, windows, self.plan.channels);
        self.crowd.expect_publishers(first..first + count);
        Ok(ramp)
    }

    /// Sends `load` and waits until everybody has everything, or nothing has come for ten seconds.
    pub(crate) fn run(&mut self, load: Load, deadline: Deadline) -> io::Result<Span> {
        self.run_while(load, deadline, || Ok(true))
    }

    /// Sends `load`, or less: nothing more once `going` says so.
    pub(crate) fn run_while(
        &mut self,
        mut load: Load,
        deadline: Deadline,
        mut going: impl FnMut() -> io::Result<bool>,
    ) -> io::Result<Span> {
        let started = now_ns();
        let mut patience = Deadline::after(PATIENCE);
        let (mut published, mut completed) = (0, 0);
        let mut seen = self.crowd.progress();
        while completed < load.messages && !deadline.passed() && !patience.passed() {
            let due = match load.pace {
                Pace::Window(window) => (completed + window as u64).min(load.messages),
                Pace::Burst(size) => ((completed / size as u64 + 1) * size as u64).min(load.messages),
                Pace::PerSecond(rate) => {
                    let elapsed = (now_ns() - started) as f64 / 1e9;
                    ((elapsed * rate) as u64 + 1).min(load.messages)
                }
            };
            while published < due {
                let due_ns = match load.pace {
                    Pace::Window(_) | Pace::Burst(_) => now_ns(),
                    Pace::PerSecond(rate) => started + (published as f64 * 1e9 / rate) as u64,
                };
                self.publishers.queue(due_ns);
                published += 1;
            }
            self.publish_queued(load);
            let wait = match load.pace {
                Pace::PerSecond(rate) if published < load.messages => {
                    let next = started + (published as f64 * 1e9 / rate) as u64;
                    Duration::from_nanos(next.saturating_sub(now_ns()))
                }
                _ => Duration::from_millis(100),
            };
            self.turn(wait.min(deadline.left()))?;
            if !going()? {
                load.messages = load.messages.min(published);
            }
            completed += self.crowd.take_completed().len() as u64;
            if self.crowd.progress() != seen {
                seen = self.crowd.progress();
                patience = Deadline::after(PATIENCE);
            }
        }
        Ok(Span { completed, elapsed_ns: now_ns() - started })
    }

    /// Sends `messages` publishes that nobody hears, `window` at a time per connection; returns those answered.
    pub(crate) fn publish_only(&mut self, load: Load, deadline: Deadline) -> io::Result<Span> {
        let started = now_ns();
        let before = self.crowd.accepted();
        let (mut queued, mut done) = (0, 0);
        while done < load.messages && !deadline.passed() {
            let window = (self.publishers.len() * 2) as u64;
            while queued < load.messages.min(done + window) {
                self.publishers.queue(now_ns());
                queued += 1;
            }
            self.publish_queued(load);
            // What is done when it is written has no answer that could be waited for.
            let is_answered = self.crowd.accepted() - before > done;
            let longest = if is_answered { Duration::ZERO } else { Duration::from_millis(100) };
            self.turn(longest.min(deadline.left()))?;
            done = self.crowd.accepted() - before;
        }
        Ok(Span { completed: done, elapsed_ns: now_ns() - started })
    }

    /// Handles what comes in for `span`, publishing nothing.
    pub(crate) fn idle(&mut self, span: Duration) -> io::Result<()> {
        let end = Deadline::after(span);
        while !end.passed() {
            self.turn(end.left().min(Duration::from_millis(100)))?;
        }
        Ok(())
    }

    /// Forgets what was counted so far, but not the sequence numbers: the warm-up is over.
    pub(crate) fn reset(&mut self) -> io::Result<()> {
        self.crowd.reset();
        for worker in &mut self.workers {
            worker.command("reset")?;
        }
        Ok(())
    }

    /// Everything counted since the last reset, over all processes, messages that never came included.
    pub(crate) fn tally(&mut self) -> io::Result<Tally> {
        let sent = self.publishers.sent();
        let mut tally = self.crowd.tally(&sent);
        for worker in &mut self.workers {
            tally.merge(&worker.tally(&sent)?);
        }
        Ok(tally)
    }

    /// Why connections broke, a few of them.
    pub(crate) fn reasons(&self) -> &[String] {
        self.crowd.reasons()
    }

    /// Local addresses of subscribers that stopped reading (those of this process).
    pub(crate) fn stalled_addresses(&self) -> HashSet<SocketAddr> {
        let stalled = self.plan.mine().enumerate().filter(|(_, number)| self.plan.is_stalled(*number));
        stalled.filter_map(|(index, _)| self.engine.local_address(index)).collect()
    }

    /// Closes every connection of every process at once.
    pub(crate) fn disconnect(mut self) -> io::Result<()> {
        for worker in &mut self.workers {
            worker.command("disconnect")?;
        }
        self.engine.disconnect_all();
        for worker in &mut self.workers {
            worker.finish();
        }
        Ok(())
    }

    fn publish_queued(&mut self, load: Load) {
        let mut unsent = Vec::new();
        self.crowd.give_back_windows(&mut self.publishers);
        while let Some(next) = self.publishers.next_to_send() {
            next.stamp.write(&mut self.payload, load.payload_bytes);
            let channel = self.plan.channel(next.stamp.channel);
            self.engine.publish(next.connection, &channel, &self.payload, &mut self.crowd);
            match load.pace {
                Pace::Burst(_) => unsent.push(next.connection),
                Pace::Window(_) | Pace::PerSecond(_) => self.engine.flush(next.connection, &mut self.crowd),
            }
            self.crowd.give_back_windows(&mut self.publishers);
        }
        unsent.dedup();
        for connection in unsent {
            self.engine.flush(connection, &mut self.crowd);
        }
    }

    fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        let readable = self.engine.turn(timeout, &mut self.crowd)?;
        for number in readable {
            if let Some(worker) = self.workers.get_mut(*number) {
                for stamp in worker.completed()? {
                    self.crowd.remote_completed(&stamp);
                }
            }
        }
        Ok(())
    }
}

/// Opens the subscribers of one process.
fn open_share(plan: &Plan, engine: &mut Engine, crowd: &mut Crowd) -> io::Result<Ramp> {
    let spoken = plan.spoken()?;
    let tls = plan.tls(spoken)?;
    let numbers: Vec<usize> = plan.mine().collect();
    let limits = RampLimits { in_flight: plan.in_flight, deadline: Deadline::after(plan.ramp_limit) };
    let dial = |index: usize| {
        let number = numbers[index];
        let session = spoken.dialect.subscriber(&plan.channel(plan.channel_of(number)));
        let receive_buffer = plan.is_stalled(number).then_some(STALLED_RECEIVE_BUFFER);
        let source = plan.source(number);
        Dial { target: plan.target_of(number), source, session, tls: tls.clone(), receive_buffer }
    };
    let ramp = engine.ramp(numbers.len(), dial, limits, crowd)?;
    for (index, number) in numbers.iter().enumerate() {
        if plan.is_stalled(*number) {
            engine.stop_reading(index)?;
        }
    }
    Ok(ramp)
}

/// A stamp without its time, as `publisher channel sequence`.
fn stamp_line(stamp: &Stamp) -> String {
    format!("done {} {} {}\n", stamp.publisher, stamp.channel, stamp.sequence)
}
