//! The opening handshake: judge the request, write the answer. Over HTTP/1.1 that is RFC 6455 §4.2 and a 101, over
//! HTTP/2 RFC 8441 and a 200, which differ in how the connection is taken over and in nothing else.

use http::header::{
    ALLOW, CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use tungstenite::handshake::derive_accept_key;

use crate::deflate::DeflateParams;

/// What the server is willing to speak.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Options<'a> {
    /// Subprotocols the server knows; empty means that none is ever answered.
    pub protocols: &'a [&'a str],
    /// True refuses (400) a client that offers none of `protocols`; false answers without one.
    pub protocol_required: bool,
    /// Whether permessage-deflate is accepted when it is offered.
    pub deflate: bool,
}

/// A good handshake.
#[derive(Debug)]
#[non_exhaustive]
pub struct Accepted {
    /// The 101, or over HTTP/2 the 200, with all its headers.
    pub response: Response<()>,
    /// The subprotocol answered: the client's first that the server knows.
    pub protocol: Option<String>,
    /// Give it to the [`Assembler`](crate::Assembler); frames may be compressed if it is `Some`.
    pub deflate: Option<DeflateParams>,
}

/// Why there is no WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
#[non_exhaustive]
pub struct Refused {
    /// 400, 405 or 426.
    pub status: StatusCode,
    /// For people.
    pub reason: &'static str,
}

const OTHER_VERSION: &str = "only WebSocket version 13 is spoken";

impl Refused {
    const fn bad(reason: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, reason }
    }

    /// The answer with the headers its status needs; the body is the caller's.
    pub fn response(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.reason == OTHER_VERSION {
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        match self.status {
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("GET"));
            }
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            _ => {}
        }
        response
    }
}

/// Whether a request wants to become a WebSocket at all; what it lacks then is [`accept`]'s answer.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    tokens(headers, &UPGRADE).any(|token| token.eq_ignore_ascii_case("websocket"))
}

/// Judges an opening handshake.
///
/// # Errors
/// 405 unless it is a GET, 426 without `Upgrade: websocket` or with another version than 13, 400
/// for the rest.
pub fn accept(request: &Parts, options: &Options<'_>) -> Result<Accepted, Refused> {
    let headers = &request.headers;
    if request.method != Method::GET {
        return Err(Refused { status: StatusCode::METHOD_NOT_ALLOWED, reason: "a WebSocket opens with GET" });
    }
    if !is_upgrade(headers) {
        return Err(Refused {
            status: StatusCode::UPGRADE_REQUIRED,
            reason: "this endpoint speaks WebSocket: `Upgrade: websocket` is missing",
        });
    }
    if !tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return Err(Refused::bad("`Connection: Upgrade` is missing"));
    }
    if only(headers, &SEC_WEBSOCKET_VERSION).is_none_or(|version| version.trim() != "13") {
        return Err(Refused { status: StatusCode::UPGRADE_REQUIRED, reason: OTHER_VERSION });
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY)
        .map(str::trim)
        .filter(|key| is_nonce(key))
        .ok_or(Refused::bad("`Sec-WebSocket-Key` is not 16 bytes in base64"))?;
    let accept_key = HeaderValue::try_from(derive_accept_key(key.as_bytes()))
        .map_err(|_| Refused::bad("`Sec-WebSocket-Key` is not 16 bytes in base64"))?;
    let mut accepted = negotiate(headers, options)?;
    *accepted.response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = accepted.response.headers_mut();
    out.insert(UPGRADE, HeaderValue::from_static("websocket"));
    out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(SEC_WEBSOCKET_ACCEPT, accept_key);
    Ok(accepted)
}

/// Judges an extended CONNECT whose `:protocol` is `websocket` (RFC 8441 §5): there is neither a key nor an upgrade.
///
/// # Errors
/// 400.
pub fn accept_connect(request: &Parts, options: &Options<'_>) -> Result<Accepted, Refused> {
    let headers = &request.headers;
    if only(headers, &SEC_WEBSOCKET_VERSION).is_none_or(|version| version.trim() != "13") {
        // 426 is about an `Upgrade`, which HTTP/2 does not have.
        return Err(Refused::bad(OTHER_VERSION));
    }
    negotiate(headers, options)
}

/// What both ways have in common: a 200 with what was agreed on.
fn negotiate(headers: &HeaderMap, options: &Options<'_>) -> Result<Accepted, Refused> {
    let protocol = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).find(|offer| options.protocols.contains(offer));
    if protocol.is_none() && options.protocol_required {
        return Err(Refused::bad("none of the offered subprotocols is spoken here"));
    }
    let deflate = if options.deflate { negotiate_deflate(headers) } else { None };

    let mut response = Response::new(());
    let out = response.headers_mut();
    if let Some(protocol) = protocol
        && let Ok(value) = HeaderValue::from_str(protocol)
    {
        out.insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    if let Some(answer) = deflate {
        out.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(answer));
    }
    Ok(Accepted { response, protocol: protocol.map(str::to_owned), deflate: deflate.map(|_| DeflateParams) })
}

/// The answer to the first offer of permessage-deflate that can be met, if there is one.
fn negotiate_deflate(headers: &HeaderMap) -> Option<&'static str> {
    headers
        .get_all(SEC_WEBSOCKET_EXTENSIONS)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(answer_offer)
}

/// An offer with an unknown, repeated or malformed parameter is declined as a whole (RFC 7692 §7.1).
fn answer_offer(offer: &str) -> Option<&'static str> {
    let mut parts = offer.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("permessage-deflate") {
        return None;
    }
    let (mut server_context, mut client_context, mut server_bits, mut client_bits) =
        (false, false, false, false);
    for parameter in parts {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (parameter, None),
        };
        let seen = match (name, value) {
            ("server_no_context_takeover", None) => &mut server_context,
            ("client_no_context_takeover", None) => &mut client_context,
            ("client_max_window_bits", None) => &mut client_bits,
            ("client_max_window_bits", Some(bits)) if window_bits(bits) => &mut client_bits,
            // The compressor's window is fixed; a client that cannot take it gets no compression.
            ("server_max_window_bits", Some("15")) => &mut server_bits,
            _ => return None,
        };
        if std::mem::replace(seen, true) {
            return None;
        }
    }
    Some(if server_bits {
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15"
    } else {
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    })
}

fn window_bits(value: &str) -> bool {
    matches!(value, "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")
}

/// 16 bytes in base64 are 22 characters and two pads.
fn is_nonce(key: &str) -> bool {
    key.len() == 24
        && key
            .strip_suffix("==")
            .is_some_and(|body| body.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/'))
}

/// The one value of a header that must not be repeated.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_some() { None } else { first.to_str().ok() }
}

/// The comma-separated tokens of all headers with this name, in order.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A good request; `changes` replace headers, an empty value removes one.
    fn request(changes: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::new(());
        let headers = request.headers_mut();
        for (name, value) in [
            ("host", "localhost"),
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        for (name, value) in changes {
            let name: HeaderName = name.parse().unwrap();
            if value.is_empty() {
                headers.remove(name);
            } else {
                headers.insert(name, value.parse().unwrap());
            }
        }
        request.into_parts().0
    }

    #[test]
    fn the_standards_example_is_answered() {
        let accepted = accept(&request(&[]), &Options::default()).unwrap();
        assert_eq!(accepted.response.status(), 101);
        assert_eq!(accepted.response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accepted.response.headers()["connection"], "Upgrade");
        assert!(!accepted.response.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn refusals_have_their_status() {
        let cases: [(&str, &str, u16); 9] = [
            ("upgrade", "", 426),
            ("upgrade", "h2c", 426),
            ("connection", "", 400),
            ("connection", "keep-alive", 400),
            ("sec-websocket-version", "", 426),
            ("sec-websocket-version", "8", 426),
            ("sec-websocket-key", "", 400),
            ("sec-websocket-key", "short", 400),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZSE!", 400),
        ];
        for (name, value, status) in cases {
            let refused = accept(&request(&[(name, value)]), &Options::default()).unwrap_err();
            assert_eq!(refused.status, status, "{name}: {value}");
            let response = refused.response();
            assert_eq!(response.headers().contains_key("sec-websocket-version"), status == 426);
        }
        let mut post = request(&[]);
        post.method = Method::POST;
        assert_eq!(accept(&post, &Options::default()).unwrap_err().response().headers()["allow"], "GET");
        let mut twice = request(&[]);
        twice.headers.append(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap());
        assert_eq!(accept(&twice, &Options::default()).unwrap_err().status, 400);
    }

    #[test]
    fn a_connect_of_http2_needs_its_version_alone() {
        let bare = |version| {
            let changes = [("connection", ""), ("upgrade", ""), ("sec-websocket-key", "")];
            let mut parts = request(&[&changes[..], &[("sec-websocket-version", version)]].concat());
            parts.method = Method::CONNECT;
            parts.headers.insert(SEC_WEBSOCKET_PROTOCOL, "chat, mqtt".parse().unwrap());
            parts.headers.insert(SEC_WEBSOCKET_EXTENSIONS, "permessage-deflate".parse().unwrap());
            parts
        };
        let options = Options { protocols: &["mqtt"], protocol_required: true, deflate: true };
        let accepted = accept_connect(&bare("13"), &options).unwrap();
        assert_eq!(accepted.response.status(), 200);
        let mut names: Vec<_> = accepted.response.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["sec-websocket-extensions", "sec-websocket-protocol"]);
        assert!(accepted.deflate.is_some() && accepted.protocol.as_deref() == Some("mqtt"));
        for (version, protocols) in [("", &["mqtt"][..]), ("8", &["mqtt"]), ("13", &["other"])] {
            let refused = accept_connect(&bare(version), &Options { protocols, ..options }).unwrap_err();
            assert_eq!(refused.status, 400, "{version} {protocols:?}");
            let told = refused.response().headers().contains_key("sec-websocket-version");
            assert_eq!(told, version != "13", "{version}");
        }
        // It is no way to open one over HTTP/1.1.
        assert_eq!(accept(&bare("13"), &options).unwrap_err().status, 405);
    }

    #[test]
    fn one_offered_subprotocol_is_echoed() {
        let mqtt: &[&str] = &["mqtt", "mqttv3.1"];
        let cases = [
            ("", mqtt, false, Ok(None)),
            ("", mqtt, true, Err(())),
            ("mqtt", mqtt, true, Ok(Some("mqtt"))),
            ("mqttv3.1, mqtt", mqtt, true, Ok(Some("mqttv3.1"))),
            ("chat, mqtt", mqtt, true, Ok(Some("mqtt"))),
            ("chat", mqtt, true, Err(())),
            ("chat", mqtt, false, Ok(None)),
            ("MQTT", mqtt, false, Ok(None)),
            ("anything", &[], false, Ok(None)),
        ];
        for (offer, protocols, protocol_required, expected) in cases {
            let options = Options { protocols, protocol_required, deflate: false };
            let accepted = accept(&request(&[("sec-websocket-protocol", offer)]), &options);
            let got = accepted.as_ref().map(|a| a.protocol.as_deref()).map_err(|_| ());
            assert_eq!(got, expected, "{offer}");
            if let Ok(accepted) = accepted {
                let header = accepted.response.headers().get("sec-websocket-protocol");
                assert_eq!(header.map(|value| value.to_str().unwrap()), expected.unwrap());
            }
        }
    }

    #[test]
    fn deflate_is_negotiated_without_context_takeover() {
        const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        const BITS: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15";
        let cases: [(&str, Option<&str>); 14] = [
            ("", None),
            ("permessage-deflate", Some(PLAIN)),
            ("permessage-deflate; client_max_window_bits", Some(PLAIN)),
            ("permessage-deflate; client_max_window_bits=\"10\"", Some(PLAIN)),
            ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", Some(PLAIN)),
            ("permessage-deflate; server_max_window_bits=15", Some(BITS)),
            ("permessage-deflate; server_max_window_bits=10", None),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", Some(PLAIN)),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; client_max_window_bits=16", None),
            ("permessage-deflate; unknown", None),
            ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
            ("x-webkit-deflate-frame", None),
            ("bzip2, permessage-deflate", Some(PLAIN)),
        ];
        for (offer, expected) in cases {
            let request = request(&[("sec-websocket-extensions", offer)]);
            let accepted = accept(&request, &Options { deflate: true, ..Options::default() }).unwrap();
            let header = accepted.response.headers().get("sec-websocket-extensions");
            assert_eq!(header.map(|value| value.to_str().unwrap()), expected, "{offer}");
            assert_eq!(accepted.deflate.is_some(), expected.is_some(), "{offer}");
            let off = accept(&request, &Options::default()).unwrap();
            assert!(
                off.deflate.is_none() && !off.response.headers().contains_key("sec-websocket-extensions")
            );
        }
    }
}
