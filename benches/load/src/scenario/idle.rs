//! What an idle connection with one subscription keeps of the server's private memory.

use std::io;
use std::time::Duration;

use super::{Scenario, Setup};
use crate::fleet::{Load, Pace};
use crate::report::Outcome;
use crate::server::Server;

#[derive(Clone, Debug)]
pub(crate) struct Idle {
    pub(crate) channels: u32,
    pub(crate) connections: usize,
    /// Time without traffic before memory is read.
    pub(crate) settle: Duration,
}

impl Scenario for Idle {
    fn title(&self) -> String {
        format!(
            "idle: {} connections on {} channels, {:?} settle",
            self.connections, self.channels, self.settle
        )
    }

    fn headline(&self) -> &'static str {
        "bytes_per_connection"
    }

    fn run(&self, server: &Server, setup: &Setup) -> io::Result<Outcome> {
        std::thread::sleep(Duration::from_millis(500));
        let before = server.processes.private_bytes()?;
        let plan = setup.plan(server, self.channels, self.connections);
        let (mut fleet, ramp) = setup.open(plan, 1)?;
        // One event reaches everybody first: buffers that are made at the first write belong to the connection.
        let load = Load { messages: u64::from(self.channels), payload_bytes: 64, pace: Pace::Window(1) };
        fleet.run(load, setup.deadline())?;
        fleet.idle(self.settle)?;
        let after = server.processes.private_bytes()?;
        let tally = fleet.tally()?;
        let mut outcome =
            Outcome { faults: tally.faults, reasons: fleet.reasons().to_vec(), ..Outcome::default() };
        outcome.add("bytes_per_connection", after.saturating_sub(before) as f64 / ramp.opened.max(1) as f64);
        outcome.add("before_kib", before as f64 / 1_024.0);
        outcome.add("after_kib", after as f64 / 1_024.0);
        outcome.add("connections", ramp.opened as f64);
        fleet.disconnect()?;
        Ok(outcome)
    }
}
