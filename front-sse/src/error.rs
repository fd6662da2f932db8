//! Why a stream is refused, and how HTTP says it.

use std::borrow::Cow;
use std::time::Duration;

use broker_core::{AuthError, FilterError, SubscribeError};
use http::StatusCode;
use http_edge::{BadEncoding, BadParameter, BodyError, Problem, UnknownCoding};

/// The methods that the front answers.
pub(crate) const METHODS: &str = "GET, HEAD, POST, QUERY, OPTIONS";

/// A request that opens no stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("name a channel: /sse/{{filter}}, or /sse?channel=a&channel=b/*")]
    NoChannel,
    #[error("a channel cannot be read: {0}")]
    Encoding(BadEncoding),
    #[error(transparent)]
    Parameter(BadParameter),
    #[error("filter {text:?}: {error}")]
    Filter { text: String, error: FilterError },
    #[error("filter {text:?}: {error}")]
    TooManyLevels { text: String, error: SubscribeError },
    #[error("{count} filters on one stream, {max} are allowed")]
    TooManyFilters { count: usize, max: usize },
    #[error(
        "at least {messages} retained messages match ({bytes} bytes), more than wait for one stream: narrow the filter, or add retained=false"
    )]
    TooManyRetained { messages: usize, bytes: usize },
    #[error("format is `raw` or `json`, not {0:?}")]
    Format(String),
    #[error("`{name}` is `true` or `false`, not {value:?}")]
    Flag { name: &'static str, value: String },
    #[error("parameter `{0}`: unknown; known are channel, format, retained, last_event_id")]
    Unknown(String),
    #[error("`{0}` is given twice")]
    Twice(&'static str),
    #[error("{0:?} is not accepted here, send application/json")]
    MediaType(String),
    #[error(
        "the body is not an object with `channels` and perhaps `format`, `retained`, `last_event_id`: {0}"
    )]
    Json(String),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Coding(#[from] UnknownCoding),
    #[error("nothing is streamed at this path")]
    Path,
    #[error("only {METHODS} open a stream")]
    Method,
    #[error("pages of this origin may not subscribe")]
    Origin,
    #[error("no right to subscribe to {0:?}")]
    Forbidden(String),
    #[error("no right to subscribe to {0:?} without credentials")]
    Unidentified(String),
    #[error("{0}")]
    Denied(Cow<'static, str>),
    #[error("whoever decides about subscriptions does not answer")]
    Undecided(Duration),
    #[error(transparent)]
    Auth(#[from] AuthError),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        let (status, code) = match refusal {
            Refusal::NoChannel => (StatusCode::BAD_REQUEST, "channel_required"),
            Refusal::Encoding(_) | Refusal::Filter { .. } => (StatusCode::BAD_REQUEST, "invalid_filter"),
            Refusal::TooManyLevels { .. } => (StatusCode::BAD_REQUEST, "too_many_levels"),
            Refusal::TooManyFilters { .. } => (StatusCode::BAD_REQUEST, "too_many_filters"),
            Refusal::TooManyRetained { .. } => (StatusCode::BAD_REQUEST, "too_many_retained"),
            Refusal::Format(_) => (StatusCode::BAD_REQUEST, "invalid_format"),
            Refusal::Flag { .. } | Refusal::Parameter(_) | Refusal::Unknown(_) | Refusal::Twice(_) => {
                (StatusCode::BAD_REQUEST, "invalid_parameter")
            }
            Refusal::MediaType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Refusal::Json(_) => (StatusCode::BAD_REQUEST, "invalid_json"),
            Refusal::Body(error) => return error.into(),
            Refusal::Coding(error) => return error.into(),
            Refusal::Path => (StatusCode::NOT_FOUND, "not_found"),
            Refusal::Method => return Problem::method_not_allowed(METHODS),
            Refusal::Origin => (StatusCode::FORBIDDEN, "origin_not_allowed"),
            Refusal::Forbidden(_) | Refusal::Denied(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Refusal::Unidentified(_) => (StatusCode::UNAUTHORIZED, "credentials_required"),
            Refusal::Auth(error) => return error.into(),
            Refusal::Undecided(wait) => {
                let code = "policy_unavailable";
                return Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(wait);
            }
        };
        Problem::new(status, code, detail)
    }
}
