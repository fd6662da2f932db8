//! `POST /topics/TOPIC`: the broker's publish.

use std::time::Duration;

use broker_core::{Channel, ContentType, Publish, Qos};
use bytes::Bytes;
use http::HeaderMap;
use http_edge::Response;
use intake::{Gate, Publisher, own};
use serde_json::json;

use super::answer::json;
use super::properties;
use super::query::Query;
use crate::error::AwsError;

/// The largest buffer that hyper reads a body into; a body in one piece may be a slice of one.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// The longest content type, in bytes.
const MAX_CONTENT_TYPE_BYTES: usize = 256;

/// A message in a request.
#[derive(Clone, Copy)]
pub(crate) struct Messages<'a> {
    /// The header of the request.
    pub(crate) headers: &'a HeaderMap,
    /// Its parameters.
    pub(crate) query: &'a Query<'a>,
    /// Its body.
    pub(crate) body: &'a Bytes,
    /// What the answer is called.
    pub(crate) id: &'a str,
}

impl Messages<'_> {
    /// The message for a topic.
    ///
    /// # Errors
    /// `InvalidRequestException`, `ForbiddenException` for the broker's own topics.
    pub(super) fn publish(&self, topic: &str) -> Result<Publish, AwsError> {
        let channel = channel(topic)?;
        if channel.is_reserved() {
            return Err(AwsError::forbidden("topics that begin with `$` are the broker's own"));
        }
        let Self { headers, query, body, .. } = *self;
        let mut publish = Publish::new(channel, own(body, body, body.len().max(READ_BUFFER_BYTES)))
            .properties(properties::read(headers, query, body)?);
        if let Some(content_type) = query.text("contentType") {
            if content_type.len() > MAX_CONTENT_TYPE_BYTES || content_type.contains(char::is_control) {
                return Err(AwsError::invalid(
                    "`contentType` is longer than 256 bytes, or holds a control character",
                ));
            }
            if !content_type.is_empty() {
                publish = publish.content_type(ContentType::new(content_type));
            }
        }
        Ok(publish)
    }

    /// The answer of one that was taken.
    pub(super) fn taken(&self) -> Response {
        json(&json!({ "message": "OK", "traceId": self.id }))
    }
}

/// A topic that messages can be published to.
///
/// # Errors
/// `InvalidRequestException`.
pub(super) fn channel(topic: &str) -> Result<Channel, AwsError> {
    if topic.contains(['+', '#']) {
        return Err(AwsError::invalid("a topic that is published to holds no wildcard"));
    }
    Ok(Channel::parse(topic)?)
}

/// Publishes.
pub(crate) async fn publish(
    gate: &Gate,
    publisher: &Publisher,
    message: Messages<'_>,
    topic: &str,
) -> Result<Response, AwsError> {
    let query = message.query;
    let qos = match query.number("qos", 0, 1)? {
        Some(1) => Qos::AtLeastOnce,
        _ => Qos::AtMostOnce,
    };
    let mut publish = message.publish(topic)?.qos(qos).retain(query.flag("retain")?);
    if let Some(seconds) = query.number("messageExpiry", 0, u64::from(u32::MAX))? {
        publish = publish.ttl(Duration::from_secs(seconds));
    }
    gate.submit(publisher, publish).await?;
    Ok(message.taken())
}
