//! Resources in front of the HTTP API: who may ask, and what answers look like.

use std::fmt;
use std::sync::Arc;

use broker_core::{Action, Authenticator, Filter, Principal, Unavailable};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use http_edge::{Body, OriginPolicy, Problem, Response, TokenSources, credentials_from};

/// Lets in whoever asks. What it goes by is what the HTTP API has.
#[derive(Clone)]
pub struct Door {
    authenticator: Arc<dyn Authenticator>,
    origins: OriginPolicy,
    token_sources: TokenSources,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Door {
    /// By these.
    pub fn new(
        authenticator: Arc<dyn Authenticator>,
        origins: OriginPolicy,
        token_sources: TokenSources,
    ) -> Self {
        Self { authenticator, origins, token_sources }
    }

    /// Who asks. One request of its rate is taken.
    ///
    /// # Errors
    /// 403 for pages of other sites, 401, 429, and 503 where nobody can decide.
    pub async fn admit(&self, parts: &Parts) -> Result<Principal, Problem> {
        if !self.origins.allows(parts) {
            return Err(Problem::forbidden("not for pages of other sites"));
        }
        let credentials = credentials_from(parts, &self.token_sources);
        let principal =
            credentials.authenticate(&*self.authenticator, "http").await.map_err(Problem::from)?;
        principal.admit(1).map_err(Problem::rate_limited)?;
        Ok(principal)
    }

    /// As [`admit`](Self::admit), of whoever may manage every channel.
    ///
    /// # Errors
    /// The same, and 403 for others; 401 for who has said nothing of itself.
    pub async fn admit_manager(&self, parts: &Parts) -> Result<Principal, Problem> {
        let principal = self.admit(parts).await?;
        if manages_all(&principal) {
            Ok(principal)
        } else {
            Err(denied(&principal, "no right to manage all channels"))
        }
    }
}

/// Whether somebody may manage every channel.
pub fn manages_all(principal: &Principal) -> bool {
    Filter::parse("**").is_ok_and(|all| principal.allows_all_of(Action::Manage, &all))
}

/// What somebody without a right is told: who has said nothing of itself, to do so.
pub fn denied(principal: &Principal, why: &'static str) -> Problem {
    if principal.is_unidentified() {
        Problem::new(StatusCode::UNAUTHORIZED, "credentials_required", "this needs credentials")
    } else {
        Problem::forbidden(why)
    }
}

/// What was asked for holds, and a crash would forget it, as the store takes nothing now.
pub fn not_kept(unavailable: Unavailable) -> Problem {
    let detail = "it holds, and the store does not take it now: say it again";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", detail)
        .retry_after(unavailable.retry_after)
}

/// Only these methods, which `names` lists for the answer to others.
///
/// # Errors
/// 405.
pub fn only(parts: &Parts, methods: &[Method], names: &'static str) -> Result<(), Problem> {
    if methods.contains(&parts.method) { Ok(()) } else { Err(Problem::method_not_allowed(names)) }
}

/// JSON, which nobody keeps.
pub fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A status alone.
pub fn nothing(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
