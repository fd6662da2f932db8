//! `POST /v1/events`: CloudEvents 1.0 in the three modes of its HTTP binding.
//!
//! What is published is the event itself, as the JSON of the structured mode: a structured event keeps its exact text,
//! a binary one is written as such. Its source and id are its idempotency key.

mod binary;

use std::borrow::Cow;

use broker_core::ContentType;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_edge::{Body, Fields, Response};
use intake::{CloudEvent, Outcome, Publication, Published, Publisher, Turn, own, parse_array, target};

use crate::error::Error;
use crate::publish::{Batch, Desk, Options, write_published};

/// How an event is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Structured,
    Batched,
    Binary,
}

/// Publishes what `body` and the headers hold: one event, answered with its result, or a batch.
pub(crate) async fn publish_events(
    desk: &Desk,
    publisher: &Publisher,
    parts: &Parts,
    body: &Bytes,
) -> Result<Vec<u8>, Error> {
    let (options, channel) = Options::read_with_channel(parts.uri.query(), &Fields::from(&parts.headers))?;
    let publish = async |event: &[u8], buffer: &Bytes| -> Result<Published, intake::Error> {
        let attributes = CloudEvent::parse(event)?;
        let mut item = Publication::new(
            target(channel.as_deref().unwrap_or(attributes.channel()))?,
            own(event, buffer, buffer.len()),
        );
        item.content_type = Some(ContentType::new("application/cloudevents+json"));
        item.event = options.event.clone();
        item.ttl = options.ttl;
        item.retain = options.retain.unwrap_or(false);
        item.exclude = options.exclude;
        item.key = Some(Cow::Owned(attributes.key()?));
        desk.gate.publish(publisher, item).await
    };
    let single = async |event: &[u8], buffer: &Bytes| -> Result<Vec<u8>, Error> {
        let mut json = Vec::with_capacity(128);
        write_published(&publish(event, buffer).await?, &mut json);
        Ok(json)
    };
    match mode(&parts.headers)? {
        Mode::Structured => single(body.trim_ascii(), body).await,
        Mode::Binary => {
            let event = Bytes::from(binary::to_structured(&parts.headers, body)?);
            single(&event, &event).await
        }
        Mode::Batched => {
            let mut batch = Batch::new(&desk.counters);
            let mut turn = Turn::new();
            for event in parse_array(body, desk.max_batch)? {
                turn.take().await;
                batch.take(publish(event.get().as_bytes(), body).await.map(Outcome::One));
            }
            Ok(batch.finish())
        }
    }
}

fn mode(headers: &HeaderMap) -> Result<Mode, Error> {
    let text = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match &*essence {
        "application/cloudevents+json" => Ok(Mode::Structured),
        "application/cloudevents-batch+json" => Ok(Mode::Batched),
        // Another structured format would be taken for the data of a binary event without attributes.
        other if !other.starts_with("application/cloudevents") && is_binary(headers) => Ok(Mode::Binary),
        _ => Err(Error::MediaType(
            text.into_owned(),
            "application/cloudevents+json, application/cloudevents-batch+json, or ce- headers",
        )),
    }
}

/// One attribute is enough to tell that an event was meant; what it lacks is then said as such.
fn is_binary(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("ce-"))
}

/// The handshake of CloudEvents' webhooks: whoever asks may deliver, at the rate it asks for (HTTP 1.1 Web Hooks for
/// Event Delivery 1.0, "Abuse protection"). `None` if the request is no such question.
pub(crate) fn webhook_handshake(request: &HeaderMap) -> Option<Response> {
    let origin = request.get("webhook-request-origin")?;
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
    headers.insert("webhook-allowed-origin", origin.clone());
    let rate = request.get("webhook-request-rate").cloned();
    headers.insert("webhook-allowed-rate", rate.unwrap_or(HeaderValue::from_static("*")));
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_told_by_the_headers() {
        let headers = |lines: &[(&'static str, &'static str)]| -> HeaderMap {
            lines
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
                .collect()
        };
        let version = ("ce-specversion", "1.0");
        let json = ("content-type", "application/json");
        let structured = ("content-type", "application/CloudEvents+json; charset=utf-8");
        let batched = ("content-type", "application/cloudevents-batch+json");
        assert_eq!(mode(&headers(&[structured])).unwrap(), Mode::Structured);
        assert_eq!(mode(&headers(&[batched, version])).unwrap(), Mode::Batched);
        assert_eq!(mode(&headers(&[json, version])).unwrap(), Mode::Binary);
        assert_eq!(mode(&headers(&[version])).unwrap(), Mode::Binary);
        assert_eq!(mode(&headers(&[json, ("ce-id", "1")])).unwrap(), Mode::Binary);
        for unclear in [vec![], vec![json], vec![("content-type", "application/cloudevents+avro"), version]] {
            assert!(mode(&headers(&unclear)).is_err(), "{unclear:?}");
        }
    }
}
