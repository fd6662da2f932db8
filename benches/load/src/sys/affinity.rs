//! Which CPUs a process may run on.
//!
//! Unpinned on two cores the client preempts the server at every write, which makes figures differ by a third.

use std::io;
use std::str::FromStr;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A list of CPU numbers such as `0`, `0,2` or `0-3`; `none` pins nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cpus(Vec<usize>);

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self::default());
        }
        let number = |part: &str| {
            part.parse::<usize>()
                .ok()
                .filter(|cpu| *cpu < CpuSet::MAX_CPU)
                .ok_or_else(|| format!("`{part}` is not a CPU number"))
        };
        let mut cpus = Vec::new();
        for part in text.split(',') {
            match part.split_once('-') {
                Some((first, last)) => cpus.extend(number(first)?..=number(last)?),
                None => cpus.push(number(part)?),
            }
        }
        Ok(Self(cpus))
    }
}

impl std::fmt::Display for Cpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let parts: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&parts.join(","))
    }
}

impl Cpus {
    fn set(&self) -> Option<CpuSet> {
        if self.0.is_empty() {
            return None;
        }
        let mut set = CpuSet::new();
        for cpu in &self.0 {
            set.set(*cpu);
        }
        Some(set)
    }

    /// Pins the calling thread, and with it every thread and process it starts later.
    ///
    /// # Errors
    /// The kernel's, when none of the CPUs exists or is allowed.
    pub(crate) fn pin_self(&self) -> io::Result<()> {
        match self.set() {
            Some(set) => Ok(sched_setaffinity(None, &set)?),
            None => Ok(()),
        }
    }

    /// Like [`Cpus::pin_self`], but `none` allows every CPU, whatever was inherited.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn pin_or_free_self(&self) -> io::Result<()> {
        let set = self.set().unwrap_or_else(|| {
            let mut all = CpuSet::new();
            (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
            all
        });
        Ok(sched_setaffinity(None, &set)?)
    }

    /// Pins every thread that process `pid` has now.
    ///
    /// # Errors
    /// The kernel's; threads that ended meanwhile are skipped.
    pub(crate) fn pin_process(&self, pid: u32) -> io::Result<()> {
        let Some(set) = self.set() else { return Ok(()) };
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let name = entry?.file_name();
            let thread = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            match sched_setaffinity(thread, &set) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// CPUs this process may use now.
pub(crate) fn allowed() -> usize {
    sched_getaffinity(None).map_or(1, |set| set.count() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_read() {
        for (text, cpus) in
            [("0", vec![0]), ("0,2", vec![0, 2]), ("1-3,5", vec![1, 2, 3, 5]), ("none", vec![])]
        {
            assert_eq!(text.parse::<Cpus>(), Ok(Cpus(cpus)), "{text}");
        }
        assert!("x".parse::<Cpus>().is_err());
        assert!("99999".parse::<Cpus>().is_err());
    }
}
