//! What a service manager is told, if one started the server and wants to know: `sd_notify(3)`. Everywhere else nothing
//! of it happens.

use std::time::Duration;

use fanwire::{Broker, Server};
use sd_notify::NotifyState;

/// Listeners are bound: clients may come.
pub(crate) fn ready(listening: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(listening)]);
}

/// The configuration is read again. `MONOTONIC_USEC` lets the manager tell this reload from one that it asked for before.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// It was read, or the old one stays.
pub(crate) fn reloaded() {
    tell(&[NotifyState::Ready]);
}

/// Clients are told to leave.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("clients are told to leave")]);
}

/// Says again and again that the server lives, if that is wanted: twice as often as it has to. It is silent once a part
/// of the broker has died, so that it is started anew.
pub(crate) fn watch_over(server: &Server) {
    let Some(patience) = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero()) else { return };
    let broker = server.broker().clone();
    tokio::spawn(keep_telling(broker, patience / 2));
}

async fn keep_telling(broker: Broker, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if broker.is_closed() {
            return;
        }
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
