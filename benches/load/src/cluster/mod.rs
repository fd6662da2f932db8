//! `fanwire-load cluster`: what several nodes cost. Subscribers are spread over the nodes, all messages are published at the
//! first one; NATS itself with the same clients stands beside.

mod nodes;

use std::io;

use clap::Args;

use crate::cli::Common;
use crate::dialect::{Dialect, Spoken};
use crate::fleet::{Load, Pace};
use crate::report::{Outcome, Report};
use crate::scenario::{Setup, add_latency};
use crate::sys::process::CpuTime;
use nodes::{Cluster, Kind};

#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Most nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    nodes: u8,
    /// Subscribers over all nodes.
    #[arg(long, default_value_t = 6_000)]
    connections: usize,
    /// What clients speak.
    #[arg(long, default_value = "mqtt-ws")]
    dialect: Spoken,
    /// Messages measured of each part.
    #[arg(long, default_value_t = 200)]
    messages: u64,
    /// Payload bytes (at least 38, the stamp).
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Without `nats-server` by itself, which speaks MQTT over WebSocket (`mqtt-ws`) only.
    #[arg(long)]
    no_peer: bool,
}

/// A part of what is measured: its title, its headline, and how.
type Part = (&'static str, &'static str, fn(&ClusterArgs, &Cluster, &Setup) -> io::Result<Outcome>);

const PARTS: [Part; 3] = [
    ("subscribers spread over all nodes, one message in flight", "cpu_us", spread),
    ("64 subscribers at the last node, 500 messages/s, open loop", "p99_ms", far),
    ("nobody is subscribed", "cpu_us", nowhere),
];

/// Measures and prints; false if a delivery was lost, repeated or out of order.
pub(crate) fn run(args: &ClusterArgs) -> io::Result<bool> {
    let setup = args.common.setup();
    crate::sys::process::raise_descriptor_limit();
    setup.client_cpus.pin_self()?;
    let mut kinds = vec![Kind::Alone];
    kinds.extend((1..=usize::from(args.nodes)).map(Kind::Nodes));
    if !args.no_peer && matches!(args.dialect.dialect, Dialect::MqttWebSocket(_)) {
        kinds.push(Kind::Nats);
    }
    let mut good = true;
    for (title, headline, part) in PARTS {
        let mut report = Report {
            scenario: format!("cluster: {title}; {} bytes over {}", args.payload, args.dialect),
            headline,
            targets: kinds.iter().map(|kind| (kind.label(), Vec::new())).collect(),
        };
        for _ in 0..setup.rounds.max(1) {
            for (kind, (label, outcomes)) in kinds.iter().zip(&mut report.targets) {
                let cluster = Cluster::start(*kind, args.dialect.dialect, &setup.launcher)?;
                let outcome = part(args, &cluster, &setup);
                outcomes.push(
                    outcome.map_err(|error| io::Error::new(error.kind(), format!("{label}: {error}")))?,
                );
            }
        }
        report.print();
        if args.common.json {
            println!("{}", report.json());
        }
        good &= !report.failed();
    }
    Ok(good)
}

/// What each process has used since, as a function of what it had used before.
fn cpu(cluster: &Cluster) -> io::Result<impl Fn() -> io::Result<Vec<CpuTime>> + use<'_>> {
    let servers = || cluster.nodes.iter().chain(&cluster.nats);
    let before = servers().map(|server| server.processes.cpu()).collect::<io::Result<Vec<_>>>()?;
    Ok(move || {
        servers().zip(&before).map(|(server, before)| Ok(server.processes.cpu()? - before.clone())).collect()
    })
}

fn microseconds(time: CpuTime) -> f64 {
    time.total_ns as f64 / 1_000.0
}

/// One channel, its subscribers at all nodes alike.
fn spread(args: &ClusterArgs, cluster: &Cluster, setup: &Setup) -> io::Result<Outcome> {
    let places = cluster.nodes.iter().map(|node| node.address).collect();
    let mut outcome = deliver(args, cluster, setup, places, args.connections, Pace::Window(1))?;
    let private: u64 =
        cluster.nodes.iter().map(|node| node.processes.private_bytes()).sum::<io::Result<u64>>()?;
    outcome.add("private_kib", private as f64 / 1_024.0);
    Ok(outcome)
}

/// A few subscribers, as far from the publisher as there is.
fn far(args: &ClusterArgs, cluster: &Cluster, setup: &Setup) -> io::Result<Outcome> {
    let last = cluster.nodes.last().map(|node| node.address).into_iter().collect();
    deliver(args, cluster, setup, last, 64, Pace::PerSecond(500.0))
}

fn deliver(
    args: &ClusterArgs,
    cluster: &Cluster,
    setup: &Setup,
    places: Vec<std::net::SocketAddr>,
    subscribers: usize,
    pace: Pace,
) -> io::Result<Outcome> {
    let deadline = setup.deadline();
    let first = cluster.nodes.first().ok_or_else(|| io::Error::other("no node"))?;
    let mut plan = setup.plan(first, 1, subscribers);
    plan.places = places;
    let (mut fleet, ramp) = setup.open(plan, 1)?;
    let messages = if matches!(pace, Pace::PerSecond(_)) { args.messages * 10 } else { args.messages };
    let load = Load { messages, payload_bytes: args.payload, pace };
    fleet.run(Load { messages: (messages / 10).max(1), ..load }, deadline)?;
    let warm_up_faults = fleet.tally()?.faults;
    fleet.reset()?;
    let used = cpu(cluster)?;
    let span = fleet.run(load, deadline)?;
    let used = used()?;
    let tally = fleet.tally()?;
    let deliveries = tally.deliveries.max(1) as f64;
    let mut outcome =
        Outcome { faults: tally.faults, reasons: fleet.reasons().to_vec(), ..Outcome::default() };
    outcome.faults += warm_up_faults;
    // Of all nodes; NATS between them is counted apart.
    let nodes: Vec<f64> = used.iter().take(cluster.nodes.len()).copied().map(microseconds).collect();
    let each = deliveries / nodes.len() as f64;
    outcome.add("cpu_us", nodes.iter().sum::<f64>() / deliveries);
    if matches!(pace, Pace::Window(_)) {
        outcome.add("first_us", nodes.first().copied().unwrap_or_default() / each);
        outcome.add("last_us", nodes.last().copied().unwrap_or_default() / each);
    }
    if let (Some(nats), Some(_)) = (used.last(), &cluster.nats) {
        outcome.add("nats_us_a_message", microseconds(*nats) / load.messages.max(1) as f64);
    }
    outcome.add("deliveries", tally.deliveries as f64);
    outcome.add("per_s", deliveries * 1e9 / span.elapsed_ns.max(1) as f64);
    add_latency(&mut outcome, &tally);
    outcome.add("subscribers", ramp.opened as f64);
    fleet.disconnect()?;
    Ok(outcome)
}

/// What a publish costs that nobody hears anywhere.
fn nowhere(args: &ClusterArgs, cluster: &Cluster, setup: &Setup) -> io::Result<Outcome> {
    const PUBLISHERS: usize = 16;
    let deadline = setup.deadline();
    let first = cluster.nodes.first().ok_or_else(|| io::Error::other("no node"))?;
    let mut plan = setup.plan(first, 16, 0);
    plan.processes = 1;
    let (mut fleet, _) = setup.open(plan, PUBLISHERS)?;
    let messages = args.messages * 100;
    let load = Load { messages, payload_bytes: args.payload, pace: Pace::Window(PUBLISHERS) };
    fleet.publish_only(Load { messages: (messages / 10).max(1), ..load }, deadline)?;
    let used = cpu(cluster)?;
    let span = fleet.publish_only(load, deadline)?;
    let used = used()?;
    let requests = span.completed.max(1) as f64;
    let mut outcome =
        Outcome { faults: fleet.tally()?.faults, reasons: fleet.reasons().to_vec(), ..Outcome::default() };
    outcome.add("cpu_us", used.first().copied().map(microseconds).unwrap_or_default() / requests);
    let others = used
        .iter()
        .take(cluster.nodes.len())
        .skip(1)
        .copied()
        .map(microseconds)
        .fold(0.0, |sum, one| sum + one);
    outcome.add("others_us", others / requests);
    if let (Some(nats), Some(_)) = (used.last(), &cluster.nats) {
        outcome.add("nats_us_a_message", microseconds(*nats) / requests);
    }
    outcome.add("requests", span.completed as f64);
    outcome.add("per_s", requests * 1e9 / span.elapsed_ns.max(1) as f64);
    fleet.disconnect()?;
    Ok(outcome)
}
