//! `[cluster]`: other nodes.

use std::path::{Path, PathBuf};

use cluster::{Login, Settings, Tls};
use serde::{Deserialize, Serialize};
use settings::{Period, Size};

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
            settle_timeout: Period(default.settle_timeout),
            max_filters: default.max_filters,
            max_waiting_messages: default.max_waiting_messages,
            max_waiting_bytes: Size(default.max_waiting_bytes),
            max_incoming_messages: default.max_incoming_messages,
        }
    }
}

impl Cluster {
    /// The cluster that this node belongs to, if it does; files are from `folder`.
    ///
    /// # Errors
    /// With the key of what makes no sense.
    pub(in crate::config) fn settings(
        &self,
        folder: &Path,
    ) -> Result<Option<Settings>, (String, &'static str)> {
        let wrong = |key: &str, why| Err((format!("cluster.{key}"), why));
        if self.servers.is_empty() {
            let said = [
                ("node", self.node.is_some()),
                ("user", self.user.is_some()),
                ("password", self.password.is_some()),
                ("token", self.token.is_some()),
                ("credentials", self.credentials.is_some()),
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
