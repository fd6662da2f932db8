//! What a session is while the server runs: where the broker's lanes, requests and operators find it.
//!
//! Lanes call its [`Mailbox`](mailbox::Mailbox) (`deliver.rs`), requests find it as a [`Member`](member::Member) in the
//! registry, operators see the same (`attached.rs`), and the sweep looks whether its time is over. What all sessions
//! work with is in `shared.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use broker_core::{Broker, LeaveReason, OutboxConfig, OutboxPolicy, Reserved, Subscriber};

use self::heard::Heard;
use self::held_connects::HeldConnects;
use self::mailbox::Mailbox;
use self::member::{Member, Origin};
use self::registry::Registry;
use self::shared::Shared;
use crate::codec::event::Replay;
use crate::codec::id::ClientId;
use crate::config::{Config, QueueFull};
use crate::hooks::listener::Listener;
use crate::protocol::{End, Session};
use crate::stats::Counters;

mod attached;
mod binding;
mod clock;
pub(crate) mod connect_reply;
mod deliver;
mod encodings;
mod heard;
mod held_connects;
pub(crate) mod mailbox;
pub(crate) mod member;
mod overflow;
pub(crate) mod own_messages;
pub(crate) mod rate;
pub(crate) mod registry;
pub(crate) mod replay;
mod replays;
pub(crate) mod shared;
pub(crate) mod socket;
mod state;
mod subscriptions;
pub(crate) mod sweep;
pub(crate) mod timestamp;
pub(crate) mod unwritten;

/// All sessions of a front, and their broker.
pub(crate) struct Sessions {
    pub(crate) broker: Broker,
    pub(crate) shared: Arc<Shared>,
    pub(crate) registry: Registry,
    pub(crate) held_connects: HeldConnects,
    /// The server goes away.
    closing: AtomicBool,
    /// The last clone of the front is gone.
    stopped: AtomicBool,
}

/// What a socket is opened with, until a handshake turns it into a session: the socket's outbox is the subscriber's.
pub(crate) struct Unborn {
    mailbox: Arc<Mailbox>,
    pub(crate) subscriber: Arc<Subscriber>,
}

impl Sessions {
    pub(crate) fn new(broker: Broker, config: Config) -> Self {
        Self {
            shared: Arc::new(Shared::new(&broker, config)),
            broker,
            registry: Registry::default(),
            held_connects: HeldConnects::default(),
            closing: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    pub(crate) fn tell(&self, what: impl FnOnce(&dyn Listener)) {
        self.shared.tell(what);
    }

    /// Sets who hears of sessions and messages, in the place of the one before.
    pub(crate) fn set_listener(self: &Arc<Self>, listener: impl Listener) {
        if self.shared.set_listener(listener) {
            self.broker.hear(Arc::new(Heard(Arc::downgrade(self))));
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Nobody becomes a session any more.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The sweep ends.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// For a socket that was just opened.
    pub(crate) fn unborn(&self, now: Instant) -> Unborn {
        let mailbox = Mailbox::new(Arc::clone(&self.shared), now);
        let subscriber = self.broker.attach(Arc::clone(&mailbox) as _, outbox_config(self.config()));
        Unborn { mailbox, subscriber: Arc::new(subscriber) }
    }

    /// A client shook hands, on a socket that had no session yet, or elsewhere. Its place in the registry is reserved.
    pub(crate) fn begin(
        self: &Arc<Self>,
        now: Instant,
        id: ClientId,
        session: Session,
        replay: Replay,
        origin: Origin<'_>,
        unborn: Result<Unborn, Option<Reserved>>,
    ) -> Arc<Member> {
        let config = self.config();
        let Unborn { mailbox, subscriber } = match unborn {
            Ok(unborn) => {
                unborn.mailbox.begin(id, session, replay);
                unborn.subscriber.set_rights(&origin.principal);
                unborn
            }
            Err(place) => {
                let mailbox = Mailbox::new(Arc::clone(&self.shared), now);
                mailbox.begin(id, session, replay);
                let deliver = Arc::clone(&mailbox) as _;
                let (outbox, principal) = (outbox_config(config), &origin.principal);
                let subscriber = match place {
                    Some(place) => self.broker.attach_reserved(place, deliver, outbox, principal),
                    None => self.broker.attach_as(deliver, outbox, principal),
                };
                Unborn { mailbox, subscriber: Arc::new(subscriber) }
            }
        };
        let member = Member::new(Arc::downgrade(self), id, mailbox, subscriber, origin, config);
        let member = Arc::new(member);
        self.registry.insert(Arc::clone(&member));
        member.subscriber.register_connection(&member);
        member.subscriber.join();
        self.counters().shook_hands();
        member
    }

    /// Ends a session and takes it out of the broker; one that the server ended is remembered for a
    /// while, so that its next connect is told.
    pub(crate) fn end(&self, member: &Member, end: End) {
        member.leave(leave_reason(end));
        member.mailbox.finish(Instant::now(), end, member.reason());
        if end == End::Kicked {
            member.detach();
        } else {
            self.forget(member, end);
        }
    }

    /// Takes a session that is over out of the registry.
    pub(crate) fn forget(&self, member: &Member, end: End) {
        member.leave(leave_reason(end));
        self.registry.remove(&member.id);
    }

    /// Says goodbye to everybody: not all shall come back at once.
    pub(crate) async fn end_all(&self) {
        let now = Instant::now();
        for (count, member) in self.registry.all().into_iter().enumerate() {
            if count % sweep::BEFORE_YIELD == sweep::BEFORE_YIELD - 1 {
                tokio::task::yield_now().await;
            }
            let end = End::Shutdown { return_after_ms: 1000 + (count % 1000) as u32 };
            member.mailbox.finish(now, end, None);
            self.forget(&member, end);
        }
    }
}

/// What whoever listens to clients' lives is told of a session's end.
fn leave_reason(end: End) -> LeaveReason {
    match end {
        End::Disconnected => LeaveReason::Client,
        End::Kicked => LeaveReason::Closed,
        End::Expired => LeaveReason::Expired,
        End::QueueFull | End::ReplayLost => LeaveReason::TooSlow,
        End::Shutdown { .. } => LeaveReason::Shutdown,
    }
}

/// The bounds that a session and the outbox of its socket share.
fn outbox_config(config: &Config) -> OutboxConfig {
    OutboxConfig::new(
        config.max_queue_messages,
        config.max_queue_bytes,
        match config.queue_full {
            QueueFull::Disconnect => OutboxPolicy::Disconnect,
            QueueFull::DropNewest => OutboxPolicy::DropNewest,
            QueueFull::DropOldest | QueueFull::Clear => OutboxPolicy::DropOldest,
        },
    )
}
