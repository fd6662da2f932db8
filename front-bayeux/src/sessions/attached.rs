//! A session as operators see it, whatever carries it.

use std::sync::atomic::Ordering;

use broker_core::{
    Close, Connection, Details, Filter, ForcedError, Peer, Queued, Start, SubscribeError, Subscribed,
};

use crate::codec::channel::is_expressible;
use crate::protocol::End;
use crate::sessions::registry::{Member, TAG};

/// The session is the connection, from its handshake to its end: between two polls, and while its client looks for another
/// socket, what is sent to it waits.
impl Connection for Member {
    fn peer(&self) -> Option<Peer> {
        let lives = self.mailbox.end().is_none();
        lives.then(|| Peer {
            principal: self.principal.clone(),
            protocol: "bayeux",
            transport: self.mailbox.with(|state| state.session.transport().name()),
            since_ms: self.since_ms,
        })
    }

    /// The session's own id is a credential and is not shown.
    fn details(&self) -> Details {
        Details {
            last_active_ms: self.last_active_ms.load(Ordering::Relaxed),
            remote: self.address,
            user_agent: self.user_agent.as_deref().map(str::to_owned),
            client_id: None,
            subscriptions: self.filters().iter().map(Filter::to_string).collect(),
            dropped: self.mailbox.dropped(),
        }
    }

    fn queued(&self) -> Queued {
        self.mailbox.queued()
    }

    /// Who shall come back is told to shake hands again, by the reply to its connect; anybody else is sent a
    /// `/meta/disconnect` and the advice to stay away.
    fn close(&self, why: &Close) {
        let end = if why.asks_to_reconnect() { End::Expired } else { End::Kicked };
        if let Some(front) = self.front.upgrade()
            && self.mailbox.end().is_none()
        {
            if let Close::Administrative(Some(reason)) = why {
                self.explain(reason);
            }
            front.end(self, end);
        }
    }

    fn subscribe(&self, filter: &Filter) -> Result<Subscribed, ForcedError> {
        let Some(front) = self.front.upgrade().filter(|_| self.mailbox.end().is_none()) else {
            return Err(ForcedError::Gone);
        };
        if filter.as_literal().is_some_and(|channel| !is_expressible(channel)) {
            return Err(ForcedError::Inexpressible);
        }
        if self.is_subscribed(filter) {
            return Ok(Subscribed { new: false });
        }
        let max = front.config().max_subscriptions;
        if self.subscription_count() >= max {
            return Err(ForcedError::TooMany { max });
        }
        match self.subscribe_live(filter, Start::Live) {
            Ok(new) if self.mailbox.end().is_none() => {
                if new {
                    front.tell(|listener| listener.subscribed(&self.id, filter));
                }
                Ok(Subscribed { new })
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

impl Member {
    /// Subscribes to messages from now on; false if it was subscribed already.
    pub(crate) fn subscribe_live(&self, filter: &Filter, start: Start) -> Result<bool, SubscribeError> {
        // Noted first: a repeated subscription would bring the retained messages again, and a replay that begins just now
        // must know of it.
        if !self.note(filter, TAG) {
            return Ok(false);
        }
        let subscribed = if self.replay {
            self.subscribe_beside_replays(filter, start)
        } else {
            self.subscriber.subscribe(filter, TAG, start).map(drop)
        };
        if let Err(error) = subscribed {
            Member::unsubscribe(self, filter);
            return Err(error);
        }
        Ok(true)
    }

    /// Subscribes, so that replays of the same session know from where on it brings what they would bring.
    fn subscribe_beside_replays(&self, filter: &Filter, start: Start) -> Result<(), SubscribeError> {
        let beside = self.mailbox.with(|state| {
            state.duplicates().map(|duplicates| {
                duplicates.begins(filter);
                duplicates.tag()
            })
        });
        let subscribed = self.subscriber.subscribe_at_head(filter, TAG, start);
        let since = subscribed.as_ref().ok().map(|(_, head)| head.offset());
        if let Some(since) = since {
            self.replays.note_live(filter, since);
        }
        self.mailbox.with(|state| {
            let Some(duplicates) = state.duplicates() else { return };
            match since {
                Some(since) if beside == Some(duplicates.tag()) => duplicates.begun(filter, since),
                Some(since) => duplicates.add_live(filter.clone(), since),
                None => {}
            }
        });
        if let Some(replay) = beside {
            self.settle(replay);
        }
        subscribed.map(drop)
    }
}
