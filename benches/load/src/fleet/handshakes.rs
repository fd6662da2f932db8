//! Clients that shake hands and say no more, in a process of their own: those who measure something else meanwhile
//! are not to wait for their arithmetic.
//!
//! | line to the process | answer |
//! | --- | --- |
//! | the plan as JSON, first | – |
//! | `full`, `resumed` | how it went, as JSON, once all are through or given up |
//! | `leave` | – |

use std::cell::Cell;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::Plan;
use super::worker::Worker;
use crate::dialect::{Event, Session, Violation};
use crate::engine::{ClientTls, Dial, Engine, NOT_READY, Observer, RampLimits, Tickets};
use crate::sys::affinity::Cpus;
use crate::sys::clock::{Deadline, now_ns};
use crate::sys::process::{raise_descriptor_limit, yield_to_others};

/// Name of the hidden subcommand.
pub(crate) const COMMAND: &str = "shake-hands";
/// Longest handshake told apart, microseconds.
const MAX_US: u64 = 120_000_000;
/// Has everybody leave.
const LEAVE: &str = "leave";
/// Instead of the time when a handshake began, once it is done.
const DONE: u64 = u64::MAX;
/// How long tickets may come behind the last handshake.
const TICKETS_LIMIT: Duration = Duration::from_millis(500);

/// What kind of handshake is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Full,
    /// With a ticket of an earlier one, as clients have that come back.
    Resumed,
}

impl Kind {
    fn command(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
        }
    }
}

/// How a storm of handshakes went.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Shaken {
    pub(crate) done: usize,
    /// Of those, how many went on from an earlier session.
    pub(crate) resumed: usize,
    /// Closed or reset by the server.
    pub(crate) refused: u64,
    pub(crate) timeouts: u64,
    pub(crate) elapsed_ns: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Why some did not get through.
    pub(crate) reasons: Vec<String>,
}

/// The process, as seen by who started it.
pub(crate) struct Storm(Worker);

impl Storm {
    /// `plan` says how many come, how many at a time, to whom and from where.
    pub(crate) fn start(plan: &Plan, cpus: &Cpus) -> io::Result<Self> {
        Ok(Self(Worker::start_as(COMMAND, plan, cpus)?))
    }

    /// Everybody leaves at once.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        self.0.command(LEAVE)
    }

    /// Begins one, after those of the one before have left.
    pub(crate) fn begin(&mut self, kind: Kind) -> io::Result<()> {
        self.0.command(kind.command())
    }

    /// How it went, if it is over.
    pub(crate) fn over(&mut self) -> io::Result<Option<Shaken>> {
        let line = self.0.try_line()?;
        line.map(|line| serde_json::from_str(&line).map_err(io::Error::from)).transpose()
    }
}

/// The process's whole life.
///
/// # Errors
/// When its pipes or epoll fail; ends in good order when its input ends.
pub(crate) fn run() -> io::Result<()> {
    raise_descriptor_limit();
    // Who else is measured on this CPU comes first.
    yield_to_others();
    let mut lines = io::stdin().lock().lines();
    let Some(plan) = lines.next().transpose()? else { return Ok(()) };
    let plan: Plan = serde_json::from_str(&plan)?;
    let tickets = Arc::new(Tickets::collecting(plan.subscribers));
    let tls = Arc::new(ClientTls::new(plan.ca.as_deref(), Some(Arc::clone(&tickets)))?);
    let mut engine = Engine::new(plan.waiting)?;
    for (round, line) in lines.enumerate() {
        let line = line?;
        if line == LEAVE {
            engine.disconnect_all();
            continue;
        }
        if line == Kind::Resumed.command() {
            tickets.give();
        }
        let first_slot = plan.first_slot + (round * plan.subscribers) as u64;
        let shaken = storm(&Plan { first_slot, ..plan.clone() }, &tls, &mut engine)?;
        let mut output = io::stdout().lock();
        serde_json::to_writer(&mut output, &shaken)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

fn storm(plan: &Plan, tls: &Arc<ClientTls>, engine: &mut Engine) -> io::Result<Shaken> {
    let began = vec![Cell::new(0); plan.subscribers];
    let mut watch = Watch {
        began: &began,
        took_us: Histogram::new_with_bounds(1, MAX_US, 3).map_err(io::Error::other)?,
        shaken: Shaken::default(),
    };
    let dial = |number: usize| {
        began[number].set(now_ns());
        Dial {
            target: plan.target,
            source: plan.source(number),
            session: Box::new(Silent),
            tls: Some(Arc::clone(tls)),
            receive_buffer: None,
        }
    };
    let limits = RampLimits { in_flight: plan.in_flight, deadline: Deadline::after(plan.ramp_limit) };
    let ramp = engine.ramp(plan.subscribers, dial, limits, &mut watch)?;
    watch.shaken.resumed = engine.resumed();
    let quiet = Deadline::after(TICKETS_LIMIT);
    while !quiet.passed() {
        engine.turn(quiet.left(), &mut watch)?;
    }
    let ms = |quantile| watch.took_us.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok(Shaken { elapsed_ns: ramp.elapsed_ns, p50_ms: ms(0.5), p99_ms: ms(0.99), ..watch.shaken })
}

/// Says nothing inside of TLS.
struct Silent;

impl Session for Silent {
    fn start(&mut self, _: &mut Vec<u8>, on: &mut dyn FnMut(Event<'_>)) {
        on(Event::Ready);
    }

    fn receive(
        &mut self,
        input: &[u8],
        _: &mut Vec<u8>,
        _: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, Violation> {
        Ok(input.len())
    }
}

struct Watch<'a> {
    began: &'a [Cell<u64>],
    took_us: Histogram<u32>,
    shaken: Shaken,
}

impl Observer for Watch<'_> {
    fn event(&mut self, connection: usize, event: Event<'_>) {
        if let (Event::Ready, Some(began)) = (event, self.began.get(connection)) {
            self.took_us.saturating_record(now_ns().saturating_sub(began.replace(DONE)) / 1_000);
            self.shaken.done += 1;
        }
    }

    fn broken(&mut self, connection: usize, reason: &str) {
        if self.began.get(connection).is_some_and(|began| began.get() == DONE) {
            // Who says nothing behind the handshake may be closed after a while.
            return;
        }
        let counter = if reason == NOT_READY { &mut self.shaken.timeouts } else { &mut self.shaken.refused };
        *counter += 1;
        let reasons = &mut self.shaken.reasons;
        if reasons.len() < 4 && !reasons.iter().any(|known| known == reason) {
            reasons.push(reason.to_owned());
        }
    }
}
