//! `/v1/retained/{channel…}`: the one message that a channel keeps, and the list of those channels. `PUT` is a publish
//! and lives there.

use broker_core::{Action, Broker, Channel, Principal};
use envelope::{envelope, timestamp, write_string};
use http::{HeaderValue, header};
use http_edge::{Body, Response};

use crate::answer::{json, no_content};
use crate::error::Error;
use crate::json::write_optional;
use crate::query::{invalid, limit, parameters};

/// A page of at most `max_page` channels that keep a message, in the order of their segments. `cursor` is the last name
/// of the page before, as `next` gave it. Channels whose history the principal may not read are left out.
pub(crate) async fn list(
    broker: &Broker,
    max_page: usize,
    principal: &Principal,
    query: Option<&str>,
) -> Result<Vec<u8>, Error> {
    let (mut filter, mut cursor, mut count) = (intake::filter("#")?, None, 100.min(max_page));
    for parameter in parameters(query) {
        let (name, value) = parameter?;
        match &*name {
            "filter" => filter = intake::filter(&value)?,
            // The last one of a page may have a name that HTTP has no other words for.
            "cursor" => {
                let last = Channel::parse(&value);
                cursor = Some(last.map_err(|_| invalid("cursor", "not the `next` of another page"))?);
            }
            "limit" => count = limit(&value, max_page)?,
            other => return Err(invalid(other, "unknown; known are filter, cursor, limit")),
        }
    }
    broker.check_levels(&filter)?;
    // One more tells whether there is another page.
    let mut found = broker.retained_page(&filter, cursor.as_ref(), count.saturating_add(1)).await;
    let more = found.len() > count;
    found.truncate(count);
    let mut out = b"{\"retained\":[".to_vec();
    let mut first = true;
    for message in &found {
        if !principal.allows(Action::History, message.channel()) {
            continue;
        }
        out.extend_from_slice(if std::mem::take(&mut first) { b"{\"channel\":" } else { b",{\"channel\":" });
        write_string(message.channel().as_str(), &mut out);
        out.extend_from_slice(b",\"time\":");
        write_string(&timestamp(message.time_ms()), &mut out);
        out.extend_from_slice(format!(",\"bytes\":{}", message.payload().len()).as_bytes());
        out.extend_from_slice(b",\"content_type\":");
        write_optional(message.content_type().map(|text| text.as_str()), &mut out);
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"next\":");
    let last = found.last().filter(|_| more);
    write_optional(last.map(|message| message.channel().as_str()), &mut out);
    out.push(b'}');
    Ok(out)
}

/// The message as its envelope, or with `?format=raw` as it was published.
pub(crate) async fn show(
    broker: &Broker,
    principal: &Principal,
    channel: &str,
    query: Option<&str>,
) -> Result<Response, Error> {
    let mut raw = false;
    for parameter in parameters(query) {
        let (name, value) = parameter?;
        match (&*name, &*value) {
            ("format", "raw") => raw = true,
            ("format", "json") => raw = false,
            ("format", _) => return Err(invalid("format", "not `raw` or `json`")),
            (other, _) => return Err(invalid(other, "unknown; known is format")),
        }
    }
    let channel = intake::channel(channel)?;
    broker.check_levels(&channel.clone().into())?;
    if !principal.allows(Action::History, &channel) {
        return Err(Error::forbidden(principal, "read", &channel));
    }
    let Some(message) = broker.read_retained(&channel).await? else {
        return Err(Error::NotRetained(channel.as_str().to_owned()));
    };
    if !raw {
        return Ok(json(envelope(&message).into()));
    }
    let mut response = http::Response::new(Body::full(message.payload().clone()));
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // What others published is not to be run by a browser.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    let content_type = message.content_type().and_then(|text| HeaderValue::from_str(text.as_str()).ok());
    let unknown = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, content_type.unwrap_or(unknown));
    Ok(response)
}

/// Forgets it: 204, or 404 if there is none. Nobody is told; publishing an empty payload with `retain` would tell
/// subscribers.
pub(crate) async fn clear(broker: &Broker, principal: &Principal, channel: &str) -> Result<Response, Error> {
    let channel = intake::target(channel)?;
    broker.check_levels(&channel.clone().into())?;
    // Whoever may replace it with anything may also remove it.
    if !principal.allows(Action::Publish, &channel) && !principal.allows(Action::Manage, &channel) {
        return Err(Error::forbidden(principal, "clear", &channel));
    }
    if !broker.clear_retained(&channel).await.map_err(intake::Error::from)? {
        return Err(Error::NotRetained(channel.as_str().to_owned()));
    }
    Ok(no_content())
}
