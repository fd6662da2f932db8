//! From what a source says to messages.

use std::time::Duration;

use broker_core::{Broker, Channel, ContentType, IdempotencyKey, Publish, PublishError, PublishOnceError};
use bytes::Bytes;
use envelope::{MAX_DEPTH, is_reserved_event, is_valid_json};

use crate::settings::Goal;
use crate::source::Source;

/// Longest name of an event that is kept.
const MAX_EVENT_BYTES: usize = 256;
/// Longest id that is a key; a longer one is none.
const MAX_ID_BYTES: usize = 1_024;
/// How soon a publish is tried again that found the broker busy.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// One message of a source.
#[derive(Debug, Default)]
pub(crate) struct Item {
    pub(crate) payload: Bytes,
    /// Its media type; `None`: JSON if it is, else text.
    pub(crate) content_type: Option<ContentType>,
    pub(crate) event: Option<String>,
    /// What it is called where it comes from: what was published under it is not published again.
    pub(crate) id: Option<String>,
    pub(crate) retain: bool,
}

/// The broker is closed.
#[derive(Debug)]
pub(crate) struct Closed;

/// Publishes it, however long the broker or its store are busy. What they refuse for good is counted as dropped.
pub(crate) async fn publish(broker: &Broker, source: &Source, item: Item) -> Result<(), Closed> {
    let settings = source.settings();
    let Some(channel) = channel_of(&settings.goal, &item.payload) else {
        source.drops(1);
        return Ok(());
    };
    let content_type = item.content_type.unwrap_or_else(|| {
        let is_json = is_valid_json(&item.payload, MAX_DEPTH);
        if is_json { ContentType::JSON } else { ContentType::TEXT }
    });
    let mut publish = Publish::new(channel, item.payload).content_type(content_type).retain(item.retain);
    let names = |event: &&String| event.len() <= MAX_EVENT_BYTES && !is_reserved_event(event);
    if let Some(event) = item.event.as_ref().filter(names) {
        publish = publish.event(event);
    }
    let owner = format!("source:{}", settings.id);
    let mut id = item.id.filter(|id| !id.is_empty() && id.len() <= MAX_ID_BYTES);
    loop {
        let answered = match &id {
            Some(id) => {
                let mut key = IdempotencyKey::new(id);
                key.user = &owner;
                match broker.submit_once(publish.clone(), &key).await {
                    Ok(keyed) if keyed.duplicate => return Ok(()),
                    Ok(_) => Ok(()),
                    Err(PublishOnceError::Publish(error)) => Err(error),
                    Err(_) => {
                        // The same id with something else: a server that counts anew. Or no room for keys.
                        Err(PublishError::Unknown)
                    }
                }
            }
            None => broker.submit(publish.clone()).await.map(drop).map_err(|refused| refused.error),
        };
        match answered {
            Ok(()) => {
                source.receives();
                return Ok(());
            }
            Err(PublishError::Closed) => return Err(Closed),
            Err(PublishError::Busy { .. }) => tokio::time::sleep(BUSY_PAUSE).await,
            Err(PublishError::Unavailable { retry_after, .. }) => tokio::time::sleep(retry_after).await,
            Err(PublishError::Unknown) if id.is_some() => id = None,
            Err(_) => {
                source.drops(1);
                return Ok(());
            }
        }
    }
}

/// Where a message goes; `None` if that does not stand in it.
fn channel_of(goal: &Goal, payload: &[u8]) -> Option<Channel> {
    match goal {
        Goal::Channel(channel) => Some(channel.clone()),
        Goal::Pointer(pointer) => {
            if !is_valid_json(payload, MAX_DEPTH) {
                return None;
            }
            let value: serde_json::Value = serde_json::from_slice(payload).ok()?;
            let channel = Channel::parse(value.pointer(pointer)?.as_str()?).ok()?;
            (!channel.is_reserved()).then_some(channel)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_stands_in_the_message_and_is_none_of_the_brokers_own() {
        let goal = Goal::Pointer("/to/channel".to_owned());
        for (payload, found) in [
            (r#"{"to":{"channel":"a/b"}}"#, Some("a/b")),
            (r#"{"to":{"channel":"$SYS/a"}}"#, None),
            (r#"{"to":{"channel":7}}"#, None),
            (r#"{"to":{"channel":""}}"#, None),
            ("{}", None),
            ("no JSON", None),
        ] {
            let channel = channel_of(&goal, payload.as_bytes());
            assert_eq!(channel.as_ref().map(Channel::as_str), found, "{payload}");
        }
    }
}
