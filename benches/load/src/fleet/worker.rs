//! Another process of subscribers, driven by lines over its standard input and output.
//!
//! | line to the worker | answer |
//! | --- | --- |
//! | the plan as JSON, first | – |
//! | `ramp` | the ramp as JSON |
//! | – | `done PUBLISHER CHANNEL SEQUENCE` for every message its subscribers all have |
//! | `reset` | – |
//! | `tally SERIES` (JSON) | the tally as JSON, after a line `tally` |
//! | `disconnect` | end of output |

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::crowd::Crowd;
use super::{Plan, open_share, stamp_line};
use crate::engine::{Engine, Ramp};
use crate::measure::stamp::Stamp;
use crate::measure::tally::TallyText;
use crate::sys::affinity::Cpus;
use crate::sys::clock::Deadline;
use crate::sys::process::raise_descriptor_limit;

/// Name of the hidden subcommand.
pub(crate) const COMMAND: &str = "worker";
/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The parent's end of a worker process.
pub(super) struct Worker {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    unread: Vec<u8>,
}

impl Worker {
    pub(super) fn start(plan: &Plan, cpus: &Cpus) -> io::Result<Self> {
        Self::start_as(COMMAND, plan, cpus)
    }

    /// Another hidden subcommand that takes a plan first.
    pub(super) fn start_as(command: &str, plan: &Plan, cpus: &Cpus) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([command, "--cpus", &cpus.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the worker has no pipes"));
        };
        rustix::io::ioctl_fionbio(&output, true)?;
        let mut worker = Self { child, input, output, unread: Vec::new() };
        worker.command(&serde_json::to_string(plan)?)?;
        Ok(worker)
    }

    pub(super) fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    pub(super) fn command(&mut self, line: &str) -> io::Result<()> {
        self.input.write_all(line.as_bytes())?;
        self.input.write_all(b"\n")?;
        self.input.flush()
    }

    /// Waits for the answer to `ramp`.
    pub(super) fn ramped(&mut self, limit: Duration) -> io::Result<Ramp> {
        let line = self.line(Deadline::after(limit + ANSWER_LIMIT))?;
        let (opened, failed, elapsed_ns) = serde_json::from_str(&line)?;
        Ok(Ramp { opened, failed, elapsed_ns })
    }

    /// Messages its subscribers have all got, as far as told by now; never waits.
    pub(super) fn completed(&mut self) -> io::Result<Vec<Stamp>> {
        self.fill()?;
        let mut stamps = Vec::new();
        while let Some(line) = self.take_line() {
            stamps.extend(read_stamp_line(&line));
        }
        Ok(stamps)
    }

    /// The next line, if it has come by now.
    pub(super) fn try_line(&mut self) -> io::Result<Option<String>> {
        self.fill()?;
        Ok(self.take_line())
    }

    pub(super) fn tally(&mut self, sent: &[(u64, u32)]) -> io::Result<TallyText> {
        self.command(&format!("tally {}", serde_json::to_string(sent)?))?;
        let deadline = Deadline::after(ANSWER_LIMIT);
        // Completions told meanwhile are of no use any more.
        while self.line(deadline)? != "tally" {}
        Ok(serde_json::from_str(&self.line(deadline)?)?)
    }

    /// Waits until it has closed its connections and ended; kills it if that takes too long.
    pub(super) fn finish(&mut self) {
        let deadline = Deadline::after(Duration::from_secs(10));
        while !deadline.passed() {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn line(&mut self, deadline: Deadline) -> io::Result<String> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(line);
            }
            if deadline.passed() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "a worker process does not answer"));
            }
            self.fill()?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn take_line(&mut self) -> Option<String> {
        let end = memchr::memchr(b'\n', &self.unread)?;
        let line = self.unread.drain(..=end).collect::<Vec<u8>>();
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1_024];
        loop {
            match self.output.read(&mut chunk) {
                Ok(0) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a worker process has ended"));
                }
                Ok(bytes) => self.unread.extend_from_slice(&chunk[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Already gone in a good run.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A worker process's whole life.
///
/// # Errors
/// When its pipes or epoll fail; ends in good order when its input ends.
pub(crate) fn run() -> io::Result<()> {
    raise_descriptor_limit();
    let mut commands = BufReader::new(io::stdin());
    let mut line = String::new();
    commands.read_line(&mut line)?;
    let plan: Plan = serde_json::from_str(&line)?;
    let mut engine = Engine::new(plan.waiting)?;
    let mut crowd = Crowd::new(&plan, Vec::new());
    let mut output = io::stdout().lock();
    engine.watch(rustix::stdio::stdin(), 0)?;
    loop {
        // A line that came together with the last one is in the buffer, where epoll does not see it.
        let buffered = commands.buffer().contains(&b'\n');
        let wait = if buffered { Duration::ZERO } else { Duration::from_secs(1) };
        let commanded = !engine.turn(wait, &mut crowd)?.is_empty() || buffered;
        let mut text = String::new();
        for stamp in crowd.take_completed() {
            text.push_str(&stamp_line(&stamp));
        }
        if commanded {
            line.clear();
            if commands.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end().split_once(' ').unwrap_or((line.trim_end(), "")) {
                ("ramp", _) => {
                    let ramp = open_share(&plan, &mut engine, &mut crowd)?;
                    text = serde_json::to_string(&(ramp.opened, ramp.failed, ramp.elapsed_ns))?;
                    text.push('\n');
                }
                ("reset", _) => crowd.reset(),
                ("tally", sent) => {
                    let sent: Vec<(u64, u32)> = serde_json::from_str(sent)?;
                    let tally = serde_json::to_string(&crowd.tally(&sent).to_text())?;
                    text.push_str("tally\n");
                    text.push_str(&tally);
                    text.push('\n');
                }
                ("disconnect", _) => {
                    engine.disconnect_all();
                    return Ok(());
                }
                (other, _) => return Err(io::Error::other(format!("unknown command `{other}`"))),
            }
        }
        output.write_all(text.as_bytes())?;
        output.flush()?;
    }
}

fn read_stamp_line(line: &str) -> Option<Stamp> {
    let mut words = line.strip_prefix("done ")?.split(' ');
    Some(Stamp {
        publisher: words.next()?.parse().ok()?,
        channel: words.next()?.parse().ok()?,
        sequence: words.next()?.parse().ok()?,
        sent_ns: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_line_reads_back() {
        let stamp = Stamp { publisher: 3, channel: 70_000, sequence: 9, sent_ns: 0 };
        assert_eq!(read_stamp_line(stamp_line(&stamp).trim_end()), Some(stamp));
        assert_eq!(read_stamp_line("ready"), None);
    }
}
