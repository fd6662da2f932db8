//! `/v1/sources` and `/v1/requests`: sources for operators, requests for backends.

use std::time::Duration;

use broker_core::{Action, Principal};
use bytes::Bytes;
use envelope::{timestamp, write_string};
use front::Task;
use gateway::resource::{Door, denied, json, manages_all, not_kept, nothing, only};
use http::request::Parts;
use http::{Method, Request, StatusCode, header};
use http_edge::{Body, Peer, Problem, Response, read_body};

use crate::request::{self, RequestError};
use crate::settings::Written;
use crate::source::{Source, Upstream};
use crate::sources::{PutError, Sources, Wish};

/// Most bytes of a source that is put.
const MAX_BYTES: usize = 64 << 10;
/// Most bytes of a request, and of a message for a WebSocket.
const MAX_BODY_BYTES: usize = 1 << 20;

/// The resources, in front of the HTTP API. Sources need the right `manage` on all channels; a request the rights
/// `request` and `publish` on its reply channel.
#[derive(Clone)]
pub struct Front {
    sources: Sources,
    door: Door,
}

impl Front {
    /// For these sources.
    pub fn new(sources: Sources, door: Door) -> Self {
        Self { sources, door }
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let segments: Vec<&str> = path.trim_start_matches("/v1/").trim_end_matches('/').split('/').collect();
        if let ["requests", rest @ ..] = &segments[..] {
            let principal = self.door.admit(&parts).await?;
            return match rest {
                [] => self.request(&parts, &principal, body).await,
                [id] => self.take_back(&parts, &principal, id),
                _ => Err(Problem::not_found("nothing is here; requests have nothing below them")),
            };
        }
        self.door.admit_manager(&parts).await?;
        match segments[..] {
            ["sources"] => self.list(&parts),
            ["sources", id] => self.source(&parts, id, body).await,
            ["sources", id, "messages"] => self.send(&parts, id, body).await,
            ["sources", id, "pause"] => self.wish(&parts, id, Wish::Rest).await,
            ["sources", id, "resume"] => self.wish(&parts, id, Wish::GoOn).await,
            _ => {
                Err(Problem::not_found("nothing is here; sources have messages, pause and resume below them"))
            }
        }
    }

    fn list(&self, parts: &Parts) -> Result<Response, Problem> {
        only(parts, &[Method::GET, Method::HEAD], "GET, HEAD")?;
        let mut out = b"{\"sources\":[".to_vec();
        for (at, source) in self.sources.list().iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            show(source, &mut out);
        }
        out.extend_from_slice(b"]}");
        Ok(json(StatusCode::OK, out))
    }

    async fn source(&self, parts: &Parts, id: &str, body: Body) -> Result<Response, Problem> {
        let status = match parts.method {
            Method::GET | Method::HEAD => StatusCode::OK,
            Method::PUT => {
                let body = read_body(body, MAX_BYTES).await.map_err(Problem::from)?;
                let status = match self.sources.put_to_stay(&written(&body, id)?) {
                    Ok(true) => StatusCode::CREATED,
                    Ok(false) => StatusCode::OK,
                    Err(error) => {
                        let (status, code) = match error {
                            PutError::Address(_) => (StatusCode::BAD_REQUEST, "address_denied"),
                            PutError::Wrong(_) => (StatusCode::BAD_REQUEST, "invalid_source"),
                            PutError::TooMany => (StatusCode::CONFLICT, "too_many_sources"),
                        };
                        return Err(Problem::new(status, code, error.to_string()));
                    }
                };
                self.sources.kept().await.map_err(not_kept)?;
                status
            }
            Method::DELETE if self.sources.remove(id) => {
                self.sources.kept().await.map_err(not_kept)?;
                return Ok(nothing(StatusCode::NO_CONTENT));
            }
            Method::DELETE => return Err(no_source()),
            _ => return Err(Problem::method_not_allowed("GET, HEAD, PUT, DELETE")),
        };
        let mut out = Vec::new();
        show(&*self.sources.find(id).ok_or_else(no_source)?, &mut out);
        Ok(json(status, out))
    }

    async fn send(&self, parts: &Parts, id: &str, body: Body) -> Result<Response, Problem> {
        only(parts, &[Method::POST], "POST")?;
        let source = self.sources.find(id).ok_or_else(no_source)?;
        let not_open =
            || Problem::new(StatusCode::CONFLICT, "not_open", "the source is no WebSocket that is open");
        let upstream = source.upstream().ok_or_else(not_open)?;
        let body = read_body(body, MAX_BODY_BYTES).await.map_err(Problem::from)?;
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_binary = kind.is_some_and(|kind| kind.starts_with("application/octet-stream"));
        let message = match String::from_utf8(body.to_vec()) {
            Ok(text) if !is_binary => Upstream::Text(text),
            _ => Upstream::Binary(body),
        };
        upstream.try_send(message).map_err(|error| match error {
            tokio::sync::mpsc::error::TrySendError::Closed(_) => not_open(),
            tokio::sync::mpsc::error::TrySendError::Full(_) => {
                let detail = "as many messages wait for the source as may";
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail)
                    .retry_after(Duration::from_secs(1))
            }
        })?;
        Ok(nothing(StatusCode::ACCEPTED))
    }

    async fn wish(&self, parts: &Parts, id: &str, wish: Wish) -> Result<Response, Problem> {
        only(parts, &[Method::POST], "POST")?;
        let source = self.sources.find(id).filter(|_| self.sources.wish(id, wish)).ok_or_else(no_source)?;
        self.sources.kept().await.map_err(not_kept)?;
        let mut out = Vec::new();
        show(&source, &mut out);
        Ok(json(StatusCode::OK, out))
    }

    async fn request(&self, parts: &Parts, principal: &Principal, body: Body) -> Result<Response, Problem> {
        only(parts, &[Method::POST], "POST")?;
        let body = read_body(body, MAX_BODY_BYTES).await.map_err(Problem::from)?;
        let wrong = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "invalid_request", detail);
        let written: request::Written =
            serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?;
        let settings = written.settings().map_err(wrong)?;
        let channel = &settings.reply_channel;
        if !principal.allows(Action::Request, channel) || !principal.allows(Action::Publish, channel) {
            return Err(denied(principal, "no right to request and publish on the reply channel"));
        }
        let owner = principal.user().unwrap_or_default();
        let id = self.sources.requests().take(owner, settings).map_err(|error| {
            let detail = error.to_string();
            match error {
                RequestError::Policy(_) => Problem::new(StatusCode::FORBIDDEN, "policy", detail),
                RequestError::Conflict => Problem::new(StatusCode::CONFLICT, "idempotency_conflict", detail),
                RequestError::TooMany => Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail)
                    .retry_after(Duration::from_secs(1)),
            }
        })?;
        let mut out = b"{\"id\":".to_vec();
        write_string(&id, &mut out);
        out.push(b'}');
        Ok(json(StatusCode::ACCEPTED, out))
    }

    fn take_back(&self, parts: &Parts, principal: &Principal, id: &str) -> Result<Response, Problem> {
        only(parts, &[Method::DELETE], "DELETE")?;
        let manages = manages_all(principal);
        let own = principal.user().unwrap_or_default();
        if self.sources.requests().cancel(id, |owner| manages || (owner == own && !own.is_empty())) {
            Ok(nothing(StatusCode::NO_CONTENT))
        } else {
            Err(Problem::not_found("no request of yours that is under way has this id"))
        }
    }
}

impl front::Front for Front {
    fn name(&self) -> &'static str {
        "sources"
    }

    fn claims(&self, path: &str) -> bool {
        let below =
            |name: &str| path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        below("/v1/sources") || below("/v1/requests")
    }

    fn handle(&self, peer: Option<Peer>, request: Request<Body>) -> Task<Response> {
        let front = self.clone();
        let request = front::with_peer(peer, request);
        Box::pin(async move { front.answer(request).await.unwrap_or_else(|problem| problem.response()) })
    }

    fn holds(&self, _: &http::Uri) -> bool {
        false
    }
}

fn no_source() -> Problem {
    Problem::not_found("no source has this id")
}

/// The id stands in the path, and may stand in the body.
fn written(body: &Bytes, id: &str) -> Result<Written, Problem> {
    let wrong = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "invalid_source", detail);
    let mut value: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| wrong(format!("the body is no JSON: {error}")))?;
    let Some(object) = value.as_object_mut() else { return Err(wrong("an object is a source".to_owned())) };
    if *object.entry("id").or_insert_with(|| id.into()) != id {
        return Err(wrong("`id` is another one than that of the path".to_owned()));
    }
    serde_json::from_value(value).map_err(|error| wrong(error.to_string()))
}

/// A source as it is shown: nothing of its headers' values and its body.
fn show(source: &Source, out: &mut Vec<u8>) {
    let (settings, state) = (source.settings(), source.state());
    for (member, value) in [
        ("{\"id\":", settings.id.as_str()),
        (",\"kind\":", settings.kind.name()),
        (",\"url\":", &settings.url.to_string()),
        (",\"state\":", state.phase.name()),
        (",\"since\":", &timestamp(state.since_ms)),
    ] {
        out.extend_from_slice(member.as_bytes());
        write_string(value, out);
    }
    out.extend_from_slice(format!(",\"attempts\":{},\"last_id\":", state.attempts).as_bytes());
    match &state.last_id {
        Some(id) => write_string(id, out),
        None => out.extend_from_slice(b"null"),
    }
    let counts = format!(",\"received\":{},\"dropped\":{},\"error\":", state.received, state.dropped);
    out.extend_from_slice(counts.as_bytes());
    match &state.error {
        Some((condition, detail)) => {
            out.extend_from_slice(b"{\"condition\":");
            write_string(condition.name(), out);
            out.extend_from_slice(b",\"detail\":");
            write_string(detail, out);
            out.push(b'}');
        }
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}
