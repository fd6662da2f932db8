//! Some subscribers never read: what the others feel, and what the kernel holds for the silent ones.

use std::io;

use super::{Scenario, Setup};
use crate::fleet::{Load, Pace};
use crate::measure::tally::Tally;
use crate::report::Outcome;
use crate::server::Server;
use crate::sys::clock::Deadline;
use crate::sys::sockets::{SendMemory, send_memory};

/// How often the stalled sockets' memory is read during the run.
const SAMPLES: u64 = 10;

#[derive(Clone, Debug)]
pub(crate) struct Slow {
    pub(crate) subscribers: usize,
    /// Every how many-th subscriber never reads (100: one per cent).
    pub(crate) stalled_every: usize,
    pub(crate) payload_bytes: usize,
    pub(crate) messages: u64,
    pub(crate) pace: Pace,
}

struct Run {
    tally: Tally,
    memory: SendMemory,
    private_bytes: u64,
    closed: u64,
    reasons: Vec<String>,
}

impl Slow {
    fn run_once(
        &self,
        server: &Server,
        setup: &Setup,
        stalled_every: usize,
        deadline: Deadline,
    ) -> io::Result<Run> {
        let mut plan = setup.plan(server, 1, self.subscribers);
        plan.stalled_every = stalled_every;
        let (mut fleet, _) = setup.open(plan, 1)?;
        let load = Load { messages: 5, payload_bytes: self.payload_bytes, pace: self.pace };
        fleet.run(load, deadline)?;
        let early = fleet.tally()?.faults;
        fleet.reset()?;
        let before = server.processes.private_bytes()?;
        let (mut memory, mut private_bytes, mut closed) = (SendMemory::default(), 0, 0);
        let stalled = fleet.stalled_addresses();
        for _ in 0..SAMPLES {
            let load = Load { messages: self.messages.div_ceil(SAMPLES), ..load };
            fleet.run(load, deadline)?;
            if stalled_every > 0 {
                let sample = send_memory(server.address, &stalled)?;
                closed = stalled.len() as u64 - sample.established.min(stalled.len() as u64);
                if sample.max_bytes >= memory.max_bytes {
                    memory = sample;
                }
            }
            private_bytes = private_bytes.max(server.processes.private_bytes()?.saturating_sub(before));
        }
        let mut tally = fleet.tally()?;
        tally.faults += early;
        let reasons = fleet.reasons().to_vec();
        fleet.disconnect()?;
        Ok(Run { tally, memory, private_bytes, closed, reasons })
    }
}

impl Scenario for Slow {
    fn title(&self) -> String {
        format!(
            "slow: {} subscribers, every {}th never reads, {} messages of {} bytes",
            self.subscribers, self.stalled_every, self.messages, self.payload_bytes
        )
    }

    fn headline(&self) -> &'static str {
        "p99_ratio"
    }

    fn run(&self, server: &Server, setup: &Setup) -> io::Result<Outcome> {
        let deadline = setup.deadline();
        let without = self.run_once(server, setup, 0, deadline)?;
        let with = self.run_once(server, setup, self.stalled_every, deadline)?;
        let mut outcome = Outcome { faults: with.tally.faults, reasons: with.reasons, ..Outcome::default() };
        outcome.faults += without.tally.faults;
        let (calm, disturbed) = (without.tally.latency_ms(0.99), with.tally.latency_ms(0.99));
        outcome.add("p99_without_ms", calm);
        outcome.add("p99_with_ms", disturbed);
        outcome.add("p99_ratio", if calm > 0.0 { disturbed / calm } else { 0.0 });
        outcome.add("max_with_ms", with.tally.max_ms());
        outcome.add("socket_send_max_bytes", with.memory.max_bytes as f64);
        let mean = with.memory.sum_bytes as f64 / with.memory.sockets.max(1) as f64;
        outcome.add("socket_send_mean_bytes", mean);
        outcome.add("stalled_closed", with.closed as f64);
        outcome.add("private_growth_kib", with.private_bytes as f64 / 1_024.0);
        Ok(outcome)
    }
}
