//! What a handshake asks for, and what of it is granted (Bayeux 1.0, "Handshake Request").

use serde_json::value::RawValue;

use crate::codec::message::{Message, boolean, field, string, strings};
use crate::config::{Extensions, Transport};
use crate::error::Fault;

/// Connection types that a client may offer; CometD knows five.
const MAX_CONNECTION_TYPES: usize = 64;

/// What both sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub(crate) ack: bool,
    pub(crate) replay: bool,
}

/// Checks a handshake and picks its extensions.
pub(crate) fn negotiate(
    message: &Message<'_>,
    transports: &[Transport],
    extensions: &Extensions,
) -> Result<Negotiated, Fault> {
    // An absent version is forgiven, as every peer does; another major one is another protocol.
    if let Some(version) = message.version {
        let version = string(version).ok_or(Fault::VersionMismatch)?;
        if version != "1" && !version.starts_with("1.") {
            return Err(Fault::VersionMismatch);
        }
    }
    let offered = message.connection_types.and_then(|types| strings(types, MAX_CONNECTION_TYPES).ok());
    let offered = offered.unwrap_or_default();
    if !offered.iter().any(|name| transports.iter().any(|transport| transport.name() == *name)) {
        return Err(Fault::NoCommonConnectionType);
    }
    Ok(Negotiated {
        ack: extensions.ack && asks_ack(message.ext),
        replay: extensions.replay
            && message.ext.and_then(|ext| field(ext, "replay")).and_then(boolean) == Some(true),
    })
}

/// `ext.ack` is `true` or an object with `enabled`.
fn asks_ack(ext: Option<&RawValue>) -> bool {
    let Some(ack) = ext.and_then(|ext| field(ext, "ack")) else { return false };
    boolean(ack).or_else(|| field(ack, "enabled").and_then(boolean)).unwrap_or(false)
}

/// The token of `ext.authentication`. One that is no string is handed on empty: who presents something that nobody can
/// check is not served as nobody.
pub(crate) fn token<'a>(message: &Message<'a>) -> Option<std::borrow::Cow<'a, str>> {
    let authentication = field(message.ext?, "authentication")?;
    let token = field(authentication, "token").filter(|token| token.get() != "null")?;
    Some(string(token).unwrap_or_default())
}

/// User and password of `ext.authentication`, as CometD's own examples send them.
pub(crate) fn user<'a>(
    message: &Message<'a>,
) -> Option<(std::borrow::Cow<'a, str>, std::borrow::Cow<'a, str>)> {
    let authentication = field(message.ext?, "authentication")?;
    let user = field(authentication, "user").and_then(string)?;
    let password = ["credentials", "password"]
        .into_iter()
        .find_map(|name| field(authentication, name).and_then(string))
        .unwrap_or_default();
    Some((user, password))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::message::{Bounds, parse_batch};

    const ALL: [Transport; 3] = [Transport::WebSocket, Transport::LongPolling, Transport::CallbackPolling];

    fn negotiated(fields: &str, transports: &[Transport]) -> Result<Negotiated, Fault> {
        let body = format!("{{\"channel\":\"/meta/handshake\"{fields}}}");
        let bounds = Bounds { max_depth: 10, max_messages: 1 };
        let messages = parse_batch(body.as_bytes(), bounds).unwrap();
        negotiate(&messages[0], transports, &Extensions::default())
    }

    #[test]
    fn versions_and_types_are_checked() {
        let polling = [Transport::LongPolling];
        let types = r#","supportedConnectionTypes":["long-polling"]"#;
        let cases = [
            (format!(r#","version":"1.0"{types}"#), &ALL[..], None),
            (format!(r#","version":"1.0beta"{types}"#), &ALL, None),
            (types.to_owned(), &ALL, None),
            (format!(r#","version":"2.0"{types}"#), &ALL, Some(Fault::VersionMismatch)),
            (format!(r#","version":1.0{types}"#), &ALL, Some(Fault::VersionMismatch)),
            (types.to_owned(), &polling, None),
            (r#","supportedConnectionTypes":["websocket","x"]"#.to_owned(), &ALL, None),
            (
                r#","supportedConnectionTypes":["websocket"]"#.to_owned(),
                &polling,
                Some(Fault::NoCommonConnectionType),
            ),
            (
                r#","supportedConnectionTypes":["iframe"]"#.to_owned(),
                &ALL,
                Some(Fault::NoCommonConnectionType),
            ),
            (r#","supportedConnectionTypes":[]"#.to_owned(), &ALL, Some(Fault::NoCommonConnectionType)),
            (r#","supportedConnectionTypes":7"#.to_owned(), &ALL, Some(Fault::NoCommonConnectionType)),
            (String::new(), &ALL, Some(Fault::NoCommonConnectionType)),
        ];
        for (fields, transports, expected) in cases {
            assert_eq!(negotiated(&fields, transports).err(), expected, "{fields}");
        }
    }

    #[test]
    fn extensions_are_granted_when_asked_for() {
        let cases = [
            ("", false, false),
            (r#","ext":{"ack":true}"#, true, false),
            (r#","ext":{"ack":false,"replay":true}"#, false, true),
            (r#","ext":{"ack":{"enabled":true}}"#, true, false),
            (r#","ext":{"ack":"true"}"#, false, false),
            (r#","ext":[1]"#, false, false),
            (r#","ext":5"#, false, false),
        ];
        for (ext, ack, replay) in cases {
            let fields = format!(r#","supportedConnectionTypes":["websocket"]{ext}"#);
            assert_eq!(negotiated(&fields, &ALL), Ok(Negotiated { ack, replay }), "{ext}");
        }
    }
}
