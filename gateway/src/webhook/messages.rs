//! Messages after the fact: who wants to hear of them reads them as the embedding service would.

use broker_core::{Broker, Event, Message, SubscribeOptions, unix_ms};
use std::sync::Arc;

use super::event::{Kind, event};
use super::hook::Hook;

/// Tells the hook of each message on its channels, if it wants to hear of them. Ends with the hook.
pub(super) fn tell(broker: &Broker, hook: &Arc<Hook>) {
    if !hook.settings().wants(Kind::Message) {
        return;
    }
    let filters = &hook.settings().channels;
    let mut messages = match broker.subscribe_with(filters, SubscribeOptions::default()) {
        Ok(messages) => messages,
        Err(error) => {
            tracing::warn!(hook = hook.settings().id, %error, "a webhook is not told of messages");
            return;
        }
    };
    let told = Arc::downgrade(hook);
    let reader = tokio::spawn(async move {
        while let Some(next) = messages.next().await {
            let Some(hook) = told.upgrade() else { return };
            match next {
                Event::Message(message) => {
                    hook.tell(message.channel().as_str(), of(&message));
                }
                Event::Lagged(lost) => {
                    let id = &hook.settings().id;
                    tracing::warn!(
                        hook = id,
                        lost,
                        "a webhook was not told of messages: there were too many"
                    );
                }
                _ => {}
            }
        }
    });
    hook.read_by(reader.abort_handle());
}

fn of(message: &Message) -> super::event::Told {
    event(Kind::Message, unix_ms(), |data| {
        data.text("channel", message.channel().as_str());
        data.optional("id", message.id().map(|id| id.to_string()).as_deref());
        data.text("time", &envelope::timestamp(message.time_ms()));
        data.optional("content_type", message.content_type().map(|kind| kind.as_str()));
        data.optional("event", message.event());
        data.payload(message.payload(), message.content_type());
    })
}
