//! `/v1/webhooks` and `/v1/dead-letters`: webhooks for operators.

use std::sync::Arc;

use bytes::Bytes;
use envelope::{timestamp, write_string};
use front::{Front, Task};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_edge::{Body, Peer, Problem, Response, percent_decode, read_body};

use super::hook::Hook;
use super::settings::Written;
use super::webhooks::{PutError, Webhooks};
use crate::dead::{DeadLetter, Owner as _};
use crate::delivery::BreakerState;
use crate::resource::{Door, json, not_kept, nothing, only};

/// Most bytes of a webhook that is put.
const MAX_BYTES: usize = 64 << 10;

/// Most dead letters of one answer, and how many if nothing is said.
const MAX_PAGE: usize = 1000;
const PAGE: usize = 100;

/// The resources of webhooks, in front of the HTTP API. Everything needs the right `manage` on all channels.
#[derive(Clone)]
pub struct Api {
    webhooks: Webhooks,
    door: Door,
}

impl Api {
    /// For these webhooks.
    pub fn new(webhooks: Webhooks, door: Door) -> Self {
        Self { webhooks, door }
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        self.door.admit_manager(&parts).await?;
        let path = parts.uri.path().trim_start_matches("/v1/");
        let (resource, rest) = path.split_once('/').unwrap_or((path, ""));
        let decoded = |id| percent_decode(id).map_err(|error| invalid(error.to_string()));
        match (resource, rest) {
            ("webhooks", "") => self.list(&parts),
            ("webhooks", id) if !id.trim_end_matches('/').contains('/') => {
                let id = decoded(id.trim_end_matches('/'))?.into_owned();
                self.webhook(&parts, &id, body).await
            }
            ("dead-letters", "") => self.letters(&parts),
            // Ids of rules' events have slashes, which a client may encode or not, as in names of channels.
            ("dead-letters", id) => match (id.strip_suffix("/replay"), &parts.method) {
                (Some(id), &Method::POST) => self.replay(&decoded(id)?),
                (Some(_), _) if !self.is_letter(&decoded(id)?) => Err(Problem::method_not_allowed("POST")),
                _ => self.letter(&parts, &decoded(id)?),
            },
            _ => Err(Problem::not_found("nothing is here; webhooks have no more below them")),
        }
    }

    fn list(&self, parts: &Parts) -> Result<Response, Problem> {
        only(parts, &[Method::GET, Method::HEAD], "GET, HEAD")?;
        let mut out = b"{\"webhooks\":[".to_vec();
        for (at, hook) in self.webhooks.list().iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            show(hook, &mut out);
        }
        out.extend_from_slice(b"]}");
        Ok(json(StatusCode::OK, out))
    }

    async fn webhook(&self, parts: &Parts, id: &str, body: Body) -> Result<Response, Problem> {
        match parts.method {
            Method::GET | Method::HEAD => {
                let hook = self.find(id)?;
                let mut out = Vec::new();
                show(&hook, &mut out);
                Ok(json(StatusCode::OK, out))
            }
            Method::PUT => {
                let body = read_body(body, MAX_BYTES).await.map_err(Problem::from)?;
                let written = written(&body, id)?;
                // What an earlier life has left of it may have to be read.
                let webhooks = self.webhooks.clone();
                let put = tokio::task::spawn_blocking(move || webhooks.put_to_stay(&written)).await;
                let status = match put.map_err(|_| Problem::not_found("the webhook could not be started"))? {
                    Ok(true) => StatusCode::CREATED,
                    Ok(false) => StatusCode::OK,
                    Err(error) => {
                        let (status, code) = match error {
                            PutError::Address(_) => (StatusCode::BAD_REQUEST, "address_denied"),
                            PutError::Wrong(_) => (StatusCode::BAD_REQUEST, "invalid_webhook"),
                            PutError::TooMany => (StatusCode::CONFLICT, "too_many_webhooks"),
                        };
                        return Err(Problem::new(status, code, error.to_string()));
                    }
                };
                self.webhooks.kept().await.map_err(not_kept)?;
                let hook = self.find(id)?;
                let mut out = Vec::new();
                show(&hook, &mut out);
                Ok(json(status, out))
            }
            Method::DELETE => {
                let hook = self.webhooks.take_out(id);
                let hook = hook.ok_or_else(|| Problem::not_found("no webhook has this id"))?;
                // Another one that is put under its name does not find what was left.
                hook.kept().clear().await;
                self.webhooks.kept().await.map_err(not_kept)?;
                Ok(nothing(StatusCode::NO_CONTENT))
            }
            _ => Err(Problem::method_not_allowed("GET, HEAD, PUT, DELETE")),
        }
    }

    fn find(&self, id: &str) -> Result<Arc<Hook>, Problem> {
        let list = self.webhooks.list();
        let found = list.iter().find(|hook| hook.settings().id == id);
        found.cloned().ok_or_else(|| Problem::not_found("no webhook has this id"))
    }

    fn letters(&self, parts: &Parts) -> Result<Response, Problem> {
        only(parts, &[Method::GET, Method::HEAD], "GET, HEAD")?;
        let (mut hook, mut cursor, mut limit) = (None, None, PAGE);
        for (name, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            match &*name {
                "hook" => hook = Some(value.into_owned()),
                "cursor" => cursor = Some(value.into_owned()),
                "limit" => {
                    let wrong = || invalid(format!("limit: a number from 1 to {MAX_PAGE}"));
                    limit = value.parse().map_err(|_| wrong())?;
                    if !(1..=MAX_PAGE).contains(&limit) {
                        return Err(wrong());
                    }
                }
                other => return Err(invalid(format!("{other}: unknown; known are hook, cursor, limit"))),
            }
        }
        let owners = self.webhooks.owners();
        let mut found: Vec<DeadLetter> = Vec::new();
        // The hooks one after the other; a cursor is the id of a letter, which is of one of them.
        let mut after = cursor.as_deref();
        let letters = owners.iter().map(|owner| owner.dead_letters());
        for letters in letters.filter(|letters| hook.as_ref().is_none_or(|id| id == letters.owner())) {
            if let Some(id) = after {
                if !letters.has(id) {
                    continue;
                }
                found.extend(letters.page(Some(id), limit + 1));
                after = None;
            } else {
                found.extend(letters.page(None, (limit + 1).saturating_sub(found.len())));
            }
        }
        let next =
            (found.len() > limit).then(|| found.get(limit - 1).map(|letter| letter.id.clone())).flatten();
        found.truncate(limit);
        let mut out = b"{\"letters\":[".to_vec();
        for (at, letter) in found.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&letter.json());
        }
        out.extend_from_slice(b"],\"next\":");
        match next {
            Some(next) => write_string(&next, &mut out),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b'}');
        Ok(json(StatusCode::OK, out))
    }

    fn is_letter(&self, id: &str) -> bool {
        self.webhooks.owners().iter().any(|one| one.dead_letters().has(id))
    }

    fn letter(&self, parts: &Parts, id: &str) -> Result<Response, Problem> {
        let owners = self.webhooks.owners();
        match parts.method {
            Method::GET | Method::HEAD => {
                let found = owners.iter().find_map(|one| one.dead_letters().find(id));
                let letter = found.ok_or_else(no_letter)?;
                Ok(json(StatusCode::OK, letter.json()))
            }
            Method::DELETE => {
                let taken = owners.iter().find_map(|one| one.dead_letters().take(id));
                taken.map(|_| nothing(StatusCode::NO_CONTENT)).ok_or_else(no_letter)
            }
            _ => Err(Problem::method_not_allowed("GET, HEAD, DELETE")),
        }
    }

    fn replay(&self, id: &str) -> Result<Response, Problem> {
        for one in self.webhooks.owners() {
            if let Some(letter) = one.dead_letters().take(id) {
                one.replay(letter.again());
                return Ok(json(StatusCode::ACCEPTED, b"{}".to_vec()));
            }
        }
        Err(no_letter())
    }
}

impl Front for Api {
    fn name(&self) -> &'static str {
        "webhooks"
    }

    fn claims(&self, path: &str) -> bool {
        let below =
            |name: &str| path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        below("/v1/webhooks") || below("/v1/dead-letters")
    }

    fn handle(&self, peer: Option<Peer>, request: Request<Body>) -> Task<Response> {
        let api = self.clone();
        let request = front::with_peer(peer, request);
        Box::pin(async move { api.answer(request).await.unwrap_or_else(|problem| problem.response()) })
    }
}

fn invalid(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_parameter", detail)
}

fn no_letter() -> Problem {
    Problem::not_found("no dead letter has this id")
}

/// The id stands in the path, and may stand in the body.
fn written(body: &Bytes, id: &str) -> Result<Written, Problem> {
    let wrong = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "invalid_webhook", detail);
    let mut value: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| wrong(format!("the body is no JSON: {error}")))?;
    let Some(object) = value.as_object_mut() else { return Err(wrong("an object is a webhook".to_owned())) };
    if *object.entry("id").or_insert_with(|| id.into()) != id {
        return Err(wrong("`id` is another one than that of the path".to_owned()));
    }
    serde_json::from_value(value).map_err(|error| wrong(error.to_string()))
}

/// A webhook as it is shown: nothing of its secrets, and no values of its headers.
fn show(hook: &Hook, out: &mut Vec<u8>) {
    let (settings, load, counted) = (hook.settings(), hook.load(), hook.counted());
    let list = |out: &mut Vec<u8>, values: &mut dyn Iterator<Item = String>| {
        out.push(b'[');
        for (at, value) in values.enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_string(&value, out);
        }
        out.push(b']');
    };
    out.extend_from_slice(b"{\"id\":");
    write_string(&settings.id, out);
    out.extend_from_slice(b",\"url\":");
    write_string(&settings.url.to_string(), out);
    out.extend_from_slice(b",\"events\":");
    list(out, &mut settings.events.iter().map(|kind| kind.name().to_owned()));
    out.extend_from_slice(b",\"channels\":");
    list(out, &mut settings.channels.iter().map(ToString::to_string));
    out.extend_from_slice(b",\"headers\":");
    list(out, &mut settings.headers.iter().map(|(name, _)| name.to_string()));
    let state = match (load.is_closed, counted.breaker) {
        (true, _) => "gone",
        (false, _) if counted.is_denied => "failed",
        (false, BreakerState::Closed) => "open",
        (false, _) => "failing",
    };
    out.extend_from_slice(b",\"state\":");
    write_string(state, out);
    let (events, bytes, oldest) = (load.events, load.bytes, load.oldest.as_millis());
    let safe = hook.kept().is_safe();
    let queue = format!(
        ",\"queue\":{{\"events\":{events},\"bytes\":{bytes},\"oldest_ms\":{oldest},\"kept\":{safe}}}"
    );
    out.extend_from_slice(queue.as_bytes());
    out.extend_from_slice(
        format!(",\"dead_letters\":{},\"last_error\":", hook.dead_letters().len()).as_bytes(),
    );
    match counted.last_error {
        None => out.extend_from_slice(b"null"),
        Some((error, at_ms)) => {
            out.extend_from_slice(b"{\"error\":");
            write_string(&error, out);
            out.extend_from_slice(b",\"at\":");
            write_string(&timestamp(at_ms), out);
            out.push(b'}');
        }
    }
    out.push(b'}');
}
