//! From a path to what it names.

use http::Method;
use http_edge::{below, percent_decode};

use crate::error::AwsError;

/// What a path names, decoded once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// `/topics/TOPIC`
    Topic(String),
    /// `/retainedMessage`
    RetainedMessages,
    /// `/retainedMessage/TOPIC`
    RetainedMessage(String),
    /// `/connections/CLIENT`
    Connection(String),
    /// `/connections/CLIENT/subscriptions`
    Subscriptions(String),
    /// `/connections/CLIENT/messages`
    Messages(String),
    /// `/things/THING/shadow`
    Shadow(String),
    /// `/api/things/shadow/ListNamedShadowsForThing/THING`
    Shadows(String),
}

/// Where those are.
const MOUNTS: [&str; 5] = ["/topics", "/retainedMessage", "/connections", "/things", SHADOWS];

/// Where the names of a thing's shadows are.
const SHADOWS: &str = "/api/things/shadow/ListNamedShadowsForThing";

/// Whether a path is one of the data plane's.
pub(crate) fn claims(path: &str) -> bool {
    MOUNTS.iter().any(|mount| below(path, mount).is_some())
}

/// The longest client identifier that AWS has, in bytes.
const MAX_CLIENT_ID_BYTES: usize = 128;

impl Resource {
    /// # Errors
    /// Nothing has this path, or what it names cannot be a name.
    pub(crate) fn find(path: &str) -> Result<Self, AwsError> {
        let nothing = || AwsError::not_found("nothing is at this path");
        if let Some(topic) = below(path, "/topics") {
            return Ok(Self::Topic(decoded(topic)?));
        }
        if let Some(topic) = below(path, "/retainedMessage") {
            return if topic.is_empty() {
                Ok(Self::RetainedMessages)
            } else {
                Ok(Self::RetainedMessage(decoded(topic)?))
            };
        }
        if let Some(thing) = below(path, SHADOWS) {
            return Ok(Self::Shadows(decoded(thing)?));
        }
        if let Some(rest) = below(path, "/things") {
            let thing = rest.strip_suffix("/shadow").ok_or_else(nothing)?;
            return Ok(Self::Shadow(decoded(thing)?));
        }
        let rest = below(path, "/connections").ok_or_else(nothing)?;
        let mut segments = rest.split('/');
        let client = client_id(segments.next().unwrap_or_default())?;
        match (segments.next(), segments.next()) {
            (None, None) => Ok(Self::Connection(client)),
            (Some("subscriptions"), None) => Ok(Self::Subscriptions(client)),
            (Some("messages"), None) => Ok(Self::Messages(client)),
            _ => Err(nothing()),
        }
    }

    /// # Errors
    /// The method is none of the resource's.
    pub(crate) fn check(&self, method: &Method) -> Result<(), AwsError> {
        let allow = match self {
            Self::Topic(_) | Self::Messages(_) => "POST",
            Self::RetainedMessages | Self::RetainedMessage(_) | Self::Subscriptions(_) => "GET",
            Self::Connection(_) => "GET, DELETE",
            Self::Shadow(_) => "GET, POST, DELETE",
            Self::Shadows(_) => "GET",
        };
        if allow.split(", ").any(|known| known == method.as_str()) {
            Ok(())
        } else {
            Err(AwsError::method(allow))
        }
    }
}

fn decoded(text: &str) -> Result<String, AwsError> {
    let decoded =
        percent_decode(text).map_err(|why| AwsError::invalid(format!("the path cannot be read: {why}")))?;
    Ok(decoded.into_owned())
}

fn client_id(segment: &str) -> Result<String, AwsError> {
    let id = decoded(segment)?;
    if id.is_empty() || id.len() > MAX_CLIENT_ID_BYTES || id.starts_with('$') {
        let message = "a client identifier has 1 to 128 bytes and does not begin with `$`";
        return Err(AwsError::invalid(message));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_thing() {
        use Resource as R;
        for (path, expected) in [
            ("/topics/a%2Fb/c", R::Topic("a/b/c".into())),
            ("/topics//a", R::Topic("/a".into())),
            ("/retainedMessage", R::RetainedMessages),
            ("/retainedMessage/a/b%20c", R::RetainedMessage("a/b c".into())),
            ("/connections/a%2Fb", R::Connection("a/b".into())),
            ("/connections/c/subscriptions", R::Subscriptions("c".into())),
            ("/connections/c/messages", R::Messages("c".into())),
            ("/things/a%3Ab/shadow", R::Shadow("a:b".into())),
            ("/api/things/shadow/ListNamedShadowsForThing/t", R::Shadows("t".into())),
        ] {
            assert!(claims(path), "{path}");
            assert_eq!(Resource::find(path).unwrap(), expected, "{path}");
        }
        for (path, kind) in [
            ("/connections", "InvalidRequestException"),
            ("/connections/$c", "InvalidRequestException"),
            ("/connections/%zz", "InvalidRequestException"),
            ("/connections/c/else", "ResourceNotFoundException"),
            ("/things/a", "ResourceNotFoundException"),
            ("/connections/c/messages/x", "ResourceNotFoundException"),
            ("/topics/%ff", "InvalidRequestException"),
        ] {
            assert_eq!(Resource::find(path).unwrap_err().kind, kind, "{path}");
        }
        for path in ["/", "/topic", "/topicsx/a", "/v1/publish/a", "/retainedMessages"] {
            assert!(!claims(path), "{path}");
        }
        let id = "x".repeat(129);
        assert!(Resource::find(&format!("/connections/{id}")).is_err());
        assert!(R::Connection("c".into()).check(&Method::DELETE).is_ok());
        assert_eq!(R::Topic("a".into()).check(&Method::GET).unwrap_err().allow, Some("POST"));
    }
}
