//! The parameters of a request.

use std::borrow::Cow;

use broker_core::SubscriberKey;
use http_edge::parse_connection_id;

use crate::error::Error;

/// Each parameter once, without the token that may stand among them. One that is given twice is refused, as one of its
/// values would get lost, and so is one that cannot be decoded.
pub(crate) fn parameters(
    query: Option<&str>,
) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), Error>> {
    // The caller stops at the first name that it does not know, so this holds at most the names that it knows.
    let mut seen: Vec<Cow<'_, str>> = Vec::new();
    http_edge::parameters(query).filter_map(move |parameter| {
        let (name, value) = match parameter {
            Ok(parameter) => parameter,
            Err(bad) if bad.name == ACCESS_TOKEN => return None,
            Err(bad) => return Some(Err(invalid(&bad.name, bad.why.to_string()))),
        };
        if name == ACCESS_TOKEN {
            return None;
        }
        if seen.contains(&name) {
            return Some(Err(invalid(&name, "given twice")));
        }
        seen.push(name.clone());
        Some(Ok((name, value)))
    })
}

/// Read with the credentials, where the configuration says so.
const ACCESS_TOKEN: &str = "access_token";

/// Refuses parameters where there are none to give.
pub(crate) fn no_parameters(query: Option<&str>) -> Result<(), Error> {
    match parameters(query).next() {
        Some(parameter) => Err(invalid(&parameter?.0, "unknown; this resource has no parameters")),
        None => Ok(()),
    }
}

/// A page's size: 1 to `max`.
pub(crate) fn limit(value: &str, max: usize) -> Result<usize, Error> {
    match value.parse() {
        Ok(limit) if (1..=max).contains(&limit) => Ok(limit),
        _ => Err(invalid("limit", format!("not between 1 and {max}"))),
    }
}

/// A parameter that is there or not.
pub(crate) fn flag(name: &str, value: &str) -> Result<bool, Error> {
    match value {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(invalid(name, "not `true` or `false`")),
    }
}

/// Whose clients are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those of this node.
    Node,
    /// Those of all nodes; without a cluster there is this one.
    Cluster,
}

impl Scope {
    pub(crate) fn read(value: &str) -> Result<Self, Error> {
        match value {
            "node" => Ok(Scope::Node),
            "cluster" => Ok(Scope::Cluster),
            _ => Err(invalid("scope", "not `node` or `cluster`")),
        }
    }
}

/// Where a page goes on: behind the last connection of the page before, even if that one has left.
pub(crate) fn read_cursor(value: &str) -> Result<SubscriberKey, Error> {
    parse_connection_id(value).ok_or_else(|| invalid("cursor", "not the `next` of another page"))
}

pub(crate) fn invalid(name: &str, why: impl Into<String>) -> Error {
    Error::Parameter { name: name.to_owned(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_given_once_and_can_be_read() {
        let read = |query| parameters(Some(query)).collect::<Result<Vec<_>, _>>();
        assert_eq!(read("a=1&access_token=%ff&b=2&access_token=x").unwrap().len(), 2);
        for wrong in ["a=1&a=2", "a=1&%61=1", "a=%ff", "a=%", "%zz=1"] {
            assert!(matches!(read(wrong), Err(Error::Parameter { .. })), "{wrong}");
        }
        assert!(no_parameters(Some("access_token=x")).is_ok());
        assert!(no_parameters(Some("x")).is_err());
    }
}
