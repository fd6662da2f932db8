//! The connection to NATS: how it is made, and what is known of it.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use percent_encoding::percent_decode_str;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::JoinError;
use crate::settings::{Login, Settings};
use crate::stats::one_more;

/// How long the start waits for a server.
const FIRST_TRY: Duration = Duration::from_secs(5);

/// How long one server may take to let this node in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a silent server is asked whether it is there; without two answers the connection is given up.
const PING_EVERY: Duration = Duration::from_secs(2);

/// The longest wait before the next server is tried.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// How long an answer to a question may take.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What the connection tells of itself.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pub(crate) disconnects: AtomicU64,
    pub(crate) overruns: AtomicU64,
    /// It changes each time that a connection is there.
    pub(crate) connected: watch::Sender<()>,
}

impl Events {
    fn hear(&self, event: &Event) {
        match event {
            Event::Connected => self.connected.send_replace(()),
            Event::Disconnected => one_more(&self.disconnects),
            Event::SlowConsumer(_) => one_more(&self.overruns),
            Event::ServerError(error) => tracing::warn!(%error, "the NATS server reports an error"),
            _ => {}
        }
    }
}

/// Connects; without an answer from any server, to whichever answers later.
pub(crate) async fn connect(settings: &Settings, events: &Arc<Events>) -> Result<Client, JoinError> {
    let servers = settings.addresses()?;
    let options = options(settings, events)?;
    let why = match timeout(FIRST_TRY, options.clone().connect(&servers[..])).await {
        Ok(Ok(client)) => {
            check_version(&client, settings)?;
            return Ok(client);
        }
        Ok(Err(error)) => match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                return Err(JoinError::Refused(error.to_string()));
            }
            ConnectErrorKind::Tls => return Err(JoinError::Tls(error.to_string())),
            _ if is_no_handshake(&error) => return Err(JoinError::Tls(error.to_string())),
            _ => error.to_string(),
        },
        Err(_) => "no answer in 5 s".to_owned(),
    };
    tracing::warn!(%why, "no NATS server can be reached: this node is alone until one can");
    let later = options.retry_on_initial_connect().connect(&servers[..]).await;
    later.map_err(|error| JoinError::Refused(error.to_string()))
}

/// Whether the server was reached and TLS came to no end with it: a certificate that is not believed comes as data that makes
/// no sense. No later try would change that.
fn is_no_handshake(error: &ConnectError) -> bool {
    let mut cause = error.source();
    while let Some(why) = cause {
        if why.downcast_ref::<io::Error>().is_some_and(|why| why.kind() == io::ErrorKind::InvalidData) {
            return true;
        }
        cause = why.source();
    }
    false
}

/// Whether the server that this node is connected to may be used.
pub(crate) fn check_version(client: &Client, settings: &Settings) -> Result<(), JoinError> {
    let needed @ (major, minor, patch) = Settings::MIN_SERVER;
    if settings.allow_unsafe || client.is_server_compatible(major, minor, patch) {
        return Ok(());
    }
    Err(JoinError::TooOld { found: client.server_info().version, needed })
}

/// Who a node is by the address of a server: `user:password@host` or, as NATS has it, `token@host`.
fn in_the_address(server: &ServerAddr) -> Option<Login> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let user = decoded(server.username()?);
    Some(match server.password() {
        Some(password) => Login::User { user, password: decoded(password) },
        None => Login::Token(user),
    })
}

fn options(settings: &Settings, events: &Arc<Events>) -> Result<ConnectOptions, JoinError> {
    let events = Arc::clone(events);
    let mut options = ConnectOptions::new()
        .name(&settings.node)
        // What is published here is delivered here before it is sent.
        .no_echo()
        .custom_inbox_prefix(format!("{}.i", settings.prefix))
        .ping_interval(PING_EVERY)
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(ANSWER_TIMEOUT))
        .subscription_capacity(settings.max_incoming_messages.max(1))
        .reconnect_delay_callback(|attempts| {
            let step = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
            Duration::from_millis(50).saturating_mul(step).min(MAX_RECONNECT_DELAY)
        })
        .event_callback(move |event| {
            events.hear(&event);
            std::future::ready(())
        });
    options = match &settings.login {
        Login::Nobody => match settings.addresses()?.first().and_then(in_the_address) {
            Some(Login::User { user, password }) => options.user_and_password(user, password),
            Some(Login::Token(token)) => options.token(token),
            _ => options,
        },
        Login::User { user, password } => options.user_and_password(user.clone(), password.clone()),
        Login::Token(token) => options.token(token.clone()),
        Login::Credentials(path) => {
            let unreadable = |source| JoinError::Credentials { path: path.clone(), source };
            let text = std::fs::read_to_string(path).map_err(unreadable)?;
            options.credentials(&text).map_err(unreadable)?
        }
    };
    if settings.tls.required {
        options = options.require_tls(true);
    }
    if let Some(ca_file) = &settings.tls.ca_file {
        options = options.add_root_certificates(ca_file.clone());
    }
    if let Some((certificate, key)) = &settings.tls.identity {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}
