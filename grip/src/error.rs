//! What is wrong with something that was sent, and where.

use std::borrow::Cow;

/// What was sent cannot be taken as it was meant.
///
/// As text it names the place and what is wrong with it: `Grip-Timeout: "soon" is not a number`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
#[non_exhaustive]
pub struct Malformed {
    /// A header's name, or the way to a member: `hold.channels[2].name`.
    pub place: Cow<'static, str>,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong in one place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It has to be there.
    #[error("is missing")]
    Missing,
    /// It is there, and has to say something.
    #[error("is empty")]
    Empty,
    /// Another type of JSON is needed.
    #[error("is not {0}")]
    Type(&'static str),
    /// It is none of the values that there are.
    #[error("{0:?} is not known")]
    Unknown(String),
    /// No number, or a negative one, or one too large.
    #[error("{0:?} is not a number")]
    Number(String),
    /// A status that no answer can have.
    #[error("{0:?} is not a status of an answer")]
    Status(String),
    /// More than there may be.
    #[error("more than {0}")]
    TooMany(usize),
    /// Longer than it may be, in bytes.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// A quoted text without its end, or something behind it.
    #[error("quotes do not match")]
    Quotes,
    /// An escape that is none.
    #[error("an escape is not known")]
    Escape,
    /// It is no base64.
    #[error("is not base64")]
    Base64,
    /// It is no UTF-8.
    #[error("is not UTF-8")]
    Utf8,
    /// It is no JSON.
    #[error("is not JSON: {0}")]
    Json(String),
    /// It is no link: `<URI>`.
    #[error("{0:?} is not a link")]
    Link(String),
    /// It is no name or value of a header.
    #[error("{0:?} cannot stand in a header")]
    Header(String),
    /// It is no name that a channel may have.
    #[error("{0:?} is not a name of a channel here")]
    Channel(String),
    /// A list of operations that is no JSON Patch (RFC 6902).
    #[error("is not a JSON Patch: {0}")]
    Patch(String),
    /// An instruction comes with 200 and no other status.
    #[error("came with status {0}, not 200")]
    NotOk(u16),
}

impl Malformed {
    /// Something wrong in a place.
    pub fn new(place: impl Into<Cow<'static, str>>, problem: Problem) -> Self {
        Self { place: place.into(), problem }
    }

    /// The same below another place.
    pub(crate) fn below(self, place: &str) -> Self {
        let joint = if self.place.is_empty() || self.place.starts_with('[') { "" } else { "." };
        Self { place: format!("{place}{joint}{}", self.place).into(), problem: self.problem }
    }
}
