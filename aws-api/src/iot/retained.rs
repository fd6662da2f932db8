//! `GET /retainedMessage`, all of them or one.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use broker_core::{Action, Broker, Channel, Filter, Message, Principal, Qos, Segment};
use http_edge::Response;
use serde_json::{Value, json};

use super::answer::json;
use super::properties::write_user_properties;
use super::publish::channel;
use super::query::Query;
use crate::error::AwsError;

/// The largest page, and what one has if nothing is said.
const MAX_PAGE: usize = 200;

/// A page of the topics that keep a message, in the order of their segments. Those that the key may not read are left
/// out. The token of the next page is the last topic of this one.
pub(crate) async fn list(
    broker: &Broker,
    principal: &Principal,
    query: &Query<'_>,
) -> Result<Response, AwsError> {
    let count = query.number("maxResults", 1, MAX_PAGE)?.unwrap_or(MAX_PAGE);
    let after = query.text("nextToken").map(from_token).transpose()?;
    let everything =
        Filter::new([Segment::RestZeroOrMore]).map_err(|error| AwsError::internal(error.to_string()))?;
    // One more tells whether there is another page.
    let mut found = broker.retained_page(&everything, after.as_ref(), count + 1).await;
    let more = found.len() > count;
    found.truncate(count);
    let next = found.last().filter(|_| more).map(|last| to_token(last.channel()));
    let readable = found.iter().filter(|message| principal.allows(Action::History, message.channel()));
    let summary = |message: &std::sync::Arc<Message>| {
        json!({
            "topic": message.channel().as_str(),
            "payloadSize": message.payload().len(),
            "qos": qos(message),
            "lastModifiedTime": message.time_ms(),
        })
    };
    let mut page = json!({ "retainedTopics": readable.map(summary).collect::<Vec<Value>>() });
    if let (Some(next), Value::Object(page)) = (next, &mut page) {
        page.insert("nextToken".to_owned(), next.into());
    }
    Ok(json(&page))
}

/// The message that one topic keeps.
pub(crate) async fn show(broker: &Broker, principal: &Principal, topic: &str) -> Result<Response, AwsError> {
    let channel = channel(topic)?;
    broker.check_levels(&channel.clone().into())?;
    if !principal.allows(Action::History, &channel) {
        return Err(AwsError::forbidden(format!("no right to read {topic:?}")));
    }
    let Some(message) = broker.read_retained(&channel).await? else {
        return Err(AwsError::not_found(format!("topic {topic:?} keeps no message")));
    };
    let mut document = json!({
        "topic": topic,
        "payload": STANDARD.encode(message.payload()),
        "qos": qos(&message),
        "lastModifiedTime": message.time_ms(),
    });
    if let (Some(user), Value::Object(document)) =
        (write_user_properties(message.properties()), &mut document)
    {
        document.insert("userProperties".to_owned(), user.into());
    }
    Ok(json(&document))
}

/// AWS has no QoS 2.
fn qos(message: &Message) -> u8 {
    u8::from(message.qos() != Qos::AtMostOnce)
}

fn to_token(channel: &Channel) -> String {
    URL_SAFE_NO_PAD.encode(channel.as_str())
}

fn from_token(token: &str) -> Result<Channel, AwsError> {
    let wrong = || AwsError::invalid("`nextToken` is not of another page");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    let name = String::from_utf8(bytes).map_err(|_| wrong())?;
    Channel::parse(&name).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        for name in ["a/b", "é/ ", "+"] {
            let channel = Channel::parse(name).unwrap();
            assert_eq!(from_token(&to_token(&channel)).unwrap(), channel);
        }
        for wrong in ["", "*", "a", "_w"] {
            assert_eq!(from_token(wrong).unwrap_err().kind, "InvalidRequestException", "{wrong}");
        }
    }
}
