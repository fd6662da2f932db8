//! How many sockets the process may have, and has.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of descriptors to the hard one and returns it: every connection needs one, and the usual soft
/// limit of 1,024 is there for programs that use `select`.
pub fn raise_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused where a sandbox forbids it; then the soft limit stays what it is.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    soft_limit()
}

/// Descriptors the process may have now.
pub(crate) fn soft_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Descriptors the process has now; `None` where the system does not tell.
pub(crate) fn open() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}
