//! A storm of TLS handshakes, and what those feel who are connected already.

use std::io;
use std::time::Duration;

use super::{Scenario, Setup};
use crate::dialect::Security;
use crate::fleet::{Fleet, Kind, Load, Pace, Plan, Shaken, Storm};
use crate::measure::tally::Tally;
use crate::report::Outcome;
use crate::server::Server;
use crate::sys::clock::Deadline;

/// Between the storms, for the server to see that those of the first are gone.
const PAUSE: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub(crate) struct Handshakes {
    /// Clients that come.
    pub(crate) connections: usize,
    /// Subscribers that are there, who get messages all the time.
    pub(crate) subscribers: usize,
    /// Messages per second.
    pub(crate) rate: f64,
    /// Messages before the storms.
    pub(crate) calm_messages: u64,
}

/// Storms last as long as they last.
const UNTIL_TOLD: u64 = u64::MAX;

impl Handshakes {
    /// One storm: how it went, and what the others got meanwhile.
    fn storm(
        &self,
        kind: Kind,
        storm: &mut Storm,
        fleet: &mut Fleet,
        deadline: Deadline,
    ) -> io::Result<(Shaken, Tally)> {
        fleet.reset()?;
        storm.begin(kind)?;
        let mut shaken = None;
        fleet.run_while(self.load(UNTIL_TOLD), deadline, || {
            if shaken.is_none() {
                shaken = storm.over()?;
            }
            Ok(shaken.is_none())
        })?;
        let tally = fleet.tally()?;
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the handshakes take longer than --time-limit");
        Ok((shaken.ok_or_else(late)?, tally))
    }

    fn load(&self, messages: u64) -> Load {
        Load { messages, payload_bytes: 64, pace: Pace::PerSecond(self.rate) }
    }
}

impl Scenario for Handshakes {
    fn title(&self) -> String {
        format!(
            "handshakes: {} clients, while {} subscribers get {} messages/s",
            self.connections, self.subscribers, self.rate
        )
    }

    fn headline(&self) -> &'static str {
        "others_p99_full_ms"
    }

    fn run(&self, server: &Server, setup: &Setup) -> io::Result<Outcome> {
        if server.spoken.security != Security::Tls {
            return Err(io::Error::other("only a server that speaks TLS has handshakes (`tls+...`)"));
        }
        let deadline = setup.deadline();
        // Those who are there are of one process, which does nothing else.
        let plan = Plan { processes: 1, ..setup.plan(server, 1, self.subscribers) };
        let (mut fleet, _) = setup.open(plan, 1)?;
        // From other addresses, which the first fleet's do not reach.
        let plan = setup.plan(server, 1, self.connections);
        let mut storm = Storm::start(&plan, &setup.client_cpus)?;
        fleet.run(self.load(self.calm_messages.div_ceil(10)), deadline)?;
        let mut faults = fleet.tally()?.faults;
        fleet.reset()?;
        fleet.run(self.load(self.calm_messages), deadline)?;
        let calm = fleet.tally()?;
        setup.hooks.before(server)?;
        let (full, during_full) = self.storm(Kind::Full, &mut storm, &mut fleet, deadline)?;
        setup.hooks.after(server)?;
        // That thousands leave is no handshake.
        storm.leave()?;
        fleet.idle(PAUSE)?;
        let (resumed, during_resumed) = self.storm(Kind::Resumed, &mut storm, &mut fleet, deadline)?;

        for tally in [&calm, &during_full, &during_resumed] {
            faults += tally.faults;
        }
        let mut reasons = fleet.reasons().to_vec();
        reasons
            .extend(full.reasons.iter().chain(&resumed.reasons).map(|reason| format!("handshake: {reason}")));
        let mut outcome = Outcome { faults, reasons, ..Outcome::default() };
        add(&mut outcome, &full, FULL);
        add(&mut outcome, &resumed, RESUMED);
        outcome.add("resumed", resumed.resumed as f64);
        outcome.add("others_p99_calm_ms", calm.latency_ms(0.99));
        outcome.add("others_p99_full_ms", during_full.latency_ms(0.99));
        outcome.add("others_p99_resumed_ms", during_resumed.latency_ms(0.99));
        outcome.add("others_max_full_ms", during_full.max_ms());
        outcome.add("peak_kib", server.processes.peak_bytes() as f64 / 1_024.0);
        fleet.disconnect()?;
        Ok(outcome)
    }
}

type Names = [&'static str; 6];
const FULL: Names =
    ["full_per_s", "full_all_ms", "full_p50_ms", "full_p99_ms", "full_refused", "full_timeouts"];
const RESUMED: Names = [
    "resumed_per_s",
    "resumed_all_ms",
    "resumed_p50_ms",
    "resumed_p99_ms",
    "resumed_refused",
    "resumed_timeouts",
];

fn add(outcome: &mut Outcome, shaken: &Shaken, names: Names) {
    let values = [
        shaken.done as f64 * 1e9 / shaken.elapsed_ns.max(1) as f64,
        shaken.elapsed_ns as f64 / 1e6,
        shaken.p50_ms,
        shaken.p99_ms,
        shaken.refused as f64,
        shaken.timeouts as f64,
    ];
    for (name, value) in names.into_iter().zip(values) {
        outcome.add(name, value);
    }
}
