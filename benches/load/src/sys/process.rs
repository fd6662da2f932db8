//! A process tree's CPU time, memory and descriptors, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::Sub;

/// What a process and its descendants have used so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuReading {
    /// Nanoseconds on a CPU of each thread by its id (`/proc/PID/task/TID/schedstat`).
    threads: HashMap<u32, u64>,
    /// Clock ticks that found them in user mode (`utime`), as nanoseconds.
    user_ns: u64,
}

/// CPU used between two readings.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    /// Time on a CPU, nanoseconds, summed over threads.
    pub(crate) total_ns: u64,
    /// User part of the same, as the kernel's clock ticks sampled it, nanoseconds.
    pub(crate) user_ns: u64,
}

impl Sub for CpuReading {
    type Output = CpuTime;

    /// Thread by thread: one that has ended in between, as those of a pool do that had nothing to do, takes its past
    /// with it.
    fn sub(self, earlier: Self) -> CpuTime {
        let before = |thread: &u32| earlier.threads.get(thread).copied().unwrap_or(0);
        CpuTime {
            total_ns: self.threads.iter().map(|(thread, ns)| ns.saturating_sub(before(thread))).sum(),
            user_ns: self.user_ns.saturating_sub(earlier.user_ns),
        }
    }
}

/// The server under test: one process and everything it started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessTree {
    root: u32,
}

impl ProcessTree {
    pub(crate) fn of(root: u32) -> Self {
        Self { root }
    }

    /// The root and its descendants now: nginx listens before its worker exists.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|pid: u32| Some((pid, stat_fields(pid)?.get(1)?.parse().ok()?)))
            .collect();
        let mut pids = vec![self.root];
        let mut next = 0;
        while next < pids.len() {
            let parent = pids[next];
            pids.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        pids
    }

    /// CPU time used so far.
    ///
    /// # Errors
    /// When the root process is gone.
    pub(crate) fn cpu(&self) -> io::Result<CpuReading> {
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        let mut sum = CpuReading::default();
        let mut alive = false;
        for pid in self.pids() {
            let Some(fields) = stat_fields(pid) else { continue };
            alive = true;
            let field =
                |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            let (user, system) = (field(11) * tick_ns, field(12) * tick_ns);
            sum.user_ns += user;
            match on_cpu_ns(pid) {
                Some(threads) => sum.threads.extend(threads),
                None => _ = sum.threads.insert(pid, user + system),
            }
        }
        if alive {
            Ok(sum)
        } else {
            Err(io::Error::new(io::ErrorKind::NotFound, "the server under test has ended"))
        }
    }

    /// Private resident memory, bytes (`Private_Clean` + `Private_Dirty` of `smaps_rollup`).
    ///
    /// # Errors
    /// When the root process is gone or its maps may not be read.
    pub(crate) fn private_bytes(&self) -> io::Result<u64> {
        let mut sum = 0;
        for (index, pid) in self.pids().into_iter().enumerate() {
            match fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
                Ok(text) => sum += private_kib(&text) * 1_024,
                Err(error) if index == 0 => return Err(error),
                Err(_) => {}
            }
        }
        Ok(sum)
    }

    /// The most resident memory that there was at a time, bytes (`VmHWM`), summed over processes.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let peak = |pid: u32| peak_kib(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?);
        self.pids().into_iter().filter_map(peak).sum::<u64>() * 1_024
    }

    /// Open descriptors, for waiting until a mass disconnect has been noticed.
    pub(crate) fn descriptors(&self) -> usize {
        self.pids()
            .into_iter()
            .map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count))
            .sum()
    }
}

/// Fields of `/proc/PID/stat` after the command, which may itself hold spaces and brackets. Index 0 is the state.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_ascii_whitespace().map(str::to_owned).collect())
}

/// Nanoseconds on a CPU of all living threads; none if the kernel keeps no `schedstat`.
fn on_cpu_ns(pid: u32) -> Option<Vec<(u32, u64)>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
        let thread = entry.file_name().to_str()?.parse().ok()?;
        threads.push((thread, text.split_ascii_whitespace().next()?.parse().ok()?));
    }
    threads.iter().any(|(_, ns)| *ns > 0).then_some(threads)
}

fn peak_kib(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_ascii_whitespace().next()?.parse().ok())
}

fn private_kib(rollup: &str) -> u64 {
    rollup
        .lines()
        .filter(|line| line.starts_with("Private_Clean:") || line.starts_with("Private_Dirty:"))
        .filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

/// Lets everybody else on its CPUs go first. A refusal changes nothing but figures.
pub(crate) fn yield_to_others() {
    let _ = rustix::process::nice(19);
}

/// Lets this process open as many descriptors as its hard limit allows, and returns that number.
pub(crate) fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // A refusal leaves the old limit, which the connect phase then reports by name.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_clean_plus_dirty() {
        let rollup = "Rss: 900 kB\nShared_Clean: 5 kB\nPrivate_Clean:  12 kB\nPrivate_Dirty:  30 kB\n";
        assert_eq!(private_kib(rollup), 42);
    }

    #[test]
    fn the_peak_is_the_high_water_mark() {
        assert_eq!(peak_kib("VmPeak:  900 kB\nVmHWM:\t  77 kB\nVmRSS:  5 kB\n"), Some(77));
        assert_eq!(peak_kib("Name: x\n"), None);
    }

    #[test]
    fn a_thread_that_has_ended_takes_nothing_from_the_others() {
        let reading =
            |threads: &[(u32, u64)]| CpuReading { threads: threads.iter().copied().collect(), user_ns: 0 };
        let (earlier, later) = (reading(&[(1, 100), (2, 9_000)]), reading(&[(1, 150), (3, 7)]));
        assert_eq!((later - earlier).total_ns, 57);
    }

    #[test]
    fn this_process_has_cpu_memory_and_descriptors() {
        let tree = ProcessTree::of(std::process::id());
        assert!(tree.cpu().is_ok_and(|cpu| (cpu - CpuReading::default()).total_ns > 0));
        assert!(tree.private_bytes().is_ok_and(|bytes| bytes > 0));
        assert!(tree.peak_bytes() > 0);
        assert!(tree.descriptors() >= 3);
    }
}
