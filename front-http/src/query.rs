//! The parameters of a request.

use std::borrow::Cow;

use crate::error::Error;

/// Each parameter once, without the token that may stand among them. One that is given twice is refused, as one of its values
/// would get lost, and so is one that cannot be decoded.
pub(crate) fn parameters(
    query: Option<&str>,
) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), Error>> {
    // Whoever reads on stops at a name that it does not know, so this grows no longer than what it does.
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
