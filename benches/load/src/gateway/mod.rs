//! `fanwire-load gateway`: what it costs that functions are asked and told. Clients here, functions here, and between them
//! a server: decisions about MQTT publishes, notifications, and messages of a WebSocket API. Threads and blocking sockets
//! do, as what is measured waits for functions.

mod ailing;
mod clients;
mod functions;
pub(crate) mod over_http;

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;

use crate::sys::affinity::Cpus;
use crate::sys::process::ProcessTree;
use ailing::{Ailing, Seen};
use clients::{Client, Mqtt, WebSocket};
use functions::Functions;

#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    /// Clients, each with one message under way.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// How long each part is measured, seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How long a function takes, milliseconds.
    #[arg(long, default_value_t = 20)]
    delay: u64,
    /// Notifications.
    #[arg(long, default_value_t = 20_000)]
    messages: usize,
    /// CPUs for the server; default 0 if there are two or more, else none.
    #[arg(long)]
    server_cpus: Option<Cpus>,
    /// A directory for a store: then what waits is kept.
    #[arg(long)]
    data: Option<std::path::PathBuf>,
    /// Clients of functions that hang, refuse, or answer garbage, one kind after the other, while the others are measured.
    #[arg(long, default_value_t = 1_000)]
    ailing: usize,
    /// Clients that vanish all at once while the others are measured.
    #[arg(long, default_value_t = 1_000)]
    vanish: usize,
    /// The same WebSocket through nginx too, to a backend that speaks WebSocket itself.
    #[arg(long)]
    nginx: bool,
    /// The same WebSocket API by serverless-offline too, whose function runs in its own process; needs Node.js and
    /// `npm ci` in tests/clients.
    #[arg(long)]
    offline: bool,
    /// Connections that are open and silent while the memory that each server holds for them is looked at.
    #[arg(long, default_value_t = 1_000)]
    idle: usize,
}

/// A part of what is measured.
struct Part {
    title: &'static str,
    count: u64,
    per_s: f64,
    /// Of the server, for each.
    cpu_us: f64,
    /// Beyond what the function takes, milliseconds.
    added: Option<Histogram<u64>>,
}

/// A server under test, until it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) http: SocketAddr,
    mqtt: SocketAddr,
    pub(crate) processes: ProcessTree,
    /// What it is configured by, which it reads again when it is gone.
    _file: Option<tempfile::NamedTempFile>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Those that it has started end with it.
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let until = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Measures and prints; false if something was lost.
pub(crate) fn run(args: &GatewayArgs) -> io::Result<bool> {
    let delay = Duration::from_millis(args.delay);
    let functions = Functions::start(delay)?;
    let server = Server::start(args, functions.address)?;
    let span = Duration::from_secs(args.seconds.clamp(1, 60));
    let connect = |number: usize| Mqtt::connect(server.mqtt, number, "asked/1");
    let decisions = rounds("decisions", args.connections, span, delay, &server, connect)?;
    let connect = |_| WebSocket::connect(server.http, "/load");
    let events = rounds("events of a WebSocket API", args.connections, span, delay, &server, connect)?;
    let mut parts = vec![decisions, events];
    let mut told = held("fanwire", &server, "/load", args.idle)?;
    let mut peers = Vec::new();
    if args.nginx {
        peers.push(("nginx", "  through nginx", "/socket", Server::proxy(args, functions.address)?));
    }
    if args.offline {
        peers.push(("serverless-offline", "  by serverless-offline", "/load", Server::offline(args)?));
    }
    let has_peers = !peers.is_empty();
    for (name, title, path, peer) in peers {
        let connect = |_| WebSocket::connect(peer.http, path);
        parts.push(rounds(title, args.connections, span, delay, &peer, connect)?);
        told.push_str(&held(name, &peer, path, args.idle)?);
    }
    if has_peers {
        parts.push(rounds("events again", args.connections, span, delay, &server, connect)?);
    }
    for (path, title) in
        [("/hangs", "  beside one that hangs"), ("/refuses", "  one that refuses"), ("/garbage", "  garbage")]
    {
        if args.ailing == 0 {
            break;
        }
        let before = server.processes.private_bytes()?;
        let ailing = Ailing::start(server.http, path, args.ailing)?;
        parts.push(rounds(title, args.connections, span, delay, &server, connect)?);
        let held = server.processes.private_bytes()?.saturating_sub(before);
        _ = writeln!(told, "{path}: {} KiB more, {}", held >> 10, said(&ailing.end()));
    }
    let mut untold = 0;
    if args.vanish > 0 {
        let (part, said, left) = vanish(args, &functions, &server)?;
        parts.push(part);
        told.push_str(&said);
        untold = left;
    }
    let (notifications, lost) = tell(args, &functions, &server)?;
    parts.push(notifications);
    print!("{}{told}", table(parts));
    if lost > 0 {
        println!("{lost} notifications did not come");
    }
    io::stdout().flush()?;
    Ok(lost == 0 && untold == 0)
}

/// A row for each part.
fn table(parts: Vec<Part>) -> String {
    let mut table = format!(
        "{:<28}{:>10}{:>12}{:>10}{:>12}{:>12}\n",
        "", "count", "per s", "CPU us", "p50 + ms", "p99 + ms"
    );
    for part in parts {
        let at = |quantile| match &part.added {
            Some(added) => format!("{:.2}", added.value_at_quantile(quantile) as f64 / 1_000.0),
            None => "-".to_owned(),
        };
        let Part { title, count, per_s, cpu_us, .. } = part;
        let _ = writeln!(
            table,
            "{title:<28}{count:>10}{per_s:>12.0}{cpu_us:>10.1}{:>12}{:>12}",
            at(0.5),
            at(0.99)
        );
    }
    table
}

/// How much private memory a server has for each of so many connections on which nothing is said, as a line.
fn held(name: &str, server: &Server, path: &str, connections: usize) -> io::Result<String> {
    if connections == 0 {
        return Ok(String::new());
    }
    let before = server.processes.private_bytes()?;
    let open =
        (0..connections).map(|_| WebSocket::connect(server.http, path)).collect::<io::Result<Vec<_>>>()?;
    // What only their coming took is given back.
    thread::sleep(Duration::from_secs(2));
    let more = server.processes.private_bytes()?.saturating_sub(before);
    drop(open);
    Ok(format!("{name}: {} bytes for each of {connections} idle connections\n", more / connections as u64))
}

/// What clients were told, as one line.
fn said(seen: &Seen) -> String {
    let each: Vec<_> = seen.iter().map(|(told, times)| format!("{times} x {told:?}")).collect();
    if each.is_empty() { "nobody was told anything".to_owned() } else { each.join(", ") }
}

/// An address at which nobody listens.
fn nobody() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Each client sends its next message when it has the answer to the one before.
fn rounds<C: Client>(
    title: &'static str,
    clients: usize,
    span: Duration,
    delay: Duration,
    server: &Server,
    connect: impl Fn(usize) -> io::Result<C> + Sync,
) -> io::Result<Part> {
    let open = (0..clients).map(&connect).collect::<io::Result<Vec<_>>>()?;
    let (before, began) = (server.processes.cpu()?, Instant::now());
    let until = began + span;
    let each: Vec<io::Result<Histogram<u64>>> = thread::scope(|scope| {
        let run = |mut client: C| {
            scope.spawn(move || {
                let mut added = histogram()?;
                while Instant::now() < until {
                    let sent = Instant::now();
                    client.ask()?;
                    let took = sent.elapsed().saturating_sub(delay);
                    _ = added.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
                }
                Ok(added)
            })
        };
        let running: Vec<_> = open.into_iter().map(run).collect();
        let ended = |handle: thread::ScopedJoinHandle<'_, io::Result<Histogram<u64>>>| {
            handle.join().unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
        };
        running.into_iter().map(ended).collect()
    });
    let (elapsed, used) = (began.elapsed(), server.processes.cpu()? - before);
    let mut added = histogram()?;
    for one in each {
        added.add(one?).map_err(io::Error::other)?;
    }
    let count = added.len().max(1);
    Ok(Part {
        title,
        count: added.len(),
        per_s: added.len() as f64 / elapsed.as_secs_f64(),
        cpu_us: used.total_ns as f64 / 1_000.0 / count as f64,
        added: Some(added),
    })
}

/// Clients whose sockets are closed without a word, all at once, while others of the same API are measured: how long it takes
/// until a function has heard of each end, and how many it has not.
fn vanish(args: &GatewayArgs, functions: &Functions, server: &Server) -> io::Result<(Part, String, usize)> {
    const PATIENCE: Duration = Duration::from_secs(120);
    let (span, delay) = (Duration::from_secs(args.seconds.clamp(1, 60)), Duration::from_millis(args.delay));
    let connect = |_| WebSocket::connect(server.http, "/vanishes");
    let crowd = (0..args.vanish).map(connect).collect::<io::Result<Vec<_>>>()?;
    // Those that are measured end too, when they have been.
    let all = args.vanish + args.connections;
    let (part, gone) = thread::scope(|scope| {
        let leaving = scope.spawn(move || {
            thread::sleep(span / 4);
            drop(crowd);
            Instant::now()
        });
        let part = rounds("  while others vanish", args.connections, span, delay, server, connect)?;
        let gone = leaving.join().map_err(|_| io::Error::other("the crowd did not leave"))?;
        Ok::<_, io::Error>((part, gone))
    })?;
    while functions.ended() < all && gone.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    let left = all.saturating_sub(functions.ended());
    let took = gone.elapsed().as_secs_f64();
    let said =
        format!("{} vanished: functions heard of all {all} ends but {left} in {took:.1} s\n", args.vanish);
    Ok((part, said, left))
}

/// Messages on many channels, as fast as they are taken; measured is until the last was told.
fn tell(args: &GatewayArgs, functions: &Arc<Functions>, server: &Server) -> io::Result<(Part, usize)> {
    let mut client = Mqtt::connect(server.mqtt, usize::MAX, "told/0")?;
    let (before, began) = (server.processes.cpu()?, Instant::now());
    for number in 0..args.messages {
        client.ask_on(&format!("told/{}", number % 1_000))?;
    }
    // A queue that gave up would never come to an end.
    let until = Instant::now() + Duration::from_secs(60);
    while functions.told() < args.messages && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    let (elapsed, used) = (began.elapsed(), server.processes.cpu()? - before);
    let count = functions.told();
    let part = Part {
        title: "notifications",
        count: count as u64,
        per_s: count as f64 / elapsed.as_secs_f64(),
        cpu_us: used.total_ns as f64 / 1_000.0 / count.max(1) as f64,
        added: None,
    };
    Ok((part, args.messages.saturating_sub(count)))
}

fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000, 3).map_err(io::Error::other)
}

impl Server {
    /// The binary beside this one, with the functions at `backend`.
    fn start(args: &GatewayArgs, backend: SocketAddr) -> io::Result<Self> {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let hook = |id: &str, event: &str, channels: &str| {
            format!(
                "[[gateway.webhooks]]\nid = \"{id}\"\nurl = \"http://{backend}/{id}\"\nsecret = \"{secret}\"\n\
                 channels = [\"{channels}\"]\nevents = [\"{event}\"]\nmax_in_flight = 256\n"
            )
        };
        let api = |name: &str, to: SocketAddr, function: &str| {
            format!(
                "[[gateway.aws]]\nname = \"{name}\"\npath = \"/{name}\"\n\
                 route_selection = \"$request.body.action\"\nmax_in_flight = 1000\n\
                 integrations.main = {{ url = \"http://{to}/{function}\" }}\n\
                 routes.\"$default\" = {{ integration = \"main\", response = true }}\n"
            )
        };
        let text = [
            hook("asked", "publish", "asked/**"),
            hook("told", "message", "told/**"),
            api("load", backend, "function"),
            api("hangs", backend, "hangs"),
            api("refuses", nobody()?, ""),
            api("garbage", backend, "garbage"),
            api("vanishes", backend, "function"),
            format!(
                "integrations.end = {{ url = \"http://{backend}/ended\" }}\n\
                 routes.\"$disconnect\" = {{ integration = \"end\" }}\n"
            ),
        ]
        .concat();
        Self::with_config(&text, args.data.as_deref(), args.server_cpus.as_ref())
    }

    /// The binary beside this one, configured so.
    pub(crate) fn with_config(text: &str, data: Option<&Path>, cpus: Option<&Cpus>) -> io::Result<Self> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        let binary = std::env::current_exe()?.with_file_name("fanwire");
        let mut command = Command::new(binary);
        command.args(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--config"]).arg(file.path());
        if let Some(data) = data {
            command.arg("--data").arg(data);
        }
        // A line of the log for each call is not what is measured.
        command.env("FANWIRE_LOGGING_LEVEL", "error");
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let (mut line, out) = (String::new(), child.stdout.take());
        let server = |child, line: &str| {
            let address = |name: &str| {
                let word = line.split_whitespace().find_map(|word| word.strip_prefix(name))?;
                word.parse::<SocketAddr>().ok()
            };
            let processes = ProcessTree::of(Child::id(&child));
            let (http, mqtt) = (address("http=")?, address("mqtt=")?);
            Some(Self { http, mqtt, child, processes, _file: Some(file) })
        };
        BufReader::new(out.ok_or_else(|| io::Error::other("no output"))?).read_line(&mut line)?;
        let server = server(child, &line).ok_or_else(|| io::Error::other(format!("it says {line:?}")))?;
        server.pin(cpus)?;
        Ok(server)
    }

    /// nginx before a WebSocket of the functions' own.
    fn proxy(args: &GatewayArgs, backend: SocketAddr) -> io::Result<Self> {
        let http = nobody()?;
        let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../peers/proxy.sh"));
        let mut command = Command::new(script);
        command.arg(http.to_string()).arg(backend.to_string());
        Self::peer(command, http, "/socket", args.server_cpus.as_ref())
    }

    /// serverless-offline, with a function that takes as long as ours.
    fn offline(args: &GatewayArgs) -> io::Result<Self> {
        let http = nobody()?;
        let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../peers/offline.mjs"));
        let mut command = Command::new("node");
        command.arg(script).arg(http.to_string()).arg(args.delay.to_string());
        Self::peer(command, http, "/load", args.server_cpus.as_ref())
    }

    /// Another server at `http`, once it lets a WebSocket in.
    fn peer(mut command: Command, http: SocketAddr, path: &str, cpus: Option<&Cpus>) -> io::Result<Self> {
        let child = command.stdin(Stdio::null()).spawn()?;
        let processes = ProcessTree::of(child.id());
        let server = Self { child, http, mqtt: http, processes, _file: None };
        let until = Instant::now() + Duration::from_secs(30);
        while let Err(error) = WebSocket::connect(http, path) {
            if Instant::now() > until {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(20));
        }
        server.pin(cpus)?;
        Ok(server)
    }

    fn pin(&self, cpus: Option<&Cpus>) -> io::Result<()> {
        let cpus = match cpus {
            Some(cpus) => cpus.clone(),
            None if crate::sys::affinity::allowed() >= 2 => "0".parse().map_err(io::Error::other)?,
            None => Cpus::default(),
        };
        self.processes.pids().into_iter().try_for_each(|pid| cpus.pin_process(pid))
    }
}
