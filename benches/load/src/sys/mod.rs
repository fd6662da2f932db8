//! What the tool asks the kernel: readiness, time, CPU affinity, and the figures under `/proc`.

pub(crate) mod affinity;
pub(crate) mod clock;
pub(crate) mod poller;
pub(crate) mod process;
pub(crate) mod sockets;
