//! Taking over a changed configuration of rights while serving.

use std::net::SocketAddr;
use std::time::Duration;

use broker_core::{Authenticator as _, Broker, CloseCause};
use tokio::signal::unix::Signal;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::config::{Arguments, ConfigError, Fixed, Live, LoadedRights, Stamp, stamp};
use crate::{AddressLimits, Loaded, Loader, Server, Tls};

/// Connections looked at before other tasks get their turn.
const AT_ONCE: usize = 256;
/// When connections are judged after a change: at once, and again for those that were let in by the old rights but had
/// not been entered yet. The last time is after the longest handshake.
const LOOKS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(15)];

/// What is called before and after.
type Around = (fn(), fn());

/// Reads a configuration again and lets the running server go on with its rights: keys, users, issuers, anonymous,
/// origins, rates, and where tokens and passwords are looked for (`[auth]`), and with its routes, sources and webhooks.
/// Everything else takes effect at the next start.
#[derive(Debug)]
pub struct Reload {
    loader: Loader,
    arguments: Arguments,
    live: Live,
    limits: AddressLimits,
    broker: Broker,
    sources: sources::Sources,
    webhooks: gateway::webhook::Webhooks,
    interval: Duration,
    /// The configuration file before it was read for the start.
    read: Option<Stamp>,
    /// Whether what the server answers by now says who may do what.
    has_rights: bool,
    /// What was set when the server started and stays so.
    fixed: Fixed,
    /// Where the server really listens, which a changed file does not change.
    bound: Vec<(String, SocketAddr)>,
    /// Certificates, which are read again by themselves, too.
    tls: Option<Tls>,
    /// Called before and after each time.
    around: Option<Around>,
}

/// Why a changed configuration was not taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    /// It cannot be read, or something in it is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key, user or issuer in it is wrong.
    #[error(transparent)]
    Access(#[from] auth::AccessError),
    /// It says nothing about rights any more. A file that is just being written looks like that, too.
    #[error(
        "no rights are configured any more, so everybody could do everything; if that is meant, restart the server"
    )]
    RightsGone,
}

impl Reload {
    /// For a server that was bound with what `arguments` led to.
    pub fn new(arguments: Arguments, loaded: &Loaded, server: &Server) -> Self {
        let of_fronts = loaded.loader.listeners().into_iter();
        let of_fronts = of_fronts.filter_map(|name| Some((name, server.address_of(name)?)));
        let bound = server.http_address().map(|address| ("http", address)).into_iter().chain(of_fronts);
        let of_tls = [("http", server.https_address()), ("mqtt", server.mqtts_address())];
        let of_tls = of_tls.into_iter().filter_map(|(section, address)| {
            address.map(|address| (format!("{section}.tls_address"), address))
        });
        Self {
            loader: loaded.loader.clone(),
            arguments,
            live: loaded.rights.live.clone(),
            limits: server.address_limits().clone(),
            broker: server.broker().clone(),
            sources: server.sources().clone(),
            webhooks: server.webhooks().clone(),
            interval: loaded.reload_interval,
            read: loaded.file,
            has_rights: loaded.has_rights,
            fixed: loaded.fixed.clone(),
            bound: bound
                .map(|(section, address)| (format!("{section}.address"), address))
                .chain(of_tls)
                .collect(),
            tls: server.tls().cloned(),
            around: None,
        }
    }

    /// With what is to be done before and after each time, whether or not anything was taken over: a service manager may
    /// want to know.
    #[must_use]
    pub fn around(mut self, before: fn(), after: fn()) -> Self {
        self.around = Some((before, after));
        self
    }

    /// Reloads at each `signal` and when the file has changed and then stayed as it is for one interval, for ever.
    pub async fn run(mut self, mut signal: Signal) {
        let watched = self.arguments.config.clone().filter(|_| !self.interval.is_zero());
        let watched = watched.as_deref();
        let mut ticks = interval(self.interval.max(Duration::from_millis(100)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = Changes::since(self.read);
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
                _ = signal.recv() => {
                    self.tell_before();
                    changes = Changes::since(watched.and_then(stamp));
                    self.reload_certificates();
                }
                _ = ticks.tick(), if watched.is_some() => {
                    if !changes.settled(watched.and_then(stamp)) {
                        continue;
                    }
                    self.tell_before();
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
                        "rights were reloaded"
                    );
                    let now = Instant::now();
                    looks = LOOKS.iter().rev().map(|after| now + *after).collect();
                }
                Err(error) => {
                    tracing::error!(%error, "the changed configuration is not taken over; the old one stays")
                }
            }
            if let Some((_, after)) = self.around {
                after();
            }
        }
    }

    fn tell_before(&self) {
        if let Some((before, _)) = self.around {
            before();
        }
    }

    fn reload(&mut self) -> Result<LoadedRights, ReloadError> {
        let Loaded { rights, has_rights, may_be_open, fixed, .. } =
            self.loader.load(self.arguments.clone(), std::env::vars_os())?;
        if self.has_rights && !has_rights {
            return Err(ReloadError::RightsGone);
        }
        let beyond_loopback = self.bound.iter().find(|(_, address)| !address.ip().is_loopback());
        if let Some((key, address)) = beyond_loopback.filter(|_| !may_be_open) {
            return Err(ConfigError::Open { key: key.clone(), address: *address }.into());
        }
        self.live.authenticator.replace(rights.access.clone())?;
        self.live.origins.set(rights.origins.clone());
        self.live.token_sources.set(rights.token_places.clone());
        self.live.routes.set(rights.routes.clone());
        self.sources.set(rights.sources.clone());
        self.webhooks.set(rights.webhooks.clone());
        self.limits.set_rate(rights.address_rate);
        self.has_rights = has_rights;
        let waiting: Vec<&str> = self.fixed.changed(&fixed).collect();
        if !waiting.is_empty() {
            tracing::warn!(settings = waiting.join(", "), "changed, and take effect at the next start only");
        }
        Ok(rights)
    }

    fn reload_certificates(&self) {
        match self.tls.as_ref().map(Tls::reload) {
            None => {}
            Some(Ok(())) => tracing::info!("certificates were read again"),
            Some(Err(error)) => {
                tracing::error!(%error, "the changed certificates are not taken over; the old ones stay");
            }
        }
    }

    /// Closes the connections that would not be let in as they were.
    async fn close_changed(&self) {
        let (mut after, mut closed) = (None, 0_u64);
        loop {
            let page = self.broker.connections(after, AT_ONCE);
            for (_, connection) in &page {
                if connection.peer().is_some_and(|peer| !self.live.authenticator.still_holds(&peer.principal))
                {
                    connection.close(&CloseCause::RightsChanged);
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

/// Tells when a file has changed and been left alone since: many programs empty a file before they write it, and a part
/// of a configuration can look like a whole one.
#[derive(Debug)]
struct Changes {
    /// As it was when it was read.
    read: Option<Stamp>,
    /// As it was at the last look.
    last: Option<Stamp>,
}

impl Changes {
    /// Starts from a file that was read as `read`.
    fn since(read: Option<Stamp>) -> Self {
        Changes { read, last: read }
    }

    /// Whether the file, which is `now`, is to be read: it counts as read then.
    fn settled(&mut self, now: Option<Stamp>) -> bool {
        let is_still = std::mem::replace(&mut self.last, now) == now;
        is_still && std::mem::replace(&mut self.read, now) != now
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_file_is_read_once_it_has_been_left_alone() {
        let at = |seconds, length| Some((SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), length));
        let mut changes = Changes::since(at(0, 100));
        for (now, expected) in [
            (at(0, 100), false),
            // Emptied, then written in two parts.
            (at(1, 0), false),
            (at(2, 50), false),
            (at(2, 120), false),
            (at(2, 120), true),
            (at(2, 120), false),
            // Gone for a moment.
            (None, false),
            (at(2, 120), false),
            (at(2, 120), false),
            (None, false),
            (None, true),
            (None, false),
        ] {
            assert_eq!(changes.settled(now), expected, "{now:?} {changes:?}");
        }
    }
}
