//! Taking over a changed configuration of rights while serving.

use std::path::Path;
use std::time::{Duration, SystemTime};

use broker_core::{Authenticator as _, Broker, Close};
use tokio::signal::unix::Signal;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::config::{Arguments, ConfigError, Live, LoadedRights};
use crate::{AddressLimits, Loaded, Server};

/// Connections looked at before other tasks get their turn.
const AT_ONCE: usize = 256;
/// When connections are judged after a change: at once, and again for those that were let in by the old rights but had
/// not been entered yet. The last time is after the longest handshake.
const LOOKS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(15)];

/// Reads a configuration again and lets the running server go on with its rights: keys, users, issuers, anonymous,
/// origins, rates, and where tokens and passwords are looked for (`[auth]`). Everything else takes effect at the next start.
#[derive(Debug)]
pub struct Reload {
    arguments: Arguments,
    live: Live,
    limits: AddressLimits,
    broker: Broker,
    interval: Duration,
}

/// Why a changed configuration was not taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    /// It cannot be read, or something in it is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key, user or issuer in it is wrong.
    #[error(transparent)]
    Access(#[from] crate::auth::AccessError),
}

impl Reload {
    /// For a server that was bound with what `arguments` led to.
    pub fn new(arguments: Arguments, loaded: &Loaded, server: &Server) -> Self {
        Self {
            arguments,
            live: loaded.rights.live.clone(),
            limits: server.address_limits().clone(),
            broker: server.broker().clone(),
            interval: loaded.reload_interval,
        }
    }

    /// Reloads at each `signal` and when the file has changed, for ever.
    pub async fn run(self, mut signal: Signal) {
        let watched = self.arguments.config.as_deref().filter(|_| !self.interval.is_zero());
        let mut ticks = interval(self.interval.max(Duration::from_millis(100)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = watched.map(stamp);
        let mut looks: Vec<Instant> = Vec::new();
        loop {
            let next_look = looks.last().copied();
            let look = async {
                match next_look {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = signal.recv() => seen = watched.map(stamp),
                _ = ticks.tick(), if watched.is_some() => {
                    let now = watched.map(stamp);
                    if now == seen {
                        continue;
                    }
                    seen = now;
                }
                () = look => {
                    looks.pop();
                    self.close_changed().await;
                    continue;
                }
            }
            match self.reload() {
                Ok(rights) => {
                    let access = &rights.access;
                    tracing::info!(
                        keys = access.keys.len(),
                        users = access.users.len(),
                        issuers = access.issuers.len(),
                        "rights were reloaded; other settings take effect at the next start"
                    );
                    let now = Instant::now();
                    looks = LOOKS.iter().rev().map(|after| now + *after).collect();
                }
                Err(error) => {
                    tracing::error!(%error, "the changed configuration is not taken over; the old one stays")
                }
            }
        }
    }

    fn reload(&self) -> Result<LoadedRights, ReloadError> {
        let rights = crate::config::load(self.arguments.clone(), std::env::vars_os())?.rights;
        self.live.authenticator.replace(rights.access.clone())?;
        self.live.origins.set(rights.origins.clone());
        self.live.token_sources.set(rights.token_places.clone());
        self.limits.set_rate(rights.address_rate);
        Ok(rights)
    }

    /// Closes the connections that would not be let in as they were.
    async fn close_changed(&self) {
        let (mut after, mut closed) = (None, 0_u64);
        loop {
            let page = self.broker.connections(after, AT_ONCE);
            for (_, connection) in &page {
                if connection.peer().is_some_and(|peer| !self.live.authenticator.still_holds(&peer.principal))
                {
                    connection.close(&Close::RightsChanged);
                    closed += 1;
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == AT_ONCE => after = Some(*key),
                _ => break,
            }
            tokio::task::yield_now().await;
        }
        if closed > 0 {
            tracing::info!(connections = closed, "closed, their rights have changed");
        }
    }
}

/// What changes when a file does: its time and its length. An editor that replaces the file changes both.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
