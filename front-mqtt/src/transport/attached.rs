//! A session as operators see it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use broker_core::{
    Account, Answer, CloseCause, Connection, Details, Dismissal, Filter, ForcedError, Held, Left, Message,
    Peer, Principal, Qos, Queued, SendError, Start, Subscribed, unix_ms,
};

use super::sessions::Hosted;
use crate::codec::{FilterOptions, Framing, Reason, RetainHandling};
use crate::protocol::{State, forced_name, target_of};

/// What a client gets that was subscribed without its asking.
const FORCED: FilterOptions = FilterOptions {
    qos: Qos::AtMostOnce,
    no_local: false,
    retain_as_published: false,
    retain_handling: RetainHandling::DoNotSend,
};

impl Hosted {
    /// What waits in the session and for the socket.
    pub(crate) fn queued_in(&self, state: &State) -> Queued {
        let session = state.outbound.as_ref().map(|outbound| outbound.queued()).unwrap_or_default();
        let backlog = state.backlog.as_ref().map_or(0, |backlog| backlog.len());
        let outbox = state.online.as_ref().map(|online| online.outbox.queued()).unwrap_or_default();
        let mut given = Queued::default();
        given.messages = session.messages + backlog + outbox.messages;
        given.bytes = session.bytes + outbox.bytes;
        given
    }

    /// Publishes to the client, those that a lane sent by itself among them.
    pub(crate) fn sent_in(&self, state: &State) -> u64 {
        state.sent + state.online.as_ref().map_or(0, |online| online.outbox.passed().shared)
    }

    /// What limits and rights have kept from the client.
    pub(crate) fn dropped_in(&self, state: &State) -> u64 {
        state.dropped + state.online.as_ref().map_or(0, |online| online.outbox.dropped())
    }
}

/// What is known of a connection at its end.
#[derive(Default)]
pub(crate) struct Farewell {
    principal: Option<Principal>,
    remote: Option<IpAddr>,
    lasted: Option<Duration>,
    sent: u64,
    sent_bytes: Option<u64>,
    dropped: u64,
    /// Nothing came from the client for longer than it had promised.
    pub(crate) was_silent: bool,
}

impl Hosted {
    /// Bytes have come over the present connection, which alone calls this.
    pub(crate) fn note_bytes(&self, bytes: usize) {
        let before = self.received_bytes.load(Relaxed);
        self.received_bytes.store(before + bytes as u64, Relaxed);
    }

    /// Of the present connection, if there is one, and else of the session. Asked before either is over.
    pub(crate) fn farewell(&self) -> Farewell {
        let state = self.session.lock();
        let online = state.online.as_ref();
        let shared = self.session.shared();
        Farewell {
            principal: state.principal.clone(),
            remote: online.and_then(|online| online.caller.remote),
            lasted: online.map(|online| {
                Duration::from_millis(unix_ms().saturating_sub(shared.unix_ms(online.caller.since)))
            }),
            sent: self.sent_in(&state),
            sent_bytes: online.map(|online| online.outbox.passed().bytes),
            dropped: self.dropped_in(&state),
            was_silent: false,
        }
    }

    /// The client has left: whoever listens is told what is known of it.
    pub(crate) fn leave(&self, how: Left, farewell: &Farewell) {
        let mut account = Account::default();
        account.was_here = true;
        account.protocol = "mqtt";
        account.principal = farewell.principal.as_ref();
        account.client_id = Some(self.session.client_id());
        account.remote = farewell.remote;
        account.lasted = farewell.lasted;
        account.sent_messages = Some(farewell.sent);
        account.received_messages = Some(self.session.received());
        account.sent_bytes = farewell.sent_bytes;
        account.received_bytes = farewell.sent_bytes.map(|_| self.received_bytes.load(Relaxed));
        account.dropped = farewell.dropped;
        account.was_silent = farewell.was_silent;
        self.subscriber.leave(how, &account);
    }
}

impl Connection for Hosted {
    fn peer(&self) -> Option<Peer> {
        let state = self.session.lock();
        let online = state.online.as_ref()?;
        Some(Peer::new(
            state.principal.clone().unwrap_or_else(|| Principal::anonymous(Default::default())),
            "mqtt",
            transport_of(online.dialect.framing),
            self.session.shared().unix_ms(online.caller.since),
        ))
    }

    fn details(&self) -> Details {
        let state = self.session.lock();
        let online = state.online.as_ref();
        let mut given = Details::default();
        given.last_active_ms = self.session.last_heard_ms();
        given.remote = online.and_then(|online| online.caller.remote);
        given.encryption = online.and_then(|online| online.caller.encryption);
        given.user_agent = online.and_then(|online| online.caller.user_agent.as_deref()).map(str::to_owned);
        given.client_id = Some(self.session.client_id().to_owned());
        given.subscriptions = state.subscriptions.iter().filter_map(|held| text_form(&held.filter)).collect();
        given.dropped = self.dropped_in(&state);
        given.remote_port = online.map(|online| online.caller.remote_port).filter(|port| *port != 0);
        given.local = online.and_then(|online| online.caller.local);
        given.keep_alive_secs = online.map(|online| online.caller.keep_alive_secs);
        given.session_expiry_secs = Some(state.expiry_secs);
        given
    }

    fn queued(&self) -> Queued {
        self.queued_in(&self.session.lock())
    }

    fn close(&self, why: &CloseCause) {
        let reason = match why {
            CloseCause::Expired => Reason::MaximumConnectTime,
            CloseCause::RightsChanged => Reason::NotAuthorized,
            _ => Reason::AdministrativeAction,
        };
        self.kick(reason, Some(why.text()));
    }

    fn held(&self) -> Vec<Held> {
        let state = self.session.lock();
        // One that MQTT has no words for was forced on the client, and is shown as it was given.
        let filter = |name: &str| name.strip_prefix('\0').unwrap_or(name).to_owned();
        state.subscriptions.iter().map(|held| Held::new(filter(&held.filter), held.qos)).collect()
    }

    fn dismiss(&self, how: &Dismissal) {
        {
            let mut state = self.session.lock();
            if state.online.is_none() {
                return;
            }
            if how.forgets_will {
                state.will = None;
            }
            if how.ends_session {
                state.expiry_secs = 0;
            }
        }
        self.close(&CloseCause::Administrative(how.reason.clone()));
    }

    fn send_acknowledged(&self, message: &Arc<Message>) -> Result<Answer<'static, bool>, SendError> {
        let acknowledged = self.session.send_awaited(message)?;
        Ok(Answer::later(async move { acknowledged.await.is_ok() }))
    }

    fn subscribe(&self, filter: &Filter) -> Result<Subscribed, ForcedError> {
        let name = forced_name(filter);
        let max = self.session.config().max_subscriptions;
        let tag = {
            let mut state = self.session.lock();
            if state.online.is_none() {
                return Err(ForcedError::Gone);
            }
            if state.subscriptions.tag_of(&name).is_some() {
                return Ok(Subscribed::THERE);
            }
            state.subscriptions.place_forced(&name, &FORCED, max).ok_or(ForcedError::TooMany { max })?
        };
        // The broker is called without the session's lock; a client that unsubscribes meanwhile wins.
        self.subscriber.subscribe(filter, tag, Start::Live).inspect_err(|_| {
            self.session.lock().subscriptions.remove(&name);
        })?;
        if self.session.lock().subscriptions.by_tag(tag).is_none() {
            self.subscriber.unsubscribe(filter, tag);
        }
        Ok(Subscribed::ADDED)
    }

    fn unsubscribe(&self, filter: &Filter) -> bool {
        let removed = self.session.lock().subscriptions.remove(&forced_name(filter));
        removed.is_some_and(|held| {
            self.subscriber.unsubscribe(filter, held.tag);
            true
        })
    }
}

/// What carries a connection.
pub(super) fn transport_of(framing: Framing) -> &'static str {
    match framing {
        Framing::Raw => "tcp",
        Framing::WebSocket => "websocket",
    }
}

/// A subscription's filter in the core's text form.
fn text_form(name: &str) -> Option<String> {
    let target = target_of(name)?;
    Some(match target.group {
        Some(group) => format!("$share/{group}/{}", target.filter),
        None => target.filter.to_string(),
    })
}
