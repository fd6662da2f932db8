//! What the broker tells of clients and channels, as it is told to backends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::{
    Account, Channel, Connection, LeaveReason, Left, Lifecycle, Principal, SubscriberKey, unix_ms,
};
use http_edge::connection_id;

use super::event::{Kind, event};
use super::visit::{Known, Visit};
use super::webhooks::{Inner, visit_of};

impl Lifecycle for Inner {
    fn hears_of_channels(&self) -> bool {
        true
    }

    fn joined(&self, client: SubscriberKey, connection: &Arc<dyn Connection>) {
        let Some(peer) = connection.peer() else { return };
        let known = Known {
            connection: connection_id(client),
            user: peer.principal.user().map(str::to_owned),
            transport: peer.transport,
            remote: connection.details().remote,
        };
        let visit = match visit_of(&peer.principal) {
            Some(visit) => {
                visit.attached(known);
                visit
            }
            None => Arc::new(Visit::new(peer.protocol, known, Vec::new())),
        };
        self.visits.lock().insert(client, visit);
    }

    fn left(&self, client: SubscriberKey, how: Left, account: &Account<'_>) {
        let Some(visit) = self.visits.lock().remove(&client) else { return };
        visit.end();
        if !account.was_here || !self.wants(Kind::Disconnect) {
            return;
        }
        let (reason, code) = said_of(how.why);
        let told = event(Kind::Disconnect, unix_ms(), |data| {
            visit.write(data);
            data.number("code", code).text("reason", reason);
            let lasted = u64::try_from(visit.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            data.number("duration_ms", lasted);
        });
        self.notify(Kind::Disconnect, &visit.connection(), &told, |_| true);
    }

    fn touched(&self, channel: &Channel) {
        if (!self.wants(Kind::Occupied) && !self.wants(Kind::Vacated)) || !self.tells_of(channel) {
            return;
        }
        let mut occupancy = self.occupancy.lock();
        // Asked under the lock, so that what is told last is what was so last.
        let subscribers = self.subscribers_of(channel);
        if occupancy.handle_count(Instant::now(), channel, subscribers)
            && !self.settle_with_others(Kind::Occupied, channel)
        {
            self.tell_of_channel(Kind::Occupied, channel, subscribers);
        }
        drop(occupancy);
        self.occupancy_changed.notify_one();
    }
}

impl Inner {
    fn tells_of(&self, channel: &Channel) -> bool {
        let wants = |kind| {
            self.hooks()
                .iter()
                .any(|hook| hook.settings().wants(kind) && hook.settings().has_channel(channel))
        };
        wants(Kind::Occupied) || wants(Kind::Vacated)
    }

    /// Subscriptions on exactly this channel, those of webhooks that hear of its messages aside.
    pub(super) fn subscribers_of(&self, channel: &Channel) -> usize {
        let all = self.broker.channel(channel).map_or(0, |info| info.subscriptions);
        let hooks = self.hooks();
        let own = hooks.iter().filter(|hook| {
            let settings = hook.settings();
            let is_literal = settings.channels.iter().any(|filter| filter.as_literal() == Some(channel));
            settings.wants(Kind::Message) && is_literal
        });
        all.saturating_sub(own.count())
    }

    pub(super) fn tell_of_channel(&self, kind: Kind, channel: &Channel, subscribers: usize) {
        let told = event(kind, unix_ms(), |data| {
            data.text("channel", channel.as_str()).number("subscribers", subscribers as u64);
        });
        self.notify(kind, channel.as_str(), &told, |hook| hook.settings().has_channel(channel));
    }

    /// Tells of channels that nobody came back to, until the broker is closed.
    pub(super) async fn tell_vacated(self: Arc<Self>) {
        while !self.broker.is_closed() {
            let next = {
                let mut occupancy = self.occupancy.lock();
                while let Some(channel) =
                    occupancy.poll_vacated(Instant::now(), |channel| self.subscribers_of(channel))
                {
                    if !self.settle_with_others(Kind::Vacated, &channel) {
                        self.tell_of_channel(Kind::Vacated, &channel, 0);
                    }
                }
                occupancy.poll_timeout()
            };
            let next = next.into_iter().chain(self.tell_what_is_settled()).min();
            let wait =
                next.map_or(Duration::from_secs(60), |at| at.saturating_duration_since(Instant::now()));
            let _ = tokio::time::timeout(wait, self.occupancy_changed.notified()).await;
        }
    }
}

/// Who it is, if somebody decided about it.
pub(super) fn known_of(principal: &Principal) -> Known {
    Known { user: principal.user().map(str::to_owned), ..Known::default() }
}

/// Why a client left, in the words of webhooks, and as WebSocket has it (RFC 6455 §7.4, IANA's registry).
fn said_of(why: LeaveReason) -> (&'static str, u64) {
    match why {
        LeaveReason::Client => ("client", 1000),
        LeaveReason::Lost => ("vanished", 1006),
        LeaveReason::Expired => ("expired", 3000),
        LeaveReason::TooSlow => ("slow", 1013),
        LeaveReason::TakenOver => ("kicked", 1012),
        LeaveReason::Closed => ("kicked", 1008),
        LeaveReason::NotAllowed => ("denied", 3003),
        LeaveReason::Protocol => ("denied", 1002),
        LeaveReason::Shutdown => ("shutdown", 1001),
        // One that the core has and this page does not know yet.
        _ => ("vanished", 1006),
    }
}
