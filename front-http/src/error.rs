//! What goes wrong, and how HTTP says it: one `code` per case, stable for clients.

use std::time::Duration;

use broker_core::{AuthError, ForcedError, Principal, PublishError, SendError, SubscribeError, Unavailable};
use http::StatusCode;
use http_edge::{BodyError, Problem, UnknownCoding};
use intake::Error as Refusal;

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
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Coding(#[from] UnknownCoding),
    #[error("{0:?} is not accepted here, send {1}")]
    MediaType(String, &'static str),
    #[error("parameter `{name}`: {why}")]
    Parameter { name: String, why: String },
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
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
    #[error("a revocation is `{{\"user\": \"NAME\"}}`")]
    Revocation,
    #[error("the connection has no subscription to {0:?}")]
    NotSubscribed(String),
    #[error("{max} clients watch the figures already, no more may")]
    TooManyWatchers { max: usize },
    #[error("the server is shutting down")]
    Closing,
    #[error("another node, which may have the connection, did not answer in time")]
    NodeSilent,
    #[error("the connection is not on this node, and no more than {max} bytes go to another")]
    TooLargeForNodes { max: usize },
    #[error("{}", .0.detail)]
    Elsewhere(Problem),
}

/// How long to wait where no better time is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Error {
    /// `principal` may not do `action` to what is named. Who has shown no credentials is asked for some.
    pub(crate) fn forbidden(principal: &Principal, action: &'static str, name: impl ToString) -> Self {
        Error::Refused(Refusal::forbidden(principal, action, name))
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
            Error::Revocation => (S::BAD_REQUEST, "invalid_revocation"),
            Error::Auth(error) => return error.into(),
            Error::Refused(error) => return not_published(&error, detail),
            Error::Body(error) => return error.into(),
            Error::Coding(error) => return error.into(),
            Error::MediaType(..) => (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Error::Parameter { .. } => (S::BAD_REQUEST, "invalid_parameter"),
            Error::Subscribe(error) => return not_subscribed(&error, detail),
            Error::Unavailable(Unavailable { retry_after, .. }) => {
                return not_now(STORE, retry_after, detail);
            }
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
            Error::TooManyWatchers { .. } => return unavailable("too_many_watchers", detail),
            Error::Closing => return unavailable("shutting_down", detail),
            Error::NodeSilent => return unavailable("node_silent", detail),
            Error::TooLargeForNodes { .. } => (S::PAYLOAD_TOO_LARGE, "message_too_large"),
            Error::Elsewhere(problem) => return problem,
            // What is not known here is refused in its own words.
            Error::Send(_) | Error::Forced(_) => return Problem::forbidden(detail),
        };
        Problem::new(status, code, detail)
    }
}

fn not_published(error: &Refusal, detail: String) -> Problem {
    use StatusCode as S;
    let (status, code) = match error {
        Refusal::Forbidden { .. } => (S::FORBIDDEN, "forbidden"),
        Refusal::Unidentified { .. } => (S::UNAUTHORIZED, "credentials_required"),
        Refusal::RateLimited(wait) => return Problem::rate_limited(*wait),
        Refusal::Expired => return Problem::credentials_expired(),
        Refusal::RightsChanged => return Problem::rights_changed(),
        Refusal::Channel(_) | Refusal::Inexpressible { .. } => (S::BAD_REQUEST, "invalid_channel"),
        Refusal::Reserved(_) => (S::FORBIDDEN, "reserved_channel"),
        Refusal::Filter { .. } => (S::BAD_REQUEST, "invalid_filter"),
        Refusal::Option { .. } => (S::BAD_REQUEST, "invalid_parameter"),
        Refusal::Json(_) => (S::BAD_REQUEST, "invalid_json"),
        Refusal::TooDeep(_) => (S::BAD_REQUEST, "json_too_deep"),
        Refusal::Item(_) | Refusal::Shape(_) => (S::BAD_REQUEST, "invalid_item"),
        Refusal::Event(_) => (S::UNPROCESSABLE_ENTITY, "invalid_event"),
        Refusal::TooMany(_) => (S::BAD_REQUEST, "too_many_items"),
        Refusal::Publish(error) => return refused(error, detail),
        Refusal::KeyConflict => (S::CONFLICT, "idempotency_mismatch"),
        Refusal::KeysFull => return unavailable("idempotency_full", detail),
        // What is not known here is refused in its own words.
        _ => return Problem::forbidden(detail),
    };
    Problem::new(status, code, detail)
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
        PublishError::Unavailable { what, retry_after } => not_now(what, *retry_after, detail),
        PublishError::Durable | PublishError::Unknown => unavailable("outcome_unknown", detail),
        PublishError::Closed => unavailable("shutting_down", detail),
        // `Forbidden`, and what is not known here.
        _ => Problem::forbidden(detail),
    }
}

fn not_subscribed(error: &SubscribeError, detail: String) -> Problem {
    match error {
        SubscribeError::TooManyLevels { .. } => {
            Problem::new(StatusCode::BAD_REQUEST, "too_many_levels", detail)
        }
        SubscribeError::FiltersFull { .. } | SubscribeError::TooManyGroups { .. } => {
            unavailable("filters_full", detail)
        }
        SubscribeError::TooManyChannels { .. } => unavailable("too_many_channels", detail),
        SubscribeError::Unavailable { what, retry_after } => not_now(what, *retry_after, detail),
        SubscribeError::Closed => unavailable("shutting_down", detail),
        // `Forbidden`, and what is not known here.
        _ => Problem::forbidden(detail),
    }
}

/// What broker-core calls the store.
const STORE: &str = "store";

/// Whoever has to be asked does not answer.
fn not_now(what: &str, retry_after: Duration, detail: String) -> Problem {
    let problem = if what == STORE {
        unavailable("store_unavailable", detail)
    } else {
        unavailable("policy_unavailable", detail)
    };
    problem.retry_after(retry_after)
}

fn unavailable(code: &'static str, detail: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(RETRY_AFTER)
}
