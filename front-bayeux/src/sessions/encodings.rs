//! Events as bytes, made once for all sessions that get them in the same form.

use broker_core::{Broker, Delivery, Encoding};
use bytes::Bytes;
use websocket::encode;

use crate::codec::event::{self, Replay};
use crate::codec::reply;
use crate::config::Config;

/// The encodings that all sessions share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encodings {
    plain: Variant,
    with_replay: Variant,
}

/// One way of writing events, in its three wrappings.
#[derive(Debug, Clone, Copy)]
struct Variant {
    object: Encoding,
    frame: Encoding,
    deflated: Encoding,
}

impl Encodings {
    pub(crate) fn register(broker: &Broker) -> Self {
        let variant = || Variant {
            object: broker.register_encoding(),
            frame: broker.register_encoding(),
            deflated: broker.register_encoding(),
        };
        Self { plain: variant(), with_replay: variant() }
    }

    /// The event's object; empty if Bayeux cannot express it.
    pub(crate) fn object(&self, config: &Config, replay: Replay, delivery: &Delivery) -> Bytes {
        let encode = |message: &_| event::object(message, &config.events, replay);
        delivery.encoded(self.variant(replay).object, encode).clone()
    }

    /// The event alone in a text frame; empty if Bayeux cannot express it.
    pub(crate) fn frame<'d>(
        &self,
        config: &Config,
        replay: Replay,
        delivery: &'d Delivery,
        deflate: bool,
    ) -> &'d Bytes {
        let variant = self.variant(replay);
        let slot = if deflate { variant.deflated } else { variant.frame };
        let encode = |_: &_| {
            let object = self.object(config, replay, delivery);
            if object.is_empty() {
                return object;
            }
            if deflate && object.len() >= config.websocket.deflate_from_bytes {
                let mut text = Vec::with_capacity(object.len() + 2);
                reply::put_array(&mut text, [&object[..]]);
                return encode::deflated(&text);
            }
            reply::text_frame([&object[..]])
        };
        delivery.encoded(slot, encode)
    }

    fn variant(&self, replay: Replay) -> &Variant {
        match replay {
            Replay::Plain => &self.plain,
            Replay::InExt => &self.with_replay,
        }
    }
}
