//! Fills a store with a million messages, dies, and says how long the next start takes and what memory it has then.
//!
//! `cargo run --release -p fanwire-store --example million -- /tmp/million`; with a number for another count.

use std::sync::Arc;
use std::time::Instant;

use broker_core::{Broker, Channel, Config, Publish};
use store::{Settings, Store};

/// How many publishes wait for the disk at a time.
const IN_FLIGHT: usize = 512;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("a directory, please")?;
    let count: usize = arguments.next().map_or(Ok(1_000_000), |count| count.parse())?;
    if arguments.next().is_some() {
        fill(&directory, count).await?;
        // As `kill -9` would end it: nothing is written any more.
        std::process::abort();
    }
    let child = std::env::current_exe()?;
    let began = Instant::now();
    std::process::Command::new(child).args([&directory, &count.to_string(), "fill"]).status()?;
    let filled = began.elapsed();
    let began = Instant::now();
    let store = Store::open(Settings::new(&directory))?;
    let opened = began.elapsed();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM: ?").to_owned();
    drop(store);
    let report = store::check(directory.as_ref())?;
    println!(
        "{count} messages in {:.1} s; the next start took {:.3} s",
        filled.as_secs_f64(),
        opened.as_secs_f64()
    );
    println!("{memory}\n{report}");
    Ok(())
}

async fn fill(directory: &str, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    let store = Arc::new(Store::open(Settings::new(directory))?);
    let broker = Broker::with_engine(Config::default(), store as _);
    let payload = "x".repeat(256);
    let mut waiting = std::collections::VecDeque::new();
    for n in 0..count {
        let channel = Channel::parse(&format!("orders/{}", n % 1_000))?;
        waiting.push_back(broker.submit(Publish::new(channel, payload.clone())));
        if waiting.len() >= IN_FLIGHT
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.await?;
        }
    }
    for last in waiting {
        last.await?;
    }
    Ok(())
}
