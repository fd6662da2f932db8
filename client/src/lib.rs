//! The commands that talk to a running server, over its HTTP API and its event streams, and the list of servers that
//! they know by name.
//!
//! ```text
//! arguments ─▶ Context ─▶ Endpoint (address, credentials, trust) ─▶ publish:   one POST ─▶ receipt on standard output
//! environment ─▲                                                 ├▶ subscribe: GET /sse ─▶ events ─▶ output
//! contexts.json┘                                                 └▶ connections, channels, history: pages ─▶ table
//! ```

mod answer;
mod arguments;
mod bench;
mod channels;
mod connections;
mod context;
mod contexts;
mod dead;
mod endpoint;
mod failure;
mod health;
mod history;
mod name;
mod output;
mod pace;
mod pages;
mod progress;
mod publish;
mod subscribe;
mod table;

use std::fmt::Arguments;
use std::io::Write as _;
use std::process::ExitCode;

pub use crate::arguments::{
    Bench, Channels, Close, Connections, DeadCommand, Health, History, Pub, Retained, ServerArguments, Sub,
};
pub use crate::contexts::ContextCommand;
use crate::failure::Failure;

/// Publishes, and prints the receipt.
pub fn publish(arguments: Pub) -> ExitCode {
    run(publish::run(arguments))
}

/// Prints what is published, until it is told to stop.
pub fn subscribe(arguments: Sub) -> ExitCode {
    run(subscribe::run(arguments))
}

/// Lists who is connected.
pub fn connections(arguments: Connections) -> ExitCode {
    run(connections::list(arguments))
}

/// Closes connections.
pub fn close(arguments: Close) -> ExitCode {
    run(connections::close(arguments))
}

/// Lists the channels that are in use.
pub fn channels(arguments: Channels) -> ExitCode {
    run(channels::list(arguments))
}

/// Prints what the server remembers of a channel.
pub fn history(arguments: History) -> ExitCode {
    run(history::run(arguments))
}

/// Prints a channel's retained message, or forgets it.
pub fn retained(arguments: Retained) -> ExitCode {
    run(channels::retained(arguments))
}

/// Lists, shows or delivers anew what was not delivered to webhooks.
pub fn dead(command: DeadCommand) -> ExitCode {
    run(dead::run(command))
}

/// Says by its exit code whether a server lives.
pub fn health(arguments: Health) -> ExitCode {
    run(health::run(arguments))
}

/// Measures a server.
pub fn bench(arguments: Bench) -> ExitCode {
    run(bench::run(arguments))
}

/// Saves, chooses, lists or removes servers.
pub fn context(command: ContextCommand) -> ExitCode {
    end(contexts::run(command))
}

fn run(command: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    end(runtime.map_err(Failure::Local).and_then(|runtime| {
        let outcome = runtime.block_on(command);
        // A read of standard input that is under way would hold up the end.
        runtime.shutdown_background();
        outcome
    }))
}

fn end(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has had enough, which is no failure.
        Err(Failure::Local(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            tell(format_args!("{failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}

/// A line for people on standard error; that nobody may read it is no failure.
fn tell(line: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "fanwire: {line}");
}
