//! `POST /v1/publish/{channel…}`: the body is the payload.

use broker_core::{Answer, ContentType};
use bytes::Bytes;
use http_edge::Fields;
use intake::{Gate, Publication, Published, Publisher, own, target};

use super::Options;
use crate::error::Error;
use crate::query::invalid;

/// The largest buffer that hyper reads a body into; a body in one piece may be a slice of one.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Whether the message becomes its channel's retained message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Retain {
    /// `PUT /v1/retained/…`.
    Always,
    /// With `?retain=true`.
    IfAsked,
}

/// Publishes `body` as it is.
pub(crate) fn publish_raw<'a>(
    gate: &'a Gate,
    publisher: &'a Publisher,
    channel: &str,
    query: Option<&'a str>,
    fields: &Fields<'a>,
    body: &Bytes,
    retain: Retain,
) -> Result<Answer<'a, Result<Published, intake::Error>>, Error> {
    let options = Options::read(query, fields)?;
    let retain = match (retain, options.retain) {
        (Retain::Always, Some(false)) => {
            return Err(invalid("retain", "a PUT here retains, a POST need not"));
        }
        (Retain::Always, _) => true,
        (Retain::IfAsked, asked) => asked.unwrap_or(false),
    };
    let mut item = Publication::new(target(channel)?, own(body, body, body.len().max(READ_BUFFER_BYTES)));
    item.content_type = content_type(fields)?;
    item.event = options.event;
    item.ttl = options.ttl;
    item.retain = retain;
    item.exclude = options.exclude;
    item.key = options.key;
    Ok(gate.publish(publisher, item))
}

/// Longest content type in bytes.
const MAX_CONTENT_TYPE_BYTES: usize = 256;

/// The payload's type. `application/x-www-form-urlencoded` counts as none: it is what curl says of anything given to
/// `-d`, and a message that really were a form would lose nothing by it.
pub(crate) fn content_type(fields: &Fields<'_>) -> Result<Option<ContentType>, Error> {
    let Some(value) = fields.content_type else { return Ok(None) };
    if let Some(known) = ContentType::well_known(value.as_bytes()) {
        return Ok(Some(known));
    }
    let unusable = |why: &str| Error::Parameter { name: "Content-Type".to_owned(), why: why.to_owned() };
    let text = value.to_str().map_err(|_| unusable("not ASCII"))?;
    if text.len() > MAX_CONTENT_TYPE_BYTES {
        return Err(unusable("longer than 256 bytes"));
    }
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.is_empty() || essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Ok(None);
    }
    Ok(Some(ContentType::new(text)))
}
