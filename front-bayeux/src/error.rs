//! Errors and their wire answers, in one place.

use std::borrow::Cow;
use std::time::Duration;

use broker_core::{PublishError, SubscribeError};
use http::StatusCode;
use http_edge::{BodyError, Problem, UnknownCoding};

use crate::codec::message::ParseError;

/// Why a right was refused, in CometD's words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denial {
    /// The policy or the rights said no: `denied_by_security_policy`.
    Policy,
    /// Authorizers exist and none granted: `denied_by_not_granting`.
    NotGranted,
    /// A reason of the policy's own; no colon or control character belongs in it.
    Because(Cow<'static, str>),
    /// The words of who decides about clients of all protocols ([`broker_core::Policy`]), which are the whole text of the
    /// error: `403::WORDS`.
    Decided(Cow<'static, str>),
}

impl Denial {
    /// A policy's own words, without what would make two parts of the error of them.
    pub(crate) fn of(why: &str) -> Self {
        let plain = |c: char| if c == ':' || c.is_control() { ' ' } else { c };
        Denial::Decided(why.chars().map(plain).collect::<String>().into())
    }

    fn reason(&self) -> &str {
        match self {
            Denial::Policy => "denied_by_security_policy",
            Denial::NotGranted => "denied_by_not_granting",
            Denial::Because(reason) | Denial::Decided(reason) => reason,
        }
    }
}

/// A handshake that the policy refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeDenial {
    /// For good: the client is told not to come back (`advice.reconnect` is `none`).
    Refused,
    /// The same, and why, for the client.
    Denied(String),
    /// The client may shake hands again with better credentials (`handshake`).
    TryAgain,
    /// The credentials could not be checked just now; the client tries again after the interval.
    Unavailable,
    /// The same, as whoever decides does not answer.
    Undecided,
}

/// Why one message failed; its reply is `successful:false` with [`Fault::wire`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    VersionMismatch,
    NoCommonConnectionType,
    HandshakeDenied(HandshakeDenial),
    ChannelMissing,
    ChannelInvalid,
    /// The name holds a character that may not be published to.
    ChannelCharacter(char),
    MessageIdInvalid,
    /// This field came twice.
    FieldRepeated(&'static str),
    DataMissing,
    SessionUnknown,
    /// As unknown, but the server knows why it is gone.
    SessionLost(&'static str),
    SubscriptionMissing,
    SubscriptionInvalid,
    SubscribeDenied(Denial),
    CreateDenied(Denial),
    SubscribeFailed,
    TooManySubscriptions,
    /// Of a channel, or of what is subscribed to.
    TooManyLevels {
        max: usize,
    },
    FiltersFull,
    ReplayInvalid(String),
    ChannelCreateDenied(Denial),
    PublishDenied(Denial),
    MessageDeleted,
    MessageTooLarge {
        max: usize,
    },
    /// The `ext` of a message is.
    ExtTooLarge {
        max: usize,
    },
    ServiceUnhandled,
    /// In words of the embedding service's own.
    Refused(Cow<'static, str>),
    MultipleClients,
    Busy,
    /// The principal's rate is used up; it may go on after these milliseconds.
    RateLimited {
        retry_after_ms: u64,
    },
    TooManySessions,
    /// Whoever decides or keeps it does not answer; it may be tried again after these milliseconds.
    Unavailable {
        what: &'static str,
        retry_after_ms: u64,
    },
    /// Whether it was published is not known.
    OutcomeUnknown,
    Closed,
}

impl From<SubscribeError> for Fault {
    fn from(error: SubscribeError) -> Self {
        match error {
            SubscribeError::TooManyLevels { max, .. } => Fault::TooManyLevels { max },
            SubscribeError::FiltersFull { .. } => Fault::FiltersFull,
            SubscribeError::Forbidden(why) => Fault::SubscribeDenied(Denial::of(&why)),
            SubscribeError::Unavailable { what, retry_after } => Fault::unavailable(what, retry_after),
            // `TooManyChannels`, `Closed`, and what is not known here.
            _ => Fault::SubscribeFailed,
        }
    }
}

impl From<PublishError> for Fault {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::TooLarge { max, .. } => Fault::MessageTooLarge { max },
            PublishError::ChannelCharacter { character, .. } => Fault::ChannelCharacter(character),
            PublishError::TooManyLevels { max, .. } => Fault::TooManyLevels { max },
            PublishError::Busy { .. } => Fault::Busy,
            PublishError::Forbidden(why) => Fault::PublishDenied(Denial::of(&why)),
            PublishError::Unavailable { what, retry_after } => Fault::unavailable(what, retry_after),
            PublishError::Durable | PublishError::Unknown => Fault::OutcomeUnknown,
            PublishError::Closed => Fault::Closed,
            PublishError::ChannelTooLong { .. }
            | PublishError::TooManyChannels { .. }
            | PublishError::RetainedFull { .. } => Fault::ChannelCreateDenied(Denial::Policy),
            // What is not known here, in its own words.
            error => Fault::PublishDenied(Denial::of(&error.to_string())),
        }
    }
}

impl Fault {
    fn unavailable(what: &'static str, retry_after: Duration) -> Self {
        let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        Fault::Unavailable { what, retry_after_ms }
    }

    /// Whether a right was missing.
    pub(crate) fn is_denial(&self) -> bool {
        matches!(
            self,
            Fault::HandshakeDenied(_)
                | Fault::SubscribeDenied(_)
                | Fault::CreateDenied(_)
                | Fault::ChannelCreateDenied(_)
                | Fault::PublishDenied(_)
        )
    }

    /// Whether its sender is refused, for lack of a right or for its rate, rather than its message wrong: for the log.
    pub(crate) fn refuses_its_sender(&self) -> bool {
        self.is_denial() || matches!(self, Fault::RateLimited { .. })
    }

    /// `CCC:args:text` (Bayeux 1.0, "error"), with CometD Java's strings where it has one.
    pub(crate) fn wire(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Fault::VersionMismatch => "300::version_mismatch",
            Fault::NoCommonConnectionType => "301::connection_types_unsupported",
            Fault::HandshakeDenied(HandshakeDenial::Denied(why)) => {
                return format!("403::{}", Denial::of(why).reason()).into();
            }
            Fault::HandshakeDenied(HandshakeDenial::Undecided) => "503::policy_unavailable",
            Fault::HandshakeDenied(_) => "403::handshake_denied",
            Fault::ChannelMissing => "400::channel_missing",
            Fault::ChannelInvalid => "405::channel_invalid",
            Fault::ChannelCharacter(character) => {
                return format!("400:U+{:04X}:channel_invalid", u32::from(*character)).into();
            }
            Fault::MessageIdInvalid => "405::message_id_invalid",
            Fault::FieldRepeated(name) => return format!("400:{name}:field_repeated").into(),
            Fault::DataMissing => "400::data_missing",
            Fault::SessionUnknown => "402::session_unknown",
            Fault::SessionLost(why) => return format!("402:{why}:session_unknown").into(),
            Fault::SubscriptionMissing => "403::subscription_missing",
            Fault::SubscriptionInvalid => "403::subscription_invalid",
            Fault::SubscribeDenied(denial) => return denied(denial, "subscribe_denied"),
            Fault::CreateDenied(denial) => return denied(denial, "create_denied"),
            Fault::SubscribeFailed => "403::subscribe_failed",
            Fault::TooManySubscriptions => "403:too_many_subscriptions:subscribe_denied",
            Fault::TooManyLevels { max } => return format!("400:{max}:too_many_levels").into(),
            Fault::FiltersFull => "403:filters_full:subscribe_denied",
            Fault::ReplayInvalid(id) => {
                return format!("400::The replayId {{{id}}} you provided was invalid.  Please provide a valid ID, -2 to replay all events, or -1 to replay only new events.").into();
            }
            Fault::ChannelCreateDenied(denial) => return denied(denial, "channel_create_denied"),
            Fault::PublishDenied(denial) => return denied(denial, "publish_denied"),
            Fault::MessageDeleted => "404::message_deleted",
            Fault::MessageTooLarge { max } => return format!("413:{max}:message_too_large").into(),
            Fault::ExtTooLarge { max } => return format!("413:{max}:ext_too_large").into(),
            Fault::ServiceUnhandled => "404::service_unhandled",
            Fault::Refused(error) => return error.clone(),
            Fault::MultipleClients => "429::multiple_clients",
            Fault::Busy => "429::busy",
            Fault::RateLimited { retry_after_ms } => {
                return format!("429:{retry_after_ms}:rate_limited").into();
            }
            Fault::TooManySessions => "429::too_many_sessions",
            Fault::Unavailable { what, .. } => return format!("503::{what}_unavailable").into(),
            Fault::OutcomeUnknown => "503::outcome_unknown",
            Fault::Closed => "503::server_closing",
        })
    }
}

fn denied(denial: &Denial, text: &str) -> Cow<'static, str> {
    match denial {
        Denial::Decided(words) => format!("403::{words}").into(),
        Denial::Policy | Denial::NotGranted | Denial::Because(_) => {
            format!("403:{}:{text}", denial.reason()).into()
        }
    }
}

/// Why a whole request failed, before any message of it was looked at.
#[derive(Debug)]
pub(crate) enum RequestFault {
    Body(BodyError),
    Coding(UnknownCoding),
    Parse(ParseError),
    NoMessage,
    BadCallback,
    OriginDenied,
    TransportDenied,
    MethodNotAllowed,
    ContentType,
    Internal,
}

impl RequestFault {
    /// The HTTP answer.
    pub(crate) fn problem(&self) -> Problem {
        match self {
            RequestFault::Coding(coding) => coding.clone().into(),
            RequestFault::Body(BodyError::TooLarge { max }) => Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "request_too_large",
                format!("the request is larger than {max} bytes"),
            ),
            RequestFault::Body(BodyError::Stalled(_)) => {
                Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the request body stalled")
            }
            RequestFault::Body(error @ BodyError::TooSlow { .. }) => {
                Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", error.to_string())
            }
            RequestFault::Body(BodyError::Shed) => BodyError::Shed.into(),
            // `Io`, and what is not known here.
            RequestFault::Body(_) => {
                Problem::new(StatusCode::BAD_REQUEST, "incomplete_request", "the request body ended early")
            }
            RequestFault::Parse(ParseError::TooMany { max }) => Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_many_messages",
                format!("one request may hold {max} messages"),
            ),
            RequestFault::Parse(error) => {
                Problem::new(StatusCode::BAD_REQUEST, "invalid_messages", error.to_string())
            }
            RequestFault::NoMessage => Problem::new(
                StatusCode::BAD_REQUEST,
                "missing_message",
                "this is a Bayeux endpoint: POST JSON messages, or GET with `jsonp` and `message`",
            ),
            RequestFault::BadCallback => Problem::new(
                StatusCode::BAD_REQUEST,
                "invalid_callback",
                "`jsonp` must be at most 64 letters, digits and `. _ -`",
            ),
            RequestFault::OriginDenied => Problem::forbidden("this origin may not use the Bayeux endpoint"),
            RequestFault::TransportDenied => {
                Problem::new(StatusCode::BAD_REQUEST, "transport_denied", "this transport is switched off")
            }
            RequestFault::MethodNotAllowed => Problem::method_not_allowed("GET, POST, OPTIONS"),
            RequestFault::ContentType => Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "messages come as `application/json` or as a form",
            ),
            RequestFault::Internal => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "no_randomness",
                "the system gives no random numbers",
            ),
        }
    }
}
