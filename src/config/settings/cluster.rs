//! `[cluster]`: other nodes.

use std::path::{Path, PathBuf};

use cluster::{Login, Settings, Tls};
use serde::{Deserialize, Serialize};
use settings::{Period, Size, Text};
use store::Durability;

use super::broker::Namespace;

/// `[cluster]`: several nodes over NATS.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Cluster {
    servers: Vec<String>,
    node: Option<String>,
    prefix: String,
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    credentials: Option<PathBuf>,
    tls: bool,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    allow_unsafe: bool,
    durability: Option<Text<Durability>>,
    replicas: usize,
    max_age: Period,
    max_bytes: Size,
    max_groups: usize,
    settle_timeout: Period,
    max_filters: usize,
    max_waiting_messages: usize,
    max_waiting_bytes: Size,
    max_incoming_messages: usize,
}

impl Default for Cluster {
    fn default() -> Self {
        let default = Settings::new(Vec::new());
        Cluster {
            servers: default.servers,
            node: None,
            prefix: default.prefix,
            user: None,
            password: None,
            token: None,
            credentials: None,
            tls: default.tls.required,
            ca_file: None,
            cert_file: None,
            key_file: None,
            allow_unsafe: default.allow_unsafe,
            durability: None,
            replicas: default.replicas,
            max_age: Period(default.max_age),
            max_bytes: Size(usize::try_from(default.max_bytes).unwrap_or(usize::MAX)),
            max_groups: default.max_groups,
            settle_timeout: Period(default.settle_timeout),
            max_filters: default.max_filters,
            max_waiting_messages: default.max_waiting_messages,
            max_waiting_bytes: Size(default.max_waiting_bytes),
            max_incoming_messages: default.max_incoming_messages,
        }
    }
}

impl Cluster {
    /// Whether there is one, which keeps what namespaces say instead of a store.
    pub(in crate::config) fn is_wanted(&self) -> bool {
        !self.servers.is_empty()
    }

    /// The cluster that this node belongs to, if it does; files are from `folder`. Where there is no store, `namespaces` say
    /// what NATS keeps.
    ///
    /// # Errors
    /// With the key of what makes no sense.
    pub(in crate::config) fn settings(
        &self,
        folder: &Path,
        namespaces: &[Namespace],
    ) -> Result<Option<Settings>, (String, &'static str)> {
        let wrong = |key: &str, why| Err((format!("cluster.{key}"), why));
        if self.servers.is_empty() {
            let said = [
                ("node", self.node.is_some()),
                ("user", self.user.is_some()),
                ("password", self.password.is_some()),
                ("token", self.token.is_some()),
                ("credentials", self.credentials.is_some()),
                ("durability", self.durability.is_some()),
            ];
            return match said.into_iter().find_map(|(key, is_said)| is_said.then_some(key)) {
                Some(key) => wrong(key, "needs `cluster.servers`: without NATS servers there is no cluster"),
                None => Ok(None),
            };
        }
        // They would be shown wherever a server is named.
        if self.servers.iter().any(|server| server.contains('@')) {
            return wrong("servers", "who this node is stands in `cluster.user` and `cluster.password`");
        }
        let mut settings = Settings::new(self.servers.clone());
        if let Some(node) = &self.node {
            settings.node.clone_from(node);
        }
        settings.prefix.clone_from(&self.prefix);
        settings.login = match (&self.user, &self.password, &self.token, &self.credentials) {
            (None, None, None, None) => Login::Nobody,
            (Some(user), Some(password), None, None) => {
                Login::User { user: user.clone(), password: password.clone() }
            }
            (None, None, Some(token), None) => Login::Token(token.clone()),
            (None, None, None, Some(credentials)) => Login::Credentials(folder.join(credentials)),
            _ => {
                let why = "one of `user` with `password`, `token` and `credentials` says who this node is";
                return wrong("user", why);
            }
        };
        let mut tls = Tls::default();
        tls.required = self.tls;
        tls.ca_file = self.ca_file.as_ref().map(|file| folder.join(file));
        tls.identity = match (&self.cert_file, &self.key_file) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((folder.join(certificate), folder.join(key))),
            (Some(_), None) => return wrong("cert_file", "needs `cluster.key_file`"),
            (None, Some(_)) => return wrong("key_file", "needs `cluster.cert_file`"),
        };
        settings.tls = tls;
        settings.allow_unsafe = self.allow_unsafe;
        // A stream has a message on the disks of its servers or not at all.
        let keeps = |durability: &Option<Text<Durability>>| match durability.as_ref().map(|said| said.0) {
            None => Ok(None),
            Some(Durability::Memory) => Ok(Some(false)),
            Some(Durability::Always) => Ok(Some(true)),
            Some(_) => Err(
                "is \"always\" or \"memory\" in a cluster: how soon NATS writes is set in its servers (`sync_interval`)",
            ),
        };
        settings.keeps_others =
            keeps(&self.durability).map_err(|why| ("cluster.durability".to_owned(), why))?.unwrap_or(false);
        for (at, space) in namespaces.iter().enumerate() {
            let is_kept = keeps(&space.durability);
            let is_kept = is_kept.map_err(|why| (format!("namespaces[{at}].durability"), why))?;
            if space.store.is_some() {
                let why =
                    "needs a store: in a cluster `cluster.max_age` and `cluster.max_bytes` say what is kept";
                return Err((format!("namespaces[{at}].store"), why));
            }
            if let Some(is_kept) = is_kept {
                settings.namespaces.push((space.name.clone(), is_kept));
            }
        }
        if !(1..=5).contains(&self.replicas) {
            return wrong("replicas", "is from 1 to 5: more copies JetStream has of nothing");
        }
        settings.replicas = self.replicas;
        (settings.max_age, settings.max_bytes) = (self.max_age.0, self.max_bytes.0 as u64);
        settings.max_groups = self.max_groups;
        settings.settle_timeout = self.settle_timeout.0;
        settings.max_filters = self.max_filters;
        settings.max_waiting_messages = self.max_waiting_messages;
        settings.max_waiting_bytes = self.max_waiting_bytes.0;
        settings.max_incoming_messages = self.max_incoming_messages;
        match settings.check() {
            Err(cluster::JoinError::Prefix(_)) => {
                wrong("prefix", "begins subjects of NATS: letters, digits, `_` and `-`, 64 at most")
            }
            Err(_) => {
                wrong("servers", "must be addresses of NATS servers, such as \"nats://127.0.0.1:4222\"")
            }
            Ok(()) => Ok(Some(settings)),
        }
    }
}
