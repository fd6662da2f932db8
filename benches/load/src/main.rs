//! `fanwire-load`: measures what a delivery, a connection and a publish cost a server, and checks every delivery.
//!
//! ```text
//! cli ─▶ scenario ─▶ server    starts or finds the server under test, reads its CPU and memory
//!                └─▶ fleet     subscribers and publishers, here and in worker processes
//!                      ├─ engine    epoll, sockets
//!                      ├─ dialect   what the protocols look like on the wire, without IO
//!                      └─ measure   stamps, sequence numbers, completion, latency
//! ```
//! Loopback only. Everything is bounded in time and count, and servers that were started are ended with it.

mod cli;
mod cluster;
mod dialect;
mod engine;
mod fleet;
mod gateway;
mod measure;
mod report;
mod scenario;
mod server;
mod sources;
mod sys;

use std::io;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, Common};
use report::Report;
use scenario::Scenario;
use server::Target;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fanwire-load: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs one command; false if deliveries were lost, repeated or out of order.
fn run(cli: Cli) -> io::Result<bool> {
    match cli.command {
        Command::Floor { address, cert, key } => {
            server::floor::serve(address, cert.as_deref().zip(key.as_deref())).map(|()| true)
        }
        Command::Origin { address } => server::origin::serve(address).map(|()| true),
        Command::Worker { cpus } => {
            cpus.pin_self()?;
            fleet::run_worker().map(|()| true)
        }
        Command::Exec { cpus, command } => server::exec(&cpus, &command).map(|()| true),
        Command::Fanout(args) => measure(&args.common, &[&args.scenario()]),
        Command::OpenLoop(args) => measure(&args.common, &[&args.scenario()]),
        Command::Idle(args) => measure(&args.common, &[&args.scenario()]),
        Command::Storm(args) => measure(&args.common, &[&args.scenario()]),
        Command::ShakeHands { cpus } => {
            cpus.pin_self()?;
            fleet::run_handshakes().map(|()| true)
        }
        Command::Handshakes(args) => measure(&args.common, &[&args.scenario()]),
        Command::Slow(args) => measure(&args.common, &[&args.scenario()]),
        Command::Gateway(args) => gateway::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::WsOverHttp(args) => gateway::over_http::run(&args),
        Command::Sources(args) => sources::run(&args),
        Command::Publish(args) => measure(&args.common, &[&args.scenario()]),
        Command::Compare(args) => {
            let rows: Vec<_> = args.rows.iter().map(|row| args.scenario(*row)).collect();
            let rows: Vec<&dyn Scenario> = rows.iter().map(|row| row as &dyn Scenario).collect();
            measure(&args.common, &rows)
        }
    }
}

/// Runs `scenarios` one after the other; false if any had faults.
fn measure(common: &Common, scenarios: &[&dyn Scenario]) -> io::Result<bool> {
    sys::process::raise_descriptor_limit();
    // Asked before pinning, which changes the number of CPUs that are seen.
    let setup = common.setup();
    setup.client_cpus.pin_self()?;
    let targets = if common.targets.is_empty() { default_targets()? } else { common.targets.clone() };
    let mut good = true;
    for scenario in scenarios {
        let report: Report = scenario::run(*scenario, &targets, &setup)?;
        report.print();
        if common.json {
            println!("{}", report.json());
        }
        good &= !report.failed();
    }
    Ok(good)
}

fn default_targets() -> io::Result<Vec<Target>> {
    ["floor", "fanwire"].into_iter().map(|name| name.parse().map_err(io::Error::other)).collect()
}
