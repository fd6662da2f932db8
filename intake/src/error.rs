//! What goes wrong with a publish, whatever front it came from.

use std::time::Duration;

use broker_core::{Channel, ChannelError, FilterError, Principal, PublishError, PublishOnceError};

/// A message, or one item of several, that was not published. A front says it in its own terms.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The principal has no right to it.
    #[error("no right to {action} {name:?}")]
    Forbidden {
        /// What was to be done, e.g. `publish to`.
        action: &'static str,
        /// The channel or filter.
        name: String,
    },
    /// The same of somebody who has shown no credentials, where some would have been looked at.
    #[error("no right to {action} {name:?} without credentials")]
    Unidentified {
        /// What was to be done.
        action: &'static str,
        /// The channel or filter.
        name: String,
    },
    /// The principal has used up its rate; when there is some again.
    #[error("the rate of these credentials is used up")]
    RateLimited(Duration),
    /// The credentials have ended since the request began.
    #[error("the credentials have expired while the request was held")]
    Expired,
    /// The configuration has changed since the request began, and would not let it in as it did.
    #[error("the rights of these credentials have changed while the request was held")]
    RightsChanged,
    /// What was named is no channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A channel that could not be subscribed to by its name, or that no text form has.
    #[error("channel {name:?} {why}")]
    Inexpressible {
        /// As it was given.
        name: String,
        /// Goes on where the name ends.
        why: &'static str,
    },
    /// A channel that only the broker publishes to.
    #[error("channel {:?} is the broker's own", .0.as_str())]
    Reserved(Channel),
    /// What was given is no filter.
    #[error("filter {text:?}: {error}")]
    Filter {
        /// As it was given.
        text: String,
        /// Why not.
        error: FilterError,
    },
    /// An option that cannot be.
    #[error("parameter `{name}`: {why}")]
    Option {
        /// Its name.
        name: &'static str,
        /// What is wrong with its value.
        why: String,
    },
    /// The text is not JSON.
    #[error("the body is not valid JSON: {0}")]
    Json(String),
    /// JSON that nests deeper than receivers can be expected to read; the bound.
    #[error("`data` nests deeper than {0} levels")]
    TooDeep(usize),
    /// JSON, but no item.
    #[error("{0}")]
    Item(&'static str),
    /// JSON, but no item: in the words of the parser.
    #[error("not an item: {0}")]
    Shape(String),
    /// JSON, but no CloudEvent.
    #[error("not a CloudEvent: {0}")]
    Event(String),
    /// An array of more than so many.
    #[error("more than {0} in one request")]
    TooMany(usize),
    /// The broker refused it.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// See [`PublishOnceError::Conflict`].
    #[error("the idempotency key was used with another message on this channel")]
    KeyConflict,
    /// See [`PublishOnceError::Full`].
    #[error("too many idempotency keys of yours are remembered")]
    KeysFull,
}

impl Error {
    /// `principal` may not do `action` to what is named. Who has shown no credentials is asked for some.
    pub fn forbidden(principal: &Principal, action: &'static str, name: impl ToString) -> Self {
        let name = name.to_string();
        if principal.is_unidentified() {
            return Error::Unidentified { action, name };
        }
        Error::Forbidden { action, name }
    }
}

impl From<PublishOnceError> for Error {
    fn from(error: PublishOnceError) -> Self {
        match error {
            PublishOnceError::Publish(error) => Error::Publish(error),
            PublishOnceError::Conflict => Error::KeyConflict,
            PublishOnceError::Full => Error::KeysFull,
            // What is not known here is refused in its own words.
            error => Error::Publish(PublishError::Forbidden(error.to_string().into())),
        }
    }
}
