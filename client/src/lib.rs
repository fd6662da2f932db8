//! `fanwire pub` and `fanwire sub`: a running server from the command line, over its HTTP API and its event streams.
//!
//! ```text
//! arguments ─▶ Endpoint (address, credentials, trust) ─▶ publish:   one POST ─▶ receipt on standard output
//!                                                    └▶ subscribe: GET /sse ─▶ events ─▶ output
//! ```

mod answer;
mod arguments;
mod endpoint;
mod events;
mod failure;
mod output;
mod pace;
mod publish;
mod subscribe;

use std::fmt::Arguments;
use std::io::Write as _;
use std::process::ExitCode;

pub use crate::arguments::{Pub, Sub};
use crate::failure::Failure;

/// Publishes, and prints the receipt.
pub fn publish(arguments: Pub) -> ExitCode {
    run(publish::run(arguments))
}

/// Prints what is published, until it is told to stop.
pub fn subscribe(arguments: Sub) -> ExitCode {
    run(subscribe::run(arguments))
}

fn run(command: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(Failure::Local).and_then(|runtime| {
        let outcome = runtime.block_on(command);
        // A read of standard input that is under way would hold up the end.
        runtime.shutdown_background();
        outcome
    });
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
