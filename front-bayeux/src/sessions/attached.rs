//! A session as operators see it, whatever carries it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use broker_core::{
    Account, CloseCause, Connection, Details, Filter, ForcedError, LeaveReason, Left, Peer, Queued, Start,
    Subscribed, unix_ms,
};

use super::member::Member;
use crate::codec::channel::is_expressible;
use crate::protocol::End;

impl Member {
    /// The client has left for good: whoever listens is told what is known of it. Of polls the JSON of answers to its
    /// connects is counted, as a poll is one of many requests of its connection; of what it sends all JSON is.
    pub(super) fn leave(&self, why: LeaveReason) {
        let sent_bytes = self.mailbox.sent_bytes();
        let (sent, received) = self.mailbox.passed();
        let mut account = Account::default();
        account.was_here = true;
        account.protocol = "bayeux";
        account.principal = Some(&self.principal);
        account.remote = self.address;
        account.lasted = Some(Duration::from_millis(unix_ms().saturating_sub(self.since_ms)));
        account.sent_messages = Some(sent);
        account.received_messages = Some(received);
        account.sent_bytes = Some(sent_bytes);
        account.received_bytes = Some(self.mailbox.received_bytes());
        account.dropped = self.mailbox.dropped();
        self.subscriber.leave(Left::for_good(why), &account);
    }
}

/// The session is the connection, from its handshake to its end: between two polls, and while its client looks for
/// another socket, what is sent to it waits.
impl Connection for Member {
    fn peer(&self) -> Option<Peer> {
        let lives = self.mailbox.end().is_none();
        lives.then(|| {
            Peer::new(
                self.principal.clone(),
                "bayeux",
                self.mailbox.with(|state| state.session.transport().name()),
                self.since_ms,
            )
        })
    }

    /// The session's own id is a credential and is not shown.
    fn details(&self) -> Details {
        let mut given = Details::default();
        given.last_active_ms = self.last_active_ms.load(Ordering::Relaxed);
        given.remote = self.address;
        given.encryption = self.encryption;
        given.user_agent = self.user_agent.as_deref().map(str::to_owned);
        given.subscriptions = self.filters().iter().map(Filter::to_string).collect();
        given.dropped = self.mailbox.dropped();
        given
    }

    fn queued(&self) -> Queued {
        self.mailbox.queued()
    }

    /// A client that should come back is told to shake hands again, by the reply to its connect; any other is sent a
    /// `/meta/disconnect` and the advice to stay away.
    fn close(&self, why: &CloseCause) {
        let end = if why.asks_to_reconnect() { End::Expired } else { End::Kicked };
        if let Some(sessions) = self.sessions.upgrade()
            && self.mailbox.end().is_none()
        {
            if let CloseCause::Administrative(Some(reason)) = why {
                self.explain(reason);
            }
            self.leave(why.into());
            sessions.end(self, end);
        }
    }

    fn subscribe(&self, filter: &Filter) -> Result<Subscribed, ForcedError> {
        let Some(sessions) = self.sessions.upgrade().filter(|_| self.mailbox.end().is_none()) else {
            return Err(ForcedError::Gone);
        };
        if filter.as_literal().is_some_and(|channel| !is_expressible(channel)) {
            return Err(ForcedError::Inexpressible);
        }
        if self.is_subscribed(filter) {
            return Ok(Subscribed::THERE);
        }
        let max = sessions.config().max_subscriptions;
        if self.subscription_count() >= max {
            return Err(ForcedError::TooMany { max });
        }
        match self.subscribe_live(filter, Start::Live) {
            Ok(new) if self.mailbox.end().is_none() => {
                Ok(if new { Subscribed::ADDED } else { Subscribed::THERE })
            }
            // It ended after its subscriptions were taken out.
            Ok(_) => {
                self.unsubscribe(filter);
                Err(ForcedError::Gone)
            }
            Err(error) => Err(ForcedError::Broker(error)),
        }
    }

    fn unsubscribe(&self, filter: &Filter) -> bool {
        Member::unsubscribe(self, filter)
    }
}
