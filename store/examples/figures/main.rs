//! What keeping costs: every table of *The store* in `benches/RESULTS.md` in one run.
//!
//! `scripts/store-figures`, or `figures [--data DIR] [--quick] [--server target/release/fanwire] [--only TABLE]`: what is
//! measured lies below DIR (default: the current folder), so that it is the disk in question. Without a server the tables in
//! process alone. `--seconds`, `--rounds` and `--in-flight` say how much of the tables in process is measured, `--flush-us`
//! that flushes take so long instead of what the disk needs, so that what is left shows on a machine whose disk others use
//! (`--data /dev/shm`), `--threads` prints what acknowledged publishes cost the processor, `--peer` is a word of the
//! servers' names that are asked over the network, `--connections` over how many. TABLE is one of `delivery`, `chat`,
//! `acknowledged`, `roof`, `network`. Loopback only; each measurement is over after a fixed time.

mod floor;
mod inside;
mod peers;
mod tally;

use std::path::{Path, PathBuf};
use std::time::Duration;

use floor::Place;
use inside::{Disk, Keeping};
use tally::{Figures, median, ratio};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct Arguments {
    data: PathBuf,
    server: Option<PathBuf>,
    /// How long one measurement is.
    span: Duration,
    rounds: usize,
    /// One table only.
    only: Option<String>,
    /// How many are in flight, where it is not said; `None`: the table's own numbers.
    in_flight: Option<usize>,
    /// In the place of the disk's flushes, so long each: what the rest costs shows on a disk that others write to.
    flush: Option<Duration>,
    /// Whether what each thread takes of the processor is printed.
    threads: bool,
    /// Over the network, servers whose names have this word only.
    peer: Option<String>,
    /// Over so many connections, which have 64 in flight together; `None`: the tables' own numbers.
    connections: Option<usize>,
}

/// The tables that there are.
const TABLES: [&str; 5] = ["delivery", "chat", "acknowledged", "roof", "network"];

impl Arguments {
    fn wants(&self, table: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == table)
    }
}

fn arguments() -> Outcome<Arguments> {
    let mut found = Arguments {
        data: ".".into(),
        server: None,
        span: Duration::from_secs(2),
        rounds: 3,
        only: None,
        in_flight: None,
        flush: None,
        threads: false,
        peer: None,
        connections: None,
    };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        match &*name {
            "--quick" => (found.span, found.rounds) = (Duration::from_millis(300), 1),
            "--data" => found.data = given.next().ok_or("a folder, please")?.into(),
            "--server" => found.server = Some(given.next().ok_or("a server, please")?.into()),
            "--threads" => found.threads = true,
            "--connections" => {
                let number = given.next().and_then(|number| number.parse().ok());
                let fits = |number: &usize| (1..=peers::IN_FLIGHT).contains(number);
                found.connections = Some(number.filter(fits).ok_or("1 to 64, please")?);
            }
            "--peer" => found.peer = Some(given.next().ok_or("a word, please")?),
            "--seconds" => {
                let seconds = given.next().ok_or("a number, please")?.parse()?;
                found.span = Duration::from_secs(seconds);
            }
            "--rounds" => found.rounds = given.next().ok_or("a number, please")?.parse()?,
            "--in-flight" => found.in_flight = Some(given.next().ok_or("a number, please")?.parse()?),
            "--flush-us" => {
                let micros = given.next().ok_or("a number, please")?.parse()?;
                found.flush = Some(Duration::from_micros(micros));
            }
            "--only" => {
                let table = given.next().filter(|table| TABLES.contains(&&**table));
                found.only = Some(table.ok_or_else(|| format!("one of {TABLES:?}, please"))?);
            }
            other => return Err(format!("what is {other}?").into()),
        }
    }
    Ok(found)
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let given = arguments()?;
    let scratch = tempfile::Builder::new().prefix("store-figures").tempdir_in(&given.data)?;
    let folder = scratch.path();
    let slow = Disk { delay: Duration::from_millis(5) };
    let disks = [("this disk", Disk::default()), ("flushes 5 ms later", slow)];

    if given.wants("delivery") {
        println!("## Delivery, from the publish to the last of {} subscribers\n", inside::SUBSCRIBERS);
        println!("| disk | `durability` | publisher | in flight | messages/s | p50 us | p99 us |");
        println!("| --- | --- | --- | --- | --- | --- | --- |");
        for (disk_name, disk) in disks {
            for keeping in Keeping::ALL {
                if keeping == Keeping::Nothing && disk.delay > Duration::ZERO {
                    continue;
                }
                for (asks, publisher) in
                    [(inside::Asks::No, "posts"), (inside::Asks::Yes, "waits for the answer")]
                {
                    for in_flight in [1, 64] {
                        let mut all = Vec::new();
                        for _ in 0..given.rounds {
                            all.push(
                                inside::deliver(folder, disk, keeping, asks, in_flight, given.span, 0)
                                    .await?,
                            );
                        }
                        let row = Figures::median_of(&all);
                        println!("| {disk_name} | {keeping} | {publisher} | {in_flight} | {row} |");
                    }
                }
            }
        }
    }
    if given.wants("chat") {
        println!(
            "\n## The same chat, `always`, beside a ledger that has 64 acknowledged publishes in flight\n"
        );
        println!("| disk | in flight | messages/s | p50 us | p99 us |");
        println!("| --- | --- | --- | --- | --- |");
        for (disk_name, disk) in disks {
            for in_flight in [1, 64] {
                let beside = 64;
                let row = inside::deliver(
                    folder,
                    disk,
                    Keeping::Always,
                    inside::Asks::No,
                    in_flight,
                    given.span,
                    beside,
                )
                .await?;
                println!("| {disk_name} | {in_flight} | {row} |");
            }
        }
    }
    if given.wants("acknowledged") {
        println!("\n## Acknowledged publishes in process, `always`, and a bare append log, in turn\n");
        println!(
            "| in flight | bare log/s | p50 us | p99 us | store/s | p50 us | p99 us | store / bare log |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
        for in_flight in given.in_flight.map_or(vec![1, 64, 512], |in_flight| vec![in_flight]) {
            let (mut bare, mut kept, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..given.rounds.max(3) {
                let one = floor::append(folder, Place::File, in_flight, given.span, given.flush).await?;
                let other = inside::acknowledge(
                    folder,
                    Keeping::Always,
                    in_flight,
                    given.span,
                    given.flush,
                    given.threads,
                )
                .await?;
                ratios.push(ratio(&other, &one));
                bare.push(one);
                kept.push(other);
            }
            let (bare, kept) = (Figures::median_of(&bare), Figures::median_of(&kept));
            println!(
                "| {in_flight} | {bare} | {kept} | {:.2} ({:.2}..{:.2}) |",
                median(&ratios),
                ratios.iter().copied().fold(f64::INFINITY, f64::min),
                ratios.iter().copied().fold(0.0, f64::max)
            );
        }
    }
    if given.wants("roof") {
        println!(
            "\n## What of the bare append log is left of it, in turn: with the store's database, the broker, both\n"
        );
        println!(
            "| in flight | bare log/s | its database, a row for each | a row for 64 | a broker without a store | with it |"
        );
        println!("| --- | --- | --- | --- | --- | --- |");
        for in_flight in [64, 512] {
            let mut all: [Vec<Figures>; 5] = Default::default();
            for _ in 0..given.rounds.max(3) {
                let round = [
                    floor::append(folder, Place::File, in_flight, given.span, given.flush).await?,
                    floor::append(folder, Place::Rows(1), in_flight, given.span, given.flush).await?,
                    floor::append(folder, Place::Rows(64), in_flight, given.span, given.flush).await?,
                    inside::acknowledge(folder, Keeping::Nothing, in_flight, given.span, None, false).await?,
                    inside::acknowledge(
                        folder,
                        Keeping::Always,
                        in_flight,
                        given.span,
                        given.flush,
                        given.threads,
                    )
                    .await?,
                ];
                for (all, figures) in all.iter_mut().zip(round) {
                    all.push(figures);
                }
            }
            let [bare, others @ ..] = &all;
            print!("| {in_flight} | {:.0} |", Figures::median_of(bare).per_second);
            for other in others {
                let ratios: Vec<f64> = other.iter().zip(bare).map(|(one, bare)| ratio(one, bare)).collect();
                print!(" {:.0}, {:.2} × |", Figures::median_of(other).per_second, median(&ratios));
            }
            println!();
        }
    }
    if let Some(server) = given.server.as_deref().filter(|_| given.wants("network")) {
        for connections in given.connections.map_or_else(|| vec![peers::IN_FLIGHT, 8], |given| vec![given]) {
            network(&given, server, folder, connections).await;
        }
    }
    Ok(())
}

/// The table of the servers, over so many connections.
async fn network(given: &Arguments, server: &Path, folder: &Path, connections: usize) {
    let each = peers::IN_FLIGHT / connections;
    println!("\n## Over the network, {connections} connections with {each} in flight each\n");
    println!("| server | acknowledged/s | p50 us | p99 us |");
    println!("| --- | --- | --- | --- |");
    let mut rows: Vec<(&str, Vec<Figures>)> = Vec::new();
    let asked = |peer: &peers::Peer| given.peer.as_ref().is_none_or(|word| peer.name().contains(word));
    let asked = |peer: &peers::Peer| asked(peer) && (each == 1 || peer.pipelines());
    for round in 0..given.rounds {
        for peer in peers::Peer::ALL.into_iter().filter(asked) {
            match peers::measure(peer, connections, server, folder, given.span, given.threads).await {
                Ok(figures) => match rows.iter_mut().find(|(name, _)| *name == peer.name()) {
                    Some((_, all)) => all.push(figures),
                    None => rows.push((peer.name(), vec![figures])),
                },
                Err(error) if round == 0 => println!("{}: left out, {error}", peer.name()),
                Err(_) => {}
            }
        }
    }
    for (name, all) in rows {
        println!("| {name} | {} |", Figures::median_of(&all));
    }
}
