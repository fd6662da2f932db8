//! The parameters of an address. What a service does not know it passes over, as AWS does.

use std::borrow::Cow;
use std::str::FromStr;

use http_edge::percent_decode;

use crate::error::AwsError;

/// Names and values, decoded. A `+` is itself, as in what was signed.
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(crate) fn read(query: Option<&'a str>) -> Result<Self, AwsError> {
        let decode = |text: &'a str| {
            percent_decode(text)
                .map_err(|why| AwsError::invalid(format!("a parameter cannot be read: {why}")))
        };
        let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
        let pair = |part: &'a str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decode(name)?, decode(value)?))
        };
        parts.map(pair).collect::<Result<Vec<_>, _>>().map(Self)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// A number from `min` to `max`.
    pub(crate) fn number<N: FromStr + PartialOrd + std::fmt::Display>(
        &self,
        name: &str,
        min: N,
        max: N,
    ) -> Result<Option<N>, AwsError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| *number >= min && *number <= max);
        let wrong = || AwsError::invalid(format!("`{name}` is not a number from {min} to {max}"));
        number.map(Some).ok_or_else(wrong)
    }

    /// `true` or `false`; what is not said is not so.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, AwsError> {
        match self.text(name) {
            None => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(AwsError::invalid(format!("`{name}` is neither true nor false"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_strictly_and_unknown_ones_passed_over() {
        let query = Query::read(Some("topic=a%2Fb+c&qos=1&retain=TRUE&x&y=2")).unwrap();
        assert_eq!((query.text("topic"), query.text("x"), query.text("z")), (Some("a/b+c"), Some(""), None));
        assert_eq!(query.number("qos", 0, 1).unwrap(), Some(1));
        assert!(query.number("y", 0, 1).is_err() && query.number("topic", 0, 1).is_err());
        assert!(query.flag("retain").unwrap() && !query.flag("z").unwrap() && query.flag("y").is_err());
        assert!(Query::read(Some("a=%zz")).is_err() && Query::read(Some("a=%ff")).is_err());
    }
}
