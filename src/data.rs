//! What the binary does with the store: opens it, watches it, looks at one that nobody has.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use fanwire::Fronts;
use fanwire::store::{OpenError, Report, Settings, State, Store, backup, check};

use crate::say::say;

/// What a store that is broken ends the process with: whoever runs it starts it again, and what is on the disk is read
/// anew.
const BROKEN: i32 = 70;

/// What can be done with a store.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Read all of a store that no server has, and say whether it is sound
    ///
    /// A line for each group of namespaces with bounds of its own (`*`: all others), then one for the whole. What is
    /// damaged is told on standard error. Exit code 0 sound, 1 damaged, 2 no store, in use, or not readable.
    Check {
        /// The directory, as for --data
        directory: PathBuf,
    },
    /// Copy a store as it is at one moment, also while a server has it
    ///
    /// The server goes on meanwhile and sends the copy over a socket in the directory. The copy is read when it is
    /// written, and told of as by `check`. To go back to it, start a server with `--data TO`. Exit code 0 done and sound, 1
    /// done, but what is damaged in the store is so in the copy, 2 not done; nothing is left of it then.
    Backup {
        /// The directory of the store, as for --data
        directory: PathBuf,
        /// Where the copy goes: a directory that is empty, or is not there
        to: PathBuf,
    },
}

pub(crate) fn run(command: StoreCommand) -> ExitCode {
    match command {
        StoreCommand::Check { directory } => told(check(&directory)),
        StoreCommand::Backup { directory, to } => told(backup(&directory, &to)),
    }
}

fn told(found: Result<Report, impl std::fmt::Display>) -> ExitCode {
    match found {
        Ok(report) => {
            for damaged in &report.damaged {
                say(format!("fanwire: damaged: {damaged}"));
            }
            match writeln!(std::io::stdout(), "{report}") {
                // Whoever reads it may have had enough.
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    say(format!("fanwire: {error}"));
                    ExitCode::from(2)
                }
                _ => ExitCode::from(u8::from(!report.damaged.is_empty())),
            }
        }
        Err(error) => {
            say(format!("fanwire: {error}"));
            ExitCode::from(2)
        }
    }
}

/// Opens the store that is asked for.
pub(crate) fn open(settings: Option<Settings>) -> Result<Option<Arc<Store>>, OpenError> {
    let Some(settings) = settings else { return Ok(None) };
    let directory = settings.directory.display().to_string();
    let store = Arc::new(Store::open(settings)?);
    let took = store.stats().recovery;
    tracing::info!(directory, took_ms = took.as_millis() as u64, "the store is open");
    Ok(Some(store))
}

/// Has `/readyz` say whether the store takes messages, and ends the process once it is broken. Never ready.
pub(crate) async fn watch(store: Arc<Store>, fronts: Fronts) {
    let mut was_ready = true;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let state = store.state();
        if let State::Broken(why) = &state {
            tracing::error!(why, "the store is broken, the process ends");
            std::process::exit(BROKEN);
        }
        let is_ready = state == State::Ready;
        if is_ready != was_ready {
            fronts.set_ready(is_ready);
            was_ready = is_ready;
        }
    }
}

/// Sends the store to whoever makes a backup of it on this machine. Never ready, unless it cannot.
pub(crate) async fn answer_backups(store: Arc<Store>) {
    if let Err(error) = store.answer_backups().await {
        tracing::warn!(%error, "no backup can be made while the server runs");
    }
}
