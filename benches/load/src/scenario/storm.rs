//! Everybody connects at once, hears a few messages, and leaves at once; then again.

use std::io;
use std::time::Duration;

use super::{Scenario, Setup};
use crate::fleet::{Load, Pace};
use crate::report::Outcome;
use crate::server::Server;
use crate::sys::clock::Deadline;

/// How long the server may take to notice a mass disconnect.
const NOTICE_LIMIT: Duration = Duration::from_secs(20);
/// After the last descriptor is closed, time for memory to be given back.
const GIVE_BACK: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(crate) struct Storm {
    pub(crate) channels: u32,
    pub(crate) connections: usize,
    /// Messages each subscriber must get between connect and disconnect.
    pub(crate) messages: u64,
    /// How often all come and go.
    pub(crate) cycles: usize,
}

impl Scenario for Storm {
    fn title(&self) -> String {
        format!("storm: {} connections, {} messages, {} cycles", self.connections, self.messages, self.cycles)
    }

    fn headline(&self) -> &'static str {
        "cpu_us_per_open"
    }

    fn run(&self, server: &Server, setup: &Setup) -> io::Result<Outcome> {
        let deadline = setup.deadline();
        let quiet = server.processes.descriptors();
        let before = server.processes.private_bytes()?;
        let mut outcome = Outcome::default();
        let (mut rates, mut cpu_us, mut peak) = (Vec::new(), Vec::new(), 0);
        let mut after = Vec::new();
        for _ in 0..self.cycles.max(1) {
            setup.hooks.before(server)?;
            let used = server.processes.cpu()?;
            let plan = setup.plan(server, self.channels, self.connections);
            let (mut fleet, ramp) = setup.open(plan, 1)?;
            let used = server.processes.cpu()? - used;
            setup.hooks.after(server)?;
            rates.push(ramp.opened as f64 * 1e9 / ramp.elapsed_ns.max(1) as f64);
            cpu_us.push(used.total_ns as f64 / 1_000.0 / ramp.opened.max(1) as f64);
            fleet
                .run(Load { messages: self.messages, payload_bytes: 64, pace: Pace::Window(1) }, deadline)?;
            peak = peak.max(server.processes.private_bytes()?);
            outcome.faults += fleet.tally()?.faults;
            outcome.reasons.extend_from_slice(fleet.reasons());
            outcome.reasons.truncate(8);
            fleet.disconnect()?;
            let noticed = Deadline::after(NOTICE_LIMIT);
            while server.processes.descriptors() > quiet && !noticed.passed() {
                std::thread::sleep(Duration::from_millis(20));
            }
            // Connections the server still holds after everybody left are leaked.
            outcome.faults.broken += server.processes.descriptors().saturating_sub(quiet) as u64;
            std::thread::sleep(GIVE_BACK);
            after.push(server.processes.private_bytes()?);
            if deadline.passed() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the cycles take longer than --time-limit",
                ));
            }
        }
        rates.sort_by(f64::total_cmp);
        cpu_us.sort_by(f64::total_cmp);
        let kib = |bytes: u64| bytes as f64 / 1_024.0;
        outcome.add("opens_per_s", rates[rates.len() / 2]);
        outcome.add("cpu_us_per_open", cpu_us[cpu_us.len() / 2]);
        outcome.add("before_kib", kib(before));
        outcome.add("peak_kib", kib(peak));
        outcome.add("after_first_kib", after.first().copied().map_or(0.0, kib));
        outcome.add("after_last_kib", after.last().copied().map_or(0.0, kib));
        Ok(outcome)
    }
}
