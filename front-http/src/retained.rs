//! `/v1/retained/{channel…}`: the one message that a channel keeps. `PUT` is a publish and lives there.

use broker_core::{Action, Broker, Principal};
use envelope::envelope;
use http::{HeaderValue, header};
use http_edge::{Body, Response};

use crate::answer::{json, no_content};
use crate::error::Error;
use crate::query::{invalid, parameters};

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
