//! What can be measured. Each scenario runs against one fresh server and returns figures and faults.

mod fanout;
mod handshakes;
mod hooks;
mod idle;
mod publish;
mod slow;
mod storm;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(crate) use fanout::Fanout;
pub(crate) use handshakes::Handshakes;
pub(crate) use hooks::Hooks;
pub(crate) use idle::Idle;
pub(crate) use publish::PublishOnly;
pub(crate) use slow::Slow;
pub(crate) use storm::Storm;

use crate::engine::{Ramp, Waiting};
use crate::fleet::{Fleet, MAX_PER_PROCESS, Plan};
use crate::measure::tally::Tally;
use crate::report::{Outcome, Report};
use crate::server::{Launcher, Server, Target};
use crate::sys::affinity::Cpus;
use crate::sys::clock::{Deadline, now_ns};

/// Pause between the last subscription and the first message, for servers that answer before they subscribe.
const SETTLE: Duration = Duration::from_millis(300);
/// Connections that publish are opened within this.
const RAMP_LIMIT: Duration = Duration::from_secs(60);

/// Numbers fleets, so that each has channels of its own.
static NEXT_EPOCH: AtomicU32 = AtomicU32::new(0);
/// Source ports are numbered by the clock, 50,000 a second: more than can be opened, so no two fleets meet.
const SLOT_NS: u64 = 20_000;

/// What every scenario needs to know about this machine and run.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) launcher: Launcher,
    pub(crate) client_cpus: Cpus,
    /// Processes of subscribers; 0 takes as many as the descriptor limit needs.
    pub(crate) processes: usize,
    pub(crate) sources: u8,
    pub(crate) in_flight_connects: usize,
    pub(crate) rounds: usize,
    pub(crate) hooks: Hooks,
    pub(crate) waiting: Waiting,
    /// As [`Plan::ca`].
    pub(crate) ca: Option<PathBuf>,
    /// Longest one scenario may take on one server in one round.
    pub(crate) time_limit: Duration,
}

impl Setup {
    pub(crate) fn plan(&self, server: &Server, channels: u32, subscribers: usize) -> Plan {
        let subscribers = server.max_subscribers.map_or(subscribers, |most| most.min(subscribers));
        let processes = match self.processes {
            0 => subscribers.div_ceil(MAX_PER_PROCESS).max(1),
            given => given,
        };
        Plan {
            dialect: server.spoken.to_string(),
            target: server.address,
            places: Vec::new(),
            publish_target: server.publish_address,
            publish_dialect: self.launcher.publisher.unwrap_or(server.spoken.publishing()).to_string(),
            ca: self.ca.clone(),
            channels,
            epoch: NEXT_EPOCH.fetch_add(1, Ordering::Relaxed),
            subscribers,
            stalled_every: 0,
            sources: self.sources,
            first_slot: now_ns() / SLOT_NS,
            in_flight: server.max_opening.unwrap_or(usize::MAX).min(self.in_flight_connects),
            process: 0,
            processes,
            ramp_limit: RAMP_LIMIT,
            waiting: self.waiting,
        }
    }

    /// Opens subscribers and publishers, and waits until the server has settled.
    pub(crate) fn open(&self, plan: Plan, publishers: usize) -> io::Result<(Fleet, Ramp)> {
        let (mut fleet, ramp) = Fleet::open(plan, &self.client_cpus)?;
        if publishers > 0 {
            fleet.add_publishers(publishers)?;
        }
        fleet.idle(SETTLE)?;
        Ok((fleet, ramp))
    }

    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.time_limit)
    }
}

/// Something to measure.
pub(crate) trait Scenario {
    /// One line with the sizes, for the report.
    fn title(&self) -> String;

    /// The figure to compare targets by.
    fn headline(&self) -> &'static str;

    /// Measures one running server.
    ///
    /// # Errors
    /// When the tool or the server fails outright; wrong deliveries are faults in the outcome.
    fn run(&self, server: &Server, setup: &Setup) -> io::Result<Outcome>;
}

/// Runs `scenario` on every target in turn, `rounds` times over (A B A B), each time on a fresh server.
///
/// # Errors
/// When a server cannot be started or ends during the run.
pub(crate) fn run(scenario: &dyn Scenario, targets: &[Target], setup: &Setup) -> io::Result<Report> {
    let mut report = Report {
        scenario: scenario.title(),
        headline: scenario.headline(),
        targets: targets.iter().map(|target| (target.label.clone(), Vec::new())).collect(),
    };
    for round in 0..setup.rounds.max(1) {
        for (target, (label, outcomes)) in targets.iter().zip(&mut report.targets) {
            let server = Server::start(target, &setup.launcher)?;
            let outcome = scenario.run(&server, setup).map_err(|error| {
                io::Error::new(error.kind(), format!("{label}, round {}: {error}", round + 1))
            })?;
            outcomes.push(outcome);
        }
    }
    Ok(report)
}

/// Figures that every scenario with deliveries reports.
pub(crate) fn add_latency(outcome: &mut Outcome, tally: &Tally) {
    outcome.add("p50_ms", tally.latency_ms(0.50));
    outcome.add("p99_ms", tally.latency_ms(0.99));
    outcome.add("max_ms", tally.max_ms());
}
