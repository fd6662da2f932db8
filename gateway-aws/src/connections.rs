//! `@connections`: backends send to a client, look at it and close it.

use std::sync::Arc;

use broker_core::{Action, AuthError, Filter, LeaveReason};
use bytes::Bytes;
use http::header;
use http::request::Parts;
use http::{HeaderName, Method, StatusCode};
use http_edge::{
    Body, BodyError, BoxError, Response, credentials_from, parameters, parse_connection_id, percent_decode,
    request_id_among, take_body,
};
use serde::Serialize;

use crate::api::ApiState;
use crate::member::{Close, Member, PROTOCOL, Unsent};
use crate::state::Shared;
use crate::verify::{Exception, json};

/// Largest message, in bytes, as API Gateway has it.
const MAX_MESSAGE_BYTES: usize = 128 << 10;

/// Longest reason of a close frame, in bytes.
const MAX_REASON_BYTES: usize = 123;

/// The path of an API, and what is behind `@connections/`, if a path has that.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    // Nearly every path is another one.
    let at = path.find("connections/")?;
    let (before, after) = path.split_at(at);
    let base = before.strip_suffix("/@").or_else(|| before.strip_suffix("/%40"))?;
    Some((base, after.strip_prefix("connections/").unwrap_or_default()))
}

/// Answers a request below `@connections`.
pub(crate) async fn handle<B>(shared: &Shared, parts: &Parts, body: B) -> Response
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
    let answer = answer(shared, parts, body).await;
    let mut response = answer.unwrap_or_else(|error| error.response());
    response.headers_mut().insert(REQUEST_ID, request_id_among(&parts.headers));
    response
}

async fn answer<B>(shared: &Shared, parts: &Parts, body: B) -> Result<Response, Exception>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (base, id) = split(parts.uri.path()).ok_or_else(Exception::gone)?;
    let is_at = |state: &ApiState| {
        state.api.path == base || base.strip_prefix('/').is_some_and(|stage| stage == state.api.stage)
    };
    let apis: Vec<_> = shared.apis.iter().filter(|state| is_at(state)).collect();
    if apis.is_empty() {
        return Err(Exception::forbidden("no API has this stage"));
    }
    if !matches!(parts.method, Method::POST | Method::GET | Method::DELETE) {
        let kind = "MethodNotAllowedException";
        return Err(Exception::new(
            StatusCode::METHOD_NOT_ALLOWED,
            kind,
            "POST, GET and DELETE are answered",
        ));
    }
    let is_signed = is_signed(parts);
    if !is_signed && !shared.config.signatures_ignored {
        // Nobody's body is read who has not shown that it may send one.
        check_key(shared, parts).await?;
    }
    let body = take_body(body, MAX_MESSAGE_BYTES, &shared.config.intake).await.map_err(refused_body)?;
    let found = percent_decode(id).ok().and_then(|id| find(shared, &id));
    let member = found.filter(|member| apis.iter().any(|state| Arc::ptr_eq(state, &member.state)));
    if is_signed && !shared.config.signatures_ignored {
        // Without a connection it is about the first API of that path.
        let api = member.as_ref().map(|member| &member.state).or_else(|| apis.first().copied());
        let api = api.map(|state| &*state.api.name).unwrap_or_default();
        match &shared.config.signatures {
            Some(verifier) => verifier.verify(parts, &body, api)?,
            None => {
                let kind = "UnrecognizedClientException";
                return Err(Exception::new(StatusCode::FORBIDDEN, kind, "no access key is known here"));
            }
        }
    }
    let member = member.filter(|member| !member.is_closing()).ok_or_else(Exception::gone)?;
    match parts.method {
        Method::POST => match member.post(&body) {
            Ok(()) => Ok(json(StatusCode::OK, b"{}".to_vec())),
            Err(Unsent::Gone) => Err(Exception::gone()),
            Err(Unsent::Full) => {
                let message = "too much waits for the client already";
                Err(Exception::new(StatusCode::TOO_MANY_REQUESTS, "LimitExceededException", message))
            }
        },
        Method::GET => Ok(json(StatusCode::OK, shown(&member))),
        _ => close(&member, parts),
    }
}

fn find(shared: &Shared, id: &str) -> Option<Arc<Member>> {
    let key = parse_connection_id(id)?;
    shared.members.get(&key).map(|member| Arc::clone(&member))
}

fn is_signed(parts: &Parts) -> bool {
    let value = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.trim_start().starts_with("AWS4-HMAC-SHA256"))
}

/// A key of the broker's own has the right to manage all channels.
async fn check_key(shared: &Shared, parts: &Parts) -> Result<(), Exception> {
    let credentials = credentials_from(parts, &shared.config.token_sources);
    let shows_any =
        credentials.user.is_some() || credentials.token.is_some() || credentials.certificate.is_some();
    if !shows_any {
        let kind = "MissingAuthenticationTokenException";
        return Err(Exception::new(StatusCode::FORBIDDEN, kind, "the request is not signed"));
    }
    let principal = match credentials.authenticate(&*shared.authenticator, PROTOCOL).await {
        Ok(principal) => principal,
        Err(AuthError::Busy { .. } | AuthError::Unavailable(_)) => {
            let message = "the credentials cannot be checked now";
            let kind = "ServiceUnavailableException";
            return Err(Exception::new(StatusCode::SERVICE_UNAVAILABLE, kind, message));
        }
        Err(_) => {
            let kind = "UnrecognizedClientException";
            return Err(Exception::new(StatusCode::FORBIDDEN, kind, "nobody is known by these credentials"));
        }
    };
    let all = Filter::parse("**").map_err(|_| Exception::forbidden("no right to manage"))?;
    match principal.allows_all_of(Action::Manage, &all) {
        true => Ok(()),
        false => Err(Exception::forbidden("the key may not manage connections")),
    }
}

fn refused_body(error: BodyError) -> Exception {
    match error {
        BodyError::TooLarge { .. } => {
            let message = "a message has at most 128 KiB";
            Exception::new(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLargeException", message)
        }
        BodyError::Shed => {
            let message = "too many bodies are not whole yet";
            Exception::new(StatusCode::TOO_MANY_REQUESTS, "LimitExceededException", message)
        }
        error => Exception::new(StatusCode::BAD_REQUEST, "BadRequestException", error.to_string()),
    }
}

fn shown(member: &Member) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shown<'a> {
        connected_at: String,
        last_active_at: String,
        identity: Identity<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Identity<'a> {
        source_ip: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_agent: Option<&'a str>,
    }
    let facts = &member.facts;
    let shown = Shown {
        connected_at: envelope::timestamp(facts.connected_at_ms),
        last_active_at: envelope::timestamp(member.last_active_ms()),
        identity: Identity { source_ip: &facts.source_ip, user_agent: facts.user_agent.as_deref() },
    };
    // Texts in structs are always JSON.
    serde_json::to_vec(&shown).unwrap_or_default()
}

fn close(member: &Member, parts: &Parts) -> Result<Response, Exception> {
    let bad = |message: String| Exception::new(StatusCode::BAD_REQUEST, "BadRequestException", message);
    let (mut code, mut reason) = (1000, String::new());
    for parameter in parameters(parts.uri.query()) {
        let (name, value) = parameter.map_err(|error| bad(error.to_string()))?;
        match &*name {
            "code" => {
                let read = value.parse().ok().filter(|code| matches!(code, 1000 | 3000..=4999));
                code = read.ok_or_else(|| bad("`code` is 1000, or from 3000 to 4999".to_owned()))?;
            }
            "reason" if value.len() <= MAX_REASON_BYTES && !value.chars().any(char::is_control) => {
                reason = value.into_owned();
            }
            "reason" => return Err(bad(format!("`reason` has at most {MAX_REASON_BYTES} plain bytes"))),
            // SDKs may say more than is asked for.
            _ => {}
        }
    }
    if !member.close_with(Close::new(code, &reason, LeaveReason::Closed)) {
        return Err(Exception::gone());
    }
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_an_api_and_an_id() {
        for (path, expected) in [
            ("/dev/@connections/1f", Some(("/dev", "1f"))),
            ("/dev/%40connections/1f%3D", Some(("/dev", "1f%3D"))),
            ("/a/b/@connections/", Some(("/a/b", ""))),
            ("/@connections/1f", Some(("", "1f"))),
            ("/v1/connections/1f", None),
            ("/dev/@connections", None),
            ("/dev", None),
        ] {
            assert_eq!(split(path), expected, "{path}");
        }
    }
}
