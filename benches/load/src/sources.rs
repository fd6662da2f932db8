//! `fanwire-load sources`: many sources whose upstreams restart at random. The upstreams and the one reader are here, the
//! server is the binary beside this one. Every event has a number as its id; each has to arrive once and in order, however
//! often its upstream was gone, and the server's memory has to stay where it was.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::gateway::Server;
use crate::sys::affinity::Cpus;

#[derive(Debug, Args)]
pub(crate) struct SourcesArgs {
    /// Sources, each an event stream.
    #[arg(long, default_value_t = 1_000)]
    sources: usize,
    /// Upstreams among which they are dealt out.
    #[arg(long, default_value_t = 20)]
    upstreams: usize,
    /// How long upstreams restart, seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// The same in minutes, instead.
    #[arg(long)]
    minutes: Option<u64>,
    /// Events of each source a second.
    #[arg(long, default_value_t = 1)]
    rate: u64,
    /// CPUs for the server; default 0 if there are two or more, else none.
    #[arg(long)]
    server_cpus: Option<Cpus>,
}

/// Longest that anything may take once the upstreams stay: a source waits five minutes at most before it tries again.
const PATIENCE: Duration = Duration::from_secs(330);
/// How long an upstream is up, and gone, in milliseconds: from and to.
const UP_MS: (u64, u64) = (2_000, 12_000);
const GONE_MS: (u64, u64) = (50, 1_500);
/// How often what is new is sent.
const STEP: Duration = Duration::from_millis(100);
/// A connection's thread has little to remember.
const STACK_BYTES: usize = 128 << 10;

/// What all upstreams know.
struct World {
    began: Instant,
    rate: u64,
    /// The last event that there is; 0: as time says.
    last: AtomicU64,
    is_quiet: AtomicBool,
    restarts: AtomicU64,
    connections: AtomicU64,
}

impl World {
    /// How many events each source has had so far.
    fn events(&self) -> u64 {
        match self.last.load(Relaxed) {
            0 => self.began.elapsed().as_millis() as u64 * self.rate / 1_000,
            last => last,
        }
    }
}

/// Numbers that nobody needs to guess: xorshift (Marsaglia 2003).
struct Chance(u64);

impl Chance {
    fn within(&mut self, (from, to): (u64, u64)) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        from + self.0 % (to - from)
    }
}

/// Runs and prints; false if an event was lost, repeated or out of order.
pub(crate) fn run(args: &SourcesArgs) -> io::Result<bool> {
    crate::sys::process::raise_descriptor_limit();
    let world = Arc::new(World {
        began: Instant::now(),
        rate: args.rate.clamp(1, 50),
        last: AtomicU64::new(0),
        is_quiet: AtomicBool::new(false),
        restarts: AtomicU64::new(0),
        connections: AtomicU64::new(0),
    });
    let mut addresses = Vec::new();
    for number in 0..args.upstreams.max(1) {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        addresses.push(address);
        let world = Arc::clone(&world);
        thread::spawn(move || upstream(listener, address, &world, Chance(0x9e37_79b9 + number as u64)));
    }
    let mut config = String::new();
    for source in 0..args.sources {
        let address = addresses.get(source % addresses.len()).copied().unwrap_or(addresses[0]);
        _ = writeln!(
            config,
            "[[gateway.sources]]\nid = \"s{source}\"\nkind = \"sse\"\nurl = \"http://{address}/{source}\"\n\
             channel = \"feed/{source}\""
        );
    }
    let server = Server::with_config(&config, None, args.server_cpus.as_ref())?;
    let seen: Arc<Vec<AtomicU64>> = Arc::new((0..args.sources).map(|_| AtomicU64::new(0)).collect());
    let (faults, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let reading = {
        let (seen, faults, over, http) =
            (Arc::clone(&seen), Arc::clone(&faults), Arc::clone(&over), server.http);
        let stream = listen(http)?;
        thread::spawn(move || read(stream, &seen, &faults, &over))
    };
    let least = |seen: &[AtomicU64]| seen.iter().map(|number| number.load(Relaxed)).min().unwrap_or(0);
    // All of them are connected, and have said something.
    wait("the sources to begin", PATIENCE, || least(&seen) > 0)?;
    let (cpu, began) = (server.processes.cpu()?, Instant::now());
    let span = Duration::from_secs(args.minutes.map_or(args.seconds, |minutes| minutes * 60).clamp(1, 3_600));
    let (first, mut most) = (server.processes.private_bytes()?, 0);
    while began.elapsed() < span {
        thread::sleep(Duration::from_secs(1).min(span));
        most = most.max(server.processes.private_bytes()?);
    }
    world.is_quiet.store(true, Relaxed);
    let last = world.events().max(1);
    world.last.store(last, Relaxed);
    let ended = wait("the last events", PATIENCE, || least(&seen) >= last || reading.is_finished());
    let (used, elapsed) = (server.processes.cpu()? - cpu, began.elapsed());
    over.store(true, Relaxed);
    let total: u64 = seen.iter().map(|number| number.load(Relaxed)).sum();
    let missing: u64 = seen.iter().map(|number| last.saturating_sub(number.load(Relaxed))).sum();
    let faults = faults.load(Relaxed);
    println!(
        "{} sources, {} upstreams, {} restarts, {} connections, {:.0} s\n\
         {total} events, {missing} lost, {faults} repeated or out of order, {:.1} us of CPU each\n\
         private memory: {} KiB at first, {} KiB at most, {} KiB at last",
        args.sources,
        addresses.len(),
        world.restarts.load(Relaxed),
        world.connections.load(Relaxed),
        elapsed.as_secs_f64(),
        used.total_ns as f64 / 1_000.0 / total.max(1) as f64,
        first >> 10,
        most >> 10,
        server.processes.private_bytes()? >> 10,
    );
    io::stdout().flush()?;
    ended?;
    Ok(missing == 0 && faults == 0)
}

fn wait(what: &str, patience: Duration, is_so: impl Fn() -> bool) -> io::Result<()> {
    let until = Instant::now() + patience;
    while !is_so() {
        if Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("waited in vain for {what}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Serves, and is gone again and again with all its connections, until the world is quiet: then it stays.
fn upstream(first: TcpListener, address: SocketAddr, world: &Arc<World>, mut chance: Chance) {
    let mut listener = Some(first);
    loop {
        let serving = match listener.take() {
            Some(listener) => listener,
            None => match TcpListener::bind(address) {
                Ok(listener) => listener,
                // Its last connections are not over yet.
                Err(_) => {
                    thread::sleep(STEP);
                    continue;
                }
            },
        };
        let gone = Arc::new(AtomicBool::new(false));
        let until = Instant::now() + Duration::from_millis(chance.within(UP_MS));
        if serving.set_nonblocking(true).is_err() {
            return;
        }
        while world.is_quiet.load(Relaxed) || Instant::now() < until {
            match serving.accept() {
                Ok((stream, _)) => {
                    world.connections.fetch_add(1, Relaxed);
                    let (world, gone) = (Arc::clone(world), Arc::clone(&gone));
                    let serve = move || _ = serve(stream, &world, &gone);
                    _ = thread::Builder::new().stack_size(STACK_BYTES).spawn(serve);
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
        gone.store(true, Relaxed);
        drop(serving);
        world.restarts.fetch_add(1, Relaxed);
        thread::sleep(Duration::from_millis(chance.within(GONE_MS)));
    }
}

/// What comes behind the last id, as it comes, until the upstream is gone.
fn serve(stream: TcpStream, world: &World, gone: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    let (mut source, mut last) = (String::new(), 0);
    for (at, line) in BufReader::new(&stream).lines().enumerate() {
        let line = line?;
        if at == 0 {
            source = line.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
        } else if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("last-event-id")
        {
            last = value.trim().parse().map_err(io::Error::other)?;
        } else if line.is_empty() {
            break;
        }
    }
    let begin = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\nretry: 1\n\n";
    (&stream).write_all(begin.as_bytes())?;
    while !gone.load(Relaxed) {
        let mut text = String::new();
        for number in last + 1..=world.events() {
            _ = write!(text, "id: {number}\ndata: {{\"s\":{source},\"n\":{number}}}\n\n");
            last = number;
        }
        if !text.is_empty() {
            (&stream).write_all(text.as_bytes())?;
        }
        thread::sleep(STEP);
    }
    Ok(())
}

/// The one reader of all that is published.
fn listen(http: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(http)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let request = format!("GET /sse/feed/*?format=raw HTTP/1.1\r\nHost: {http}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    match line.starts_with("HTTP/1.1 200 ") {
        true => Ok(reader),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, format!("no event stream: {line:?}"))),
    }
}

fn read(mut stream: BufReader<TcpStream>, seen: &[AtomicU64], faults: &AtomicU64, over: &AtomicBool) {
    let mut line = String::new();
    while !over.load(Relaxed) {
        match stream.read_line(&mut line) {
            Ok(0) => return,
            Ok(_) => {}
            // What is there of the line stays.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => return,
        }
        if let Some((source, number)) = event(&line)
            && let Some(last) = seen.get(source)
        {
            match number == last.load(Relaxed) + 1 {
                true => last.store(number, Relaxed),
                false => _ = faults.fetch_add(1, Relaxed),
            }
        }
        line.clear();
    }
}

/// Source and number of an event by its line of data.
fn event(line: &str) -> Option<(usize, u64)> {
    let data: serde_json::Value = serde_json::from_str(line.strip_prefix("data: ")?).ok()?;
    Some((usize::try_from(data["s"].as_u64()?).ok()?, data["n"].as_u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_by_its_data() {
        assert_eq!(event("data: {\"s\":17,\"n\":3}\n"), Some((17, 3)));
        assert_eq!(event("id: x\n"), None);
        assert_eq!(event("data: {\"s\":-1,\"n\":3}\n"), None);
    }

    #[test]
    fn chance_stays_within_its_bounds() {
        let mut chance = Chance(1);
        assert!((0..1_000).all(|_| (5..9).contains(&chance.within((5, 9)))));
    }
}
