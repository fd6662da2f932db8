//! Standard error as a log writes to it: a reader that does not read costs lines, never the server its time.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing_subscriber::fmt::MakeWriter;

/// Lines for which there was no room: a pipe whose reader has stopped, or a terminal that is held.
static LOST: AtomicU64 = AtomicU64::new(0);

/// How many lines were lost since the process began.
pub(super) fn lost_lines() -> u64 {
    LOST.load(Relaxed)
}

/// Writes whole lines, each in one piece, and only if that would not wait. No thread of its own: where one core serves
/// everything, another thread makes every system call on a socket dearer.
pub(super) struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        // A pipe that can be written to takes 4,096 bytes at once (pipe(7)); a longer line may wait for its rest.
        let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let is_ready = poll(&mut ready, Some(&now)).is_ok_and(|count| count > 0);
        if !is_ready || stderr.lock().write_all(line).is_err() {
            LOST.fetch_add(1, Relaxed);
        }
        // A log that cannot be written is nobody's error to handle.
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        Lines
    }
}
