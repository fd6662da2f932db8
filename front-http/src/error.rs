//! What goes wrong, and how HTTP says it: one `code` per case, stable for clients.

use std::time::Duration;

use broker_core::{
    AuthError, Channel, ChannelError, FilterError, ForcedError, Principal, PublishError, PublishOnceError,
    SendError, SubscribeError,
};
use http::StatusCode;
use http_edge::{BodyError, Problem, UnknownCoding};

/// A request, or one item of a batch, that was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("nothing is at this path")]
    NotFound,
    #[error("this resource answers {0}")]
    Method(&'static str),
    #[error("pages of this origin may not call the API")]
    Origin,
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("no right to {action} {name:?}")]
    Forbidden { action: &'static str, name: String },
    #[error("no right to {action} {name:?} without credentials")]
    Unidentified { action: &'static str, name: String },
    #[error("the rate of these credentials is used up")]
    RateLimited(Duration),
    #[error("the credentials have expired while the request was held")]
    Expired,
    #[error("the rights of these credentials have changed while the request was held")]
    RightsChanged,
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Coding(#[from] UnknownCoding),
    #[error("{0:?} is not accepted here, send {1}")]
    MediaType(String, &'static str),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("channel {name:?} {why}")]
    Inexpressible { name: String, why: &'static str },
    #[error("channel {:?} is the broker's own", .0.as_str())]
    Reserved(Channel),
    #[error("filter {text:?}: {error}")]
    Filter { text: String, error: FilterError },
    #[error("parameter `{name}`: {why}")]
    Parameter { name: String, why: String },
    #[error("the body is not valid JSON: {0}")]
    Json(String),
    #[error("`data` nests deeper than {0} levels")]
    TooDeep(usize),
    #[error("{0}")]
    Item(&'static str),
    #[error("not an item: {0}")]
    Shape(String),
    #[error("not a CloudEvent: {0}")]
    Event(String),
    #[error("more than {0} in one request")]
    TooMany(usize),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    #[error(transparent)]
    PublishOnce(#[from] PublishOnceError),
    #[error("no message is retained on {0:?}")]
    NotRetained(String),
    #[error("channel {0:?} is not in use")]
    NotInUse(String),
    #[error("no such connection is open")]
    Gone,
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Forced(#[from] ForcedError),
    #[error("the connection has no subscription to {0:?}")]
    NotSubscribed(String),
}

/// How long to wait where no better time is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Error {
    /// `principal` may not do `action` to what is named. Who has shown no credentials is asked for some.
    pub(crate) fn forbidden(principal: &Principal, action: &'static str, name: impl ToString) -> Self {
        let name = name.to_string();
        if principal.is_unidentified() {
            return Error::Unidentified { action, name };
        }
        Error::Forbidden { action, name }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        use StatusCode as S;
        let detail = error.to_string();
        let (status, code) = match error {
            Error::NotFound => (S::NOT_FOUND, "not_found"),
            Error::Method(allow) => return Problem::method_not_allowed(allow),
            Error::Origin => (S::FORBIDDEN, "origin_not_allowed"),
            Error::Auth(error) => return error.into(),
            Error::Forbidden { .. } => (S::FORBIDDEN, "forbidden"),
            Error::Unidentified { .. } => (S::UNAUTHORIZED, "credentials_required"),
            Error::RateLimited(wait) => return Problem::rate_limited(wait),
            Error::Expired => return Problem::credentials_expired(),
            Error::RightsChanged => return Problem::rights_changed(),
            Error::Body(error) => return error.into(),
            Error::Coding(error) => return error.into(),
            Error::MediaType(..) => (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Error::Channel(_) | Error::Inexpressible { .. } => (S::BAD_REQUEST, "invalid_channel"),
            Error::Reserved(_) => (S::FORBIDDEN, "reserved_channel"),
            Error::Filter { .. } => (S::BAD_REQUEST, "invalid_filter"),
            Error::Parameter { .. } => (S::BAD_REQUEST, "invalid_parameter"),
            Error::Json(_) => (S::BAD_REQUEST, "invalid_json"),
            Error::TooDeep(_) => (S::BAD_REQUEST, "json_too_deep"),
            Error::Item(_) | Error::Shape(_) => (S::BAD_REQUEST, "invalid_item"),
            Error::Event(_) => (S::UNPROCESSABLE_ENTITY, "invalid_event"),
            Error::TooMany(_) => (S::BAD_REQUEST, "too_many_items"),
            Error::Publish(error) => return refused(&error, detail),
            Error::Subscribe(error) => return not_subscribed(&error, detail),
            Error::PublishOnce(PublishOnceError::Publish(error)) => return refused(&error, detail),
            Error::PublishOnce(PublishOnceError::Conflict) => (S::CONFLICT, "idempotency_mismatch"),
            Error::PublishOnce(PublishOnceError::Full) => return unavailable("idempotency_full", detail),
            Error::NotRetained(_) => (S::NOT_FOUND, "not_retained"),
            Error::NotInUse(_) => (S::NOT_FOUND, "channel_not_found"),
            Error::Gone | Error::Send(SendError::Gone) | Error::Forced(ForcedError::Gone) => {
                (S::GONE, "gone")
            }
            Error::Send(SendError::Full) => {
                return Problem::new(S::TOO_MANY_REQUESTS, "buffer_full", detail).retry_after(RETRY_AFTER);
            }
            Error::Send(SendError::TooLarge { .. }) => (S::PAYLOAD_TOO_LARGE, "message_too_large"),
            Error::Send(SendError::Inexpressible) | Error::Forced(ForcedError::Inexpressible) => {
                (S::UNPROCESSABLE_ENTITY, "inexpressible")
            }
            Error::Forced(ForcedError::TooMany { .. }) => (S::CONFLICT, "too_many_subscriptions"),
            Error::Forced(ForcedError::Broker(error)) => return not_subscribed(&error, detail),
            Error::NotSubscribed(_) => (S::NOT_FOUND, "not_subscribed"),
        };
        Problem::new(status, code, detail)
    }
}

fn refused(error: &PublishError, detail: String) -> Problem {
    match error {
        PublishError::TooLarge { .. } => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "message_too_large", detail)
        }
        PublishError::ChannelTooLong { .. } | PublishError::ChannelCharacter { .. } => {
            Problem::new(StatusCode::BAD_REQUEST, "invalid_channel", detail)
        }
        PublishError::TooManyLevels { .. } => {
            Problem::new(StatusCode::BAD_REQUEST, "too_many_levels", detail)
        }
        PublishError::Busy { retry_after } => {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail).retry_after(*retry_after)
        }
        PublishError::TooManyChannels { .. } => unavailable("too_many_channels", detail),
        PublishError::RetainedFull { .. } => unavailable("retained_full", detail),
        PublishError::Closed => unavailable("shutting_down", detail),
    }
}

fn not_subscribed(error: &SubscribeError, detail: String) -> Problem {
    match error {
        SubscribeError::TooManyLevels { .. } => {
            Problem::new(StatusCode::BAD_REQUEST, "too_many_levels", detail)
        }
        SubscribeError::FiltersFull { .. } => unavailable("filters_full", detail),
        SubscribeError::TooManyChannels { .. } => unavailable("too_many_channels", detail),
        SubscribeError::Closed => unavailable("shutting_down", detail),
    }
}

fn unavailable(code: &'static str, detail: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(RETRY_AFTER)
}
