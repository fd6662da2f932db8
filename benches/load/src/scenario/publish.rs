//! Publishing with nobody listening: what one request costs the server.

use std::io;

use super::{Scenario, Setup};
use crate::fleet::{Load, Pace};
use crate::report::Outcome;
use crate::server::Server;

#[derive(Clone, Debug)]
pub(crate) struct PublishOnly {
    pub(crate) channels: u32,
    /// Kept-alive connections, each with one request at a time.
    pub(crate) publishers: usize,
    pub(crate) payload_bytes: usize,
    pub(crate) messages: u64,
}

impl Scenario for PublishOnly {
    fn title(&self) -> String {
        format!(
            "publish: {} connections, {} channels, {} bytes, {} requests, nobody listens",
            self.publishers, self.channels, self.payload_bytes, self.messages
        )
    }

    fn headline(&self) -> &'static str {
        "cpu_us"
    }

    fn run(&self, server: &Server, setup: &Setup) -> io::Result<Outcome> {
        let deadline = setup.deadline();
        let mut plan = setup.plan(server, self.channels, 0);
        plan.processes = 1;
        let (mut fleet, _) = setup.open(plan, self.publishers)?;
        let pace = Pace::Window(self.publishers);
        let load = Load { messages: self.messages, payload_bytes: self.payload_bytes, pace };
        fleet.publish_only(Load { messages: (self.messages / 10).max(1), ..load }, deadline)?;
        setup.hooks.before(server)?;
        let before = server.processes.cpu()?;
        let span = fleet.publish_only(load, deadline)?;
        let used = server.processes.cpu()? - before;
        setup.hooks.after(server)?;
        let requests = span.completed.max(1) as f64;
        let mut faults = fleet.tally()?.faults;
        faults.lost += self.messages - span.completed.min(self.messages);
        let mut outcome = Outcome { faults, reasons: fleet.reasons().to_vec(), ..Outcome::default() };
        outcome.add("cpu_us", used.total_ns as f64 / 1_000.0 / requests);
        outcome.add("user_us", used.user_ns as f64 / 1_000.0 / requests);
        outcome.add("requests", span.completed as f64);
        outcome.add("per_s", requests * 1e9 / span.elapsed_ns.max(1) as f64);
        fleet.disconnect()?;
        Ok(outcome)
    }
}
