//! Shell commands right before and after the measured span, for profilers that attach to the server.

use std::io;
use std::process::{Command, Stdio};

use crate::server::Server;

/// Commands given to `sh -c`; `{pid}` is the server's process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hooks {
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
}

impl Hooks {
    /// Runs the command for before the span and waits for it.
    ///
    /// # Errors
    /// When it cannot be run or does not end with 0.
    pub(crate) fn before(&self, server: &Server) -> io::Result<()> {
        run(self.before.as_deref(), server)
    }

    /// Runs the command for after the span and waits for it.
    ///
    /// # Errors
    /// As [`Hooks::before`].
    pub(crate) fn after(&self, server: &Server) -> io::Result<()> {
        run(self.after.as_deref(), server)
    }
}

fn run(command: Option<&str>, server: &Server) -> io::Result<()> {
    let Some(command) = command else { return Ok(()) };
    let pid = server.processes.pids().first().copied().unwrap_or_default();
    let command = command.replace("{pid}", &pid.to_string());
    // Its output must not mix with the report.
    let status =
        Command::new("sh").args(["-c", &command]).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("`{command}` ended with {status}"))) }
}
