//! One message on its way to subscribers, and the trait by which a front receives it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::connections::SendError;
use crate::key::SubscriberKey;
use crate::message::Message;
use crate::outbox::{Class, Flush, Outbox, Sent};
use crate::rights::Principal;
use crate::rights::Sight;

/// How a delivery came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Just published.
    Live,
    /// Read from the log for a subscriber that resumed.
    Replayed,
    /// The retained message, for a new subscription.
    Retained,
    /// Sent to this one subscriber by [`Broker::send_to`](crate::Broker::send_to): it comes without tags, has no id,
    /// and a front that queues by itself says with [`Sink::refuse`] if it has no room.
    Direct,
}

/// A slot for one way of encoding messages, from [`Broker::register_encoding`](crate::Broker::register_encoding).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding(pub(crate) usize);

/// A message with its encodings. Each encoding is made once, by whoever needs it first, and shared by every subscriber;
/// all of them die with the last frame that still waits somewhere.
pub struct Delivery {
    message: Arc<Message>,
    kind: Kind,
    publisher: Option<SubscriberKey>,
    encodings: Box<[OnceLock<Bytes>]>,
}

impl Delivery {
    pub(crate) fn new(
        message: Arc<Message>,
        kind: Kind,
        publisher: Option<SubscriberKey>,
        encodings: usize,
    ) -> Self {
        Self { message, kind, publisher, encodings: (0..encodings).map(|_| OnceLock::new()).collect() }
    }

    /// The message.
    pub fn message(&self) -> &Arc<Message> {
        &self.message
    }

    /// Live, replayed or retained.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Who published it, if it said so; for MQTT's *no local*.
    pub fn publisher(&self) -> Option<SubscriberKey> {
        self.publisher
    }

    /// The message in one encoding; `encode` runs for the first subscriber only. An encoding may build on another one.
    /// By convention an empty result means that the protocol cannot express the message.
    pub fn encoded(&self, encoding: Encoding, encode: impl FnOnce(&Message) -> Bytes) -> &Bytes {
        static NONE: Bytes = Bytes::new();
        // A front that registers after this delivery was made has no slot in it: it gets nothing this once.
        self.encodings.get(encoding.0).map_or(&NONE, |slot| slot.get_or_init(|| encode(&self.message)))
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("message", &self.message)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// What a front attaches to the broker: it turns deliveries into frames.
///
/// A stateless front shares one value among all its subscribers; a stateful one (an MQTT or Bayeux session) locks its
/// own small mutex inside and sends while it holds it: the lock order is session, then outbox.
pub trait Deliver: Send + Sync + 'static {
    /// Called by the subscriber's lane, never concurrently for one subscriber, once per message with the tags of all
    /// subscriptions that match. Must not block and must not call the broker.
    fn deliver(&self, delivery: &Delivery, tags: &[u32], sink: &mut Sink<'_>);

    /// Whether the session has room for another page of retained or replayed messages, beyond what its outbox says.
    /// True by default; a session that queues by itself says when it is half full.
    fn has_room(&self) -> bool {
        true
    }

    /// The one droppable frame that this delivery amounts to, if it is one that all subscribers of its kind share and
    /// its order among this subscriber's other frames does not matter; the lane then sends a whole burst to `outbox` in
    /// one write. `None` by default, and whenever there is more to do or the session has another outbox by now:
    /// [`Deliver::deliver`] is called instead. An empty frame is nothing.
    fn shared_frame<'d>(
        &self,
        delivery: &'d Delivery,
        tags: &[u32],
        outbox: &Arc<Outbox>,
    ) -> Option<&'d Bytes> {
        _ = (delivery, tags, outbox);
        None
    }
}

/// Where a [`Deliver`] puts its frames: the subscriber's outbox, during one delivery.
pub struct Sink<'a> {
    outbox: &'a Arc<Outbox>,
    /// The session's newer outbox, where the lane has not heard of it yet.
    newer: Option<Arc<Outbox>>,
    delivery: &'a Arc<Delivery>,
    flush: Flush,
    pub(crate) dirty: bool,
    pub(crate) dropped: u64,
    /// What the front itself threw away.
    pub(crate) lost: u64,
    /// Why a direct message was not taken.
    pub(crate) refused: Option<SendError>,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(outbox: &'a Arc<Outbox>, delivery: &'a Arc<Delivery>, flush: Flush) -> Self {
        Self { outbox, newer: None, delivery, flush, dirty: false, dropped: 0, lost: 0, refused: None }
    }

    /// For a direct message.
    pub(crate) fn direct(outbox: &'a Arc<Outbox>, delivery: &'a Arc<Delivery>) -> Self {
        Self::new(outbox, delivery, Flush::Now)
    }

    /// Sends one whole frame. An empty one is nothing.
    pub fn send(&mut self, frame: &Bytes, class: Class) {
        if self.delivery.kind() == Kind::Direct {
            return self.send_direct(std::slice::from_ref(frame));
        }
        if frame.is_empty() {
            return;
        }
        let sent = match &self.newer {
            None => self.outbox.put(frame, class, Some(self.delivery.message()), self.flush),
            Some(newer) => newer.put(frame, class, Some(self.delivery.message()), Flush::Now),
        };
        self.note(sent);
    }

    /// Sends one frame in slices; it is never dropped.
    pub fn send_parts(&mut self, parts: &[Bytes]) {
        if self.delivery.kind() == Kind::Direct {
            return self.send_direct(parts);
        }
        let sent = match &self.newer {
            None => self.outbox.put_parts(parts, self.flush),
            Some(newer) => newer.put_parts(parts, Flush::Now),
        };
        self.note(sent);
    }

    /// A direct message is answered for: it is taken only if there is room, and then no policy drops it.
    fn send_direct(&mut self, parts: &[Bytes]) {
        let bytes = parts.iter().map(Bytes::len).sum();
        if bytes == 0 {
            return self.refuse(SendError::Inexpressible);
        }
        let outbox = self.outbox();
        if !outbox.has_room_for(bytes) {
            let refusal = if outbox.closed().is_some() { SendError::Gone } else { SendError::Full };
            return self.refuse(refusal);
        }
        let message = self.delivery.message();
        let sent = match parts {
            [frame] => outbox.put(frame, Class::Control, Some(message), Flush::Now),
            parts => outbox.put_parts(parts, Flush::Now),
        };
        if sent != Sent::Taken {
            self.refuse(SendError::Gone);
        }
    }

    /// Says that the session threw away so many messages for want of room, which it counts itself: whoever hears of
    /// clients is told, as of what an outbox drops ([`Lifecycle::dropped`](crate::Lifecycle::dropped)).
    pub fn note_lost(&mut self, messages: u64) {
        self.lost += messages;
    }

    /// Says that a direct message was not taken, and why; the first reason stays. Of no effect otherwise.
    pub fn refuse(&mut self, why: SendError) {
        self.refused.get_or_insert(why);
    }

    /// Queues the message itself, for an in-process reader.
    pub(crate) fn send_message(&mut self) {
        let sent = self.outbox.put_message(self.delivery.message());
        self.note(sent);
    }

    /// Sends to this outbox, the one that the session has now, even if the lane still knows an older one. A session
    /// whose connections come and go calls it first, under its own mutex.
    pub fn redirect(&mut self, outbox: &Arc<Outbox>) {
        self.newer = (!Arc::ptr_eq(self.outbox, outbox)).then(|| Arc::clone(outbox));
    }

    /// As [`redirect`](Self::redirect), for a message that hit the subscriptions `tags` of a session whose client is
    /// `principal` now. False: the lane has not heard of the session's new connection, so it judged by the rights of
    /// the last one, and this client may not see the message. Whose lane knows it is judged already.
    #[must_use]
    pub fn redirect_as(&mut self, outbox: &Arc<Outbox>, principal: Option<&Principal>, tags: &[u32]) -> bool {
        self.redirect(outbox);
        let channel = self.delivery.message().channel();
        self.newer.is_none()
            || principal.is_none_or(|principal| principal.sight(channel, tags) != Sight::Nothing)
    }

    /// Where frames go, to wake its task or close it.
    pub fn outbox(&self) -> &Arc<Outbox> {
        self.newer.as_ref().unwrap_or(self.outbox)
    }

    /// The delivery, to keep it beyond the call.
    pub fn delivery(&self) -> &Arc<Delivery> {
        self.delivery
    }

    fn note(&mut self, sent: Sent) {
        match sent {
            Sent::Dirty => self.dirty = true,
            Sent::Dropped(count) => self.dropped += count,
            Sent::Taken | Sent::Refused => {}
        }
    }
}
