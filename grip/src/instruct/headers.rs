//! An instruction that stands in headers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    Channel, Hold, Instruction, KeepAlive, KeepAliveMode, MIN_TIMEOUT, NextLink, at, filters, lasting,
};
use crate::error::{Malformed, Problem};
use crate::fields::{self, Element};
use crate::json;

const KNOWN: [&str; 8] = [
    "grip-hold",
    "grip-channel",
    "grip-timeout",
    "grip-keep-alive",
    "grip-link",
    "grip-status",
    "grip-set-meta",
    "grip-expose-headers",
];

/// What the headers of an answer instruct, if they do; the body is then the client's.
///
/// # Errors
/// A header does not say what it should: nothing of it may be guessed.
pub fn in_headers(headers: &HeaderMap) -> Result<Option<Instruction>, Malformed> {
    if !KNOWN.iter().any(|name| headers.contains_key(*name)) {
        return Ok(None);
    }
    let mut told = Instruction::default();
    if let Some(mode) = one(headers, "grip-hold", "Grip-Hold")? {
        told.hold = Some(Hold::parse(mode.trim()).map_err(at("Grip-Hold"))?);
    }
    for element in all(headers, "grip-channel", "Grip-Channel")? {
        told.add_channel(channel(element).map_err(at("Grip-Channel"))?).map_err(at("Grip-Channel"))?;
    }
    if let Some(seconds) = one(headers, "grip-timeout", "Grip-Timeout")? {
        let seconds = number(seconds).map_err(at("Grip-Timeout"))?;
        told.timeout = lasting(seconds).max(MIN_TIMEOUT);
    }
    if let Some(value) = one(headers, "grip-keep-alive", "Grip-Keep-Alive")? {
        told.keep_alive = Some(keep_alive(value).map_err(at("Grip-Keep-Alive"))?);
    }
    for element in links(headers)? {
        link(&mut told, element).map_err(at("Grip-Link"))?;
    }
    if let Some(value) = one(headers, "grip-status", "Grip-Status")? {
        let (code, reason) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        let status = code.parse().ok().and_then(json::status);
        let wrong = || Malformed::new("Grip-Status", Problem::Status(json::shortened(code)));
        told.status = Some(status.ok_or_else(wrong)?);
        told.reason = Some(reason.trim().to_owned()).filter(|reason| !reason.is_empty());
    }
    for value in headers.get_all("grip-set-meta") {
        let place = at("Grip-Set-Meta");
        let pairs = text(value).and_then(fields::pairs).map_err(&place)?;
        for (name, value) in pairs {
            told.set_meta(name, value).map_err(&place)?;
        }
    }
    for value in headers.get_all("grip-expose-headers") {
        let place = at("Grip-Expose-Headers");
        for name in text(value).map_err(&place)?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let name: HeaderName = name.parse().map_err(|_| place(Problem::Header(json::shortened(name))))?;
            told.expose_headers.push(name);
        }
    }
    Ok(Some(told))
}

fn text(value: &HeaderValue) -> Result<&str, Problem> {
    std::str::from_utf8(value.as_bytes()).map_err(|_| Problem::Utf8)
}

fn one<'a>(headers: &'a HeaderMap, name: &str, place: &'static str) -> Result<Option<&'a str>, Malformed> {
    headers.get(name).map(text).transpose().map_err(at(place))
}

fn all(headers: &HeaderMap, name: &str, place: &'static str) -> Result<Vec<Element>, Malformed> {
    let mut all = Vec::new();
    for value in headers.get_all(name) {
        all.extend(text(value).and_then(fields::list).map_err(at(place))?);
    }
    Ok(all)
}

fn links(headers: &HeaderMap) -> Result<Vec<Element>, Malformed> {
    let mut all = Vec::new();
    for value in headers.get_all("grip-link") {
        all.extend(text(value).and_then(fields::links).map_err(at("Grip-Link"))?);
    }
    Ok(all)
}

fn number(text: &str) -> Result<u64, Problem> {
    text.trim().parse().map_err(|_| Problem::Number(json::shortened(text)))
}

fn channel(element: Element) -> Result<Channel, Problem> {
    let filters = filters(element.all("filter"))?;
    let prev_id = element.parameter("prev-id").map(str::to_owned);
    Ok(Channel { name: element.first, prev_id, filters })
}

fn keep_alive(value: &str) -> Result<KeepAlive, Problem> {
    let element = fields::single(value)?;
    if element.first.is_empty() {
        return Err(Problem::Empty);
    }
    let content = match element.parameter("format").unwrap_or("raw") {
        "raw" => Bytes::from(element.first.clone()),
        "cstring" => unescaped(&element.first)?,
        "base64" => STANDARD.decode(&element.first).map_err(|_| Problem::Base64)?.into(),
        other => return Err(Problem::Unknown(other.to_owned())),
    };
    let mode = element.parameter("mode").map_or(Ok(KeepAliveMode::Idle), KeepAliveMode::parse)?;
    let seconds = element.parameter("timeout").map(number).transpose()?;
    Ok(KeepAlive::new(content, mode, seconds))
}

/// A text with the escapes `\\`, `\r`, `\n` and `\xHH`, as bytes.
fn unescaped(text: &str) -> Result<Bytes, Problem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'\\') => b'\\',
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b'x') => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                let both = digit().and_then(|high| Some(high * 16 + digit()?));
                both.and_then(|byte| u8::try_from(byte).ok()).ok_or(Problem::Escape)?
            }
            _ => return Err(Problem::Escape),
        });
    }
    Ok(bytes.into())
}

fn link(told: &mut Instruction, element: Element) -> Result<(), Problem> {
    let uri = element.first.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    let wrong = || Problem::Link(json::shortened(&element.first));
    let uri = uri.map(str::trim).filter(|uri| !uri.is_empty()).ok_or_else(wrong)?;
    if uri.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(wrong());
    }
    for rel in element.parameter("rel").unwrap_or_default().split_ascii_whitespace() {
        match rel {
            "next" => {
                let seconds = element.parameter("timeout").map(number).transpose()?;
                let timeout = seconds.map_or(super::DEFAULT_LINK_TIMEOUT, lasting);
                told.next = Some(NextLink { uri: uri.to_owned(), timeout });
            }
            "gone" => told.gone = Some(uri.to_owned()),
            // Links that mean something to others.
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::filter::Filter;

    fn told(lines: &[(&'static str, &str)]) -> Result<Option<Instruction>, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        in_headers(&headers).map_err(|error| error.to_string())
    }

    fn one_told(lines: &[(&'static str, &str)]) -> Instruction {
        told(lines).unwrap().unwrap()
    }

    #[test]
    fn an_answer_without_headers_of_grip_instructs_nothing() {
        assert_eq!(told(&[("content-type", "text/plain"), ("grip-foo", "x")]), Ok(None));
    }

    #[test]
    fn a_hold_has_defaults() {
        let told = one_told(&[("grip-hold", "response"), ("grip-channel", "a")]);
        assert_eq!(told.hold, Some(Hold::Response));
        assert_eq!(told.timeout, Duration::from_secs(55));
        assert_eq!(told.channels, [Channel { name: "a".into(), prev_id: None, filters: Vec::new() }]);
        assert_eq!((told.keep_alive, told.next, told.status), (None, None, None));
    }

    #[test]
    fn channels_stand_in_several_headers_and_in_lists() {
        let told = one_told(&[
            ("grip-hold", "stream"),
            ("grip-channel", r#""a,b; c"; prev-id="1;2"; filter=skip-self; filter="build-id", d=1"#),
            ("grip-channel", "räume/1;Prev-ID=x"),
            ("grip-channel", "d=1; prev-id=9"),
        ]);
        let names: Vec<_> = told.channels.iter().map(|channel| channel.name.as_str()).collect();
        assert_eq!(names, ["a,b; c", "d=1", "räume/1"]);
        assert_eq!(told.channels[0].prev_id.as_deref(), Some("1;2"));
        assert_eq!(told.channels[0].filters, [Filter::SkipSelf, Filter::BuildId]);
        assert_eq!(told.channels[1].prev_id, None, "the first time counts");
        assert_eq!(told.channels[2].prev_id.as_deref(), Some("x"));
    }

    #[test]
    fn two_hundred_channels_are_held_and_one_more_is_refused() {
        let names = |count: usize| (0..count).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ");
        assert_eq!(one_told(&[("grip-channel", &names(200))]).channels.len(), 200);
        assert_eq!(told(&[("grip-channel", &names(201))]), Err("Grip-Channel: more than 200".into()));
    }

    #[test]
    fn a_timeout_is_at_least_five_seconds() {
        for (text, seconds) in [("0", 5), ("4", 5), ("5", 5), (" 60 ", 60), ("99999999999", 365 * 24 * 3600)]
        {
            let told = one_told(&[("grip-hold", "response"), ("grip-timeout", text)]);
            assert_eq!(told.timeout, Duration::from_secs(seconds), "{text}");
        }
    }

    #[test]
    fn what_keeps_alive_is_written_in_three_ways() {
        for (text, content, mode, seconds) in [
            (r"\n; format=cstring; timeout=30", &b"\n"[..], KeepAliveMode::Idle, 30),
            (r#":\n\n; format=cstring; mode=interval; timeout=0"#, b":\n\n", KeepAliveMode::Interval, 1),
            (
                r#""event: keep-alive\\ndata:\\n\\n"; format=cstring"#,
                b"event: keep-alive\ndata:\n\n",
                KeepAliveMode::Idle,
                55,
            ),
            (r"\\\r\x00\xfF; format=cstring", b"\\\r\x00\xff", KeepAliveMode::Idle, 55),
            ("AAE=; format=base64", b"\x00\x01", KeepAliveMode::Idle, 55),
            ("a, b", b"a, b", KeepAliveMode::Idle, 55),
            (r"\n; format=raw", b"\\n", KeepAliveMode::Idle, 55),
        ] {
            let told = one_told(&[("grip-hold", "stream"), ("grip-keep-alive", text)]);
            let wanted = KeepAlive::new(Bytes::copy_from_slice(content), mode, Some(seconds));
            assert_eq!(told.keep_alive, Some(wanted), "{text}");
        }
    }

    #[test]
    fn links_say_where_a_stream_goes_on_and_who_is_told_of_its_end() {
        let told = one_told(&[
            ("grip-link", "</a?b=1,2;c>; rel=next, <https://x/gone>; rel=gone"),
            ("grip-link", "<other>; rel=author"),
        ]);
        let next = NextLink { uri: "/a?b=1,2;c".into(), timeout: Duration::from_secs(120) };
        assert_eq!(told.next, Some(next));
        assert_eq!(told.gone.as_deref(), Some("https://x/gone"));
        let told = one_told(&[("grip-link", r#"<?last=3>; timeout="0"; rel="next""#)]);
        assert_eq!(told.next, Some(NextLink { uri: "?last=3".into(), timeout: Duration::ZERO }));
    }

    #[test]
    fn status_meta_and_headers_to_show() {
        let told = one_told(&[
            ("grip-status", "404 Not Found"),
            ("grip-set-meta", r#"user="ann, b", room=7"#),
            ("grip-set-meta", "room=8; x=y"),
            ("grip-expose-headers", "X-A, content-type"),
        ]);
        assert_eq!(told.status.unwrap(), 404);
        assert_eq!(told.reason.as_deref(), Some("Not Found"));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(told.meta, [pair("user", "ann, b"), pair("room", "8"), pair("x", "y")]);
        assert_eq!(told.expose_headers, ["x-a", "content-type"]);
        let mut headers = HeaderMap::new();
        for name in ["x-a", "x-b", "content-type"] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        told.expose(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-a", "content-type"]);
        assert_eq!(one_told(&[("grip-status", "503")]).reason, None);
    }

    #[test]
    fn what_js_grip_writes_is_read() {
        // `GripInstruct.toHeaders()` of @fanoutio/grip 4.3.0.
        let told = one_told(&[
            ("grip-channel", "test; prev-id=1, other"),
            ("grip-status", "404"),
            ("grip-hold", "stream"),
            ("grip-keep-alive", r"event: keep-alive\ndata:\n\n; format=cstring; timeout=30"),
            ("grip-set-meta", r#"user="ann \"x\"", room="7""#),
            ("grip-link", "</next?last=1>; rel=next; timeout=90"),
        ]);
        assert_eq!(told.channels.len(), 2);
        assert_eq!(told.keep_alive.unwrap().content, "event: keep-alive\ndata:\n\n");
        assert_eq!(told.meta[0], ("user".to_owned(), "ann \"x\"".to_owned()));
        let next = NextLink { uri: "/next?last=1".into(), timeout: Duration::from_secs(90) };
        assert_eq!(told.next, Some(next));
    }

    #[test]
    fn what_is_malformed_is_named() {
        for (name, value, why) in [
            ("grip-hold", "both", r#"Grip-Hold: "both" is not known"#),
            ("grip-timeout", "soon", r#"Grip-Timeout: "soon" is not a number"#),
            ("grip-timeout", "-1", r#"Grip-Timeout: "-1" is not a number"#),
            ("grip-channel", "; prev-id=1", "Grip-Channel: is empty"),
            ("grip-channel", "\"a", "Grip-Channel: quotes do not match"),
            ("grip-channel", "\"a\"b", "Grip-Channel: quotes do not match"),
            ("grip-channel", "a; filter=skip-me", r#"Grip-Channel: "skip-me" is not known"#),
            ("grip-keep-alive", "", "Grip-Keep-Alive: is empty"),
            ("grip-keep-alive", r"\q; format=cstring", "Grip-Keep-Alive: an escape is not known"),
            ("grip-keep-alive", r"\x1; format=cstring", "Grip-Keep-Alive: an escape is not known"),
            ("grip-keep-alive", "?; format=base64", "Grip-Keep-Alive: is not base64"),
            ("grip-keep-alive", "a; format=hex", r#"Grip-Keep-Alive: "hex" is not known"#),
            ("grip-keep-alive", "a; mode=often", r#"Grip-Keep-Alive: "often" is not known"#),
            ("grip-keep-alive", "a; timeout=1.5", r#"Grip-Keep-Alive: "1.5" is not a number"#),
            ("grip-link", "/a; rel=next", r#"Grip-Link: "/a" is not a link"#),
            ("grip-link", "<>; rel=next", r#"Grip-Link: "<>" is not a link"#),
            ("grip-link", "<a b>; rel=next", r#"Grip-Link: "<a b>" is not a link"#),
            ("grip-link", "</a>; rel=next; timeout=x", r#"Grip-Link: "x" is not a number"#),
            ("grip-status", "OK", r#"Grip-Status: "OK" is not a status of an answer"#),
            ("grip-status", "101", r#"Grip-Status: "101" is not a status of an answer"#),
            ("grip-set-meta", "=x", "Grip-Set-Meta: is empty"),
            ("grip-expose-headers", "a b", r#"Grip-Expose-Headers: "a b" cannot stand in a header"#),
        ] {
            assert_eq!(told(&[(name, value)]), Err(why.to_owned()), "{name}: {value}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("grip-channel", HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(in_headers(&headers).unwrap_err().problem, Problem::Utf8);
    }

    #[test]
    fn a_gap_without_a_link_is_found() {
        let lines = [("grip-hold", "stream"), ("grip-channel", "a, b; prev-id=1")];
        assert_eq!(one_told(&lines).without_link().unwrap().name, "b");
        let with_link = [lines[0], lines[1], ("grip-link", "</n>; rel=next")];
        assert_eq!(one_told(&with_link).without_link(), None);
        assert_eq!(one_told(&[("grip-hold", "response"), lines[1]]).without_link(), None);
    }
}
