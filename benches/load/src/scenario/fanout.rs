//! Channels × subscribers, messages in flight or at a rate: what one delivery costs the server.

use std::io;

use super::{Scenario, Setup, add_latency};
use crate::fleet::{Load, Pace};
use crate::report::Outcome;
use crate::server::Server;

#[derive(Clone, Debug)]
pub(crate) struct Fanout {
    pub(crate) channels: u32,
    /// Subscribers of each channel.
    pub(crate) subscribers: usize,
    pub(crate) publishers: usize,
    pub(crate) pace: Pace,
    pub(crate) payload_bytes: usize,
    pub(crate) messages: u64,
    /// Messages before the measured ones.
    pub(crate) warm_up: u64,
}

impl Scenario for Fanout {
    fn title(&self) -> String {
        let pace = match self.pace {
            Pace::Window(window) => format!("{window} in flight"),
            Pace::Burst(size) => format!("{size} at once"),
            Pace::PerSecond(rate) => format!("{rate} messages/s, open loop"),
        };
        format!(
            "fanout: {} x {} subscribers, {} publishers, {pace}, {} bytes, {} messages",
            self.channels, self.subscribers, self.publishers, self.payload_bytes, self.messages
        )
    }

    fn headline(&self) -> &'static str {
        match self.pace {
            Pace::Window(_) | Pace::Burst(_) => "cpu_us",
            Pace::PerSecond(_) => "p99_ms",
        }
    }

    fn run(&self, server: &Server, setup: &Setup) -> io::Result<Outcome> {
        let deadline = setup.deadline();
        let plan = setup.plan(server, self.channels, self.channels as usize * self.subscribers);
        let (mut fleet, ramp) = setup.open(plan, self.publishers)?;
        let load = Load { messages: self.messages, payload_bytes: self.payload_bytes, pace: self.pace };
        let warm_up = Load { messages: self.warm_up, ..load };
        fleet.run(warm_up, deadline)?;
        let warm_up_faults = fleet.tally()?.faults;
        fleet.reset()?;

        setup.hooks.before(server)?;
        let before = server.processes.cpu()?;
        let span = fleet.run(load, deadline)?;
        let used = server.processes.cpu()? - before;
        setup.hooks.after(server)?;
        let tally = fleet.tally()?;

        let deliveries = tally.deliveries.max(1) as f64;
        let mut outcome =
            Outcome { faults: tally.faults, reasons: fleet.reasons().to_vec(), ..Outcome::default() };
        outcome.faults += warm_up_faults;
        outcome.add("cpu_us", used.total_ns as f64 / 1_000.0 / deliveries);
        outcome.add("user_us", used.user_ns as f64 / 1_000.0 / deliveries);
        outcome.add("deliveries", tally.deliveries as f64);
        outcome.add("per_s", deliveries * 1e9 / span.elapsed_ns.max(1) as f64);
        add_latency(&mut outcome, &tally);
        outcome.add("subscribers", ramp.opened as f64);
        outcome.add("private_kib", server.processes.private_bytes()? as f64 / 1_024.0);
        fleet.disconnect()?;
        Ok(outcome)
    }
}
