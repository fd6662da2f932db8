//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::cluster::ClusterArgs;
use crate::dialect::Spoken;
use crate::engine::Waiting;
use crate::fleet::Pace;
use crate::gateway::GatewayArgs;
use crate::gateway::over_http::WsOverHttpArgs;
use crate::scenario::{Fanout, Handshakes, Hooks, Idle, PublishOnly, Setup, Slow, Storm};
use crate::server::{AtMost, Launcher, Target};
use crate::sources::SourcesArgs;
use crate::sys::affinity::{Cpus, allowed};

/// Load generator: verifies every delivery and compares servers with a bare write(2) loop in the same run.
#[derive(Debug, Parser)]
#[command(name = "fanwire-load", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Channels x subscribers; the next message goes when one has reached everybody.
    Fanout(FanoutArgs),
    /// Messages at a fixed rate, whatever the deliveries do; latency counts from when a message was due.
    OpenLoop(OpenLoopArgs),
    /// Private memory per idle connection.
    Idle(IdleArgs),
    /// Connect storm, a few messages, mass disconnect, memory afterwards.
    Storm(StormArgs),
    /// Some subscribers never read: the others' latency, and kernel memory for the silent ones.
    Slow(SlowArgs),
    /// A storm of TLS handshakes, full and resumed ones: their time, and the p99 of those who are connected already.
    Handshakes(HandshakesArgs),
    /// Functions that are asked and told: decisions, notifications and messages of a WebSocket API.
    Gateway(GatewayArgs),
    /// Several nodes over NATS: a delivery's cost at each, latency between them, and NATS with the same clients beside.
    Cluster(ClusterArgs),
    /// Messages of WebSockets whose origin answers short requests.
    WsOverHttp(WsOverHttpArgs),
    /// Sources whose upstreams restart at random: every event once, and memory.
    Sources(SourcesArgs),
    /// Cost of a publish that nobody hears.
    Publish(PublishArgs),
    /// The standard rows, floor and servers in turn.
    Compare(CompareArgs),
    /// The bare server itself.
    Floor {
        /// Where to listen.
        address: SocketAddr,
        /// PEM file with a certificate: subscribers may then come inside of TLS 1.3.
        #[arg(long, requires = "key")]
        cert: Option<PathBuf>,
        /// PEM file with its key.
        #[arg(long, requires = "cert")]
        key: Option<PathBuf>,
    },
    /// The origin that Pushpin needs: holds `/stream/{channel}` by GRIP.
    #[command(hide = true)]
    Origin {
        /// Where to listen.
        address: SocketAddr,
    },
    #[command(hide = true)]
    Worker {
        #[arg(long)]
        cpus: Cpus,
    },
    #[command(hide = true)]
    ShakeHands {
        #[arg(long)]
        cpus: Cpus,
    },
    #[command(hide = true)]
    Exec {
        #[arg(long)]
        cpus: Cpus,
        #[arg(trailing_var_arg = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Server to measure: floor, fanwire, fanwire-DIALECT, a peer (mosquitto, mosquitto5-qos1, rumqttd, nats, nchan,
    /// pushpin, faye-ws, faye-lp, cometd-node-lp), `[LABEL:]DIALECT=COMMAND` with {address}, {port}, {port2}, {port3},
    /// or `[LABEL:]DIALECT@ADDRESS/PID`. Repeat to compare; ratios are to the first. TLS: `tls+` before floor, fanwire,
    /// mosquitto or nchan, or before DIALECT, where {cert} and {key} are files with a certificate that is made.
    #[arg(long = "target", value_name = "TARGET")]
    pub(crate) targets: Vec<Target>,
    /// Gives the target with this label no more than so many subscribers.
    #[arg(long = "at-most", value_name = "LABEL=SUBSCRIBERS")]
    at_most: Vec<AtMost>,
    /// Rounds, each over all targets in turn.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Publish by another protocol than the subscribers', at the server's second port, {port2}; `tls+DIALECT` if
    /// that speaks TLS.
    #[arg(long, value_name = "DIALECT")]
    publisher: Option<Spoken>,
    /// PEM file with the authorities that TLS clients believe for the name localhost. Without it they verify nothing.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// CPUs for the server under test; default 0 if there are two or more, else none.
    #[arg(long)]
    server_cpus: Option<Cpus>,
    /// CPUs for the clients; default 1 if there are two or more, else none.
    #[arg(long)]
    client_cpus: Option<Cpus>,
    /// Client processes; 0 starts one per 18,000 connections.
    #[arg(long, default_value_t = 0)]
    processes: usize,
    /// Source addresses from 127.0.0.2 on; 0 leaves address and port to the kernel.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u8).range(..=250))]
    sources: u8,
    /// Connections opening at a time.
    #[arg(long, default_value_t = 256)]
    in_flight_connects: usize,
    /// Clients wait by spinning: figures then hold no wake-ups of the client. Only with a CPU of their own.
    #[arg(long)]
    spin: bool,
    /// Longest time one measurement may take, seconds.
    #[arg(long, default_value_t = 120)]
    time_limit: u64,
    /// Shell command to run right before the measured span (fanout, open-loop, publish, storm's connects); `{pid}` is
    /// the server.
    #[arg(long)]
    before: Option<String>,
    /// Shell command to run right after it.
    #[arg(long)]
    after: Option<String>,
    /// Append the servers' output to this file.
    #[arg(long)]
    server_log: Option<PathBuf>,
    /// Print a JSON line after each table.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Common {
    pub(crate) fn setup(&self) -> Setup {
        let default = |cpu: &str| {
            let cpus = if allowed() >= 2 { cpu.parse() } else { "none".parse() };
            cpus.unwrap_or_default()
        };
        Setup {
            launcher: Launcher {
                cpus: self.server_cpus.clone().unwrap_or_else(|| default("0")),
                log: self.server_log.clone(),
                at_most: self.at_most.clone(),
                publisher: self.publisher,
            },
            client_cpus: self.client_cpus.clone().unwrap_or_else(|| default("1")),
            processes: self.processes,
            sources: self.sources,
            in_flight_connects: self.in_flight_connects,
            hooks: Hooks { before: self.before.clone(), after: self.after.clone() },
            waiting: if self.spin { Waiting::Spin } else { Waiting::Sleep },
            ca: self.ca.clone(),
            rounds: self.rounds,
            time_limit: Duration::from_secs(self.time_limit),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Shape {
    /// Channels.
    #[arg(long, default_value_t = 1)]
    channels: u32,
    /// Subscribers of each channel.
    #[arg(long, default_value_t = 10_000)]
    subscribers: usize,
    /// Publishing connections.
    #[arg(long, default_value_t = 1)]
    publishers: usize,
    /// Payload bytes (at least 38, the stamp).
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Messages measured.
    #[arg(long, default_value_t = 100)]
    messages: u64,
    /// Messages before those.
    #[arg(long, default_value_t = 10)]
    warm_up: u64,
}

impl Shape {
    fn fanout(&self, pace: Pace) -> Fanout {
        Fanout {
            channels: self.channels.max(1),
            subscribers: self.subscribers,
            publishers: self.publishers,
            pace,
            payload_bytes: self.payload,
            messages: self.messages,
            warm_up: self.warm_up,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    shape: Shape,
    /// Messages in flight.
    #[arg(long, default_value_t = 1)]
    window: usize,
    /// As many as --window go at once, in one write of each publisher, and the next when all of them have arrived: a
    /// server then gets the same bursts every time.
    #[arg(long)]
    at_once: bool,
}

impl FanoutArgs {
    pub(crate) fn scenario(&self) -> Fanout {
        let window = self.window.max(1);
        self.shape.fanout(if self.at_once { Pace::Burst(window) } else { Pace::Window(window) })
    }
}

#[derive(Debug, Args)]
pub(crate) struct OpenLoopArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    shape: Shape,
    /// Messages per second, over all channels.
    #[arg(long, default_value_t = 5.0)]
    rate: f64,
}

impl OpenLoopArgs {
    pub(crate) fn scenario(&self) -> Fanout {
        self.shape.fanout(Pace::PerSecond(self.rate.max(0.001)))
    }
}

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    #[arg(long, default_value_t = 1)]
    channels: u32,
    /// Seconds without traffic before memory is read.
    #[arg(long, default_value_t = 3)]
    settle: u64,
}

impl IdleArgs {
    pub(crate) fn scenario(&self) -> Idle {
        Idle {
            channels: self.channels.max(1),
            connections: self.connections,
            settle: Duration::from_secs(self.settle),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct StormArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    #[arg(long, default_value_t = 1)]
    channels: u32,
    /// Messages that all must get between connect and disconnect.
    #[arg(long, default_value_t = 3)]
    messages: u64,
    /// How often all come and go.
    #[arg(long, default_value_t = 1)]
    cycles: usize,
}

impl StormArgs {
    pub(crate) fn scenario(&self) -> Storm {
        Storm {
            channels: self.channels.max(1),
            connections: self.connections,
            messages: self.messages,
            cycles: self.cycles,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct HandshakesArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Clients that come, --in-flight-connects at a time.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Subscribers that are there already.
    #[arg(long, default_value_t = 100)]
    subscribers: usize,
    /// Messages per second that they get.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Messages before the storms, to compare with.
    #[arg(long, default_value_t = 500)]
    calm_messages: u64,
}

impl HandshakesArgs {
    pub(crate) fn scenario(&self) -> Handshakes {
        Handshakes {
            connections: self.connections,
            subscribers: self.subscribers,
            rate: self.rate.max(0.001),
            calm_messages: self.calm_messages,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct SlowArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[arg(long, default_value_t = 10_000)]
    subscribers: usize,
    /// Every how many-th subscriber never reads.
    #[arg(long, default_value_t = 100)]
    stalled_every: usize,
    #[arg(long, default_value_t = 1_024)]
    payload: usize,
    #[arg(long, default_value_t = 500)]
    messages: u64,
    /// Messages in flight.
    #[arg(long, default_value_t = 1)]
    window: usize,
    /// Messages per second instead of a number in flight.
    #[arg(long)]
    rate: Option<f64>,
}

impl SlowArgs {
    pub(crate) fn scenario(&self) -> Slow {
        Slow {
            subscribers: self.subscribers,
            stalled_every: self.stalled_every.max(2),
            payload_bytes: self.payload,
            messages: self.messages,
            pace: self.rate.map_or(Pace::Window(self.window.max(1)), Pace::PerSecond),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[arg(long, default_value_t = 16)]
    channels: u32,
    /// Kept-alive connections, each with one request at a time.
    #[arg(long, default_value_t = 64)]
    publishers: usize,
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Requests measured.
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
}

impl PublishArgs {
    pub(crate) fn scenario(&self) -> PublishOnly {
        PublishOnly {
            channels: self.channels.max(1),
            publishers: self.publishers.max(1),
            payload_bytes: self.payload,
            messages: self.messages,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Rows to run: single, burst, channels.
    #[arg(long, value_delimiter = ',', default_value = "single,burst,channels")]
    pub(crate) rows: Vec<Row>,
    /// A tenth of the subscribers and few messages: shows that it works, not how fast.
    #[arg(long)]
    quick: bool,
}

/// A standard row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Row {
    /// 1 channel x 10,000, one message in flight.
    Single,
    /// The same with 16 in flight.
    Burst,
    /// 1,000 channels x 10, 16 publishers, 16 in flight.
    Channels,
}

impl CompareArgs {
    pub(crate) fn scenario(&self, row: Row) -> Fanout {
        let (channels, subscribers, publishers, window, messages) = match (row, self.quick) {
            (Row::Single, false) => (1, 10_000, 1, 1, 100),
            (Row::Burst, false) => (1, 10_000, 1, 16, 240),
            (Row::Channels, false) => (1_000, 10, 16, 16, 50_000),
            (Row::Single, true) => (1, 1_000, 1, 1, 20),
            (Row::Burst, true) => (1, 1_000, 1, 16, 64),
            (Row::Channels, true) => (100, 10, 16, 16, 1_000),
        };
        let pace = Pace::Window(window);
        let warm_up = messages / 10;
        Fanout { channels, subscribers, publishers, pace, payload_bytes: 64, messages, warm_up }
    }
}
