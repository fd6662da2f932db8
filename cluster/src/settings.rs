//! How a node belongs to a cluster.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::ServerAddr;

use crate::error::JoinError;
use crate::subject;

/// Which NATS servers to use, and within which bounds.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// What this node is called where people look. Default: the machine's host name. Two nodes of one name are told of,
    /// and work.
    pub node: String,
    /// Where NATS servers are: `nats://host:4222`, `tls://host:4222`, also with `user:password@` or `token@`.
    /// Those that they name are used too.
    pub servers: Vec<String>,
    /// What the subjects begin with, one token of letters, digits, `_` and `-`: clusters of different prefixes know nothing
    /// of each other. Default `fw`.
    pub prefix: String,
    /// Who this node is to the servers. Default nobody.
    pub login: Login,
    /// How it trusts them, and they it. Default: as the machine does; TLS is spoken where the servers ask for it.
    pub tls: Tls,
    /// Whether servers older than [`MIN_SERVER`](Self::MIN_SERVER) are used, and streams with fewer copies than
    /// [`replicas`](Self::replicas). Default no.
    pub allow_unsafe: bool,
    /// Namespaces, the first levels of channels, whose messages are kept in a stream of JetStream (`true`), or are in memory
    /// alone (`false`). Default none.
    pub namespaces: Vec<(String, bool)>,
    /// Whether the messages of all others are kept. Default no.
    pub keeps_others: bool,
    /// How many NATS servers have a copy of a kept message before its publisher is answered. Default 3.
    pub replicas: usize,
    /// How long a message is kept; what is retained stays. Default 7 days.
    pub max_age: Duration,
    /// What all kept messages may take, on each server; the oldest go first. Default 8 GiB.
    pub max_bytes: u64,
    /// Groups of subscribers that may share kept messages, in the whole cluster: for each there is a consumer of JetStream.
    /// Default 1,024.
    pub max_groups: usize,
    /// How long a subscriber waits until it is known that other nodes' messages reach it, before it is told that it is
    /// subscribed all the same. Default 2 s.
    pub settle_timeout: Duration,
    /// Filters that are asked of NATS one by one, each with some 5 KiB; as soon as there are more, this node takes all
    /// messages of the cluster. Default 16,384.
    pub max_filters: usize,
    /// Messages that may wait to be sent to other nodes; what comes then stays on this node and is counted. Default 65,536.
    pub max_waiting_messages: usize,
    /// The same in bytes. Default 64 MiB.
    pub max_waiting_bytes: usize,
    /// Messages of other nodes that may wait for this one, for each filter; what comes then is lost and counted. Default
    /// 16,384.
    pub max_incoming_messages: usize,
}

impl Settings {
    /// The oldest server that is known to work.
    pub const MIN_SERVER: (i64, i64, i64) = (2, 9, 0);

    /// The oldest server that may keep messages: older ones have lost what they had acknowledged, or cannot be asked for
    /// many messages at once. No other setting lets an older one.
    pub const MIN_DURABLE_SERVER: (i64, i64, i64) = (2, 12, 0);

    /// With these servers, and the default of everything else.
    pub fn new(servers: Vec<String>) -> Self {
        Self {
            node: host_name(),
            servers,
            prefix: "fw".to_owned(),
            login: Login::Nobody,
            tls: Tls::default(),
            allow_unsafe: false,
            namespaces: Vec::new(),
            keeps_others: false,
            replicas: 3,
            max_age: Duration::from_secs(7 * 24 * 60 * 60),
            max_bytes: 8 * 1024 * 1024 * 1024,
            max_groups: 1_024,
            settle_timeout: Duration::from_secs(2),
            max_filters: 16_384,
            max_waiting_messages: 65_536,
            max_waiting_bytes: 64 * 1024 * 1024,
            max_incoming_messages: 16_384,
        }
    }

    /// Whether all of it makes sense, without asking anybody.
    ///
    /// # Errors
    /// [`JoinError::NoServer`], `Server`, `Prefix`.
    pub fn check(&self) -> Result<(), JoinError> {
        self.addresses().map(drop)
    }

    /// Whether the messages of a namespace are kept.
    pub fn keeps(&self, namespace: &str) -> bool {
        let named = self.namespaces.iter().find(|(name, _)| name == namespace);
        named.map_or(self.keeps_others, |(_, is_kept)| *is_kept)
    }

    /// Whether any message is kept.
    pub fn keeps_any(&self) -> bool {
        self.keeps_others || self.namespaces.iter().any(|(_, is_kept)| *is_kept)
    }

    /// Where the servers are, if all that is set makes sense.
    pub(crate) fn addresses(&self) -> Result<Vec<ServerAddr>, JoinError> {
        if self.servers.is_empty() {
            return Err(JoinError::NoServer);
        }
        if !subject::is_prefix(&self.prefix) {
            return Err(JoinError::Prefix(self.prefix.clone()));
        }
        let parse = |server: &String| server.parse().map_err(|_| JoinError::Server(server.clone()));
        self.servers.iter().map(parse).collect()
    }
}

/// Without passwords.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, servers, prefix, .. } = self;
        f.debug_struct("Settings")
            .field("node", node)
            .field("servers", &servers.len())
            .field("prefix", prefix)
            .finish_non_exhaustive()
    }
}

/// Who a node is to the NATS servers.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Login {
    /// Nobody, or who the first server's address says: `user:password@host`, `token@host`.
    #[default]
    Nobody,
    /// A user with a password.
    User {
        /// The user.
        user: String,
        /// Its password.
        password: String,
    },
    /// Whoever has this token.
    Token(String),
    /// The user of a credentials file, as `nsc` writes it.
    Credentials(PathBuf),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::User { .. } => "User",
            Self::Token(_) => "Token",
            Self::Credentials(_) => "Credentials",
        })
    }
}

/// TLS to the NATS servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// Whether nothing is said without it. Default no: the servers say whether they want it.
    pub required: bool,
    /// Authorities that are trusted beside those of the machine, as PEM.
    pub ca_file: Option<PathBuf>,
    /// The node's own certificate and key, as PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
