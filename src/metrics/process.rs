//! What the process takes of the machine, under the names that every program's exporter gives them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use front::{Metric, MetricSource};

use crate::listen;

/// The process' own figures; what the system does not tell is left out.
pub(crate) fn of_process() -> Arc<dyn MetricSource> {
    let started = started();
    Arc::new(move |out: &mut Vec<Metric>| {
        if let Some(seconds) = cpu_seconds() {
            let help = "CPU time of the process, in user and system mode";
            out.push(Metric::counted_seconds("process_cpu_seconds", help, seconds));
        }
        if let Some((virtual_bytes, resident_bytes)) = memory() {
            let (virtual_help, resident_help) = ("Addresses of the process", "Memory of the process");
            out.push(Metric::gauge("process_virtual_memory_bytes", virtual_help, virtual_bytes));
            out.push(Metric::gauge("process_resident_memory_bytes", resident_help, resident_bytes));
        }
        if let Some(open) = open_descriptors() {
            out.push(Metric::gauge("process_open_fds", "Descriptors that the process has open", open));
        }
        let max = listen::descriptor_limit() as u64;
        out.push(Metric::gauge("process_max_fds", "Descriptors that the process may have open", max));
        out.push(Metric::seconds(
            "process_start_time_seconds",
            "When the process began, in seconds since 1970",
            started,
        ));
    })
}

/// How many ticks a second has in `/proc`: the same on every architecture that this runs on (time(7)). Not asked of the
/// C library or the kernel, whose answer comes by ways that valgrind does not follow: it counts our instructions.
const TICKS_PER_SECOND: f64 = 100.0;

/// In user and in system mode; ticks of 10 ms.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let ticks: u64 = numbers_of(&stat)?.skip(11).take(2).sum();
    Some(ticks as f64 / TICKS_PER_SECOND)
}

/// The fields of proc_pid_stat(5) behind the program's name, which is in brackets and may hold anything; those that are
/// not plain numbers are 0.
fn numbers_of(stat: &str) -> Option<impl Iterator<Item = u64>> {
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)))
}

/// Addresses and memory, in bytes.
fn memory() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes_of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1_024)
    };
    Some((bytes_of("VmSize:")?, bytes_of("VmRSS:")?))
}

/// Since Linux 6.2 the folder's size is their number; before, they are gone through.
fn open_descriptors() -> Option<u64> {
    let size = std::fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 { Some(size) } else { listen::open_descriptors().map(|open| open as u64) }
}

/// When the process began, by the kernel's account; where it gives none, now.
fn started() -> f64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    by_the_kernel().unwrap_or_else(now)
}

fn by_the_kernel() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let ticks = numbers_of(&stat)?.nth(19)?;
    let of_system = std::fs::read_to_string("/proc/stat").ok()?;
    let booted: u64 = of_system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted as f64 + ticks as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_as_large_and_as_old_as_it_is() {
        let (virtual_bytes, resident_bytes) = memory().expect("Linux tells");
        assert!(resident_bytes > 1 << 20 && resident_bytes < virtual_bytes);
        let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
            - by_the_kernel().expect("Linux tells");
        // The kernel's time of boot is in whole seconds.
        assert!((-2.0..3_600.0).contains(&age), "{age}");
        let before = (cpu_seconds().expect("Linux tells"), open_descriptors().expect("Linux tells"));
        let _files: Vec<_> = (0..10).map(|_| std::fs::File::open("/proc/self/stat").unwrap()).collect();
        while cpu_seconds().expect("Linux tells") < before.0 + 0.01 {}
        assert!(open_descriptors().unwrap() >= before.1 + 10);
    }
}
