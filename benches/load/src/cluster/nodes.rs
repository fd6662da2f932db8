//! Nodes of a cluster and the server of NATS between them, each a process of its own.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use crate::dialect::Dialect;
use crate::server::{Launch, Launcher, Server, Target};

/// What is measured: so many of our nodes, or NATS by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One server without a cluster.
    Alone,
    /// So many nodes over one server of NATS.
    Nodes(usize),
    /// One server of NATS, which speaks MQTT over WebSocket itself.
    Nats,
}

impl Kind {
    pub(crate) fn label(self) -> String {
        match self {
            Self::Alone => "no cluster".to_owned(),
            Self::Nodes(1) => "1 node".to_owned(),
            Self::Nodes(count) => format!("{count} nodes"),
            Self::Nats => "nats-server".to_owned(),
        }
    }
}

/// All processes of one of them; they end with it.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Server>,
    /// Ends after the nodes do.
    pub(crate) nats: Option<Server>,
}

impl Cluster {
    /// # Errors
    /// When a process does not start.
    pub(crate) fn start(kind: Kind, dialect: Dialect, launcher: &Launcher) -> io::Result<Self> {
        let start = |label: String, dialect: Dialect, command: Vec<String>| {
            let launch = Launch::Spawn(command);
            Server::start(&Target { label, spoken: dialect.into(), launch, max_opening: None }, launcher)
        };
        let script = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../peers").join(name);
        let nats = |script: &Path| {
            let words = ["{address}", "127.0.0.1:{port2}"].map(str::to_owned);
            [vec!["sh".to_owned(), script.to_string_lossy().into_owned()], words.to_vec()].concat()
        };
        let count = match kind {
            Kind::Nats => {
                let server = start(kind.label(), dialect, nats(&script("nats-mqtt.sh")))?;
                return Ok(Self { nodes: vec![server], nats: None });
            }
            Kind::Alone => 1,
            Kind::Nodes(count) => count,
        };
        let between = match kind {
            Kind::Nodes(_) => Some(start("nats".to_owned(), Dialect::Nats, nats(&script("nats.sh")))?),
            _ => None,
        };
        let nodes = (1..=count).map(|number| {
            let command = node(number, between.as_ref().map(|nats| nats.address), dialect)?;
            start(format!("node {number}"), dialect, command)
        });
        Ok(Self { nodes: nodes.collect::<io::Result<_>>()?, nats: between })
    }
}

/// The command of a node: the binary beside this one.
fn node(number: usize, nats: Option<SocketAddr>, dialect: Dialect) -> io::Result<Vec<String>> {
    let binary = std::env::current_exe()?.with_file_name("fanwire").to_string_lossy().into_owned();
    let mut words = Vec::new();
    if let Some(nats) = nats {
        let servers = format!("FANWIRE_CLUSTER_SERVERS=[\"nats://{nats}\"]");
        words.extend(["env".to_owned(), servers, format!("FANWIRE_CLUSTER_NODE=n{number}")]);
    }
    let (http, mqtt) = match dialect {
        Dialect::Mqtt(_) => ("127.0.0.1:{port2}", "{address}"),
        _ => ("{address}", "127.0.0.1:{port2}"),
    };
    words.extend([binary.as_str(), "--http", http, "--mqtt", mqtt].map(str::to_owned));
    Ok(words)
}
