//! From path and method to what is asked.

use std::borrow::Cow;

use http::Method;
use http_edge::below;

use crate::error::Error;
use crate::name::decode;

/// A resource, with the decoded rest of its path.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Resource<'a> {
    Publish(Option<Cow<'a, str>>),
    Events,
    History(Cow<'a, str>),
    RetainedChannels,
    Retained(Cow<'a, str>),
    Channels(Option<Cow<'a, str>>),
    Presence(Cow<'a, str>),
    Connections,
    Connection(Cow<'a, str>),
    ConnectionMessages(Cow<'a, str>),
    ConnectionSubscription { id: Cow<'a, str>, filter: Cow<'a, str> },
    Revocations,
    Figures,
    Nodes,
    OpenApi,
    Health,
    Ready,
    Metrics,
}

impl<'a> Resource<'a> {
    /// The resource at `path`, where the API is mounted at `mount`.
    pub(crate) fn find(path: &'a str, mount: &str) -> Result<Self, Error> {
        match path {
            "/healthz" => return Ok(Resource::Health),
            "/readyz" => return Ok(Resource::Ready),
            "/metrics" => return Ok(Resource::Metrics),
            _ => {}
        }
        let path = below(path, mount).ok_or(Error::NotFound)?;
        // Far more is asked of this one than of all others.
        if let Some(channel) = path.strip_prefix("publish/") {
            return decode(channel).map(|channel| Resource::Publish(Some(channel)));
        }
        let (name, rest) = match path.split_once('/') {
            // The empty name behind a slash is a name that is missing, e.g. of a variable that is not set, and refused as a
            // channel: `/publish/` must not do what `/publish` does.
            Some((name, rest)) => (name, Some(rest)),
            None => (path, None),
        };
        if name == "connections" {
            return Self::find_connection(rest.unwrap_or_default());
        }
        match (name, rest.map(decode).transpose()?) {
            ("publish", rest) => Ok(Resource::Publish(rest)),
            ("events", None) => Ok(Resource::Events),
            ("history", Some(rest)) => Ok(Resource::History(rest)),
            ("retained", None) => Ok(Resource::RetainedChannels),
            ("retained", Some(rest)) => Ok(Resource::Retained(rest)),
            ("presence", Some(rest)) => Ok(Resource::Presence(rest)),
            ("channels", rest) => Ok(Resource::Channels(rest)),
            ("revocations", None) => Ok(Resource::Revocations),
            ("figures", None) => Ok(Resource::Figures),
            ("nodes", None) => Ok(Resource::Nodes),
            ("openapi.json", None) => Ok(Resource::OpenApi),
            _ => Err(Error::NotFound),
        }
    }

    /// Whether the answer at `path` may be a stream.
    pub(crate) fn streams(path: &'a str, mount: &str) -> bool {
        path.ends_with("/figures") && Self::find(path, mount).is_ok_and(|found| found == Resource::Figures)
    }

    /// The resource below `/connections/`. An id ends at the first slash, whatever it is.
    fn find_connection(rest: &'a str) -> Result<Self, Error> {
        if rest.is_empty() {
            return Ok(Resource::Connections);
        }
        let (id, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let id = decode(id)?;
        match rest.split_once('/').map_or((rest, None), |(name, rest)| (name, Some(rest))) {
            ("", None) => Ok(Resource::Connection(id)),
            ("messages", None | Some("")) => Ok(Resource::ConnectionMessages(id)),
            ("subscriptions", Some(filter)) => {
                Ok(Resource::ConnectionSubscription { id, filter: decode(filter)? })
            }
            _ => Err(Error::NotFound),
        }
    }

    /// Every path, as the description of the API writes it.
    #[cfg(test)]
    pub(crate) const TEMPLATES: &'static [&'static str] = &[
        "/v1/publish",
        "/v1/publish/{channel}",
        "/v1/events",
        "/v1/history/{filter}",
        "/v1/retained",
        "/v1/retained/{channel}",
        "/v1/channels",
        "/v1/channels/{channel}",
        "/v1/presence/{channel}",
        "/v1/connections",
        "/v1/connections/{id}",
        "/v1/connections/{id}/messages",
        "/v1/connections/{id}/subscriptions/{filter}",
        "/v1/revocations",
        "/v1/figures",
        "/v1/nodes",
        "/v1/openapi.json",
        "/healthz",
        "/readyz",
        "/metrics",
    ];

    /// The methods it answers, for `Allow`.
    pub(crate) fn methods(&self) -> &'static str {
        match self {
            Resource::Publish(_)
            | Resource::Events
            | Resource::ConnectionMessages(_)
            | Resource::Revocations => "POST, HEAD, OPTIONS",
            Resource::Connection(_) => "GET, HEAD, DELETE, OPTIONS",
            Resource::ConnectionSubscription { .. } => "PUT, DELETE, HEAD, OPTIONS",
            Resource::Retained(_) => "GET, HEAD, PUT, DELETE, OPTIONS",
            Resource::History(_)
            | Resource::Channels(_)
            | Resource::Presence(_)
            | Resource::Connections
            | Resource::RetainedChannels
            | Resource::Figures
            | Resource::Nodes
            | Resource::OpenApi
            | Resource::Health
            | Resource::Ready
            | Resource::Metrics => "GET, HEAD, OPTIONS",
        }
    }

    /// Whether the method is one of [`Resource::methods`].
    pub(crate) fn answers(&self, method: &Method) -> bool {
        let (methods, method) = (self.methods().as_bytes(), method.as_str().as_bytes());
        // The first one is what is asked for most.
        methods.strip_prefix(method).is_some_and(|rest| rest.first() == Some(&b','))
            || methods.split(|byte| *byte == b',').any(|one| one.trim_ascii_start() == method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_the_path_is_the_channel() {
        let cases = [
            ("/v1/publish", Some(Resource::Publish(None))),
            ("/v1/publish/", Some(Resource::Publish(Some("".into())))),
            ("/v1/publish/a/b", Some(Resource::Publish(Some("a/b".into())))),
            ("/v1/publish/a%2Fb", Some(Resource::Publish(Some("a/b".into())))),
            ("/v1/publish//a", Some(Resource::Publish(Some("/a".into())))),
            ("/v1/events", Some(Resource::Events)),
            ("/v1/events/a", None),
            ("/v1/history/a", Some(Resource::History("a".into()))),
            ("/v1/history", None),
            ("/v1/history/", Some(Resource::History("".into()))),
            ("/v1/channels/", Some(Resource::Channels(Some("".into())))),
            ("/v1/publish/%zz", None),
            ("/v1/retained", Some(Resource::RetainedChannels)),
            ("/v1/retained/", Some(Resource::Retained("".into()))),
            ("/v1/retained/a", Some(Resource::Retained("a".into()))),
            ("/v1/channels", Some(Resource::Channels(None))),
            ("/v1/presence/a/b", Some(Resource::Presence("a/b".into()))),
            ("/v1/presence", None),
            ("/v1/connections", Some(Resource::Connections)),
            ("/v1/figures", Some(Resource::Figures)),
            ("/v1/figures/a", None),
            ("/v1/nodes", Some(Resource::Nodes)),
            ("/v1/nodes/", None),
            ("/v1/connections/1f", Some(Resource::Connection("1f".into()))),
            ("/v1/connections/1f/", Some(Resource::Connection("1f".into()))),
            ("/v1/connections/1f/messages", Some(Resource::ConnectionMessages("1f".into()))),
            ("/v1/connections/1f/messages/a", None),
            ("/v1/connections/1f/subscriptions", None),
            (
                "/v1/connections/1f/subscriptions/",
                Some(Resource::ConnectionSubscription { id: "1f".into(), filter: "".into() }),
            ),
            (
                "/v1/connections/1f/subscriptions/a%2F%23",
                Some(Resource::ConnectionSubscription { id: "1f".into(), filter: "a/#".into() }),
            ),
            ("/healthz", Some(Resource::Health)),
            ("/v1/healthz", None),
            ("/v1", None),
            ("/v1publish/a", None),
            ("/v2/publish/a", None),
        ];
        for (path, expected) in cases {
            assert_eq!(Resource::find(path, "/v1").ok(), expected, "{path}");
        }
        for (path, mount) in [("/x/y/publish", "/x/y/"), ("/publish", "/")] {
            assert_eq!(Resource::find(path, mount).ok(), Some(Resource::Publish(None)));
        }
    }
}
