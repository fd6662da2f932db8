//! What is published, as frames for one client; what needs more than that waits for the client's own task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use broker_core::{Class, Deliver, Delivery, Encoding, Message, Outbox, Sink, steady_ms};
use bytes::Bytes;
use grip::publish::{Item, WsKind, WsMessage};
use websocket::encode;

use crate::backlog::Backlog;
use crate::seal::{outline, unsealed};

/// Shorter payloads are not worth compressing.
const MIN_DEFLATED_BYTES: usize = 256;

/// It is sent as it is.
const PLAIN: &[u8] = b"p";
/// There is more to it: an action, or a content that is meant for certain filters.
const SPECIAL: &[u8] = b"s";

/// One client, as a lane sees it.
#[derive(Debug)]
pub(crate) struct Frames {
    pub(crate) encoding: Encoding,
    pub(crate) traits: Encoding,
    pub(crate) deflate: bool,
    /// It takes all once some subscription has filters.
    pub(crate) backlog: Backlog,
    /// When something was sent last, by the clock that measures.
    last_sent_ms: AtomicU64,
}

impl Frames {
    pub(crate) fn new(encoding: Encoding, traits: Encoding, deflate: bool) -> Self {
        Self {
            encoding,
            traits,
            deflate,
            backlog: Backlog::default(),
            last_sent_ms: AtomicU64::new(steady_ms()),
        }
    }

    pub(crate) fn touch(&self) {
        self.last_sent_ms.store(steady_ms(), Relaxed);
    }

    pub(crate) fn last_sent_ms(&self) -> u64 {
        self.last_sent_ms.load(Relaxed)
    }

    /// The frame, if it can be written at once.
    fn frame<'d>(&self, delivery: &'d Delivery) -> Option<&'d Bytes> {
        if !self.backlog.may_be_passed() || delivery.encoded(self.traits, traits) != PLAIN {
            return None;
        }
        self.touch();
        Some(delivery.encoded(self.encoding, |message| frame_of(message, self.deflate)))
    }
}

impl Deliver for Frames {
    fn deliver(&self, delivery: &Delivery, tags: &[u32], sink: &mut Sink<'_>) {
        match self.frame(delivery) {
            Some(frame) => sink.send(frame, Class::Droppable),
            None => self.backlog.put(delivery, tags, sink),
        }
    }

    fn shared_frame<'d>(&self, delivery: &'d Delivery, _: &[u32], _: &Arc<Outbox>) -> Option<&'d Bytes> {
        self.frame(delivery)
    }
}

/// What an item of GRIP is in a message, if it is one that was published as such.
pub fn item_of(message: &Message) -> Option<Item> {
    let pairs = &message.properties()?.user;
    let (_, text) = pairs.iter().find(|(name, _)| &**name == grip::publish::ITEM_PROPERTY)?;
    grip::publish::item(&unsealed(message.channel().as_str(), text, message.payload())?).ok()
}

/// The same, but that contents may lack what is the message's payload: what kind of an item it is, for less than the whole
/// costs.
pub fn outline_of(message: &Message) -> Option<Item> {
    let pairs = &message.properties()?.user;
    let (_, text) = pairs.iter().find(|(name, _)| &**name == grip::publish::ITEM_PROPERTY)?;
    let outline = outline(message.channel().as_str(), text, message.payload())?;
    // Where the payload is a number in it, say, it is no item without that.
    grip::publish::item(outline).ok().or_else(|| item_of(message))
}

/// What its publisher calls it, if it was an item of GRIP.
pub fn id_of(message: &Message) -> Option<&str> {
    let pairs = &message.properties()?.user;
    pairs.iter().find(|(name, _)| &**name == grip::publish::ID_PROPERTY).map(|(_, id)| &**id)
}

/// Whether it was an item of GRIP that its publisher says comes after the one with this id.
pub fn is_after(message: &Message, id: &str) -> bool {
    let said = message.properties().and_then(|properties| {
        properties.user.iter().find(|(name, _)| &**name == grip::publish::ITEM_PROPERTY)
    });
    // Most name something else, and need not be unsealed for that; what is no letter or digit may be escaped.
    let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
    said.is_some_and(|(_, text)| text.contains("\"prev-id\"") && (!is_plain || text.contains(id)))
        && outline_of(message).is_some_and(|item| item.prev_id.as_deref() == Some(id))
}

fn traits(message: &Message) -> Bytes {
    Bytes::from_static(match outline_of(message).map(|item| item.message) {
        None | Some(None | Some(WsMessage::Send { filters: None, .. })) => PLAIN,
        Some(Some(_)) => SPECIAL,
    })
}

/// A message as a frame; empty if it is not for WebSockets.
fn frame_of(message: &Message, deflate: bool) -> Bytes {
    match item_of(message) {
        None => {
            let (kind, content) = plain(message);
            frame(kind, content, deflate)
        }
        Some(Item { message: Some(WsMessage::Send { kind, content, .. }), .. }) => {
            frame(kind, &content, deflate)
        }
        Some(_) => Bytes::new(),
    }
}

/// A message that is no item: text if it is, and is not said to be bytes.
pub(crate) fn plain(message: &Message) -> (WsKind, &Bytes) {
    let payload = message.payload();
    let is_bytes = message.content_type().is_some_and(|content_type| {
        let media = content_type.as_str().split(';').next().unwrap_or_default();
        media.trim().eq_ignore_ascii_case("application/octet-stream")
    });
    let is_text = !is_bytes && std::str::from_utf8(payload).is_ok();
    (if is_text { WsKind::Text } else { WsKind::Binary }, payload)
}

/// A frame for a client.
pub(crate) fn frame(kind: WsKind, content: &[u8], deflate: bool) -> Bytes {
    let opcode = match kind {
        WsKind::Text => encode::TEXT,
        WsKind::Binary => encode::BINARY,
        WsKind::Ping => return encode::frame(encode::PING, content.get(..125).unwrap_or(content)),
        WsKind::Pong => return encode::pong(content),
    };
    match deflate && content.len() >= MIN_DEFLATED_BYTES {
        true => encode::deflated_as(opcode, content),
        false => encode::frame(opcode, content),
    }
}
