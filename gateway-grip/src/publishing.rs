//! `POST /grip/publish/`: what backends send with libraries for GRIP.

use broker_core::{Action, AuthError, Authenticator, Client, Filter, Principal, PublishError, SourceKind};
use bytes::Bytes;
use grip::publish::{Item, parse};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Method, StatusCode};
use http_edge::{
    Body, BodyError, BoxError, Decoded, Intake, OriginPolicy, Peer, Response, TokenSources, credentials_from,
    take_body,
};
use std::sync::Arc;
use std::time::Duration;

use crate::desk::{Desk, Outcome, Unpublished};
use crate::hold::Holds;
use crate::keys::{self, ControlKey};

/// Where all of it is.
pub(crate) const PATH: &str = "/grip";

/// What the resource needs beside the keys, which may change.
pub(crate) struct Publishing {
    pub(crate) desk: Arc<Desk>,
    pub(crate) holds: Holds,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) max_request_bytes: usize,
    pub(crate) intake: Intake,
    pub(crate) token_sources: TokenSources,
    pub(crate) origins: OriginPolicy,
}

/// A refusal in a sentence, as these libraries show it.
struct Refusal {
    status: StatusCode,
    why: String,
    wait: Option<Duration>,
}

impl Refusal {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), wait: None }
    }

    fn later(status: StatusCode, why: impl Into<String>, wait: Duration) -> Self {
        Self { status, why: why.into(), wait: Some(wait) }
    }

    fn response(self) -> Response {
        let mut response = text(self.status, format!("{}\n", self.why));
        let headers = response.headers_mut();
        if let Some(wait) = self.wait {
            headers.insert(RETRY_AFTER, HeaderValue::from((wait.as_secs_f64().ceil() as u64).max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(http::header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

fn text(status: StatusCode, text: String) -> Response {
    let mut response = http::Response::new(Body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Publishing {
    /// Answers a request at [`PATH`] or below; `rest` is what stands behind it.
    pub(crate) async fn answer<B>(&self, keys: &[ControlKey], parts: &Parts, rest: &str, body: B) -> Response
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let answered = match rest.trim_matches('/') {
            _ if !self.origins.allows(parts) => {
                Err(Refusal::new(StatusCode::FORBIDDEN, "not for pages of other sites"))
            }
            "" => Ok(text(StatusCode::OK, "Items of GRIP are published at publish/.\n".to_owned())),
            "publish" if parts.method != Method::POST => {
                Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "items are sent by POST"))
            }
            "publish" => self.publish(keys, parts, body).await,
            "recover" if parts.method != Method::POST => {
                Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "streams are recovered by POST"))
            }
            "recover" => self.recover(keys, parts).await,
            _ => Err(Refusal::new(StatusCode::NOT_FOUND, "items are published at publish/")),
        };
        answered.unwrap_or_else(Refusal::response)
    }

    /// The same on the port for it, which is for backends: no page has business there, whatever it calls the server.
    pub(crate) async fn control<B>(&self, keys: &[ControlKey], parts: &Parts, rest: &str, body: B) -> Response
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        if parts.headers.contains_key(ORIGIN) || parts.headers.contains_key("sec-fetch-site") {
            return Refusal::new(StatusCode::FORBIDDEN, "not for pages").response();
        }
        self.answer(keys, parts, rest, body).await
    }

    async fn publish<B>(&self, keys: &[ControlKey], parts: &Parts, body: B) -> Result<Response, Refusal>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let principal = self.principal(keys, parts).await?;
        let body = Decoded::new(&parts.headers, body)
            .map_err(|error| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string()))?;
        let body = take_body(body, self.max_request_bytes, &self.intake).await.map_err(|error| {
            let status = match error {
                BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                BodyError::Shed => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_REQUEST,
            };
            Refusal::new(status, error.to_string())
        })?;
        let listed =
            parse(&body).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        let items: Vec<(Item, &str)> = listed.into_iter().map(|one| (one.item, one.text)).collect();
        let mut client = Client::new(&principal, "grip");
        client.remote = Peer::of(&parts.extensions).map(|peer| peer.0.ip());
        let outcomes = self.desk.publish(&client, &principal, &items).await.map_err(refused)?;
        Ok(match wants_json(parts) {
            true => results(&items, &outcomes),
            false => text(StatusCode::OK, "Published\n".to_owned()),
        })
    }

    /// Has the links of all streams asked; answered at once.
    async fn recover(&self, keys: &[ControlKey], parts: &Parts) -> Result<Response, Refusal> {
        let principal = self.principal(keys, parts).await?;
        let credentials = credentials_from(parts, &self.token_sources);
        let may_manage = Filter::parse("**").is_ok_and(|all| principal.allows_filter(Action::Manage, &all));
        if keys::find(keys, &credentials).is_none() && !may_manage {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "for keys of GRIP, and whoever manages all"));
        }
        let holds = self.holds.clone();
        tokio::spawn(async move { holds.recover().await });
        Ok(text(StatusCode::OK, "Recovering\n".to_owned()))
    }

    /// Who publishes: by a key of GRIP, else as anybody who comes to the broker.
    async fn principal(&self, keys: &[ControlKey], parts: &Parts) -> Result<Principal, Refusal> {
        let credentials = credentials_from(parts, &self.token_sources);
        if let Some(principal) = keys::find(keys, &credentials) {
            return Ok(principal);
        }
        let known = credentials.authenticate(&*self.authenticator, "grip").await;
        let principal = known.map_err(|error| match error {
            AuthError::Busy { retry_after } | AuthError::Undecided { retry_after } => {
                let why = "the credentials cannot be checked now";
                Refusal::later(StatusCode::SERVICE_UNAVAILABLE, why, retry_after)
            }
            AuthError::Unavailable(_) => {
                let why = "the credentials cannot be checked now";
                Refusal::later(StatusCode::SERVICE_UNAVAILABLE, why, Duration::from_secs(1))
            }
            AuthError::Denied(_) => Refusal::new(StatusCode::FORBIDDEN, "it is denied"),
            _ => Refusal::new(StatusCode::UNAUTHORIZED, "nobody is known by these credentials"),
        })?;
        // Where there are keys, whoever comes does not publish because nothing else is configured.
        let is_anybody = matches!(principal.source().kind, SourceKind::Anonymous | SourceKind::Other);
        if !keys.is_empty() && principal.user().is_none() && is_anybody {
            return Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "a key of gateway.grip.control_keys is needed",
            ));
        }
        Ok(principal)
    }
}

fn refused(error: Unpublished) -> Refusal {
    let of = |index: usize, why: &str| format!("items[{index}]: {why}");
    match error {
        Unpublished::Forbidden { index, is_unidentified: true } => {
            Refusal::new(StatusCode::UNAUTHORIZED, of(index, "no right to publish without credentials"))
        }
        Unpublished::Forbidden { index, .. } => {
            Refusal::new(StatusCode::FORBIDDEN, of(index, "no right to publish to this channel"))
        }
        Unpublished::Denied { index, why } => Refusal::new(StatusCode::FORBIDDEN, of(index, &why)),
        Unpublished::Wrong { index, why } => Refusal::new(StatusCode::BAD_REQUEST, of(index, &why)),
        Unpublished::TooFast(wait) => {
            Refusal::later(StatusCode::TOO_MANY_REQUESTS, "the rate of these credentials is used up", wait)
        }
        Unpublished::Later { why, wait } => Refusal::later(StatusCode::SERVICE_UNAVAILABLE, why, wait),
        Unpublished::Refused(error) => {
            let why = error.to_string();
            match error {
                PublishError::Busy { retry_after } => {
                    Refusal::later(StatusCode::TOO_MANY_REQUESTS, why, retry_after)
                }
                PublishError::TooLarge { .. } => Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, why),
                PublishError::ChannelTooLong { .. }
                | PublishError::ChannelCharacter { .. }
                | PublishError::TooManyLevels { .. } => Refusal::new(StatusCode::BAD_REQUEST, why),
                _ => Refusal::later(StatusCode::SERVICE_UNAVAILABLE, why, Duration::from_secs(1)),
            }
        }
    }
}

fn wants_json(parts: &Parts) -> bool {
    let accepted = parts.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let media = range.split(';').next().unwrap_or_default().trim();
        media.eq_ignore_ascii_case("application/json")
    })
}

fn results(items: &[(Item, &str)], outcomes: &[Outcome]) -> Response {
    let mut out = b"{\"message\":\"Published\",\"results\":[".to_vec();
    for (at, ((item, _), outcome)) in items.iter().zip(outcomes).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"id\":");
        match &item.id {
            Some(id) => envelope::write_string(id, &mut out),
            None => out.extend_from_slice(b"null"),
        }
        let Outcome { receivers, is_duplicate } = outcome;
        out.extend_from_slice(
            format!(",\"receivers\":{receivers},\"duplicate\":{is_duplicate}}}").as_bytes(),
        );
    }
    out.extend_from_slice(b"]}");
    let mut response = http::Response::new(Body::full(out));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
